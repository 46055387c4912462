"""The commands around the audit: ``audit``, ``diff``, ``report`` and ``rules``.

Their options, and nothing heavy: what they do is in ``audit_run`` and ``offline``, imported when
one of them runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from deepcall_async.cli.exits import UsageError
from deepcall_async.cli.parameters import (
    CONNECTING,
    DEMO_GROUPS,
    AllowPartial,
    ConnectOptions,
    FailOnOption,
    Folder,
    JudgeOptions,
    ListFormat,
    MutesFile,
    Outputs,
    RunOptions,
    Whole,
    in_range,
)

__all__ = ["audit", "diff", "list_rules", "report"]


def audit(
    *group_ids: Annotated[Whole, Parameter(help="Groups to look up; none for all.")],
    sandbox: Annotated[
        Whole | None,
        Parameter(
            help=f"Audit a demo account of N groups ({DEMO_GROUPS} when N is left out).",
            group=CONNECTING,
        ),
    ] = None,
    output: Outputs = (),
    resume: Annotated[
        Path | None,
        Parameter(help="Go on from an earlier run's JSONL, and write to it unless -o names one."),
    ] = None,
    nightly: Annotated[
        Folder | None,
        Parameter(help="Where to keep records: each run is compared with the last complete one."),
    ] = None,
    judge: JudgeOptions = JudgeOptions(),  # noqa: B008  (frozen)
    running: RunOptions = RunOptions(),  # noqa: B008  (frozen)
    connect: ConnectOptions = ConnectOptions(),  # noqa: B008  (frozen)
) -> int:
    """Look up the account's groups, or those given, and judge them."""
    if sandbox is not None:
        in_range("--sandbox", sandbox, 0, 1_000_000)
        given = [name for name in _REAL if getattr(connect, name) is not None]
        if given:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageError(f"--sandbox is an account of its own: leave out {options}")
    if nightly is not None and (judge.baseline is not None or resume is not None):
        raise UsageError("--nightly chooses the baseline: leave out --baseline and --resume")
    if nightly is not None and group_ids:
        raise UsageError(
            "--nightly keeps the record of the whole account, which the next night is compared"
            " with: leave out the group ids"
        )
    if judge.new_only and judge.baseline is None and nightly is None:
        raise UsageError("--new-only compares with a baseline: give --baseline FILE or --nightly")
    from deepcall_async.cli.audit_run import audit_account

    return audit_account(
        tuple(dict.fromkeys(group_ids)),
        sandbox=sandbox,
        output=output,
        resume=resume,
        nightly=nightly,
        judge=judge,
        running=running,
        connect=connect,
    )


def diff(
    old: Path,
    new: Path,
    *,
    output: Outputs = (),
    mutes: MutesFile = None,
    fail_on: FailOnOption = "high",
    allow_partial: AllowPartial = False,
) -> int:
    """Compare two records."""
    from deepcall_async.cli.offline import compare_records

    return compare_records(
        old, new, output=output, mutes=mutes, fail_on=fail_on, allow_partial=allow_partial
    )


def report(
    record: Path,
    *,
    output: Outputs = (),
    judge: JudgeOptions = JudgeOptions(),  # noqa: B008  (frozen)
) -> int:
    """Judge a record again, offline."""
    if judge.new_only and judge.baseline is None:
        raise UsageError("--new-only compares with a baseline: give --baseline FILE")
    from deepcall_async.cli.offline import report_record

    return report_record(record, output=output, judge=judge)


def list_rules(*, output: ListFormat = "table") -> None:
    """List the rules."""
    from deepcall_async.audit import RULES
    from deepcall_async.cli.listing import Listing

    Listing(
        title="Rules",
        columns=("rule", "severity", "name", "meaning", "what to do"),
        rows=[(rule.id, rule.severity, rule.name, rule.meaning, rule.fix) for rule in RULES],
    ).show(output)


_REAL = ("base_url", "credentials", "profile", "proxy", "ca", "cert")
"""Options that speak of a real service."""
