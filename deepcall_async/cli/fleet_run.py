"""Audits of many accounts from the command line: the engine, the progress, the reports.

Accounts are audited in ``fleet``; here a file becomes accounts, and what happened an exit code.
"""

from __future__ import annotations

import logging
import time
import tomllib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from deepcall_async import fanout
from deepcall_async.audit import RULES, Settings
from deepcall_async.audit.accounts import Account, read_accounts
from deepcall_async.audit.fleet import AccountReport, FleetReport, fleet_exit_code
from deepcall_async.audit.formats.fleet import (
    FLEET_COLUMNS,
    FLEET_FORMATS,
    FleetFormat,
    fleet_rows,
    render_fleet,
)
from deepcall_async.audit.labels import clean
from deepcall_async.cli.exits import INCOMPLETE, OutputError, UsageError, reason, usage_errors
from deepcall_async.cli.files import (
    STDOUT,
    Output,
    is_written_directly,
    outputs_from,
    read_mutes,
    refuse_clashes,
    replace_report,
)
from deepcall_async.cli.fleet_pages import Pages, write_pages
from deepcall_async.cli.logs import log_to_stderr
from deepcall_async.cli.loop import run_async
from deepcall_async.cli.parameters import split
from deepcall_async.cli.publish import write_all
from deepcall_async.cli.shards import TOLD_EVERY, Shards, progress_of, supervise
from deepcall_async.cli.terminal import (
    ProgressStyle,
    emit,
    progress_display,
    say,
    show_table,
    stdout_is_terminal,
)
from deepcall_async.fleet import AuditPlan, Engine, audit_fleet, read_fleet

if TYPE_CHECKING:
    from deepcall_async.cli.fleet_options import FleetConnect, FleetJudge, FleetRun

__all__ = ["audit_accounts", "report_folders"]

_MIB = 2**20


def audit_accounts(
    file: Path,
    folder: Path,
    *,
    shard: tuple[int, int] | None,
    output: Sequence[str],
    judge: FleetJudge,
    running: FleetRun,
    connect: FleetConnect,
) -> int:
    """Audit accounts, and give the exit code; the arguments are those of ``fleet audit``."""
    outputs = _outputs(output)
    settings = _shared_mutes(judge, quiet=running.quiet)
    with usage_errors(file):
        text = file.read_bytes().decode("utf-8-sig")
        accounts = read_accounts(tomllib.loads(text), file.resolve().parent)
    read = {"ACCOUNTS": file, "--mutes": judge.mutes, "--ca": connect.ca, "--cert": connect.cert}
    for account in accounts:
        kind, _, name = account.credentials.partition(":")
        if kind == "file":
            read[f"account {account.name}"] = Path(name)
    refuse_clashes(outputs, read)
    with usage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    plan = _plan(judge, running, connect, settings)
    _mark_stale(outputs, accounts)
    style: ProgressStyle = "none" if running.quiet else running.progress
    with (
        progress_display("Auditing accounts", style) as shown,
        log_to_stderr(verbose=False, quiet=running.quiet, patience=plan.patience, pause=TOLD_EVERY),
        _run_errors(folder),
    ):
        if running.processes is not None:
            supervise(
                Shards(
                    accounts=accounts,
                    folder=str(folder.resolve()),
                    again=running.again,
                    at_once=-(-running.at_once // running.processes),
                    plan=plan,
                    quiet=running.quiet,
                ),
                running.processes,
                shown,
            )
            unread = 0
        else:
            unread = run_async(_audit(accounts, folder, shard or (0, 1), plan, running, shown))
    if shard is not None:
        if not running.quiet:
            mine = len(accounts[shard[0] :: shard[1]])
            say(f"{mine - unread:,} of {mine:,} accounts of this shard are read whole")
        return INCOMPLETE if unread and not judge.allow_partial else 0
    return _publish((folder,), outputs, judge, settings, quiet=running.quiet)


def report_folders(folders: Sequence[Path], *, output: Sequence[str], judge: FleetJudge) -> int:
    """Make reports, and give the exit code; the arguments are those of ``fleet report``."""
    outputs = _outputs(output)
    refuse_clashes(outputs, {"--mutes": judge.mutes})
    return _publish(folders, outputs, judge, _shared_mutes(judge, quiet=False), quiet=False)


def _shared_mutes(judge: FleetJudge, *, quiet: bool) -> Settings:
    """Read the mutes of all accounts, and tell once which of them can match in none."""
    settings = read_mutes(judge.mutes)
    known = {word for rule in RULES for word in (rule.id, rule.name)}
    for mute in () if quiet else settings.mutes:
        why = mute.stale(known, datetime.now(UTC).date())
        if why is not None:
            say(f"{judge.mutes}: the mute of {clean(str(mute))} {why}")
    return settings


async def _audit(
    accounts: Sequence[Account],
    folder: Path,
    shard: tuple[int, int],
    plan: AuditPlan,
    running: FleetRun,
    shown: object,
) -> int:
    """Audit accounts with the engine that was asked for, and say how many were not read whole."""
    total, done, unread = len(accounts[shard[0] :: shard[1]]), 0, 0
    began = time.monotonic()
    async with _engine(running) as engine:
        reports = audit_fleet(
            accounts,
            folder=folder,
            at_once=running.at_once,
            again=running.again,
            shard=shard,
            plan=plan,
            fan_out=engine,
        )
        try:
            async for report in reports:
                done += 1
                unread += not report.complete
                if callable(shown):
                    shown(progress_of(done, unread, total, time.monotonic() - began))
        finally:
            await reports.aclose()
    return unread


@asynccontextmanager
async def _engine(running: FleetRun) -> AsyncIterator[Engine]:
    if running.dask is None:
        yield fanout.fan_out
        return
    try:
        from deepcall_async.engines import dask
    except ImportError:
        raise UsageError("--dask needs its extra: pip install 'deepcall-async[dask]'") from None
    # It tells of a scheduler that went away in words of its own; ours say how to go on.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    connection = dask.connected(running.dask, at_once=running.at_once)
    with usage_errors(f"--dask {running.dask}"):
        engine = await connection.__aenter__()
    try:
        yield engine
    finally:
        await connection.__aexit__(None, None, None)


@contextmanager
def _run_errors(folder: Path) -> Iterator[None]:
    """Say how to go on, and that a record could not be written."""
    try:
        yield
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        where = error.filename or folder
        failed = OutputError(f"{where}: {reason(error)}")
        failed.add_note(_goes_on(folder))
        raise failed from None
    except BaseException as error:
        error.add_note(_goes_on(folder))
        raise


def _goes_on(folder: Path) -> str:
    return f"what was read is in {folder}: the same command goes on from there"


def _plan(
    judge: FleetJudge, running: FleetRun, connect: FleetConnect, settings: Settings
) -> AuditPlan:
    return AuditPlan(
        base_url=connect.base_url,
        concurrency=running.concurrency,
        per_second=running.rate,
        patience=running.patience,
        timeout=connect.timeout,
        max_failures=running.max_failures,
        max_response_bytes=connect.max_response_mib * _MIB,
        ca=None if connect.ca is None else str(connect.ca.resolve()),
        cert=None if connect.cert is None else str(connect.cert.resolve()),
        only=tuple(split(judge.rules)),
        ignore=tuple(split(judge.ignore)),
        mutes=settings.mutes,
        thresholds=settings.thresholds,
    )


def _publish(
    folders: Sequence[Path],
    outputs: Sequence[Output],
    judge: FleetJudge,
    settings: Settings,
    *,
    quiet: bool,
) -> int:
    with usage_errors():
        report = read_fleet(folders)
    code = fleet_exit_code(report, fail_on=judge.fail_on, allow_partial=judge.allow_partial)
    pages = Pages()
    if any(output.format == "html" for output in outputs):
        pages = write_pages(report.accounts, folders, judge, settings)
    return write_all(
        outputs,
        lambda output: _write(report, output, pages),
        verdict=report.verdict,
        code=code,
        quiet=quiet,
        failed=pages.failed,
    )


def _write(report: FleetReport, output: Output, pages: Pages) -> None:
    if output == ("table", STDOUT) and stdout_is_terminal():
        headings = [name.capitalize() for name in FLEET_COLUMNS]
        show_table(report.verdict, headings, list(fleet_rows(report)))
        return
    here = Path.cwd() if output.path == STDOUT else output.path.resolve().parent
    links = pages.links(here)
    content = render_fleet(report, cast("FleetFormat", output.format), pages=links)
    if output.path == STDOUT:
        emit(content)
    else:
        replace_report(output.path, content)


def _mark_stale(outputs: Sequence[Output], accounts: Sequence[Account]) -> None:
    """Let no report of an earlier run pass for this one's, however this one ends."""
    nothing = FleetReport.of(AccountReport.unread(account.name) for account in accounts)
    for output in outputs:
        if not is_written_directly(output.path) and output.path.exists():
            try:
                _write(nothing, output, Pages())
            except OutputError as error:
                say(f"deepcall: {error}")


def _outputs(items: Sequence[str]) -> list[Output]:
    outputs = outputs_from(items)
    for output in outputs:
        if output.format not in FLEET_FORMATS:
            known = ", ".join(FLEET_FORMATS)
            raise UsageError(f"-o {output.format}: a fleet's report is one of {known}")
    return outputs
