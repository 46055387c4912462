"""The record of a run: a JSONL file that grows as lookups land.

It holds whole lines at any moment. It grows in ``FILE.part`` and becomes FILE when the run is over,
so that an earlier FILE is never lost to a run that was not finished. No line is made here.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from deepcall_async.audit import Snapshot
from deepcall_async.cli.exits import OutputError
from deepcall_async.cli.files import STDOUT, is_written_directly, part_of
from deepcall_async.cli.terminal import emit

__all__ = ["Record"]

_GROUP = re.compile(rb'\{"type":"group","group_id":(-?\d+)')
_ASKED = b'{"type":"asked"'


class _Asked(msgspec.Struct):
    group_ids: tuple[int, ...]


class Record:
    """One file of a run's lines.

    Nothing is written before the first group's line: a run that fails earlier leaves all files as
    they were. A run that goes on from another writes again what that one had read; until it has,
    it writes beside ``FILE.part``, which may be all that is left of the other.

    Args:
        path: the file, or `STDOUT`.
        earlier: the run that this one goes on from, if any.

    Attributes:
        error: why the file could not be written, if it could not; it then gets no more lines.
    """

    def __init__(self, path: Path, earlier: Snapshot | None = None) -> None:
        self.path = path
        self.error: OutputError | None = None
        self._part: Path | None = None if is_written_directly(path) else part_of(path)
        self._aside: Path | None = None
        self._earlier = set() if earlier is None else set(earlier.relations)
        self._held: list[bytes] = []
        self._file: BinaryIO | None = None

    @property
    def part(self) -> Path | None:
        """Where the unfinished record stands, or None when nothing was written to a file."""
        return self._part if self._file is not None or self._aside is not None else None

    def write(self, line: bytes) -> None:
        """Write a line so that a kill right after it cannot lose it."""
        if self.error is not None:
            return
        if self.path == STDOUT:
            emit(line)
            return
        try:
            self._write(line)
        except OSError as error:
            self._fail(error)

    def finish(self) -> None:
        """Let the record take its place: the run is over."""
        if self.error is not None or self.path == STDOUT:
            return
        try:
            self._flush()
            self._settle()
            assert self._file is not None  # noqa: S101  (_flush opened it)
            if self._part is not None:
                os.fsync(self._file.fileno())
            self._file.close()
            if self._part is not None:
                self._part.replace(self.path.resolve())
        except OSError as error:
            self._fail(error)

    def abandon(self) -> None:
        """Leave the unfinished record where it is."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def _write(self, line: bytes) -> None:
        self._held.append(line)
        if line.startswith(_ASKED):
            self._earlier &= set(msgspec.json.decode(line, type=_Asked).group_ids)
        found = _GROUP.match(line)
        if found is None and self._file is None:
            return
        self._flush()
        if found is not None and self._aside is not None:
            group_id = int(found[1])
            carried = group_id in self._earlier
            self._earlier.discard(group_id)
            if not carried or not self._earlier:
                self._settle()

    def _flush(self) -> None:
        if self._file is None:
            place = self._part or self.path
            if self._part is not None and self._earlier:
                place = self._aside = self._part.with_name(self._part.name + ".new")
            self._file = place.open("wb")
        self._file.writelines(self._held)
        self._file.flush()
        self._held.clear()

    def _settle(self) -> None:
        """Take the place of the record that this one now holds too."""
        if self._aside is None or self._part is None or self._file is None:
            return
        self._file.close()  # an open file cannot be moved on Windows
        self._aside.replace(self._part)
        self._aside = None
        self._file = self._part.open("ab")

    def _fail(self, error: OSError) -> None:
        said = (error.strerror or str(error)).lower()
        self.error = OutputError(f"{self.path}: {said}; the record is not whole")
        if self._file is not None:
            # It would write what is left in its buffer, and there is no room for that.
            with suppress(OSError):
                self._file.close()
