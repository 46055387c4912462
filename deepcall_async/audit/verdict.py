"""The verdict: what a report says first, in a few sentences.

Pure functions. They count from the snapshot, so that no choice of rules and no mute makes an
account look better than it was read to be.
"""

from __future__ import annotations

from datetime import timedelta

from deepcall_async.audit.labels import count
from deepcall_async.audit.report import RING_NOBODY, Report

__all__ = ["verdict"]

_OLD = timedelta(days=1)
"""From this age on, the date of a record is said."""


def verdict(report: Report) -> str:
    """Sum up a report: what is missing, whose callers reach nobody, what was found.

    Args:
        report: the report, whose own verdict is not looked at.
    """
    said = [report.incomplete, _age(report), _cover(report), _numbers(report)]
    if report.muted:
        said.append(f"{count(len(report.muted), 'finding')} muted.")
    if report.baseline is not None and not report.baseline.complete:
        said.append("The baseline is incomplete.")
    return " ".join(filter(None, said))


def _age(report: Report) -> str:
    run, now = report.snapshot.run, report.context.now
    if now is None:
        return ""
    if run.resumed_from is not None and now - run.resumed_from >= _OLD:
        return f"Some groups were read on {run.resumed_from:%Y-%m-%d}, in the run that was resumed."
    if run.started is not None and now - run.started >= _OLD:
        return f"The account was read on {run.started:%Y-%m-%d}."
    return ""


def _cover(report: Report) -> str:
    """Who answers, of what was read and no more."""
    snapshot, dark = report.snapshot, report.dark
    chosen = not snapshot.run.whole_account
    if not snapshot.asked:
        if not report.complete:
            return ""
        return "No groups were chosen." if chosen else "The account has no groups."
    if not report.read_count:
        return "" if report.pending or report.failed else "No group was read."
    total = report.groups if chosen else report.read_count
    number = f"{count(total, 'group')}" if total > 1 else "one group"
    # A run that goes on from another keeps what that one had read, chosen now or not.
    picked = "chosen" if snapshot.run.resumed_from is None else "in the record"
    scope = f"the {number} {picked if chosen else 'read'}"
    if dark:
        number = count(len(dark), "group")
        if chosen or not report.complete:
            number = f"{len(dark):,} of {scope}" if total > 1 else scope
        muted = _muted(report)
        spared = f", {muted:,} of them muted" if muted else ""
        return f"Callers to {number} reach nobody{spared}."
    which = "" if report.complete else " that was read"
    if not any(True for _ in report.context.active()):
        return f"No group{f' of those {picked}' if chosen else ''}{which} is active."
    if chosen and total == 1:
        return f"The one group {picked} has someone who receives calls."
    scope = f"active group of {scope}" if chosen else "active group"
    return f"Every {scope}{which} has someone who receives calls."


def _muted(report: Report) -> int:
    """How many groups that ring nobody are muted as such."""
    muted = {each.finding.group_id for each in report.muted if each.finding.rule in RING_NOBODY}
    return len(muted.intersection(report.dark))


def _numbers(report: Report) -> str:
    since = " since the baseline" if report.new_only else ""
    kind = "new finding" if report.new_only else "finding"
    parts = [f"{number:,} {severity}" for severity, number in report.counts.items() if number]
    if not parts:
        return f"No {kind}s{since}."
    return f"{count(len(report.findings), kind)}{since}: {', '.join(parts)}."
