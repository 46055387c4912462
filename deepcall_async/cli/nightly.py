"""The folder of ``--nightly``: the last complete record, and those of the last nights.

One run at a time works in it. A record replaces ``last.jsonl`` only when it is complete, so that
every night is compared with the last one that read everything.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from deepcall_async.cli.exits import OutputError, UsageError, reason, usage_errors

__all__ = ["Nightly", "open_nightly"]

KEPT = 30
"""How many nights' records are kept."""

_LAST = "last.jsonl"
_LOCK = ".lock"
_DATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ(_\d+)?\.jsonl(\.part(\.new)?)?")


class Nightly(NamedTuple):
    """Where this night's record goes, and the last complete one, which need not be there."""

    record: Path
    last: Path

    def keep(self) -> None:
        """Make this night's record the last complete one.

        Raises:
            OutputError: it could not; the one before still is.
        """
        aside = self.last.with_name(_LAST + ".tmp")
        try:
            aside.unlink(missing_ok=True)
            try:
                os.link(self.record, aside)
            except OSError:  # a file system without hard links
                shutil.copyfile(self.record, aside)
            aside.replace(self.last)
        except OSError as error:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise OutputError(f"{self.last}: {reason(error)}") from None


@contextmanager
def open_nightly(folder: Path) -> Iterator[Nightly]:
    """Work in the folder, alone; afterwards only the newest records are left in it.

    Args:
        folder: it is made when it is not there.

    Raises:
        UsageError: another run works in it, or it cannot be used.
    """
    from filelock import FileLock, Timeout

    with usage_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UsageError(f"{folder}: not a directory") from None
        # The system lifts it when the process ends, however it ends.
        lock = FileLock(folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(f"{folder}: another run is at work there") from None
    night = Nightly(_free_name(folder), folder / _LAST)
    try:
        yield night
    finally:
        _prune(folder, night.record.name)
        lock.release()


def _free_name(folder: Path) -> Path:
    stem = f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}"
    number = 1
    while True:
        # An underscore sorts behind the dot: the names are in the order of the nights.
        path = folder / (f"{stem}.jsonl" if number == 1 else f"{stem}_{number}.jsonl")
        if not path.exists() and not path.with_name(path.name + ".part").exists():
            return path
        number += 1


def _prune(folder: Path, own: str) -> None:
    dated = [path for path in folder.iterdir() if _DATED.fullmatch(path.name)]
    # This night's stays, though a clock that was ahead has dated others after it.
    dated.sort(key=lambda path: (path.name.startswith(own), path.name))
    for path in dated[:-KEPT]:
        with suppress(OSError):
            path.unlink()
