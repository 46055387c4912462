"""The rules about agents (A).

One small pure function for each rule, with its texts beside it.
"""

# ruff: noqa: D103  (what a rule means stands beside its function)

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from deepcall_async.audit.context import Context, GroupView
from deepcall_async.audit.finding import Hit
from deepcall_async.audit.labels import agent_label, capped, clean, count, listing
from deepcall_async.audit.rule import rule

__all__ = [
    "in_no_group",
    "key_person",
    "never_receives",
    "overloaded",
    "twin_agents",
]


def _groups(views: list[GroupView]) -> dict[str, object]:
    return {"group_ids": capped(view.id for view in views), "groups": len(views)}


def _names(views: list[GroupView]) -> str:
    return listing((view.label for view in views), len(views))


@rule(
    "A001",
    "in-no-group",
    "medium",
    meaning="An agent of the account is in no group, so no group's calls can reach them.",
    fix="Assign the agent to a group, or remove the agent.",
    many="agents are in no group",
    whole_account=True,
)
def in_no_group(context: Context) -> Iterator[Hit]:
    for agent_id, agent in context.agents.items():
        if agent_id not in context.memberships:
            yield Hit(message=f"{agent_label(agent_id, agent)} is in no group.", agent_id=agent_id)


@rule(
    "A002",
    "never-receives",
    "medium",
    meaning="An agent is in groups but receives calls in none of them.",
    fix="Turn on receive-call for the agent, or take the agent out.",
    many="agents are in groups and receive calls in none",
    whole_account=True,
)
def never_receives(context: Context) -> Iterator[Hit]:
    for agent_id, views in context.memberships.items():
        # An agent whom no roster lists is a finding of R001 alone.
        if agent_id not in context.flagged and agent_id in context.agents:
            yield Hit(
                message=(
                    f"{context.agent(agent_id)} is in {count(len(views), 'group')} "
                    f"and receives calls in none: {_names(views)}."
                ),
                agent_id=agent_id,
                evidence=_groups(views),
            )


@rule(
    "A003",
    "overloaded",
    "low",
    meaning="An agent receives calls in more groups than the threshold allows.",
    fix="Turn off receive-call for the agent in some of the groups.",
    many="agents receive calls in too many groups",
)
def overloaded(context: Context) -> Iterator[Hit]:
    most = context.thresholds.overloaded
    for agent_id, views in context.receiving.items():
        if len(views) > most:
            yield Hit(
                message=(
                    f"{context.agent(agent_id)} receives calls in {len(views):,} groups, "
                    f"more than {most}."
                ),
                agent_id=agent_id,
                evidence=_groups(views),
            )


@rule(
    "A004",
    "key-person",
    "high",
    meaning="Several active groups hang on one and the same agent.",
    fix="Turn on receive-call for someone else in each of these groups.",
    whole_account=True,
)
def key_person(context: Context) -> Iterator[Hit]:
    alone: defaultdict[int, list[GroupView]] = defaultdict(list)
    for view in context.active():
        if len(view.receivers) == 1:
            (only,) = view.receivers
            alone[only].append(view)
    for agent_id, views in alone.items():
        if len(views) >= context.thresholds.key_groups:
            yield Hit(
                message=(
                    f"{context.agent(agent_id)} alone receives the calls of "
                    f"{count(len(views), 'group')}: {_names(views)}."
                ),
                agent_id=agent_id,
                evidence=_groups(views),
            )


@rule(
    "A005",
    "twin-agents",
    "low",
    meaning="Agents have the same name, but for case and edge spaces: easily taken for each other.",
    fix="Give each agent a name of their own, or remove the double.",
    many="names are shared by several agents",
)
def twin_agents(context: Context) -> Iterator[Hit]:
    same: defaultdict[str, list[int]] = defaultdict(list)
    for agent_id, agent in context.agents.items():
        same[agent.name.strip().casefold()].append(agent_id)
    for name, ids in same.items():
        if name and len(ids) > 1:
            ids.sort()
            labels = (f"agent {agent_id}" for agent_id in ids)
            shared = clean(context.agents[ids[0]].name).strip()
            yield Hit(
                message=f"{len(ids)} agents are called {shared}: {listing(labels, len(ids), 5)}.",
                agent_id=ids[0],
                evidence={"agent_ids": capped(ids), "agents": len(ids)},
                key=",".join(map(str, capped(ids))),
            )
