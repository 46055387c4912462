"""A report's way to files and to stdout.

What it says is made in ``audit``, and how a file is written in ``files``. One place that fails does
not keep the report from the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from deepcall_async.audit import Report, render, table_rows
from deepcall_async.cli.exits import FOUND, UNWRITTEN, OutputError, PipeClosed, reason
from deepcall_async.cli.files import STDOUT, Output, replace_report
from deepcall_async.cli.parameters import FailOn
from deepcall_async.cli.terminal import emit, say, show_table, stdout_is_terminal

__all__ = ["publish", "write_all"]


def publish(
    report: Report,
    outputs: Sequence[Output],
    code: int,
    *,
    fail_on: FailOn,
    failed: Sequence[OutputError] = (),
    quiet: bool,
) -> int:
    """Write the report wherever it is wanted, and say the verdict if stdout gets none of it.

    Args:
        report: the report.
        outputs: where to.
        code: the exit code so far.
        fail_on: the lowest severity that fails.
        failed: outputs that could not be written before.
        quiet: say no verdict.

    Returns:
        The exit code.

    Raises:
        PipeClosed: whoever read stdout has closed it; the files were written.
    """
    return write_all(
        outputs,
        lambda output: _write(report, output, fail_on),
        verdict=report.verdict,
        code=code,
        quiet=quiet,
        failed=failed,
    )


def write_all(
    outputs: Sequence[Output],
    write: Callable[[Output], None],
    *,
    verdict: str,
    code: int,
    quiet: bool,
    failed: Sequence[OutputError],
) -> int:
    """Write every output, whatever becomes of the others.

    Args:
        outputs: what was asked for.
        write: writes one.
        verdict: said on stderr when no output goes to stdout.
        code: the exit code so far.
        quiet: whether the verdict is not said.
        failed: what could not be written before.

    Returns:
        The exit code.

    Raises:
        PipeClosed: whoever read stdout has closed it; the files were written.
    """
    failures = list(failed)
    closed: PipeClosed | None = None
    for output in outputs:
        try:
            write(output)
        except OutputError as error:
            failures.append(error)
        except PipeClosed as error:
            closed = error
    if not quiet and not any(output.path == STDOUT for output in outputs):
        say(verdict)
    for failure in failures:
        say(f"deepcall: {failure}")
    if closed is not None:
        raise closed
    return UNWRITTEN if failures and code in (0, FOUND) else code


def _write(report: Report, output: Output, fail_on: FailOn) -> None:
    if output == ("table", STDOUT):
        _show(report)
        return
    content = render(report, output.format, fail_on=fail_on)
    if output.path == STDOUT:
        emit(content)
    else:
        replace_report(output.path, content)
    if output.format == "github":
        _summarize(report)


def _summarize(report: Report) -> None:
    """Append the report to the summary of the GitHub job that this runs in, if it does."""
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary:
        return
    try:
        with Path(summary).open("ab") as file:
            file.write(render(report, "md"))
    except OSError as error:
        raise OutputError(f"{summary}: {reason(error)}") from None


def _show(report: Report) -> None:
    if not stdout_is_terminal():
        # For programs and logs: a finding a line, nothing wrapped or drawn.
        emit(render(report, "table"))
        return
    rows = [
        (severity, rule, "" if finding.group_id is None else str(finding.group_id), message, fix)
        for finding, (severity, rule, message, fix) in zip(
            report.findings, table_rows(report), strict=True
        )
    ]
    if rows:
        show_table(
            report.incomplete or "Findings",
            ("Severity", "Rule", "Group", "Finding", "What to do"),
            rows,
        )
    show_table(report.verdict, (), ())
