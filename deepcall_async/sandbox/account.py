"""The sandbox's account: its groups and agents, and the six actions of the Group API on them.

Requests come in as decoded JSON, and replies go out as data to be encoded. There is no HTTP here,
and no authentication. Field names are the vendor's, written out once more: a mistake in
the client's models cannot repeat itself here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from deepcall_async.sandbox.checks import integer, mapping, text
from deepcall_async.sandbox.clock import Clock

__all__ = ["OWNER", "Account", "Agent", "Group", "Refused", "Relation"]

OWNER = "29791451"
"""The account's own user: it owns the vendor's example group and every group added later."""

_INVALID_PARAMETERS = 1000
_NO_DATA_FOUND = 1012
_NAME_MISSING = 1501
_GROUP_ID_MISSING = 1502
_GROUP_UNAVAILABLE = 1503


class Refused(Exception):
    """The API says no, by a DeepCall code; the sandbox itself works as it should."""

    def __init__(self, code: int) -> None:
        self.code = code


class Agent(NamedTuple):
    """One agent of a roster."""

    unique_id: int
    name: str
    user_id: str

    @property
    def label(self) -> str:
        """The agent as ``groupData.agents`` names it."""
        return f"#{self.unique_id} {self.name}"


class Relation(NamedTuple):
    """One agent in one group; ``group_id`` is None unless the row names another group."""

    agent_id: int
    receive_call: str
    user_id: str
    group_id: int | None = None


class Group(NamedTuple):
    """A group with its relations; ``create_date`` is in Unix seconds."""

    name: str
    user_id: str
    unique_id: int
    status: int
    create_date: int
    labels: tuple[str, ...] = ()
    relations: tuple[Relation, ...] = ()


class Account:
    """Groups by id, and rosters by the user id that owns them; changed by the actions alone.

    Each action takes the request's fields and returns those of a success reply, or raises
    `Refused`.

    Args:
        groups: the groups by id, as they are at first.
        rosters: the agents of each user, as they are at first.
        clock: dates the groups that are added.
        empty_is_no_data: let a list that finds nothing be refused with 1012 instead of empty.
    """

    def __init__(
        self,
        groups: Mapping[int, Group],
        rosters: Mapping[str, Sequence[Agent]],
        clock: Clock,
        *,
        empty_is_no_data: bool = False,
    ) -> None:
        self._first = groups, rosters
        self._clock = clock
        self._empty_is_no_data = empty_is_no_data
        self.reset()
        self.actions: dict[str, Callable[[Mapping[str, Any]], dict[str, object]]] = {
            "add": self.add,
            "update": self.update,
            "delete": self.delete,
            "list": self.list,
            "getGroupAgentRelation": self.agent_relation,
            "submitAssignGroupToAgent": self.assign_agents,
        }

    def reset(self) -> None:
        """Put groups and agents back as they were at first."""
        groups, rosters = self._first
        self._groups = dict(groups)
        self._rosters: dict[str, dict[int, Agent]] = {OWNER: {}}
        for user_id, roster in rosters.items():
            self._rosters[user_id] = {agent.unique_id: agent for agent in roster}
        self._names = {(group.user_id, group.name) for group in groups.values()}
        self._last_suffix: dict[tuple[str, str], int] = {}
        self._last_group_id = max(groups, default=0)
        self._last_agent_id = max((i for each in self._rosters.values() for i in each), default=0)
        # Every relation reply repeats a whole roster, so each is encoded once.
        self._roster_json: dict[str, msgspec.Raw] = {}
        self._listing: msgspec.Raw | None = None

    def add(self, body: Mapping[str, Any]) -> dict[str, object]:
        """Add an active group."""
        name = self._free_name(OWNER, _required_name(body))
        self._last_group_id += 1
        self._put(Group(name, OWNER, self._last_group_id, 1, self._clock.unix()))
        return {"groupId": self._last_group_id}

    def update(self, body: Mapping[str, Any]) -> dict[str, object]:
        """Set a group's name and status."""
        group = self._required_group(body)
        name = _required_name(body)
        # The table gives `status` a default of 1: without it an inactive group becomes active.
        status = _number(body.get("status", 1))
        if status is None:
            raise Refused(_INVALID_PARAMETERS)
        self._names.remove((group.user_id, group.name))
        name = self._free_name(group.user_id, name)
        self._put(group._replace(name=name, status=status))
        return {"message": "Group updated successfully"}

    def delete(self, body: Mapping[str, Any]) -> dict[str, object]:
        """Delete a group."""
        group = self._required_group(body)
        # "All associated agent-group relations are also removed": they live in the group.
        del self._groups[group.unique_id]
        self._names.remove((group.user_id, group.name))
        self._listing = None
        return {"message": "Group deleted successfully"}

    def list(self, body: Mapping[str, Any]) -> dict[str, object]:
        """Give the groups that pass the filters, without ``agents`` if ``quick``."""
        # `groupid` in the table, `groupId` in the sample.
        wanted = body.get("groupid") or body.get("groupId")
        name, quick = body.get("name"), body.get("quick") is True
        if not wanted and not name and not quick and self._groups:
            if self._listing is None:
                everything = list(map(_group_data, self._groups.values()))
                self._listing = msgspec.Raw(msgspec.json.encode(everything))
            return {"response": self._listing}
        groups: Iterable[Group] = self._groups.values()
        if wanted:
            group = self._groups.get(_number(wanted) or 0)
            groups = [] if group is None else [group]
        found = [_group_data(group) for group in groups if _matches(group, name)]
        if not found and self._empty_is_no_data:
            raise Refused(_NO_DATA_FOUND)
        if quick:  # "a quicker response with potentially less detailed information"
            for each in found:
                del each["agents"]
        return {"response": found}

    def agent_relation(self, body: Mapping[str, Any]) -> dict[str, object]:
        """Give a group, its owner's roster and its relations."""
        group = self._required_group(body)
        # The page calls `name` a filter and does not say what is left when nothing matches it.
        if not _matches(group, body.get("name")):
            raise Refused(_GROUP_UNAVAILABLE)
        # `quick` "must be set to true to receive data", while the group itself is always there:
        # without it the two arrays are empty, so that a forgotten `quick` is noticed.
        quick = body.get("quick") is True
        response = {
            "groupData": _group_data(group),
            "agentData": self._encoded_roster(group.user_id) if quick else [],
            "relationData": _relation_data(group) if quick else [],
        }
        return {"response": response}

    def assign_agents(self, body: Mapping[str, Any]) -> dict[str, object]:
        """Replace a group's members."""
        group = self._required_group(body)
        members = _id_list(body.get("agent_unique_id"))
        receivers = set(_id_list(body.get("receive_call", [])))
        roster = self._rosters[group.user_id]
        if not roster.keys() >= set(members) or not receivers <= set(members):
            raise Refused(_INVALID_PARAMETERS)
        # The page does not say whether members are replaced or added to.
        relations = [
            Relation(agent_id, "Y" if agent_id in receivers else "N", group.user_id)
            for agent_id in members
        ]
        labels = [roster[agent_id].label for agent_id in members]
        self._put(group._replace(relations=tuple(relations), labels=tuple(labels)))
        return {"message": "Group assigned to agent successfully"}

    def add_agent(self, name: str) -> int:
        """Put an agent on the login's own roster and return the agent's id."""
        name = _encodable(text("name", name))
        self._last_agent_id += 1
        agent = Agent(self._last_agent_id, name, OWNER)
        self._rosters[OWNER][agent.unique_id] = agent
        self._roster_json.pop(OWNER, None)
        return agent.unique_id

    def add_group(self, name: str, members: Mapping[int, str], status: int) -> int:
        """Add a group with members from the login's own roster and return the group's id."""
        name = _encodable(text("name", name))
        integer("status", status, 0, 99)
        members = mapping("members", members)
        roster = self._rosters[OWNER]
        unknown = [agent_id for agent_id in members if agent_id not in roster]
        if unknown:
            raise ValueError(
                f"no agent {unknown[0]!r} on the roster of user {OWNER}: add_agent returns the ids"
            )
        for flag in members.values():
            if flag not in ("Y", "N"):
                raise ValueError(f'a member has "Y" or "N" for receive_call, not {flag!r}')
        self._last_group_id += 1
        group = Group(
            self._free_name(OWNER, name),
            OWNER,
            self._last_group_id,
            status,
            self._clock.unix(),
            tuple(roster[agent_id].label for agent_id in members),
            tuple(Relation(agent_id, flag, OWNER) for agent_id, flag in members.items()),
        )
        self._put(group)
        return group.unique_id

    def _put(self, group: Group) -> None:
        self._groups[group.unique_id] = group
        self._names.add((group.user_id, group.name))
        self._listing = None

    def _required_group(self, body: Mapping[str, Any]) -> Group:
        value = body.get("groupId")
        if value is None or value == "":
            raise Refused(_GROUP_ID_MISSING)
        group = self._groups.get(_number(value) or 0)
        if group is None:
            raise Refused(_GROUP_UNAVAILABLE)
        return group

    def _free_name(self, user_id: str, name: str) -> str:
        # "If a duplicate name is provided, a number will be appended to make it unique."
        number = self._last_suffix.get((user_id, name), 0)
        candidate = name
        while (user_id, candidate) in self._names:
            number += 1
            candidate = f"{name}{number}"
        self._last_suffix[user_id, name] = number
        return candidate

    def _encoded_roster(self, user_id: str) -> msgspec.Raw:
        encoded = self._roster_json.get(user_id)
        if encoded is None:
            rows = [
                {"name": agent.name, "unique_id": agent.unique_id, "user_id": agent.user_id}
                for agent in self._rosters[user_id].values()
            ]
            encoded = self._roster_json[user_id] = msgspec.Raw(msgspec.json.encode(rows))
        return encoded


def _group_data(group: Group) -> dict[str, object]:
    return {
        "name": group.name,
        "user_id": group.user_id,
        "create_by": OWNER,
        "unique_id": group.unique_id,
        "status": group.status,
        "create_date": group.create_date,
        "agents": group.labels,
    }


def _relation_data(group: Group) -> list[dict[str, object]]:
    return [
        {
            "group_id": group.unique_id if row.group_id is None else row.group_id,
            "agent_id": row.agent_id,
            "receive_call": row.receive_call,
            "user_id": row.user_id,
        }
        for row in group.relations
    ]


def _number(value: object) -> int | None:
    # The pages show ids as strings in the tables and as numbers in the samples: both are ids.
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _id_list(value: object) -> list[int]:
    numbers = [_number(item) for item in value] if isinstance(value, list) else [None]
    if None in numbers:
        raise Refused(_INVALID_PARAMETERS)
    return list(dict.fromkeys(number for number in numbers if number is not None))


def _required_name(body: Mapping[str, Any]) -> str:
    name = body.get("name")
    if name is None or name == "" or (isinstance(name, str) and not name.strip()):
        raise Refused(_NAME_MISSING)
    if not isinstance(name, str):
        raise Refused(_INVALID_PARAMETERS)
    return _encodable(name)


def _encodable(name: str) -> str:
    # JSON's escapes can ask for a lone surrogate, which has no UTF-8.
    return name.encode("utf-8", "replace").decode()


def _matches(group: Group, name: object) -> bool:
    # "When filtering groups by name, the search is case-insensitive": a search, so a part will do.
    return not name or str(name).casefold() in group.name.casefold()
