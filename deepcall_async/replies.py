"""What DeepCall's answers say, without I/O: bodies into structs, and refusals into errors.

Which request an answer belongs to is not known here. No error that is made here carries the data it
failed on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Protocol, cast

import msgspec
from msgspec import Raw, Struct
from msgspec.json import Decoder

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

__all__ = [
    "MALFORMED",
    "Headers",
    "Rosters",
    "error_of",
    "read_add",
    "read_delete",
    "read_list",
    "read_message",
    "unexpected",
]

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
MALFORMED = (msgspec.MsgspecError, ValueError, RecursionError)
"""What reading a body may raise."""


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
        # The same in other bytes is held once. Rosters that differ in their last agent take as long
        # to compare as to decode, so only the newest is asked.
        if self._seen and self._seen[0][1] == agents:
            return self._seen[0][1]
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


def read_list(_: Rosters, body: bytes | bytearray) -> tuple[str, tuple[Group, ...]]:
    """Read the groups."""
    reply = _LIST.decode(body)
    found = reply.response
    if isinstance(found, _GroupHolder):
        found = found.groupData if isinstance(found.groupData, tuple) else (found.groupData,)
    return reply.status, found


def read_add(_: Rosters, body: bytes | bytearray) -> tuple[str, AddedGroup]:
    """Read the new group."""
    reply = _ADD.decode(body)
    return reply.status, AddedGroup(reply.groupId)


def read_message(_: Rosters, body: bytes | bytearray) -> tuple[str, str]:
    """Read the server's message."""
    reply = _MESSAGE.decode(body)
    return reply.status, reply.message if isinstance(reply.message, str) else ""


def read_delete(rosters: Rosters, body: bytes | bytearray) -> tuple[str, DeletedGroup]:
    """Read that a group is deleted."""
    status, message = read_message(rosters, body)
    return status, DeletedGroup(message=message)


class Headers(Protocol):
    """An answer's headers; one that has ``getall`` tells repeated fields apart."""

    def get(self, name: str, default: str, /) -> str:
        """The first value of a field."""
        ...


def error_of(
    name: str,
    status: int,
    headers: Headers,
    body: bytes | bytearray,
    secrets: Secrets,
    now: Callable[[], float],
    fault: Exception | None,
) -> DeepCallError:
    """Tell what an answer means that is no success.

    Args:
        name: the endpoint's.
        status: the HTTP status.
        headers: the answer's headers; a multi-value mapping where the library has one.
        body: the decompressed body.
        secrets: what must not stand in the error.
        now: gives the time in Unix seconds, for a Retry-After that is a date.
        fault: what reading the body raised, if it was read.
    """
    try:
        envelope = _Envelope() if 300 <= status < 400 else _ENVELOPE.decode(body)
    except MALFORMED:
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
        message = safe_text(_text(envelope.message) if refused else "", secrets)
        number = "no DeepCall code" if code is None else f"code {code}"
        error = kind(f"{name}: {message or 'refused'} ({number}, HTTP {status})")
        error.code, error.message, error.http_status = code, message, status
        error.retry_after = _retry_after(headers, now)
        error.endpoint = name
        return error
    kind_of_body = safe_text(str(headers.get("Content-Type", "no content type")), secrets)
    why = _reason(status, envelope, fault, body)
    return unexpected(name, status, why, kind_of_body)


def unexpected(name: str, status: int, why: str, kind_of_body: str = "JSON") -> UnexpectedReply:
    """Make the error of an answer that is not what an endpoint gives."""
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
        return "the server wants a client certificate: give one (ssl=, or --cert FILE)"
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
