"""Records judged again, without a service: what ``diff`` and ``report`` do.

Nothing is asked here, so nothing of the client is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from deepcall_async.audit import audit, diff, exit_code
from deepcall_async.cli.exits import INCOMPLETE, usage_errors
from deepcall_async.cli.files import (
    outputs_from,
    part_of,
    read_mutes,
    read_run,
    read_unfinished,
    refuse_clashes,
)
from deepcall_async.cli.parameters import FailOn, JudgeOptions, split
from deepcall_async.cli.publish import publish
from deepcall_async.cli.terminal import say

__all__ = ["compare_records", "report_record"]


def compare_records(
    old: Path,
    new: Path,
    *,
    output: Sequence[str],
    mutes: Path | None,
    fail_on: FailOn,
    allow_partial: bool,
) -> int:
    """Compare two records, and give the exit code; the arguments are the options of ``diff``."""
    outputs = outputs_from(output)
    refuse_clashes(outputs, {"--mutes": mutes, "OLD": old, "NEW": new})
    settings = read_mutes(mutes)
    before, after = read_run(old), read_run(new)
    with usage_errors():
        report = diff(before, after, thresholds=settings.thresholds, mutes=settings.mutes)
    code: int = exit_code(report, fail_on=fail_on, allow_partial=allow_partial)
    if not before.complete and not allow_partial:
        say(f"deepcall: {old} is incomplete, so this may not be all that changed")
        code = INCOMPLETE
    return publish(report, outputs, code, fail_on=fail_on, quiet=False)


def report_record(record: Path, *, output: Sequence[str], judge: JudgeOptions) -> int:
    """Judge a record again, and give the exit code; the arguments are those of ``report``."""
    outputs = outputs_from(output)
    read = {"--mutes": judge.mutes, "--baseline": judge.baseline, "RECORD": record}
    refuse_clashes(outputs, read)
    settings = read_mutes(judge.mutes)
    if not record.exists() and part_of(record).exists():
        say(f"deepcall: {record} was not finished; this is what {part_of(record)} holds")
    snapshot = read_run(record) if record.exists() else read_unfinished(record)
    with usage_errors():
        report = audit(
            snapshot,
            baseline=None if judge.baseline is None else read_run(judge.baseline),
            only=split(judge.rules),
            ignore=split(judge.ignore),
            mutes=settings.mutes,
            thresholds=settings.thresholds,
            new_only=judge.new_only,
            now=datetime.now(UTC),
        )
    code = exit_code(report, fail_on=judge.fail_on, allow_partial=judge.allow_partial)
    return publish(report, outputs, code, fail_on=judge.fail_on, quiet=False)
