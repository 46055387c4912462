"""An audit from the command line: its files, its run, and what is left when it ends early.

The account is read and judged in ``audit``; here its lines go to records, its report to files and
to stdout, and what happened becomes the exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import NamedTuple

from deepcall_async.audit import (
    Report,
    Settings,
    Snapshot,
    exit_code,
    run_audit,
)
from deepcall_async.cli.connect import Target, open_client, open_sandbox, target_of
from deepcall_async.cli.exits import OutputError, PipeClosed, UsageError
from deepcall_async.cli.files import (
    Output,
    is_written_directly,
    outputs_from,
    part_of,
    read_mutes,
    read_run,
    read_unfinished,
    refuse_clashes,
)
from deepcall_async.cli.logs import log_to_stderr
from deepcall_async.cli.loop import run_async
from deepcall_async.cli.nightly import Nightly, open_nightly
from deepcall_async.cli.parameters import ConnectOptions, JudgeOptions, RunOptions, split
from deepcall_async.cli.publish import publish
from deepcall_async.cli.record import Record
from deepcall_async.cli.stale import StaleReports
from deepcall_async.cli.terminal import (
    ProgressStyle,
    progress_display,
    say,
)
from deepcall_async.pacing import Adaptive
from deepcall_async.retry import RetryPolicy

__all__ = ["audit_account"]


class _Plan(NamedTuple):
    """What is known before anything is asked."""

    group_ids: tuple[int, ...] | None
    sandbox: int | None
    target: Target | None
    settings: Settings
    baseline: Snapshot | None
    resume: Snapshot | None
    judge: JudgeOptions
    running: RunOptions
    connect: ConnectOptions


def audit_account(
    group_ids: tuple[int, ...],
    *,
    sandbox: int | None,
    output: Sequence[str],
    resume: Path | None,
    nightly: Path | None,
    judge: JudgeOptions,
    running: RunOptions,
    connect: ConnectOptions,
) -> int:
    """Audit an account, and give the exit code; the arguments are the options of ``audit``."""
    outputs = outputs_from(output)
    if resume is not None and not any(item.format == "jsonl" for item in outputs):
        outputs.append(Output("jsonl", resume))
    target = None if sandbox is not None else target_of(connect)
    read = {"--mutes": judge.mutes, "--baseline": judge.baseline}
    if target is not None:
        read |= target.files
    refuse_clashes(outputs, read)
    with ExitStack() as stack:
        night = None if nightly is None else stack.enter_context(open_nightly(nightly))
        records: list[Output] = []
        if night is not None:
            records.append(Output("jsonl", night.record))
            refuse_clashes([*outputs, *records], read | {"--nightly": night.last})
        earlier = None if resume is None else _earlier(resume, sandbox)
        plan = _Plan(
            group_ids=group_ids or None,
            sandbox=sandbox,
            target=target,
            settings=read_mutes(judge.mutes),
            baseline=_baseline(judge.baseline if night is None else night.last, running),
            resume=earlier,
            judge=judge,
            running=running,
            connect=connect,
        )
        _warn_of_unfinished(outputs, resume)
        stack.enter_context(
            log_to_stderr(verbose=running.verbose, quiet=running.quiet, patience=running.patience)
        )
        return _run(plan, outputs, records, night)


def _run(
    plan: _Plan, outputs: Sequence[Output], nightly: Sequence[Output], night: Nightly | None
) -> int:
    reports = [item for item in outputs if item.format != "jsonl"]
    records = [Record(path, plan.resume) for kind, path in [*outputs, *nightly] if kind == "jsonl"]
    with StaleReports(reports, plan.settings) as stale:

        def record(line: bytes) -> None:
            stale.write(line)
            for file in records:
                file.write(line)

        try:
            report = run_async(_work(plan, record))
        except BaseException as error:
            for file in records:
                file.abandon()
            if stale.begun or not isinstance(error, UsageError):
                for failure in stale.mark():
                    say(f"deepcall: {failure}")
            _tell_how_to_go_on(records, error, plan, night)
            raise
    for file in records:
        file.finish()
    judge = plan.judge
    code = exit_code(report, fail_on=judge.fail_on, allow_partial=judge.allow_partial)
    failed = [file.error for file in records if file.error is not None]
    if night is not None and report.complete and records[-1].error is None:
        try:
            night.keep()
        except OutputError as error:
            failed.append(error)
    quiet = plan.running.quiet
    return publish(report, reports, code, fail_on=judge.fail_on, failed=failed, quiet=quiet)


async def _work(plan: _Plan, record: Callable[[bytes], object]) -> Report:
    running, judge = plan.running, plan.judge
    async with AsyncExitStack() as stack:
        target = plan.target
        if target is None:
            target = await stack.enter_async_context(open_sandbox(plan.sandbox or 0, plan.connect))
        client = await stack.enter_async_context(
            open_client(
                target,
                retry=RetryPolicy(attempts=5),
                per_second=running.rate,
                connections=running.concurrency or Adaptive().max,
            )
        )
        shown = stack.enter_context(progress_display("Looking up groups", _style(running)))
        try:
            return await run_audit(
                client,
                plan.group_ids,
                concurrency=running.concurrency,
                patience=running.patience,
                baseline=plan.baseline,
                only=split(judge.rules),
                ignore=split(judge.ignore),
                mutes=plan.settings.mutes,
                thresholds=plan.settings.thresholds,
                new_only=judge.new_only and plan.baseline is not None,
                max_failures=running.max_failures,
                progress=shown,
                on_line=record,
                resume=plan.resume,
                sandbox=plan.sandbox is not None,
            )
        except ValueError as error:
            raise UsageError(str(error)) from error


def _tell_how_to_go_on(
    records: Sequence[Record], error: BaseException, plan: _Plan, night: Nightly | None
) -> None:
    if isinstance(error, (UsageError, PipeClosed)):
        return  # the same again would fail again; or nobody reads
    files = [record for record in records if record.part is not None]
    if files:
        same = "options" if plan.group_ids is None else "groups and options"
        resume = f"--resume {files[0].path}"
        how = f"and {resume}" if night is None else f"but {resume} in place of --nightly"
        error.add_note(f"what was read is in {files[0].part}: go on with the same {same} {how}")
    elif isinstance(error, KeyboardInterrupt):
        error.add_note("nothing was kept: -o jsonl:FILE keeps what was read")


def _baseline(file: Path | None, running: RunOptions) -> Snapshot | None:
    if file is None:
        return None
    if not file.exists():
        if not running.quiet:
            say(f"deepcall: there is no baseline yet ({file}), so everything is told")
        return None
    return read_run(file)


def _earlier(file: Path, sandbox: int | None) -> Snapshot:
    earlier = read_unfinished(file)
    if earlier.run.sandbox != (sandbox is not None):
        of, now = (
            ("the sandbox", "a real account")
            if sandbox is None
            else ("a real account", "the sandbox")
        )
        raise UsageError(f"--resume {file}: that run was of {of}, and this one is of {now}")
    return earlier


def _warn_of_unfinished(outputs: Sequence[Output], resume: Path | None) -> None:
    resumed = None if resume is None else part_of(resume)
    for kind, path in outputs:
        if kind == "jsonl" and not is_written_directly(path):
            part = part_of(path)
            if part != resumed and part.exists():
                say(
                    f"deepcall: {part} of an unfinished run will be replaced; --resume {path} goes"
                    " on from it"
                )


def _style(running: RunOptions) -> ProgressStyle:
    if running.quiet:
        return "none"
    # Lines that tell of requests would break a bar.
    return "lines" if running.verbose and running.progress == "auto" else running.progress
