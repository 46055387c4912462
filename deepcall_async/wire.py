"""DeepCall's wire format, without I/O: requests into bytes, answers into structs or errors.

Nothing waits, is sent or is repeated here. `decode` never raises, and no error that it gives
carries the data it failed on. Where the vendor's pages disagree with themselves, our choice stands
beside the line that depends on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from operator import attrgetter
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

import msgspec
from msgspec import Raw, Struct
from msgspec.json import Decoder

from deepcall_async import validation
from deepcall_async.credentials import SessionId, UserToken
from deepcall_async.errors import (
    ApiError,
    AuthenticationFailed,
    BadRequest,
    DeepCallError,
    GroupUnavailable,
    NoData,
    PermissionDenied,
    RateLimited,
    ServerFault,
    UnexpectedReply,
)
from deepcall_async.models import (
    AddedGroup,
    Agent,
    AgentRelation,
    DeletedGroup,
    Group,
    GroupAgentRelation,
    Int64,
)
from deepcall_async.redaction import Secrets, safe_text
from deepcall_async.retry import Method

T = TypeVar("T")

_CLASS_OF_CODE: Mapping[int, type[ApiError]] = {
    1000: BadRequest,
    1005: BadRequest,
    1009: ServerFault,
    1010: ServerFault,
    1012: NoData,
    1014: AuthenticationFailed,
    1015: PermissionDenied,
    1020: AuthenticationFailed,
    1032: ServerFault,
    1039: PermissionDenied,
    1047: BadRequest,
    # 15xx codes have other meanings under the vendor's other APIs; these are the Group pages'.
    1501: BadRequest,
    1502: BadRequest,
    1503: GroupUnavailable,
}
_CLASS_OF_STATUS: Mapping[int, type[ApiError]] = {
    401: AuthenticationFailed,
    403: PermissionDenied,
    429: RateLimited,
}
_MALFORMED = (msgspec.MsgspecError, ValueError, RecursionError)


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


class Rosters:
    """The last few distinct rosters seen, each decoded and held once.

    Every relation reply repeats the account's whole roster, byte for byte until it changes.
    """

    __slots__ = ("_seen",)
    capacity: ClassVar[int] = 8

    def __init__(self) -> None:
        self._seen: list[tuple[bytes, tuple[Agent, ...]]] = []

    def decode(self, body: bytes | bytearray) -> tuple[str, GroupAgentRelation]:
        """Decode a relation reply, sparing the roster when its bytes are known."""
        start = body.find(_ROSTER_KEY) + len(_ROSTER_KEY)
        for known, agents in self._seen:
            if known and body.startswith(known, start):
                # What surrounds a known roster is decoded with a stand-in that no server sends,
                # so a second key of that name elsewhere in the reply is noticed.
                rest = body[:start] + _STAND_IN + body[start + len(known) :]
                try:
                    reply = _AROUND_ROSTER.decode(rest)
                except msgspec.MsgspecError:
                    break
                data = reply.response
                if bytes(data.agentData) != _STAND_IN:
                    break
                return reply.status, GroupAgentRelation(data.groupData, agents, data.relationData)
        whole = _RELATION.decode(body)
        found = whole.response
        agents = self._keep(body, start, found.agentData)
        return whole.status, GroupAgentRelation(found.groupData, agents, found.relationData)

    def _keep(
        self, body: bytes | bytearray, start: int, agents: tuple[Agent, ...]
    ) -> tuple[Agent, ...]:
        for _, known in self._seen:
            if known == agents:
                return known
        # Where a roster ends is told by what comes next. An array that ends so within the roster
        # would be cut off in its middle; what surrounds such a piece never decodes.
        end = body.find(_AFTER_ROSTER, start) + 1
        if not end:
            raw = bytes(_AROUND_ROSTER.decode(body).response.agentData)
        else:
            raw = bytes(body[start:end]) if start >= len(_ROSTER_KEY) else b""
        self._seen.insert(0, (raw, agents))
        del self._seen[self.capacity :]
        return agents


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


class _Reply(Struct):
    status: str


class _MessageReply(_Reply):
    message: Any = None


class _AddReply(_Reply):
    groupId: Int64  # noqa: N815  (the wire's own name)


class _GroupHolder(Struct):
    groupData: tuple[Group, ...] | Group  # noqa: N815  (the wire's own name)


class _ListReply(_Reply):
    # The List page says "the group data" and shows no shape, so every shape the Relation page
    # makes likely is taken: the array itself, or an object that holds it or one group.
    response: tuple[Group, ...] | _GroupHolder


class _Relation(Struct):
    groupData: Group  # noqa: N815  (the wire's own name)
    agentData: tuple[Agent, ...]  # noqa: N815  (the wire's own name)
    relationData: tuple[AgentRelation, ...]  # noqa: N815  (the wire's own name)


class _RelationReply(_Reply):
    response: _Relation


class _AroundRoster(_Relation):
    agentData: Raw  # type: ignore[assignment]  # noqa: N815  (the same, not decoded)


class _AroundRosterReply(_Reply):
    response: _AroundRoster


class _Envelope(Struct):
    status: Any = None
    code: Any = None
    # Some of the vendor's other routes spell the field so.
    errCode: Any = None  # noqa: N815  (the wire's own name)
    message: Any = None


# strict=False: the pages' tables call ids strings and the replies send numbers; either is taken.
_RELATION = Decoder(_RelationReply, strict=False)
_AROUND_ROSTER = Decoder(_AroundRosterReply, strict=False)
_LIST = Decoder(_ListReply, strict=False)
_ADD = Decoder(_AddReply, strict=False)
_MESSAGE = Decoder(_MessageReply, strict=False)
_ENVELOPE = Decoder(_Envelope, strict=False)
_ROSTER_KEY = b'"agentData":'
_AFTER_ROSTER = b'],"relationData"'
_STAND_IN = b"[0]"


def _read_list(_: Rosters, body: bytes | bytearray) -> tuple[str, tuple[Group, ...]]:
    reply = _LIST.decode(body)
    found = reply.response
    if isinstance(found, _GroupHolder):
        found = found.groupData if isinstance(found.groupData, tuple) else (found.groupData,)
    return reply.status, found


def _read_add(_: Rosters, body: bytes | bytearray) -> tuple[str, AddedGroup]:
    reply = _ADD.decode(body)
    return reply.status, AddedGroup(reply.groupId)


def _read_message(_: Rosters, body: bytes | bytearray) -> tuple[str, str]:
    reply = _MESSAGE.decode(body)
    return reply.status, reply.message if isinstance(reply.message, str) else ""


def _read_delete(rosters: Rosters, body: bytes | bytearray) -> tuple[str, DeletedGroup]:
    status, message = _read_message(rosters, body)
    return status, DeletedGroup(message=message)


# The pages write the paths with a trailing slash and every sample without one: without.
_API = "/api/v2/Group/"
_ADD_GROUP = Endpoint("groups.add", _API + "add", "non_idempotent", _read_add)
_UPDATE_GROUP = Endpoint("groups.update", _API + "update", "non_idempotent", _read_message)
_DELETE_GROUP = Endpoint("groups.delete", _API + "delete", "idempotent", _read_delete)
_LIST_GROUPS = Endpoint("groups.list", _API + "list", "safe", _read_list)
_AGENT_RELATION = Endpoint(
    "groups.agent_relation",
    _API + "getGroupAgentRelation",
    "safe",
    Rosters.decode,
    attrgetter("group.unique_id"),
)
_ASSIGN_AGENTS = Endpoint(
    "groups.assign_agents", _API + "submitAssignGroupToAgent", "non_idempotent", _read_message
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


def agent_relation(
    group_id: int | str, *, quick: bool, name: str | None
) -> Call[GroupAgentRelation]:
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


class Headers(Protocol):
    """An answer's headers; one that has ``getall`` tells repeated fields apart."""

    def get(self, name: str, default: str, /) -> str:
        """The first value of a field."""
        ...


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
    fault: Exception | None = None
    if 200 <= status < 300:
        try:
            if not body.isascii():
                body.decode()
            verdict, result = call.endpoint.read(rosters, body)
        except _MALFORMED as error:
            fault = error
        else:
            if verdict == "success":
                if call.group_id is None or call.endpoint.subject is None:
                    return result if call.refine is None else call.refine(result)
                if call.endpoint.subject(result) == call.group_id:
                    return result
                return _unexpected(call, status, "the answer is about another group")
    refusal = _refusal(call, status, headers, body, identity, now, fault)
    if call.when_no_data is not None and isinstance(refusal, NoData):
        return call.when_no_data
    return refusal


def _refusal(
    call: Call[T],
    status: int,
    headers: Headers,
    body: bytes | bytearray,
    identity: Identity,
    now: Callable[[], float],
    fault: Exception | None,
) -> DeepCallError:
    name = call.endpoint.name
    try:
        envelope = _Envelope() if 300 <= status < 400 else _ENVELOPE.decode(body)
    except _MALFORMED:
        envelope = _Envelope()
    refused = envelope.status == "error"
    # The HTTP status of an error is not documented and may be 200, so DeepCall's code decides.
    # Only where the code is missing or new does the status say what kind of failure it is.
    said = envelope.errCode if envelope.code is None else envelope.code
    code = _code(said) if refused else None
    kind = _CLASS_OF_CODE.get(code) if code is not None else None
    kind = kind or _CLASS_OF_STATUS.get(status) or (ServerFault if status >= 500 else None)
    if kind is None and refused:
        kind = ApiError
    if kind is not None:
        message = safe_text(_text(envelope.message) if refused else "", identity.secrets)
        number = "no DeepCall code" if code is None else f"code {code}"
        error = kind(f"{name}: {message or 'refused'} ({number}, HTTP {status})")
        error.code, error.message, error.http_status = code, message, status
        error.retry_after = _retry_after(headers, now)
        error.endpoint = name
        return error
    kind_of_body = safe_text(str(headers.get("Content-Type", "no content type")), identity.secrets)
    why = _reason(status, envelope, fault, body)
    return _unexpected(call, status, why, kind_of_body)


def _unexpected(
    call: Call[T], status: int, why: str, kind_of_body: str = "JSON"
) -> UnexpectedReply:
    name = call.endpoint.name
    error = UnexpectedReply(f"{name}: {why} (HTTP {status}, {kind_of_body})")
    error.http_status, error.endpoint = status, name
    return error


def _reason(
    status: int, envelope: _Envelope, fault: Exception | None, body: bytes | bytearray
) -> str:
    if status == 413:
        return "the request is too large for the server"
    if status == 407:
        return "the proxy wants a user name and password, or refused those it got"
    # What nginx says; it ends the TLS handshake well and refuses the request.
    if status == 400 and b"required SSL certificate" in body:
        return "the server wants a client certificate: pass ssl= with one loaded"
    if 300 <= status < 400:
        return "the server redirects, and a body with credentials is not sent elsewhere"
    if not 200 <= status < 300:
        return "the answer is not DeepCall's; check base_url"
    if not body:
        return "the answer is empty"
    if isinstance(fault, msgspec.ValidationError):
        # msgspec names types and the JSON path in these, never a value.
        return f"the answer does not have the expected shape: {fault}"
    if isinstance(fault, UnicodeError):
        return "the answer is not UTF-8"
    if isinstance(fault, RecursionError):
        return "the answer is nested too deeply"
    if fault is not None:
        return "the answer is not JSON"
    if envelope.status is None:
        return "the answer has no status"
    return 'the answer\'s status is neither "success" nor "error"'


def _text(message: object) -> str:
    if message is None or isinstance(message, str):
        return message or ""
    return msgspec.json.encode(message).decode()


def _code(code: object) -> int | None:
    if isinstance(code, bool):
        return None
    if isinstance(code, int):
        return code if abs(code) < 2**63 else None
    if isinstance(code, float) and code.is_integer() and abs(code) < 2**53:
        return int(code)
    if isinstance(code, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", code):
        return int(code)
    return None


def _retry_after(headers: Headers, now: Callable[[], float]) -> float | None:
    getall = getattr(headers, "getall", None)
    values = cast("list[str]", getall("Retry-After", []) if getall else [])
    if len(values) != 1:
        return None
    value = values[0].strip()
    if re.fullmatch(r"[0-9]+", value):
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now())
    except (ValueError, TypeError, OverflowError):
        return None


def _as_number(identifier: str) -> int | None:
    return int(identifier) if identifier.isascii() and identifier.isdigit() else None


def _json(fields: Mapping[str, object]) -> bytes:
    """What follows the credentials, which are always there."""
    return b"," + msgspec.json.encode(fields)[1:] if fields else b"}"
