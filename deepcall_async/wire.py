"""DeepCall's requests, without I/O: arguments into bytes, and an answer into what was asked for.

Nothing waits, is sent or is repeated here, and `decode` never raises. Where the vendor's pages
disagree with themselves, our choice stands beside the line that depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from deepcall_async import replies, validation
from deepcall_async.credentials import SessionId, UserToken
from deepcall_async.errors import DeepCallError, NoData
from deepcall_async.models import AddedGroup, DeletedGroup, Group, GroupAgentRelation
from deepcall_async.redaction import Secrets
from deepcall_async.replies import Headers, Rosters
from deepcall_async.retry import Method

__all__ = [
    "Call",
    "Endpoint",
    "Identity",
    "add",
    "agent_relation",
    "assign_agents",
    "decode",
    "delete",
    "list_groups",
    "update",
]

T = TypeVar("T")

_SHORTEST_HIDDEN_USER_ID = 6


class Identity:
    """Credentials made ready to send: the head of every body, and what must never be shown.

    Attributes:
        accepted: the service has answered a request under them well, so they were right once.
    """

    __slots__ = ("accepted", "credentials", "head", "secrets")

    def __init__(self, credentials: SessionId | UserToken) -> None:
        # "When userId and token are used, ssid should not be present in the request."
        if isinstance(credentials, SessionId):
            fields, hidden = {"ssid": credentials.ssid}, [credentials.ssid]
        else:
            fields = {"userId": credentials.user_id, "token": credentials.token}
            hidden = [credentials.token]
            # Given in the wrong order, the token stands here. A short id is none, and to hide it
            # would hide the same digits wherever a message has them.
            if len(credentials.user_id) >= _SHORTEST_HIDDEN_USER_ID:
                hidden.append(credentials.user_id)
        self.credentials: SessionId | UserToken = credentials
        self.head: bytes = msgspec.json.encode(fields)[:-1]
        self.secrets: Secrets = Secrets(hidden)
        self.accepted: bool = False

    def body(self, call: Call[Any]) -> bytes:
        """The request body: these credentials and the call's own fields."""
        return self.head + call.fields


class Endpoint(Struct, Generic[T], frozen=True):
    """One row of the route table.

    ``read`` decodes a body into the vendor's status and, when that is a success, the result.
    ``subject`` gives the id of the group that a result is about.
    """

    name: str
    path: str
    method: Method
    read: Callable[[Rosters, bytes | bytearray], tuple[str, T]]
    subject: Callable[[T], int] | None = None


class Call(Struct, Generic[T], frozen=True):
    """A request ready to be sent under anyone's credentials.

    ``fields`` is what follows the credentials in its JSON object. ``group_id`` is the group that
    the result must be about. ``when_gone`` is the result when a repeat finds the group gone,
    ``when_no_data`` that of an answer which says that there is no data. ``refine`` narrows the
    result.
    """

    endpoint: Endpoint[T]
    fields: bytes
    group_id: int | None = None
    when_gone: T | None = None
    when_no_data: T | None = None
    refine: Callable[[T], T] | None = None


# The pages write the paths with a trailing slash and every sample without one: without.
_API = "/api/v2/Group/"
_ADD_GROUP = Endpoint("groups.add", _API + "add", "non_idempotent", replies.read_add)
_UPDATE_GROUP = Endpoint("groups.update", _API + "update", "non_idempotent", replies.read_message)
_DELETE_GROUP = Endpoint("groups.delete", _API + "delete", "idempotent", replies.read_delete)
_LIST_GROUPS = Endpoint("groups.list", _API + "list", "safe", replies.read_list)
_AGENT_RELATION = Endpoint(
    "groups.agent_relation",
    _API + "getGroupAgentRelation",
    "safe",
    Rosters.decode,
    attrgetter("group.unique_id"),
)
_ASSIGN_AGENTS = Endpoint(
    "groups.assign_agents",
    _API + "submitAssignGroupToAgent",
    "non_idempotent",
    replies.read_message,
)


def add(name: str) -> Call[AddedGroup]:
    """Ask for a new group."""
    return Call(_ADD_GROUP, _json({"name": validation.name(name)}))


def update(group_id: int | str, *, name: str, status: int | None) -> Call[str]:
    """Ask for a group's name, and its status if given, to be changed."""
    # The sample sends this id as a string; only the relation's sample sends a number.
    fields = {"groupId": validation.group_id(group_id), "name": validation.name(name)}
    if status is None:
        return Call(_UPDATE_GROUP, _json(fields))
    return Call(_UPDATE_GROUP, _json({**fields, "status": validation.status(status)}))


def delete(group_id: int | str) -> Call[DeletedGroup]:
    """Ask for a group to be deleted."""
    fields = {"groupId": validation.group_id(group_id)}
    return Call(_DELETE_GROUP, _json(fields), when_gone=DeletedGroup(already_absent=True))


def list_groups(
    *, name: str | None, group_id: int | str | None, quick: bool | None, forward: bool | None
) -> Call[tuple[Group, ...]]:
    """Ask for the groups, or those that fit."""
    fields: dict[str, object] = {}
    refine = None
    if group_id is not None:
        wanted = validation.group_id(group_id)
        # The table spells it groupid, the sample groupId. Which one filters is not known, so
        # both are sent, and groups that were not asked for are dropped from the answer.
        fields |= {"groupid": wanted, "groupId": wanted}

        number = _as_number(wanted)

        def refine(groups: tuple[Group, ...]) -> tuple[Group, ...]:
            return tuple(group for group in groups if group.unique_id == number)

    if name is not None:
        fields["name"] = validation.name(name)
    if quick is not None:
        fields["quick"] = validation.flag("quick", quick)
    if forward is not None:
        fields["forward"] = validation.flag("forward", forward)
    return Call(_LIST_GROUPS, _json(fields), when_no_data=(), refine=refine)


def agent_relation(group_id: int | str, quick: bool, name: str | None) -> Call[GroupAgentRelation]:
    """Ask for a group, its roster and who of it is in the group."""
    wanted = validation.number_or_text(group_id)
    if quick is True and name is None and isinstance(wanted, int):
        # What nearly all lookups ask, in a fifth of the time.
        return Call(_AGENT_RELATION, b',"quick":true,"groupId":%d}' % wanted, wanted)
    fields: dict[str, object] = {"quick": validation.flag("quick", quick), "groupId": wanted}
    if name is not None:
        fields["name"] = validation.name(name)
    number = wanted if isinstance(wanted, int) else _as_number(wanted)
    return Call(_AGENT_RELATION, _json(fields), group_id=number)


def assign_agents(
    group_id: int | str, agents: Iterable[int | str], *, receive_call: Iterable[int | str]
) -> Call[str]:
    """Ask for agents to be put into a group."""
    members = validation.agent_ids("agent_ids", agents)
    receivers = validation.agent_ids("receive_call", receive_call)
    strangers = sorted(set(receivers) - set(members))
    if strangers:
        raise ValueError(
            f"receive_call names agents who are not in agent_ids: {', '.join(strangers[:10])}"
        )
    fields = {
        "groupId": validation.group_id(group_id),
        "agent_unique_id": members,
        "receive_call": receivers,
    }
    return Call(_ASSIGN_AGENTS, _json(fields))


def decode(
    call: Call[T],
    status: int,
    headers: Headers,
    body: bytes | bytearray,
    identity: Identity,
    rosters: Rosters,
    now: Callable[[], float],
) -> T | DeepCallError:
    """Turn an answer into the call's result, or into the error that it means.

    Args:
        call: what was asked.
        status: the HTTP status.
        headers: the answer's headers; a multi-value mapping where the library has one.
        body: the decompressed body.
        identity: whose secrets to keep out of the error.
        rosters: the rosters already decoded.
        now: gives the time in Unix seconds, for a Retry-After that is a date.
    """
    endpoint, wanted = call.endpoint, call.group_id
    fault: Exception | None = None
    if 200 <= status < 300:
        try:
            if not body.isascii():
                body.decode()
            verdict, result = endpoint.read(rosters, body)
        except replies.MALFORMED as error:
            fault = error
        else:
            if verdict == "success":
                if wanted is None or endpoint.subject is None:
                    return result if call.refine is None else call.refine(result)
                if endpoint.subject(result) == wanted:
                    return result
                why = "the answer is about another group"
                return replies.unexpected(endpoint.name, status, why)
    secrets = identity.secrets
    refusal = replies.error_of(endpoint.name, status, headers, body, secrets, now, fault)
    if call.when_no_data is not None and isinstance(refusal, NoData):
        return call.when_no_data
    return refusal


def _as_number(identifier: str) -> int | None:
    return int(identifier) if identifier.isascii() and identifier.isdigit() else None


def _json(fields: Mapping[str, object]) -> bytes:
    """What follows the credentials, which are always there."""
    return b"," + msgspec.json.encode(fields)[1:] if fields else b"}"
