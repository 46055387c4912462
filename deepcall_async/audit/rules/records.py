"""The rules about the records that tie agents to groups (R).

One small pure function for each rule, with its texts beside it.
"""

# ruff: noqa: D103  (what a rule means stands beside its function)

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from deepcall_async.audit.context import Context, GroupView, receives
from deepcall_async.audit.finding import Hit
from deepcall_async.audit.labels import capped, clean, count, listing
from deepcall_async.audit.rule import rule
from deepcall_async.models import Group, parse_label

__all__ = [
    "bad_flag",
    "duplicate_relation",
    "label_drift",
    "labelled_agents",
    "tenant_mismatch",
    "unknown_agent",
    "wrong_group",
]


@rule(
    "R001",
    "unknown-agent",
    "high",
    meaning="A group refers to an agent that the account's roster does not list.",
    fix="Take the agent out of the group: calls to them go nowhere.",
)
def unknown_agent(context: Context) -> Iterator[Hit]:
    for view in context.groups.values():
        for agent_id in [each for each in view.members if each not in view.roster]:
            flags = {row.receive_call for row in view.rows if row.agent_id == agent_id}
            lost = any(map(receives, flags))
            rings = ", and who should receive calls" if lost else ""
            yield Hit(
                message=f"{view.label} has agent {agent_id}, whom the roster does not list{rings}.",
                group_id=view.id,
                agent_id=agent_id,
                evidence={"receive_call": sorted(flags), "roster": len(view.roster)},
            )


@rule(
    "R002",
    "wrong-group",
    "high",
    meaning="The answer for one group holds records of another.",
    fix="Look the group up again; if it stays, report it to the provider.",
)
def wrong_group(context: Context) -> Iterator[Hit]:
    for view in context.groups.values():
        others = {row.group_id for row in view.strays}
        named = view.group.unique_id
        if named != view.id:
            others.add(named)
        if others:
            labels = (f"group {group_id}" for group_id in sorted(others))
            yield Hit(
                message=f"The answer for {view.label} speaks of {listing(labels, len(others))}.",
                group_id=view.id,
                evidence={
                    "group_ids": capped(others),
                    "agent_ids": capped({row.agent_id for row in view.strays}),
                    "named": named,
                },
                key=",".join(map(str, capped(others))),
            )


@rule(
    "R003",
    "duplicate-relation",
    "medium",
    meaning="A group lists an agent twice; if the flags conflict, nobody knows whether calls ring.",
    fix="Assign the group's agents anew, each once.",
    many="relations are listed more than once",
)
def duplicate_relation(context: Context) -> Iterator[Hit]:
    for view in context.groups.values():
        if len(view.rows) == len(view.members):
            continue
        times = Counter(row.agent_id for row in view.rows)
        flags: defaultdict[int, set[str]] = defaultdict(set)
        for row in view.rows:
            flags[row.agent_id].add(row.receive_call)
        for agent_id, found in times.items():
            if found == 1:
                continue
            conflict = len(flags[agent_id]) > 1
            shown = " and ".join(clean(flag) or "blank" for flag in sorted(flags[agent_id]))
            says = f", with flags that conflict: {shown}" if conflict else ""
            yield Hit(
                message=f"{view.label} lists {view.agent(agent_id)} {found} times{says}.",
                group_id=view.id,
                agent_id=agent_id,
                evidence={"times": found, "receive_call": sorted(flags[agent_id])},
                severity="high" if conflict else None,
            )


@rule(
    "R004",
    "label-drift",
    "medium",
    meaning="A group's own list of agents differs from the relations that calls follow.",
    fix="Assign the group's agents anew, so that both records are written together.",
    many="groups have a list of agents that differs from their relations",
)
def label_drift(context: Context) -> Iterator[Hit]:
    known: dict[str, int | None] = {}
    for view in context.groups.values():
        labelled = labelled_agents(view.group, known)
        members = set(view.members)
        if labelled is None or labelled == members:
            continue
        only_labels, only_rows = labelled - members, members - labelled
        parts = [
            f"{verb} {listing(map(str, sorted(ids)), len(ids))}"
            for verb, ids in (("also names", only_labels), ("lacks", only_rows))
            if ids
        ]
        yield Hit(
            message=f"{view.label}: its own list of agents {' and '.join(parts)}.",
            group_id=view.id,
            evidence={
                "only_in_labels": capped(only_labels),
                "only_in_relations": capped(only_rows),
            },
        )


def labelled_agents(group: Group, known: dict[str, int | None]) -> set[int] | None:
    """Say which agents a group's own record names; None when it does not say, or not clearly.

    Args:
        group: the group.
        known: labels and their ids, filled here: an agent's label is the same in every group.
    """
    for label in group.agents:
        if label not in known:
            known[label] = parse_label(label).agent_id
    ids = [agent_id for agent_id in map(known.get, group.agents) if agent_id is not None]
    return set(ids) if ids and len(ids) == len(group.agents) else None


@rule(
    "R005",
    "tenant-mismatch",
    "high",
    meaning="A relation belongs to another user than its agent does.",
    fix="Assign the agent anew from the account that owns the agent; report it if it stays.",
)
def tenant_mismatch(context: Context) -> Iterator[Hit]:
    for view in context.groups.values():
        told: set[int] = set()
        for row in view.rows:
            agent = view.roster.get(row.agent_id)
            if agent is None or agent.user_id == row.user_id or row.agent_id in told:
                continue
            if agent.user_id is None or row.user_id is None:
                continue
            told.add(row.agent_id)
            yield Hit(
                message=(
                    f"{view.label} holds {view.agent(row.agent_id)} for user {clean(row.user_id)}, "
                    f"but the agent is user {clean(agent.user_id)}'s."
                ),
                group_id=view.id,
                agent_id=row.agent_id,
                evidence={"relation_user_id": row.user_id, "agent_user_id": agent.user_id},
            )


@rule(
    "R006",
    "bad-flag",
    "medium",
    meaning="A relation's receive-call flag is written as neither Y nor N.",
    fix="Assign the agent anew with receive-call on or off.",
    many="relations have a flag that is neither Y nor N",
)
def bad_flag(context: Context) -> Iterator[Hit]:
    if {row.receive_call for view in context.groups.values() for row in view.rows} <= {"Y", "N"}:
        return
    odd = [(view, _odd_flags(view)) for view in context.groups.values()]
    spelled = Counter(row.receive_call for view in context.groups.values() for row in view.rows)
    for flag in ("Y", "N"):
        others = {each for each in spelled if receives(each) is (flag == "Y")}
        if len(others) != 1 or flag in others:
            continue
        # One spelling in the whole account is the service's own: one finding, not thousands.
        (spelling,) = others
        if spelled[spelling] > 1:
            yield Hit(
                message=(
                    f"The service writes {clean(spelling)} for {flag} throughout, in "
                    f"{count(spelled[spelling], 'relation')}; it is read as {flag}."
                ),
                evidence={"receive_call": spelling, "relations": spelled[spelling]},
                key=flag,
            )
            odd = [
                (view, {i: each for i, each in found.items() if each != spelling})
                for view, found in odd
            ]
    for view, found in odd:
        for agent_id, flag in found.items():
            shown = clean(flag) if flag.strip() else "blank"
            meant = {True: "; read as Y", False: "; read as N", None: ""}[receives(flag)]
            yield Hit(
                message=(
                    f"{view.label} has {view.agent(agent_id)} flagged {shown}, not Y or N{meant}."
                ),
                group_id=view.id,
                agent_id=agent_id,
                evidence={"receive_call": flag},
            )


def _odd_flags(view: GroupView) -> dict[int, str]:
    return {
        row.agent_id: row.receive_call for row in view.rows if row.receive_call not in ("Y", "N")
    }
