"""The folder of a fleet: which night it is, what is whole, what has been reported.

Files only: nothing is asked of a service here.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from deepcall_async.audit.fleet import AccountReport, FleetReport
from deepcall_async.audit.fleet_parts import FleetLine, FleetPart, merged, read_part

__all__ = [
    "append_line",
    "baseline_of",
    "begun_log",
    "finished_report",
    "keep_baseline",
    "made_folder",
    "night_of",
    "part_file",
    "read_fleet",
    "record_of",
]

_TAIL_BYTES = 65_536
_PART = re.compile(r"fleet(-\d+-of-\d+)?\.jsonl")

_encode = msgspec.json.Encoder().encode
_account_line = msgspec.json.Decoder(AccountReport).decode


def read_fleet(folders: Iterable[Path | str]) -> FleetReport:
    """Read what audits of fleets have come to so far, offline.

    Args:
        folders: the folders of `audit_fleet`.

    Returns:
        One report of all accounts; those without a whole record of the night are unread.

    Raises:
        ValueError: a file is damaged, or there was no audit in a folder.
        OSError: a file cannot be read.
    """
    return merged([_parts_with_records(Path(folder)) for folder in folders])


def record_of(folder: Path, name: str) -> Path:
    """The file of an account's last whole record.

    Args:
        folder: the folder of `audit_fleet`.
        name: the account's name.
    """
    return folder / "accounts" / f"{name}.jsonl"


def baseline_of(folder: Path, name: str) -> Path:
    """The file of the record that an account's last whole one was compared with, if it was.

    Args:
        folder: the folder of `audit_fleet`.
        name: the account's name.
    """
    return folder / "baselines" / f"{name}.jsonl"


def keep_baseline(record: Path, baseline: Path) -> None:
    """Keep a record that is about to be replaced, or forget the one before where there is none.

    Raises:
        OSError: it could not be kept.
    """
    if not record.exists():
        baseline.unlink(missing_ok=True)
        return
    baseline.parent.mkdir(exist_ok=True)
    aside = baseline.with_name(f"{baseline.name}.new")
    aside.unlink(missing_ok=True)
    try:
        os.link(record, aside)
    except OSError:  # a file system without hard links
        shutil.copyfile(record, aside)
    aside.replace(baseline)


def part_file(folder: Path, shard: tuple[int, int]) -> Path:
    """The file of what has been reported of a shard.

    Args:
        folder: the folder of `audit_fleet`.
        shard: which one, of how many.
    """
    number, shards = shard
    return folder / ("fleet.jsonl" if shards == 1 else f"fleet-{number}-of-{shards}.jsonl")


class _Begin(Struct):
    started: datetime
    resumed_from: datetime | None = None


def finished_report(folder: Path, name: str, night: datetime) -> AccountReport | None:
    """What an account's whole record of this night says of it, if there is one."""
    file = record_of(folder, name)
    try:
        with file.open("rb") as stream:
            begin = msgspec.json.decode(stream.readline(), type=_Begin)
            if (begin.resumed_from or begin.started) < night:
                return None
            stream.seek(max(0, file.stat().st_size - _TAIL_BYTES))
            lines = stream.read().splitlines()[-2:]
        found = _account_line(lines[0])
    except (FileNotFoundError, msgspec.DecodeError, IndexError):
        return None  # written by something else, such as `deepcall audit`: it is a baseline
    # A file that was renamed may be of another account; it is a baseline if it is not.
    return found if found.name == name else None


def made_folder(folder: Path | str) -> Path:
    """Make the folder, if it is not there, and give it as an absolute path."""
    folder = Path(folder).resolve()
    (folder / "accounts").mkdir(parents=True, exist_ok=True)
    return folder


def night_of(folder: Path, file: Path, *, again: bool) -> datetime:
    """When the night began that this run belongs to."""
    # An empty one is of a machine that lost power as it began.
    parts = {path: _part(path) for path in _part_files(folder) if path.stat().st_size}
    own = parts.pop(file, None)
    if own is not None and not (again and own.ended):
        return own.line.started
    if again or not parts:
        return datetime.now(UTC)
    # The same night, divided in another way.
    return max(part.line.started for part in parts.values())


@contextmanager
def begun_log(file: Path, first: FleetLine) -> Iterator[BinaryIO]:
    """Write the first line whole or not at all, and give the file to append to."""
    # Two runs at once may begin it, each aside by itself.
    aside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with aside.open("wb") as stream:
        append_line(stream, first)
        os.fsync(stream.fileno())
    aside.replace(file)
    with file.open("ab") as log:
        yield log


def append_line(log: BinaryIO, line: Any) -> None:
    """Append a line so that a kill right after it cannot lose it."""
    log.write(_encode(line) + b"\n")
    log.flush()


def _part_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _PART.fullmatch(path.name))


def _part(file: Path) -> FleetPart:
    try:
        with file.open("rb") as lines:
            return read_part(lines)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _parts_with_records(folder: Path) -> list[FleetPart]:
    """The parts, and what records tell of accounts that a killed run had no time to report."""
    parts = [_part(path) for path in _part_files(folder)]
    if not parts:
        raise ValueError(f"{folder}: no fleet was audited here; `deepcall fleet audit` does it")
    for part in parts:
        for name in part.line.mine:
            known = part.accounts.get(name)
            if known is None or not known.complete:
                found = finished_report(folder, name, part.line.started)
                if found is not None:
                    part.accounts[name] = found
    return parts
