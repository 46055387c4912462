"""The reports of an earlier run that this one is to replace.

From the beginning of a run they say that it is incomplete: however it ends, by a kill too, none of
them passes for its own. What the run itself reports is written in ``publish``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from typing import BinaryIO, Self

from deepcall_async.audit import Settings, Snapshot, audit, read_jsonl, render
from deepcall_async.cli.exits import OutputError
from deepcall_async.cli.files import Output, is_written_directly, replace_report
from deepcall_async.cli.terminal import say

__all__ = ["StaleReports"]


class StaleReports:
    """Reports that stand already, and the lines of the run that will replace them.

    Args:
        outputs: where the run is to write reports.
        settings: what its reports are judged by.
    """

    def __init__(self, outputs: Iterable[Output], settings: Settings) -> None:
        self._outputs = [
            output
            for output in outputs
            if not is_written_directly(output.path) and output.path.exists()
        ]
        self._settings = settings
        self._lines: BinaryIO | None = None
        self._begun = False

    def __enter__(self) -> Self:
        if self._outputs:
            with suppress(OSError):
                self._lines = tempfile.TemporaryFile()
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, line: bytes) -> None:
        """Take a line of the run's record; the first one comes before anything is asked."""
        if self._lines is not None:
            try:
                self._lines.write(line)
            except OSError:  # no room: then there is no more to tell than that the run failed
                self._close()
        if not self._begun:
            self._begun = True
            for failure in self.mark():
                say(f"deepcall: {failure}")

    def mark(self) -> list[OutputError]:
        """Let each of them tell what was read so far, and that this is not all.

        Returns:
            Those that could not be written.
        """
        if not self._outputs:
            return []
        settings = self._settings
        report = audit(self._snapshot(), mutes=settings.mutes, thresholds=settings.thresholds)
        failed = []
        for output in self._outputs:
            try:
                replace_report(output.path, render(report, output.format))
            except OutputError as error:
                failed.append(error)
        return failed

    @property
    def begun(self) -> bool:
        """Whether the run has begun, and they were marked."""
        return self._begun

    def _snapshot(self) -> Snapshot:
        if self._lines is not None:
            with suppress(OSError, ValueError):
                self._lines.seek(0)
                found = read_jsonl(self._lines)
                self._lines.seek(0, os.SEEK_END)
                return found
        return Snapshot(cut_short=True)

    def _close(self) -> None:
        if self._lines is not None:
            # It would write what is left in its buffer, and there may be no room for that.
            with suppress(OSError):
                self._lines.close()
            self._lines = None
