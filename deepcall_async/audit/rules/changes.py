"""The rules about what changed since a baseline (D) and about the run itself (X).

One small pure function for each rule, with its texts beside it. What a run did not read is never
taken for gone.
"""

# ruff: noqa: D103  (what a rule means stands beside its function)

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from deepcall_async.audit.context import Context
from deepcall_async.audit.finding import Hit
from deepcall_async.audit.labels import agent_label, capped, clean, count, group_label
from deepcall_async.audit.mutes import Mute, MuteIndex
from deepcall_async.audit.rule import rule
from deepcall_async.models import Agent

__all__ = [
    "appeared_or_vanished",
    "changed",
    "changed_mid_run",
    "lookup_failed",
    "receivers_lost",
    "stale_mute",
    "went_dark",
]


def _receivers(context: Context) -> Iterator[tuple[int, int, int]]:
    """Each group that both runs read, with its number of receivers then and now."""
    if context.before is not None:
        for group_id, view in context.groups.items():
            before = context.before.groups.get(group_id)
            if before is not None:
                yield group_id, len(before.receivers), len(view.receivers)


@rule(
    "D001",
    "went-dark",
    "critical",
    meaning="A group had agents who receive calls at the baseline and has none now.",
    fix="Turn on receive-call again for the group's agents.",
    compares=True,
)
def went_dark(context: Context) -> Iterator[Hit]:
    for group_id, then, now in _receivers(context):
        if then and not now:
            agents = count(then, "agent")
            yield Hit(
                message=f"{context.label(group_id)} had {agents} receiving calls and now has none.",
                group_id=group_id,
                evidence={"before": then, "now": now},
            )


@rule(
    "D002",
    "receivers-lost",
    "high",
    meaning="A group's receiving agents fell below the threshold since the baseline.",
    fix="Find out who was taken out or muted, and turn on receive-call for a replacement.",
    compares=True,
)
def receivers_lost(context: Context) -> Iterator[Hit]:
    enough = context.thresholds.min_receivers
    for group_id, then, now in _receivers(context):
        if then >= enough > now > 0:  # none at all is D001's
            yield Hit(
                message=(
                    f"{context.label(group_id)} had {then:,} agents receiving calls "
                    f"and now has {now}; {enough} are wanted."
                ),
                group_id=group_id,
                evidence={"before": then, "now": now},
            )


@rule(
    "D003",
    "appeared-or-vanished",
    "medium",
    meaning="A group or an agent was added or removed since the baseline.",
    fix="Check that someone meant to do this.",
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
    meaning="A group's name or status changed since the baseline.",
    fix="Check that someone meant to do this.",
    compares=True,
)
def changed(context: Context) -> Iterator[Hit]:
    if context.before is None:
        return
    for group_id, group in context.known.items():
        old = context.before.known.get(group_id)
        if old is None:
            continue
        if old.name != group.name:
            yield Hit(
                message=f"{context.label(group_id)} was called {clean(old.name)}.",
                group_id=group_id,
                evidence={"before": old.name, "now": group.name},
                key="name",
            )
        if old.status != group.status and None not in (old.status, group.status):
            yield Hit(
                message=(
                    f"{context.label(group_id)} went from status {old.status} to {group.status}."
                ),
                group_id=group_id,
                evidence={"before": old.status, "now": group.status},
                key="status",
            )


@rule(
    "X001",
    "lookup-failed",
    "high",
    meaning="A group could not be read, so nothing is known of its cover.",
    fix="Run again with --resume, which asks only for what is missing.",
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
        yield Hit(message="The run ended before the groups were listed.", key="list")
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
        if len(found) > 1:
            everyone: dict[int, int] = defaultdict(int)
            for roster in found.values():
                for agent in roster:
                    everyone[agent.unique_id] += 1
            moved = [agent_id for agent_id, times in everyone.items() if times < len(found)]
            whose = f" of user {clean(user_id)}" if user_id else ""
            yield Hit(
                message=(
                    f"The roster{whose} changed while the audit ran: {len(found):,} versions, "
                    f"{count(len(moved), 'agent')} added or removed."
                ),
                evidence={"user_id": user_id, "rosters": len(found), "agent_ids": capped(moved)},
                key=f"roster {user_id}",
            )


@rule(
    "X003",
    "stale-mute",
    "low",
    meaning="A mute has expired or matches nothing any more.",
    fix="Take it out of the file, or renew its date.",
    last=True,
)
def stale_mute(context: Context) -> Iterator[Hit]:
    today = context.now.date() if context.now is not None else None
    index = MuteIndex(context.mutes)
    matched = {mute for finding in context.found for mute in index.of(finding)}
    for mute in context.mutes:
        if not mute.holds(today):
            why = f"expired on {mute.expires}"
        elif mute.rule not in context.rules:
            why = "names a rule that does not exist"
        elif mute not in matched and context.rules[mute.rule] and _was_read(mute, context):
            why = "matches nothing"
        else:
            continue
        yield Hit(
            message=f"The mute of {clean(str(mute))} {why} ({clean(mute.reason, 200)}).",
            group_id=mute.group,
            agent_id=mute.agent,
            evidence={"rule": mute.rule, "reason": mute.reason, "why": why},
            key=mute.rule,
        )


def _was_read(mute: Mute, context: Context) -> bool:
    # Of a group that was not read, nobody can say that its mute has nothing left to match.
    return context.whole or mute.group in context.groups
