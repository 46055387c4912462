"""The page of each account of a fleet, beside its record, and where the fleet's page finds it.

Records are judged again, offline, against the ones that they were compared with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from deepcall_async.audit import RULES, Health, Settings, Snapshot, audit, read_jsonl, render
from deepcall_async.audit.fleet import AccountReport, ignored_in_fleet
from deepcall_async.audit.formats.jsonl import NewerSchema
from deepcall_async.cli.exits import OutputError, reason
from deepcall_async.cli.files import replace_report
from deepcall_async.cli.parameters import split
from deepcall_async.fleet import baseline_of, record_of
from deepcall_async.record import part_of

if TYPE_CHECKING:
    from deepcall_async.cli.fleet_options import FleetJudge

__all__ = ["Pages", "write_pages"]


@dataclass(frozen=True)
class Pages:
    """Where accounts' pages are, by name, and which could not be written."""

    written: Mapping[str, Path] = field(default_factory=dict)
    failed: Sequence[OutputError] = ()

    def links(self, folder: Path) -> dict[str, str]:
        """The way to each page from a folder."""
        return {name: _link(page, folder) for name, page in self.written.items()}


def write_pages(
    accounts: Iterable[AccountReport],
    folders: Sequence[Path],
    judge: FleetJudge,
    settings: Settings,
) -> Pages:
    """Write the page of each account that has a record.

    A page that is younger than its record stands, unless it is to be judged in another way.

    Args:
        accounts: what their audits came to.
        folders: where their records are.
        judge: which findings count.
        settings: mutes and thresholds.
    """
    written: dict[str, Path] = {}
    failed: list[OutputError] = []
    as_before = not (judge.rules or judge.ignore or judge.mutes)
    for account in accounts:
        files = _files(folders, account.name) if account.read else None
        if files is None:
            continue
        try:
            if not (as_before and _is_younger(files.page, files.record)):
                replace_report(files.page, _page(account, files, judge, settings))
                if not as_before:
                    os.utime(files.page, (0, 0))  # so that it does not stand the next time
        except OutputError as error:
            failed.append(error)
        except OSError as error:
            failed.append(OutputError(f"{error.filename or files.record}: {reason(error)}"))
        except ValueError as error:
            failed.append(OutputError(str(error)))
        else:
            written[account.name] = files.page
    return Pages(written, failed)


class _Files(NamedTuple):
    record: Path
    baseline: Path
    page: Path


def _files(folders: Sequence[Path], name: str) -> _Files | None:
    """The files of an account's newest record, whole or not."""
    there = [
        _Files(record, baseline, whole.with_name(f"{name}.html").resolve())
        for folder in folders
        for whole in (record_of(folder, name),)
        # Until it is whole, the last whole one is what it is compared with.
        for record, baseline in (
            (whole, baseline_of(folder, name)),
            (part_of(whole), whole),
        )
        if record.exists()
    ]
    return max(there, key=lambda files: files.record.stat().st_mtime, default=None)


def _is_younger(page: Path, record: Path) -> bool:
    return page.exists() and page.stat().st_mtime > record.stat().st_mtime


def _page(account: AccountReport, files: _Files, judge: FleetJudge, settings: Settings) -> bytes:
    report = audit(
        _read(files.record),
        baseline=_read(files.baseline) if files.baseline.exists() else None,
        only=split(judge.rules),
        ignore=ignored_in_fleet(split(judge.ignore), RULES),
        mutes=settings.mutes,
        thresholds=settings.thresholds,
        now=datetime.now(UTC),
        health=Health(seconds=account.seconds, requests=account.requests, retries=account.retries),
    )
    return render(report, "html")


def _read(record: Path) -> Snapshot:
    try:
        with record.open("rb") as lines:
            return read_jsonl(lines)
    except NewerSchema as error:
        raise ValueError(f"{record}: {error}") from None
    except ValueError as error:
        why = str(error).partition(";")[0]
        raise ValueError(f"{record}: {why}; `deepcall fleet audit --again` reads it anew") from None


def _link(page: Path, folder: Path) -> str:
    try:
        return Path(relpath(page, folder)).as_posix()
    except ValueError:  # another drive
        return page.as_posix()
