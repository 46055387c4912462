"""The commands around the audit: ``audit``, ``diff`` and ``rules``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from deepcall_async.audit import (
    RULES,
    Report,
    Settings,
    exit_code,
    render,
    run_audit,
    table_rows,
)
from deepcall_async.audit import diff as compare
from deepcall_async.cli.connect import DEMO_GROUPS, BaseUrl, CredentialsFile, open_client
from deepcall_async.cli.files import (
    STDOUT,
    Output,
    Record,
    output_from,
    read_mutes,
    read_run,
    write_report,
)
from deepcall_async.cli.loop import run_async
from deepcall_async.cli.terminal import (
    ProgressStyle,
    printable,
    progress_display,
    say,
    show_table,
)
from deepcall_async.retry import RetryPolicy
from deepcall_async.validation import positive_int, positive_number

__all__ = ["audit", "diff", "list_rules"]


def audit(
    *group_ids: int,
    sandbox: Annotated[
        int | None,
        Parameter(help=f"Audit a demo account of N groups ({DEMO_GROUPS} when N is left out)."),
    ] = None,
    concurrency: Annotated[int, Parameter(help="Lookups in flight at once.")] = 32,
    rate: Annotated[float | None, Parameter(help="Requests a second at most.")] = None,
    rules: Annotated[
        tuple[str, ...], Parameter(help="Only these rules, by id or name.", negative="")
    ] = (),
    ignore: Annotated[tuple[str, ...], Parameter(help="All rules but these.", negative="")] = (),
    fail_on: Annotated[
        Literal["critical", "high", "medium", "low", "never"],
        Parameter(help="The mildest severity that makes the exit code 1."),
    ] = "high",
    baseline: Annotated[
        Path | None, Parameter(help="An earlier run's JSONL to compare with.")
    ] = None,
    new_only: Annotated[bool, Parameter(help="Only what the baseline lacks.", negative="")] = False,
    output: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--output", "-o"],
            help="FORMAT:FILE, repeatable: table, json, jsonl, csv, md, html, junit; - is stdout.",
            negative="",
        ),
    ] = (),
    resume: Annotated[
        Path | None,
        Parameter(help="Go on from an earlier run's JSONL, and write to it unless -o names one."),
    ] = None,
    mutes: Annotated[
        Path | None, Parameter(help="A TOML file of accepted findings and thresholds.")
    ] = None,
    allow_partial: Annotated[
        bool, Parameter(help="An incomplete run may pass.", negative="")
    ] = False,
    max_failures: Annotated[int | None, Parameter(help="End after more failures.")] = None,
    progress: Annotated[ProgressStyle, Parameter(help="How to show progress, on stderr.")] = "auto",
    base_url: BaseUrl = None,
    credentials: CredentialsFile = None,
) -> int:
    """Find groups whose callers ring into nothing, and what else is wrong or wasteful.

    Without GROUP_IDS the whole account is audited.
    """
    positive_int("--concurrency", concurrency)
    if rate is not None:
        positive_number("--rate", rate)
    outputs = [output_from(item) for item in output]
    if new_only and baseline is None:
        raise ValueError("--new-only compares with a baseline: give --baseline FILE")
    known = Settings() if mutes is None else read_mutes(mutes)
    earlier = None if resume is None else read_run(resume)
    if resume is not None and not any(kind == "jsonl" for kind, _ in outputs):
        outputs.append(Output("jsonl", resume))
    before = None if baseline is None else read_run(baseline)
    err = Console(stderr=True)

    async def work() -> Report:
        retry = RetryPolicy(attempts=5)
        async with open_client(
            sandbox, base_url, credentials, retry=retry, per_second=rate, connections=concurrency
        ) as client:
            with progress_display(err, "Looking up groups", progress) as shown:
                return await run_audit(
                    client,
                    group_ids or None,
                    concurrency=concurrency,
                    baseline=before,
                    only=_split(rules),
                    ignore=_split(ignore),
                    mutes=known.mutes,
                    thresholds=known.thresholds,
                    new_only=new_only,
                    max_failures=max_failures,
                    progress=shown,
                    on_line=record,
                    resume=earlier,
                    sandbox=sandbox is not None,
                )

    with ExitStack() as files:
        written = [
            files.enter_context(Record(path, earlier)) for kind, path in outputs if kind == "jsonl"
        ]

        def record(line: bytes) -> None:
            for file in written:
                file.write(line)

        report = run_async(work())
    _write(report, [item for item in outputs if item.format != "jsonl"])
    if not output:
        _show(report)
    elif not any(path == STDOUT for _, path in outputs):
        say(report.verdict)
    return exit_code(report, fail_on=fail_on, allow_partial=allow_partial)


def diff(
    old: Path,
    new: Path,
    *,
    mutes: Annotated[
        Path | None, Parameter(help="A TOML file of accepted findings and thresholds.")
    ] = None,
    fail_on: Annotated[
        Literal["critical", "high", "medium", "low", "never"],
        Parameter(help="The mildest severity that makes the exit code 1."),
    ] = "high",
    output: Annotated[
        tuple[str, ...],
        Parameter(name=["--output", "-o"], help="FORMAT:FILE, as for audit.", negative=""),
    ] = (),
) -> int:
    """Say what changed from one run's JSONL to another's."""
    known = Settings() if mutes is None else read_mutes(mutes)
    outputs = [output_from(item) for item in output]
    report = compare(read_run(old), read_run(new), thresholds=known.thresholds, mutes=known.mutes)
    _write(report, outputs)
    if not outputs:
        _show(report)
    return exit_code(report, fail_on=fail_on, allow_partial=True)


def list_rules() -> None:
    """List the rules of the audit."""
    rows = [(rule.id, rule.severity, rule.name, rule.meaning, rule.fix) for rule in RULES]
    show_table(Console(), "Rules", ("Rule", "Severity", "Name", "Meaning", "What to do"), rows)


def _split(words: Sequence[str]) -> list[str]:
    return [part.strip() for word in words for part in word.split(",") if part.strip()]


def _write(report: Report, outputs: Sequence[Output]) -> None:
    for output in outputs:
        if output == ("table", STDOUT):
            _show(report)
        else:
            write_report(report, output)


def _show(report: Report) -> None:
    out = Console()
    if not out.is_terminal:
        # For programs and logs: a finding a line, nothing wrapped or drawn.
        sys.stdout.write(render(report, "table").decode())
        return
    rows = [
        (severity, rule, "" if finding.group_id is None else str(finding.group_id), message, fix)
        for finding, (severity, rule, message, fix) in zip(
            report.findings, table_rows(report), strict=True
        )
    ]
    if rows:
        columns = ("Severity", "Rule", "Group", "Finding", "What to do")
        show_table(out, "Findings", columns, rows)
    out.print(printable(report.verdict), markup=False, highlight=False, style="bold")
