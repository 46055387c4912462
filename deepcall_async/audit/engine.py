"""The engine: from a snapshot to a report. Runs the rules, applies mutes, compares with a baseline.

Pure functions. The verdict never claims more than the rules that ran and the groups that were read
can show, and an incomplete run is said first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

from msgspec.structs import replace

from deepcall_async.audit.config import Thresholds
from deepcall_async.audit.context import Context
from deepcall_async.audit.finding import Finding, Severity, rank
from deepcall_async.audit.labels import count
from deepcall_async.audit.mutes import Mute, Muted, MuteIndex
from deepcall_async.audit.report import Health, Report
from deepcall_async.audit.rule import Rule
from deepcall_async.audit.rules import RULES
from deepcall_async.audit.snapshot import Snapshot

__all__ = ["audit", "check_choice", "diff", "exit_code"]

_ABOUT_THE_RUN = frozenset({"X001", "X002", "X003"})
"""Rules about this run, not about the account. Their findings are always new."""

_RING_NOBODY = ("G001", "G002")


def audit(
    snapshot: Snapshot,
    *,
    baseline: Snapshot | None = None,
    rules: Iterable[Rule] = RULES,
    only: Iterable[str] = (),
    ignore: Iterable[str] = (),
    mutes: Iterable[Mute] = (),
    thresholds: Thresholds = Thresholds(),  # noqa: B008  (frozen)
    new_only: bool = False,
    now: datetime | float | None = None,
    health: Health = Health(),  # noqa: B008  (frozen)
) -> Report:
    """Judge a snapshot by the rules.

    Args:
        snapshot: the account as a run saw it.
        baseline: an earlier snapshot to compare with.
        rules: the rules; add your own with ``(*RULES, mine)``.
        only: ids or names of the rules to run; empty for all.
        ignore: ids or names of rules not to run.
        mutes: findings that are known and accepted.
        thresholds: where the rules draw their lines.
        new_only: leave out findings that the baseline had as well.
        now: when the account was looked at, as an aware datetime or in Unix seconds; by default
            when the snapshot's run began. Without either, nothing counts as old or expired.
        health: what the run cost, for the report.

    Returns:
        The report.

    Raises:
        ValueError: an id or name in ``only`` or ``ignore`` is no rule's, two rules have one id,
            or ``new_only`` is asked for without a baseline.
    """
    rules = tuple(rules)
    chosen = check_choice(rules, only, ignore, new_only=new_only, baseline=baseline)
    if baseline is None:
        chosen = [rule for rule in chosen if not rule.compares]
    moment = _moment(now, snapshot)
    before = None
    if baseline is not None:
        then = baseline.run.started or moment
        before = Context.of(baseline, thresholds=thresholds, now=then)
    ids = {rule.name: rule.id for rule in (*RULES, *rules)}
    named = tuple(replace(mute, rule=ids.get(mute.rule, mute.rule)) for mute in mutes)
    context = Context.of(snapshot, thresholds=thresholds, now=moment, before=before, mutes=named)

    early = [rule for rule in chosen if not rule.last]
    findings = [finding for rule in early for finding in rule.find(context)]
    ran = {rule.id for rule in early}
    context = replace(
        context,
        found=tuple(findings),
        # A rule that the caller left out is known all the same: its mutes are not stale.
        rules={rule.id: rule.id in ran for rule in (*RULES, *rules)},
    )
    findings += [finding for rule in chosen if rule.last for finding in rule.find(context)]
    context = replace(context, found=())

    resolved = None
    if before is not None:
        old = {finding.identity for finding in _lasting(early, before)}
        resolved = len(old.difference(f.identity for f in findings)) if context.whole else None
        findings = [replace(finding, new=finding.identity not in old) for finding in findings]
    findings.sort(key=_order)
    kept, muted = _apply_mutes(findings, context)
    if new_only:
        kept = [finding for finding in kept if finding.new]
    report = Report(
        findings=tuple(kept),
        muted=tuple(muted),
        verdict="",
        rules=tuple(chosen),
        context=context,
        health=health,
        new_only=new_only,
        resolved=resolved,
    )
    return replace(report, verdict=_verdict(report))


def check_choice(
    rules: Sequence[Rule],
    only: Iterable[str],
    ignore: Iterable[str],
    *,
    new_only: bool,
    baseline: Snapshot | None,
) -> list[Rule]:
    """Choose the rules to run, refusing what cannot be meant; see `audit` for the arguments.

    Raises:
        ValueError: as `audit` says.
    """
    if new_only and baseline is None:
        raise ValueError("new_only compares with a baseline: give one")
    words: dict[str, set[str]] = {}
    for rule in rules:
        if rule.id in words:
            raise ValueError(f"two rules have the id {rule.id}")
        words[rule.id] = {rule.id.casefold(), rule.name.casefold()}
    only, ignore = tuple(only), tuple(ignore)
    wanted, unwanted = ({word.casefold() for word in given} for given in (only, ignore))
    known = {word for pair in words.values() for word in pair}
    unknown = sorted({word for word in (*only, *ignore) if word.casefold() not in known})
    if unknown:
        raise ValueError(f"no such rule: {', '.join(unknown)}; there are {', '.join(words)}")
    return [
        rule
        for rule in rules
        if (not wanted or wanted & words[rule.id]) and not unwanted & words[rule.id]
    ]


def diff(
    old: Snapshot,
    new: Snapshot,
    *,
    thresholds: Thresholds = Thresholds(),  # noqa: B008  (frozen)
    mutes: Iterable[Mute] = (),
) -> Report:
    """Say what changed between two snapshots, and nothing else.

    Args:
        old: the earlier one.
        new: the later one.
        thresholds: where the rules draw their lines.
        mutes: changes that are known and accepted.

    Returns:
        A report of the rules that compare.
    """
    comparing = tuple(rule for rule in RULES if rule.compares)
    return audit(new, baseline=old, rules=comparing, thresholds=thresholds, mutes=mutes)


def exit_code(
    report: Report,
    *,
    fail_on: Severity | Literal["never"] = "high",
    allow_partial: bool = False,
) -> Literal[0, 1, 3]:
    """Turn a report into an exit code.

    Args:
        report: the report.
        fail_on: the mildest severity that fails, or "never".
        allow_partial: let an incomplete run pass; the lookups that failed then do not count as
            findings either.

    Returns:
        3 when the report is incomplete, 1 when there are findings that fail, otherwise 0.
    """
    if not report.complete and not allow_partial:
        return 3
    if fail_on == "never":
        return 0
    limit = rank(fail_on)
    failing = (
        rank(finding.severity) <= limit
        for finding in report.findings
        if not (allow_partial and finding.rule == "X001")
    )
    return 1 if any(failing) else 0


def _moment(now: datetime | float | None, snapshot: Snapshot) -> datetime | None:
    if now is None:
        return snapshot.run.started
    return now if isinstance(now, datetime) else datetime.fromtimestamp(now, UTC)


def _lasting(rules: Iterable[Rule], before: Context) -> Iterator[Finding]:
    """What the baseline's own audit finds of the account, as far as it can be found again."""
    for rule in rules:
        if not rule.compares and rule.id not in _ABOUT_THE_RUN:
            yield from rule.find(before)


def _order(finding: Finding) -> tuple[int, str, int, int, str]:
    group = -1 if finding.group_id is None else finding.group_id
    agent = -1 if finding.agent_id is None else finding.agent_id
    return (rank(finding.severity), finding.rule, group, agent, finding.key)


def _apply_mutes(
    findings: Sequence[Finding], context: Context
) -> tuple[list[Finding], list[Muted]]:
    index = MuteIndex(context.mutes)
    today = context.now.date() if context.now is not None else None
    kept: list[Finding] = []
    muted: list[Muted] = []
    for finding in findings:
        mute = next((mute for mute in index.of(finding) if mute.holds(today)), None)
        if mute is None:
            kept.append(finding)
        else:
            muted.append(Muted(finding=finding, reason=mute.reason, expires=mute.expires))
    return kept, muted


def _verdict(report: Report) -> str:
    snapshot, ran = report.snapshot, {rule.id for rule in report.rules}
    said = [] if report.complete else [_incomplete(snapshot)]
    if report.complete and not snapshot.asked:
        said.append("The account has no groups.")
    dark = {f.group_id for f in report.findings if f.rule in _RING_NOBODY}
    spared = any(muted.finding.rule in _RING_NOBODY for muted in report.muted)
    if dark:
        said.append(f"Callers to {count(len(dark), 'group')} reach nobody.")
    elif ran.issuperset(_RING_NOBODY) and report.read_count and not spared and not report.new_only:
        which = "that was read " if not report.complete else ""
        said.append(f"Every active group {which}has someone who receives calls.")
    parts = [f"{number:,} {severity}" for severity, number in report.counts.items() if number]
    since = " since the baseline" if report.new_only else ""
    kind = "new finding" if report.new_only else "finding"
    if parts:
        total = len(report.findings)
        said.append(f"{count(total, kind)}{since}: {', '.join(parts)}.")
    else:
        said.append(f"No {kind}s{since}.")
    if report.muted:
        said.append(f"{count(len(report.muted), 'finding')} muted.")
    if report.baseline is not None and not report.baseline.complete:
        said.append("The baseline is incomplete.")
    return " ".join(said)


def _incomplete(snapshot: Snapshot) -> str:
    if snapshot.cut_short:
        return "Incomplete: the run ended before the groups were listed."
    asked, failed, pending = len(snapshot.asked), len(snapshot.failed), len(snapshot.pending)
    parts = []
    if failed:
        parts.append(f"{failed:,} of {count(asked, 'group')} could not be read")
    if pending:
        of = "" if failed else f" of {count(asked, 'group')}"
        parts.append(f"{pending:,}{of} {'was' if pending == 1 else 'were'} not looked up")
    return f"Incomplete: {' and '.join(parts)}."
