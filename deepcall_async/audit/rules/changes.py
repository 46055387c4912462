"""The rules about what changed since a baseline (D) and about the run itself (X).

One small pure function for each rule, with its texts beside it. What a run did not read is never
taken for gone.
"""

# ruff: noqa: D103  (what a rule means stands beside its function)

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from deepcall_async.audit.context import Context, GroupView
from deepcall_async.audit.finding import Hit
from deepcall_async.audit.labels import agent_label, capped, clean, count, group_label, listing
from deepcall_async.audit.report import ASK_AGAIN
from deepcall_async.audit.rule import rule
from deepcall_async.models import Agent, Group

__all__ = [
    "agent_renamed",
    "appeared_or_vanished",
    "changed",
    "changed_mid_run",
    "lookup_failed",
    "members_changed",
    "receivers_lost",
    "rule_failed",
    "stale_mute",
    "switched_off",
    "went_dark",
]


def _both(context: Context) -> Iterator[tuple[GroupView, GroupView]]:
    """Each group that both runs read, as it was and as it is."""
    if context.before is not None:
        for group_id, view in context.groups.items():
            before = context.before.groups.get(group_id)
            if before is not None:
                yield before, view


@rule(
    "D001",
    "went-dark",
    "critical",
    meaning="An active group had agents who receive calls at the baseline and has none now.",
    fix="Turn on receive-call again for the group's agents.",
    compares=True,
)
def went_dark(context: Context) -> Iterator[Hit]:
    for before, view in _both(context):
        then = len(before.receivers)
        if view.active and then and not view.receivers:
            agents = count(then, "agent")
            yield Hit(
                message=f"{view.label} had {agents} receiving calls and now has none.",
                group_id=view.id,
                evidence={"before": then, "now": 0},
            )


@rule(
    "D002",
    "receivers-lost",
    "high",
    meaning="An active group lost half of its receiving agents, or fell below the threshold.",
    fix="Find out who was taken out or muted, and turn on receive-call for a replacement.",
    compares=True,
)
def receivers_lost(context: Context) -> Iterator[Hit]:
    enough = context.thresholds.min_receivers
    for before, view in _both(context):
        then, now = len(before.receivers), len(view.receivers)
        if not (view.active and 0 < now < then):  # none at all is a finding of D001
            continue
        if now < enough or now * 2 <= then:
            wanted = f"; {enough} are wanted" if now < enough else ""
            yield Hit(
                message=(
                    f"{view.label} had {count(then, 'agent')} receiving calls "
                    f"and now has {now:,}{wanted}."
                ),
                group_id=view.id,
                evidence={"before": then, "now": now},
            )


@rule(
    "D003",
    "appeared-or-vanished",
    "medium",
    meaning="A group or an agent was added or removed since the baseline.",
    fix="Check that someone meant to do this.",
    many="groups or agents were added or removed since the baseline",
    compares=True,
)
def appeared_or_vanished(context: Context) -> Iterator[Hit]:
    before = context.before
    if before is None:
        return
    now_asked, then_asked = set(context.snapshot.asked), set(before.snapshot.asked)
    now_asked -= context.snapshot.gone
    then_asked -= before.snapshot.gone
    if _knows_all_groups(before):
        for group_id in sorted(now_asked - then_asked):
            yield Hit(
                message=f"{context.label(group_id)} is new since the baseline.",
                group_id=group_id,
                evidence={"change": "appeared"},
                key="appeared",
            )
    if _knows_all_groups(context):
        for group_id in sorted(then_asked - now_asked):
            yield Hit(
                message=f"{before.label(group_id)} is gone since the baseline.",
                group_id=group_id,
                evidence={"change": "vanished"},
                key="vanished",
            )
    if _knows_all_agents(context) and _knows_all_agents(before):
        for agents, others, change, says in (
            (context.agents, before.agents, "appeared", "is new"),
            (before.agents, context.agents, "vanished", "is gone"),
        ):
            for agent_id in sorted(agents.keys() - others.keys()):
                label = agent_label(agent_id, agents[agent_id])
                yield Hit(
                    message=f"{label} {says} since the baseline.",
                    agent_id=agent_id,
                    evidence={"change": change},
                    key=change,
                )


def _knows_all_groups(context: Context) -> bool:
    return context.snapshot.run.whole_account and not context.snapshot.cut_short


def _knows_all_agents(context: Context) -> bool:
    # One account can have several rosters, one for each of its users: only all replies show all.
    return context.whole


@rule(
    "D004",
    "changed",
    "info",
    meaning="A group's name changed, or it was switched on, since the baseline.",
    fix="Check that someone meant to do this.",
    many="groups were renamed or switched on since the baseline",
    compares=True,
)
def changed(context: Context) -> Iterator[Hit]:
    for group_id, old, group in _known_to_both(context):
        if old.name != group.name:
            yield Hit(
                message=f"{context.label(group_id)} was called {clean(old.name) or '(no name)'}.",
                group_id=group_id,
                evidence={"before": old.name, "now": group.name},
                key="name",
            )
        if old.status not in (group.status, 1, None) and group.status is not None:
            yield Hit(
                message=(
                    f"{context.label(group_id)} went from status {old.status} to {group.status}."
                ),
                group_id=group_id,
                evidence={"before": old.status, "now": group.status},
                key="status",
            )


@rule(
    "D005",
    "members-changed",
    "info",
    meaning="Agents joined or left a group, or began or ceased to receive its calls.",
    fix="Check that someone meant to do this.",
    many="groups have other members or receivers than at the baseline",
    compares=True,
)
def members_changed(context: Context) -> Iterator[Hit]:
    for before, view in _both(context):
        if before.members == view.members and before.receivers == view.receivers:
            continue
        then, now = set(before.members), set(view.members)
        rang, rings = set(before.receivers), set(view.receivers)
        parts = {
            "joined": now - then,
            "left": then - now,
            "no longer receives": (rang - rings) & now,
            "now receives": (rings - rang) & then,
        }
        said = [
            f"{_several(ids, view, before)} {_verb(what, len(ids))}"
            for what, ids in parts.items()
            if ids
        ]
        yield Hit(
            message=f"{view.label}: {'; '.join(said)}.",
            group_id=view.id,
            evidence={what.replace(" ", "_"): capped(ids) for what, ids in parts.items()},
        )


def _several(ids: Iterable[int], view: GroupView, before: GroupView) -> str:
    ordered = sorted(ids)
    labels = (
        view.agent(agent_id) if agent_id in view.roster else before.agent(agent_id)
        for agent_id in ordered
    )
    return listing(labels, len(ordered))


def _verb(what: str, number: int) -> str:
    plural = {"no longer receives": "no longer receive", "now receives": "now receive"}
    said = plural.get(what, what) if number > 1 else what
    return f"{said} calls" if "receive" in said else said


@rule(
    "D006",
    "agent-renamed",
    "info",
    meaning="An agent's name changed since the baseline.",
    fix="Check that someone meant to do this.",
    many="agents were renamed since the baseline",
    compares=True,
)
def agent_renamed(context: Context) -> Iterator[Hit]:
    if context.before is None:
        return
    for agent_id, agent in context.agents.items():
        old = context.before.agents.get(agent_id)
        if old is not None and old.name != agent.name:
            yield Hit(
                message=f"{context.agent(agent_id)} was called {clean(old.name) or '(no name)'}.",
                agent_id=agent_id,
                evidence={"before": old.name, "now": agent.name},
            )


@rule(
    "D007",
    "switched-off",
    "high",
    meaning="A group whose calls were answered was switched off: its callers are turned away.",
    fix="Check that someone meant to do this; make the group active again if not.",
    many="groups that nobody answered were switched off since the baseline",
    compares=True,
)
def switched_off(context: Context) -> Iterator[Hit]:
    before = context.before
    for group_id, old, group in _known_to_both(context):
        if old.status not in (1, None) or group.status in (1, None) or before is None:
            continue
        then = before.groups.get(group_id)
        receivers = len(then.receivers) if then is not None else 0
        had = f" and had {count(receivers, 'agent')} receiving calls" if receivers else ""
        yield Hit(
            message=f"{context.label(group_id)} was active{had}; it is inactive now.",
            group_id=group_id,
            evidence={"status": group.status, "before": receivers if then is not None else None},
            severity=None if receivers else "info",
        )


def _known_to_both(context: Context) -> Iterator[tuple[int, Group, Group]]:
    if context.before is not None:
        for group_id, group in context.known.items():
            old = context.before.known.get(group_id)
            if old is not None:
                yield group_id, old, group


@rule(
    "X001",
    "lookup-failed",
    "high",
    meaning="A group could not be read, so nothing is known of its cover.",
    fix=ASK_AGAIN,
)
def lookup_failed(context: Context) -> Iterator[Hit]:
    snapshot = context.snapshot
    for group_id, why in snapshot.failed.items():
        code = f" (code {why.code})" if why.code is not None else ""
        said = f": {clean(why.message, 200).rstrip('.')}" if why.message else ""
        tries = f" after {count(why.attempts, 'attempt')}" if why.attempts else ""
        yield Hit(
            message=f"{context.label(group_id)} could not be read: {why.error}{code}{tries}{said}.",
            group_id=group_id,
            evidence={
                "error": why.error,
                "code": why.code,
                "http_status": why.http_status,
                "attempts": why.attempts,
            },
        )
    if snapshot.cut_short:
        yield Hit(message="The groups were not listed, so nothing is known of them.", key="list")
    elif snapshot.pending:
        number = len(snapshot.pending)
        yield Hit(
            message=f"{count(number, 'group')} had not been looked up when the run ended.",
            evidence={"pending": number, "group_ids": capped(snapshot.pending)},
            key="pending",
        )


@rule(
    "X002",
    "changed-mid-run",
    "info",
    meaning="The account changed while the audit ran.",
    fix="Run again when nobody is editing groups or agents.",
    many="groups or rosters changed while the audit ran",
)
def changed_mid_run(context: Context) -> Iterator[Hit]:
    for group_id in sorted(context.snapshot.gone):
        label = group_label(group_id, context.snapshot.group(group_id))
        yield Hit(
            message=f"{label} was listed, and was gone when it was looked up.",
            group_id=group_id,
            evidence={"change": "gone"},
        )
    if not context.whole_rosters:
        return  # each reply lists its own group's agents: that they differ is no change
    rosters: defaultdict[str | None, dict[int, tuple[Agent, ...]]] = defaultdict(dict)
    for relation in context.snapshot.relations.values():
        # Each user of an account has a roster of their own.
        rosters[relation.group.user_id].setdefault(id(relation.agents), relation.agents)
    for user_id, found in rosters.items():
        versions = {frozenset([agent.unique_id for agent in roster]) for roster in found.values()}
        if len(versions) > 1:
            moved = frozenset.union(*versions) - frozenset.intersection(*versions)
            whose = f" of user {clean(user_id)}" if user_id else ""
            yield Hit(
                message=(
                    f"The roster{whose} changed while the audit ran: {len(versions):,} versions, "
                    f"{count(len(moved), 'agent')} added or removed."
                ),
                evidence={
                    "user_id": user_id,
                    "rosters": len(versions),
                    "agent_ids": capped(moved),
                },
                key=f"roster {user_id}",
            )


@rule(
    "X003",
    "stale-mute",
    "low",
    meaning="A mute has expired or matches nothing any more.",
    fix="Take it out of the file, or renew its date.",
    many="mutes have expired or match nothing",
)
def stale_mute(context: Context) -> Iterator[Hit]:
    """Nothing by itself: which mutes match is known only when all other rules have run."""
    return iter(())


@rule(
    "X004",
    "rule-failed",
    "medium",
    meaning="A rule raised an exception, so what it would have found is missing.",
    fix="Mend the rule; the rest of the report stands.",
)
def rule_failed(context: Context) -> Iterator[Hit]:
    """Nothing by itself: the engine runs the rules, and tells of those that raise."""
    return iter(())
