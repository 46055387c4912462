"""The record of a run, to a file or to stdout. That it could not be written ends no run."""

from __future__ import annotations

from pathlib import Path

from deepcall_async.audit import Snapshot
from deepcall_async.cli.exits import OutputError, reason
from deepcall_async.cli.files import STDOUT, is_written_directly
from deepcall_async.cli.terminal import emit
from deepcall_async.record import RecordFile

__all__ = ["Record"]


class Record:
    """One file of a run's lines, as `RecordFile` has it, or stdout.

    Args:
        path: the file, or `STDOUT`.
        earlier: the run that this one goes on from, if any.

    Attributes:
        error: why the file could not be written, if it could not; it then gets no more lines.
    """

    def __init__(self, path: Path, earlier: Snapshot | None = None) -> None:
        self.path = path
        self.error: OutputError | None = None
        self._file: RecordFile | None = None
        if path != STDOUT:
            known = () if earlier is None else earlier.relations
            self._file = RecordFile(path, known, direct=is_written_directly(path))

    @property
    def part(self) -> Path | None:
        """Where the unfinished record stands, or None when nothing was written to a file."""
        return None if self._file is None else self._file.part

    def write(self, line: bytes) -> None:
        """Write a line so that a kill right after it cannot lose it."""
        if self.error is not None:
            return
        if self._file is None:
            try:
                emit(line)
            except OutputError as error:
                self.error = error
            return
        try:
            self._file.write(line)
        except OSError as error:
            self._fail(error)

    def finish(self) -> None:
        """Let the record take its place: the run is over."""
        if self.error is not None or self._file is None:
            return
        try:
            self._file.finish()
        except OSError as error:
            self._fail(error)

    def abandon(self) -> None:
        """Leave the unfinished record where it is."""
        if self._file is not None:
            self._file.abandon()

    def _fail(self, error: OSError) -> None:
        said = reason(error)
        self.error = OutputError(f"{self.path}: {said}; the record is not whole")
        self.abandon()
