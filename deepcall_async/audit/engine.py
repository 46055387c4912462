"""The engine: from a snapshot to a report. Runs the rules, applies mutes, compares with a baseline.

Pure functions. The verdict never claims more than the rules that ran and the groups that were read
can show, and an incomplete run is said first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from deepcall_async.audit.config import Thresholds
from deepcall_async.audit.context import Context
from deepcall_async.audit.finding import SEVERITIES, Finding, Hit, Identity, Severity, rank
from deepcall_async.audit.folding import Pile
from deepcall_async.audit.labels import clean
from deepcall_async.audit.mutes import Mute, Muted, MuteIndex
from deepcall_async.audit.report import Health, Report
from deepcall_async.audit.rule import Rule
from deepcall_async.audit.rules import RULES
from deepcall_async.audit.rules.changes import rule_failed, stale_mute
from deepcall_async.audit.snapshot import Snapshot, require_same_account
from deepcall_async.audit.verdict import verdict

__all__ = ["audit", "check_choice", "diff", "exit_code"]

_ABOUT_THE_RUN = frozenset({"X001", "X002", "X003", "X004"})
"""Rules about this run, not about the account. Their findings are always new."""


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
        baseline: an earlier snapshot of the same account to compare with.
        rules: the rules; add your own with ``(*RULES, mine)``.
        only: ids or names of the rules to run; empty for all.
        ignore: ids or names of rules not to run.
        mutes: findings that are known and accepted.
        thresholds: where the rules draw their lines.
        new_only: leave out findings that the baseline had as well.
        now: the current time, as an aware datetime or in Unix seconds; by default when the
            snapshot's run began. Without either, nothing counts as old or expired.
        health: what the run cost, for the report.

    Returns:
        The report.

    Raises:
        ValueError: an id or name in ``only`` or ``ignore`` is no rule's, two rules have one id, no
            rule would run, ``new_only`` is asked for without a baseline, or the baseline is of
            another account.
    """
    rules, mutes = tuple(rules), tuple(mutes)
    only, ignore = tuple(only), tuple(ignore)
    chosen = check_choice(
        rules,
        only,
        ignore,
        new_only=new_only,
        baseline=baseline,
        whole_account=snapshot.run.whole_account,
    )
    if baseline is not None:
        require_same_account(baseline, snapshot, "baseline")
    moment = _moment(now, snapshot)
    before = None
    if baseline is not None:
        then = baseline.run.started or moment
        before = Context.of(baseline, thresholds=thresholds, now=then)
    context = Context.of(snapshot, thresholds=thresholds, now=moment, before=before)
    chosen = [rule for rule in chosen if context.whole or not rule.whole_account]

    names = {rule.name: rule.id for rule in (*RULES, *rules)}
    named = [replace(mute, rule=names.get(mute.rule, mute.rule)) for mute in mutes]
    old = frozenset() if before is None else frozenset(_lasting(chosen, before))
    found = _Found(context, old, MuteIndex(named), new_only=new_only)
    broken: dict[str, str] = {}
    for rule in chosen:
        for hit in _run(rule, context, broken):
            found.add(rule, hit)
    resolved = len(found.missed) if before is not None and context.whole else None

    unwanted = {rule_failed.id.casefold(), rule_failed.name} & {word.casefold() for word in ignore}
    if stale_mute in chosen:
        ran = {rule.id for rule in chosen} - broken.keys()
        for hit in _about_mutes(named, frozenset(found.matched), ran, names.values(), context):
            found.add(stale_mute, hit)
    if broken and not unwanted:
        for hit in _about_rules(broken):
            found.add(rule_failed, hit)
        chosen = chosen if rule_failed in chosen else [*chosen, rule_failed]

    kept = found.kept()
    kept.sort(key=_order)
    found.muted.sort(key=lambda each: _order(each.finding))
    report = Report(
        findings=tuple(kept),
        muted=tuple(found.muted),
        verdict="",
        rules=tuple(chosen),
        context=context,
        health=health,
        new_only=new_only,
        resolved=resolved,
    )
    return replace(report, verdict=verdict(report))


def check_choice(
    rules: Sequence[Rule],
    only: Iterable[str],
    ignore: Iterable[str],
    *,
    new_only: bool,
    baseline: Snapshot | None,
    whole_account: bool,
) -> list[Rule]:
    """Choose the rules to run, and refuse a choice that cannot be meant.

    Args:
        rules: all rules.
        only: ids or names of the rules to run; empty for all.
        ignore: ids or names of rules not to run.
        new_only: whether only new findings are wanted.
        baseline: the earlier snapshot, if any.
        whole_account: whether all groups are looked at, not only chosen ones.

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
        raise ValueError(f"no such rule: {', '.join(unknown)}; {_nearest(unknown[0], rules)}")
    chosen = [
        rule
        for rule in rules
        if (not wanted or wanted & words[rule.id]) and not unwanted & words[rule.id]
    ]
    able = [
        rule
        for rule in chosen
        if (baseline is not None or not rule.compares) and (whole_account or not rule.whole_account)
    ]
    if not able:
        why = "every rule is ignored"
        if any(rule.compares for rule in chosen):
            why = "the rules chosen compare with a baseline: give one"
        elif chosen:
            why = "the rules chosen judge the whole account, and only chosen groups are looked at"
        raise ValueError(f"no rule would run: {why}")
    return able


def _nearest(word: str, rules: Iterable[Rule]) -> str:
    from difflib import get_close_matches

    names = {name.casefold(): name for rule in rules for name in (rule.id, rule.name)}
    near = get_close_matches(word.casefold(), names, n=1, cutoff=0.7)
    ids = ", ".join(rule.id for rule in rules)
    return f"did you mean {names[near[0]]}?" if near else f"there are {ids}"


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
        new: the later one, of the same account.
        thresholds: where the rules draw their lines.
        mutes: changes that are known and accepted.

    Returns:
        A report of the rules that compare.

    Raises:
        ValueError: they are of different accounts.

    Example:
        >>> before = (await run_audit(dc)).snapshot
        >>> said = await dc.groups.assign_agents(28, [3, 8, 2])
        >>> report = diff(before, (await run_audit(dc)).snapshot)
        >>> report.findings[0].message
        'Mahipal singh (28) had 3 agents receiving calls and now has none.'
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
        fail_on: the lowest severity that fails, or "never".
        allow_partial: let an incomplete run pass, if anything was read; the lookups that failed
            then do not count as findings either.

    Returns:
        3 when the report is incomplete, 1 when there are findings that fail, otherwise 0.
    """
    if not report.complete and not (allow_partial and report.read_count):
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


class _Found:
    """Sorts what the rules hit: known to the baseline or new, muted or kept.

    ``matched`` are the mutes that were about something, and ``missed`` is what the baseline had and
    no rule hit.
    """

    def __init__(
        self, context: Context, old: frozenset[Identity], index: MuteIndex, *, new_only: bool
    ) -> None:
        self.muted: list[Muted] = []
        self.matched: set[Mute] = set()
        self.missed = set(old)
        self._context = context
        self._today = context.now.date() if context.now is not None else None
        self._old = old
        self._index = index
        self._new_only = new_only
        self._piles: dict[tuple[str, Severity, bool | None], Pile] = {}

    def add(self, rule: Rule, hit: Hit) -> None:
        before, severity, new = self._context.before, hit.severity or rule.severity, None
        if before is not None:
            identity = rule.identity(hit)
            self.missed.discard(identity)
            new = identity not in self._old and _is_new(rule, hit, before)
        mutes = self._index.of(rule.id, hit)
        self.matched.update(mutes)
        mute = next((mute for mute in mutes if mute.holds(self._today)), None)
        if mute is not None:
            finding = rule.finding(hit, new=new)
            self.muted.append(Muted(finding=finding, reason=mute.reason, expires=mute.expires))
        elif new or not self._new_only:
            pile = self._piles.get((rule.id, severity, new))
            if pile is None:
                pile = self._piles[rule.id, severity, new] = Pile(rule, severity, new)
            pile.add(hit)

    def kept(self) -> list[Finding]:
        return [each for pile in self._piles.values() for each in pile.findings(self._context)]


def _run(rule: Rule, context: Context, broken: dict[str, str]) -> Iterator[Hit]:
    """A rule's hits up to where it raises; a rule that raises is noted, and ends nothing."""
    ours = rule in RULES
    try:
        hits = rule.check(context)
        yield from hits if ours else map(_checked, hits)
    except Exception as error:
        broken[rule.id] = type(error).__name__


def _checked(hit: Hit) -> Hit:
    """Refuse a hit that a report could not hold."""
    if not isinstance(hit, Hit):
        raise TypeError(f"a rule yields Hit, not {type(hit).__name__}")
    if hit.severity not in (None, *SEVERITIES):
        raise ValueError("no such severity")
    return msgspec.convert(msgspec.to_builtins(hit, str_keys=True), Hit)


def _lasting(rules: Iterable[Rule], before: Context) -> Iterator[Identity]:
    """The findings of the baseline's own audit that a later audit could find again."""
    for rule in rules:
        runs = before.whole or not rule.whole_account
        if runs and not rule.compares and rule.id not in _ABOUT_THE_RUN:
            yield from map(rule.identity, _run(rule, before, {}))


def _is_new(rule: Rule, hit: Hit, before: Context) -> bool | None:
    """Whether a hit that the baseline lacks is new; None where it had not read what it is about.

    A group that a whole baseline did not list had appeared since, so what is found in it is new.
    """
    if rule.compares or rule.id in _ABOUT_THE_RUN:
        return True
    if before.whole:
        return True
    if rule.whole_account or hit.group_id is None:
        return None
    others = hit.evidence.get("group_ids", ())
    ids = [hit.group_id, *(others if isinstance(others, list | tuple) else ())]
    return True if all(map(before.saw, ids)) else None


def _about_mutes(
    mutes: Sequence[Mute],
    matched: Iterable[Mute],
    ran: Iterable[str],
    known: Iterable[str],
    context: Context,
) -> Iterator[Hit]:
    """The mutes that have expired or match nothing, as hits of X003."""
    today = context.now.date() if context.now is not None else None
    matched, ran, known = set(matched), set(ran), set(known)
    for mute in mutes:
        why = mute.stale(known, today)
        if why is None and (
            mute not in matched
            and mute.rule in ran
            # Whether a mute of a group that was not read still matches is not known.
            and (context.whole or mute.group in context.groups)
        ):
            why = "matches nothing"
        if why is None:
            continue
        yield Hit(
            message=f"The mute of {clean(str(mute))} {why} ({clean(mute.reason, 200)}).",
            group_id=mute.group,
            agent_id=mute.agent,
            evidence={"rule": mute.rule, "reason": mute.reason, "why": why},
            key=mute.rule,
        )


def _about_rules(broken: dict[str, str]) -> Iterator[Hit]:
    """The rules that raised, as hits of X004."""
    for rule_id, error in broken.items():
        yield Hit(
            message=f"Rule {clean(rule_id)} raised {clean(error)}; its findings are not whole.",
            evidence={"rule": rule_id, "error": error},
            key=rule_id,
        )


def _order(finding: Finding) -> tuple[int, str, int, int, str]:
    group = -1 if finding.group_id is None else finding.group_id
    agent = -1 if finding.agent_id is None else finding.agent_id
    return (rank(finding.severity), finding.rule, group, agent, finding.key)
