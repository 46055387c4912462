"""The file of a run's record: JSON Lines that grow as lookups land.

It holds whole lines at any moment. It grows in ``FILE.part`` and becomes FILE when the run is over,
so that an earlier FILE is never lost to a run that was not finished. No line is made here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

__all__ = ["RecordFile", "part_of"]

_GROUP = b'{"type":"group"'
_GROUP_ID = re.compile(rb'\{"type":"group","group_id":(-?\d+)')
_ASKED = b'{"type":"asked"'


class _Asked(msgspec.Struct):
    group_ids: tuple[int, ...]


def part_of(file: Path) -> Path:
    """Where a record grows until it is whole: beside the file that a link leads to."""
    real = file.resolve()
    return real.with_name(real.name + ".part")


class RecordFile:
    """One file of a run's lines.

    Nothing is written before the first group's line: a run that fails earlier leaves all files as
    they were. A run that goes on from another writes again what that one had read; until it has,
    it writes beside ``FILE.part``, which may be all that is left of the other.

    Args:
        path: the file.
        earlier: the groups that the run to go on from has read, if there is one.
        direct: write to the file itself, because it is not to be replaced by another.
    """

    def __init__(self, path: Path, earlier: Iterable[int] = (), *, direct: bool = False) -> None:
        self.path = path
        self._part: Path | None = None if direct else part_of(path)
        self._aside: Path | None = None
        self._earlier = set(earlier)
        self._held: list[bytes] = []
        self._file: BinaryIO | None = None

    @property
    def part(self) -> Path | None:
        """Where the unfinished record stands, or None when nothing was written to a file."""
        return self._part if self._file is not None or self._aside is not None else None

    def write(self, line: bytes) -> None:
        """Write a line; a kill right after a group's cannot lose it.

        What is found when all groups are read follows from them, and is written at the end.

        Raises:
            OSError: it could not be written.
        """
        self._held.append(line)
        if self._earlier and line.startswith(_ASKED):
            self._earlier &= set(msgspec.json.decode(line, type=_Asked).group_ids)
        if not line.startswith(_GROUP):
            return
        self._flush()
        if self._aside is not None and (found := _GROUP_ID.match(line)):
            group_id = int(found[1])
            carried = group_id in self._earlier
            self._earlier.discard(group_id)
            if not carried or not self._earlier:
                self._settle()

    def finish(self) -> None:
        """Let the record take its place: the run is over.

        Raises:
            OSError: it could not.
        """
        self._close_whole()
        if self._part is not None:
            self._part.replace(self.path.resolve())

    def keep_part(self) -> None:
        """Leave the record in ``FILE.part``: the run is over, and not all could be read.

        Raises:
            OSError: it could not be written.
        """
        self._close_whole()

    def abandon(self) -> None:
        """Leave the unfinished record where it is."""
        if self._file is not None:
            # Closing writes what is left in the buffer, for which there may be no room.
            with suppress(OSError):
                self._file.close()

    def _close_whole(self) -> None:
        self._flush()
        self._settle()
        assert self._file is not None  # noqa: S101  (_flush opened it)
        if self._part is not None:
            os.fsync(self._file.fileno())
        self._file.close()

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
