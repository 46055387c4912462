"""What DeepCall knows about groups and agents, as frozen structs.

Plain data under Python names, and pure joins over it. No I/O, no credentials, no HTTP.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Self, get_type_hints

import msgspec
from msgspec import Meta, Struct

__all__ = [
    "AddedGroup",
    "Agent",
    "AgentLabel",
    "AgentRelation",
    "DeletedGroup",
    "Group",
    "GroupAgentRelation",
    "Member",
]


Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""A whole number as services keep them; a longer one in a reply is a fault of the reply."""


class Model(Struct, frozen=True):
    """What all have in common: Pydantic can validate and serialize them.

    So they can be annotations of FastAPI's handlers and fields of Pydantic's models. Their
    serialized form is that of ``msgspec.to_builtins``.
    """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        # Pydantic is there when it asks; this package does not need it.
        from pydantic_core import core_schema

        hints = get_type_hints(cls)
        fields = core_schema.typed_dict_schema(
            {
                field.name: core_schema.typed_dict_field(
                    handler.generate_schema(hints[field.name]), required=field.required
                )
                for field in msgspec.structs.fields(cls)
            },
            cls_name=cls.__name__,
            config={"title": cls.__name__},
        )
        return core_schema.no_info_plain_validator_function(
            cls._from_plain,
            json_schema_input_schema=fields,
            serialization=core_schema.plain_serializer_function_ser_schema(
                msgspec.to_builtins, return_schema=fields
            ),
        )

    @classmethod
    def _from_plain(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            # Pydantic makes its own error of a ValueError.
            raise ValueError(str(error)) from None


class AgentLabel(Model, frozen=True):
    """One entry of a group's agent labels, such as ``"#3 bhawesh"``, taken apart.

    ``agent_id`` is None when the label does not begin with ``#`` and a number.
    """

    agent_id: int | None
    name: str


class Group(Model, frozen=True, kw_only=True, gc=False):
    """A group of agents.

    ``status`` is 1 for an active group. ``create_date`` is what the server sent, in Unix seconds;
    ``agent_labels`` come from the group's own record and can lag behind its relations.
    """

    unique_id: Int64
    name: str
    user_id: str | None = None
    create_by: str | None = None
    status: Int64 | None = None
    create_date: Int64 | None = None
    agents: tuple[str, ...] = ()

    @property
    def active(self) -> bool:
        """Whether ``status`` is 1."""
        return self.status == 1

    @property
    def created_at(self) -> datetime | None:
        """The create date in UTC, or None when there is none that a calendar can hold."""
        if self.create_date is None:
            return None
        try:
            return datetime.fromtimestamp(self.create_date, UTC)
        except (ValueError, OverflowError, OSError):
            return None

    @property
    def agent_labels(self) -> tuple[AgentLabel, ...]:
        """The labels in ``agents``, parsed into id and name."""
        return tuple(parse_label(label) for label in self.agents)


class Agent(Model, frozen=True, kw_only=True, gc=False):
    """An agent of the account. Names are not unique: tell agents apart by ``unique_id``."""

    unique_id: Int64
    name: str
    user_id: str | None = None


class AgentRelation(Model, frozen=True, kw_only=True, gc=False):
    """One agent's place in one group; ``receive_call`` is ``"Y"`` or ``"N"`` on the wire."""

    group_id: Int64
    agent_id: Int64
    receive_call: str
    user_id: str | None = None

    @property
    def receives_calls(self) -> bool:
        """Whether ``receive_call`` is ``"Y"``."""
        return self.receive_call == "Y"


class Member(Model, frozen=True):
    """An agent in a group; ``agent`` is None when the roster does not list ``agent_id``."""

    agent_id: int
    agent: Agent | None
    receives_calls: bool


class GroupAgentRelation(Model, frozen=True, gc=False):
    """A group, the roster that came with it, and who of the roster is in the group.

    ``agents`` may be the whole account's roster; membership is what stands in ``relations``.
    """

    group: Group
    agents: tuple[Agent, ...]
    relations: tuple[AgentRelation, ...]

    @property
    def members(self) -> tuple[Member, ...]:
        """The agents in this group, each once, in the order of ``relations``.

        Rows that name another group are left out; an agent listed twice receives calls when one
        of its rows says so.
        """
        receives: dict[int, bool] = {}
        for row in self.relations:
            if row.group_id == self.group.unique_id:
                receives[row.agent_id] = receives.get(row.agent_id, False) or row.receives_calls
        known = {agent.unique_id: agent for agent in self.agents if agent.unique_id in receives}
        return tuple(Member(key, known.get(key), yes) for key, yes in receives.items())

    @property
    def receivers(self) -> tuple[Member, ...]:
        """The members whom calls to this group ring."""
        return tuple(member for member in self.members if member.receives_calls)

    @property
    def unknown_agent_ids(self) -> tuple[int, ...]:
        """The ids of members that the roster does not list."""
        return tuple(member.agent_id for member in self.members if member.agent is None)

    def to_dict(self) -> dict[str, Any]:
        """The data and the joins over it as plain dicts, tuples, text and numbers, fit for JSON.

        Returns:
            ``group``, ``agents`` and ``relations`` as they are; ``members``, ``receivers`` and
            ``unknown_agent_ids`` as the properties of these names.

        Example:
            >>> relation = await dc.groups.agent_relation(28)
            >>> relation.to_dict()["receivers"][0]
            {'agent_id': 3, 'agent': {'unique_id': 3, 'name': 'bhawesh', ...}, ...}
        """
        joins = {
            "members": self.members,
            "receivers": self.receivers,
            "unknown_agent_ids": self.unknown_agent_ids,
        }
        plain: dict[str, Any] = msgspec.to_builtins(self) | msgspec.to_builtins(joins)
        return plain


class AddedGroup(Model, frozen=True):
    """The reply to an added group."""

    group_id: int


class DeletedGroup(Model, frozen=True):
    """The reply to a deleted group.

    ``already_absent`` tells that an earlier attempt of the same call, whose answer was lost, had
    most likely deleted it; ``message`` is the server's own text.
    """

    already_absent: bool = False
    message: str = ""


def parse_label(label: str) -> AgentLabel:
    """Take an entry of a group's agent labels apart."""
    number, _, name = label.removeprefix("#").partition(" ")
    if label.startswith("#") and number.isascii() and number.isdigit() and len(number) < 19:
        return AgentLabel(int(number), name)
    return AgentLabel(None, label)
