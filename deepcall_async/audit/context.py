"""A snapshot, indexed once, for the rules to read.

One pass over the relations, linear in their number. Rules then look up and never search.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import TypeAlias

from msgspec import Struct

from deepcall_async.audit.config import Thresholds
from deepcall_async.audit.labels import agent_label, group_label
from deepcall_async.audit.snapshot import Snapshot
from deepcall_async.models import Agent, AgentRelation, Group, GroupAgentRelation

__all__ = [
    "Context",
    "GroupView",
    "Roster",
    "created_seconds",
    "in_milliseconds",
    "receives",
]

Roster: TypeAlias = Mapping[int, Agent]
"""Agents by their id."""

_MILLISECONDS_FROM = 1e11  # as seconds that is the year 5138; as milliseconds, 1973


class GroupView(Struct, frozen=True, eq=False, gc=False):
    """A group that was read, with its relations sorted out.

    ``rows`` are the relations that name this group, ``strays`` those that name another one.
    ``members`` and ``receivers`` are agent ids, sorted, each once (tuples: sets take five times
    the memory); ``roster`` is the one that came with the reply.
    ``receivers`` are the members whom calls ring: their flag says so, and the roster lists them.
    """

    id: int
    group: Group
    rows: tuple[AgentRelation, ...]
    strays: tuple[AgentRelation, ...]
    members: tuple[int, ...]
    receivers: tuple[int, ...]
    roster: Roster

    @property
    def active(self) -> bool:
        """Whether calls reach the group: status 1, or a status that the server left out.

        Leaving it out must not silence the rules about callers who ring nobody, and the vendor
        gives 1 as the default.
        """
        return self.group.status in (1, None)

    @property
    def label(self) -> str:
        """The group's name and id, as messages show them."""
        return group_label(self.id, self.group)

    def agent(self, agent_id: int) -> str:
        """An agent's name and id, as messages show them."""
        return agent_label(agent_id, self.roster.get(agent_id))


class Context(Struct, frozen=True, kw_only=True, eq=False):
    """What a rule may ask.

    Args:
        snapshot: the run's raw result.
        thresholds: where to draw lines.
        now: when the account was looked at; None when unknown: then nothing counts as old.
        groups: the groups that were read, by id.
        known: the record of every group that the run knows of, read or not.
        agents: every agent of every roster, by id.
        memberships: the groups an agent is in, by agent id.
        receiving: the groups an agent receives calls in, by agent id.
        flagged: agents whom a flag wants to receive calls, or whose flag is unclear; whether or not
            calls ring them.
        whole: whether every group of the account was read.
        whole_rosters: whether a reply's roster is the whole account's (or one of its users'), not
            only the agents of the group.
        before: the same of the baseline; None without one.
    """

    snapshot: Snapshot
    thresholds: Thresholds
    now: datetime | None
    groups: dict[int, GroupView]
    known: dict[int, Group]
    agents: dict[int, Agent]
    memberships: dict[int, list[GroupView]]
    receiving: dict[int, list[GroupView]]
    flagged: frozenset[int]
    whole: bool
    whole_rosters: bool
    before: Context | None = None

    def saw(self, group_id: int) -> bool:
        """Whether a group was read, or was surely not there."""
        snapshot = self.snapshot
        if group_id in self.groups or group_id in snapshot.gone:
            return True
        listed = snapshot.run.whole_account and not snapshot.cut_short
        return listed and group_id not in snapshot.failed and group_id not in snapshot.unread

    def label(self, group_id: int) -> str:
        """A group's name and id, as messages show them."""
        return group_label(group_id, self.snapshot.group(group_id))

    def agent(self, agent_id: int) -> str:
        """An agent's name and id, as messages show them."""
        return agent_label(agent_id, self.agents.get(agent_id))

    def active(self) -> Iterable[GroupView]:
        """The active groups that were read."""
        return (view for view in self.groups.values() if view.active)

    @classmethod
    def of(
        cls,
        snapshot: Snapshot,
        *,
        thresholds: Thresholds = Thresholds(),  # noqa: B008  (frozen)
        now: datetime | None = None,
        before: Context | None = None,
    ) -> Context:
        """Index a snapshot.

        Args:
            snapshot: what to index.
            thresholds: where rules draw lines.
            now: when the account was looked at.
            before: the baseline, indexed.
        """
        rosters: dict[int, Roster] = {}
        agents: dict[int, Agent] = {}
        for roster in snapshot.rosters:
            found = {agent.unique_id: agent for agent in roster}
            rosters[id(roster)] = found
            agents.update(found)
        groups: dict[int, GroupView] = {}
        memberships: defaultdict[int, list[GroupView]] = defaultdict(list)
        receiving: defaultdict[int, list[GroupView]] = defaultdict(list)
        flagged: set[int] = set()
        whole_rosters = False
        for group_id, relation in snapshot.relations.items():
            view = _view(group_id, relation, rosters[id(relation.agents)])
            groups[group_id] = view
            for agent_id in view.members:
                memberships[agent_id].append(view)
            for agent_id in view.receivers:
                receiving[agent_id].append(view)
            if view.receivers is not view.members:
                flagged.update(
                    [row.agent_id for row in view.rows if receives(row.receive_call) is not False]
                )
            whole_rosters = whole_rosters or not view.roster.keys() <= set(view.members)
        flagged.update(receiving)
        memberships.default_factory = receiving.default_factory = None  # rules look up, no more
        return cls(
            snapshot=snapshot,
            thresholds=thresholds,
            now=now,
            groups=groups,
            known={
                group_id: group
                for group_id in snapshot.asked
                if group_id not in snapshot.gone and (group := snapshot.group(group_id)) is not None
            },
            agents=agents,
            memberships=memberships,
            receiving=receiving,
            flagged=frozenset(flagged),
            whole=snapshot.run.whole_account and snapshot.complete,
            whole_rosters=whole_rosters,
            before=before,
        )


@lru_cache(maxsize=1024)
def receives(flag: str) -> bool | None:
    """Say what a ``receive_call`` flag means, whatever its case and the spaces around it.

    Args:
        flag: as the server sent it.

    Returns:
        Whether calls ring; None when the flag means neither Y nor N.
    """
    return {"y": True, "n": False}.get(flag.strip().casefold())


def in_milliseconds(create_date: int) -> bool:
    """Whether a create date was given in milliseconds where seconds belong."""
    return create_date > _MILLISECONDS_FROM


def created_seconds(group: Group) -> float | None:
    """Give a group's create date in Unix seconds, or None when there is none to rely on."""
    if group.create_date is None or group.create_date <= 0:
        return None
    return group.create_date / 1000 if in_milliseconds(group.create_date) else group.create_date


def _view(group_id: int, relation: GroupAgentRelation, roster: Roster) -> GroupView:
    rows = relation.relations
    strays: tuple[AgentRelation, ...] = ()
    for row in rows:
        if row.group_id != group_id:
            strays = tuple([row for row in rows if row.group_id != group_id])
            rows = tuple([row for row in rows if row.group_id == group_id])
            break
    members = tuple(sorted({row.agent_id for row in rows}))
    ringing = {
        row.agent_id
        for row in rows
        if (row.receive_call == "Y" or receives(row.receive_call)) and row.agent_id in roster
    }
    # One tuple instead of two, in most groups.
    receivers = members if len(ringing) == len(members) else tuple(sorted(ringing))
    return GroupView(group_id, relation.group, rows, strays, members, receivers, roster)
