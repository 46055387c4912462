"""The wire: requests exactly as the vendor's pages have them, and every reply decoded or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from multidict import CIMultiDict

from deepcall_async import (
    AddedGroup,
    ApiError,
    AuthenticationFailed,
    BadRequest,
    DeepCall,
    DeepCallError,
    DeletedGroup,
    Group,
    GroupAgentRelation,
    GroupUnavailable,
    NoData,
    PermissionDenied,
    RateLimited,
    RetryPolicy,
    ServerFault,
    SessionId,
    UnexpectedReply,
    UserToken,
    replies,
    wire,
)
from tests.support.faultserver import FaultServer, Received, Send, Step
from tests.support.replies import answer, as_json, error, group, reply, serve

SAMPLE = (Path(__file__).parent / "data" / "agent_relation.json").read_bytes()
IDENTITY = wire.Identity(SessionId("s3ssion"))
KINDS = {
    "ssid": (SessionId("s3ssion"), {"ssid": "s3ssion"}),
    "token": (UserToken("29791451", "t0ken"), {"userId": "29791451", "token": "t0ken"}),
}

Make = Callable[[DeepCall], Awaitable[Any]]
# Who is asked for what, the verb it goes to, and the fields besides the credentials.
REQUESTS: list[tuple[Make, str, dict[str, Any]]] = [
    (lambda dc: dc.groups.add("Sales"), "add", {"name": "Sales"}),
    (lambda dc: dc.groups.add(' Ü "q" \\ 👩‍👧 '), "add", {"name": ' Ü "q" \\ 👩‍👧 '}),
    (
        lambda dc: dc.groups.update(28, name="Sales EU"),
        "update",
        {"groupId": "28", "name": "Sales EU"},
    ),
    (
        lambda dc: dc.groups.update("28", name="Sales EU", status=1),
        "update",
        {"groupId": "28", "name": "Sales EU", "status": 1},
    ),
    (
        lambda dc: dc.groups.update(28, name="Sales EU", status=0),
        "update",
        {"groupId": "28", "name": "Sales EU", "status": 0},
    ),
    (lambda dc: dc.groups.delete(28), "delete", {"groupId": "28"}),
    (lambda dc: dc.groups.delete("x-28"), "delete", {"groupId": "x-28"}),
    (lambda dc: dc.groups.list(), "list", {}),
    (lambda dc: dc.groups.list(name="sales"), "list", {"name": "sales"}),
    (lambda dc: dc.groups.list(group_id=28), "list", {"groupid": "28", "groupId": "28"}),
    (
        lambda dc: dc.groups.list(name="s", group_id="28", quick=True, forward=False),
        "list",
        {"groupid": "28", "groupId": "28", "name": "s", "quick": True, "forward": False},
    ),
    (
        lambda dc: dc.groups.list(quick=False, forward=True),
        "list",
        {"quick": False, "forward": True},
    ),
    (
        lambda dc: dc.groups.agent_relation(28),
        "getGroupAgentRelation",
        {"quick": True, "groupId": 28},
    ),
    (
        lambda dc: dc.groups.agent_relation("28", quick=False, name="sales"),
        "getGroupAgentRelation",
        {"quick": False, "groupId": 28, "name": "sales"},
    ),
    (
        lambda dc: dc.groups.agent_relation("028"),
        "getGroupAgentRelation",
        {"quick": True, "groupId": "028"},
    ),
    (
        lambda dc: dc.groups.assign_agents(28, [3, "8", 2], receive_call=(3,)),
        "submitAssignGroupToAgent",
        {"groupId": "28", "agent_unique_id": ["3", "8", "2"], "receive_call": ["3"]},
    ),
    (
        lambda dc: dc.groups.assign_agents("28", iter([3])),
        "submitAssignGroupToAgent",
        {"groupId": "28", "agent_unique_id": ["3"], "receive_call": []},
    ),
    (
        lambda dc: dc.groups.assign_agents(28, []),
        "submitAssignGroupToAgent",
        {"groupId": "28", "agent_unique_id": [], "receive_call": []},
    ),
]


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len(dict(pairs)) == len(pairs), f"a key stands twice in {pairs}"
    return dict(pairs)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
async def test_requests_are_as_the_pages_have_them(kind: str) -> None:
    credentials, head = KINDS[kind]
    async with (
        FaultServer(lambda request: [Send(reply(lenient(request)))]) as server,
        DeepCall(credentials, base_url=server.base_url) as dc,
    ):
        for make, verb, fields in REQUESTS:
            await make(dc)
            request = server.ledger[-1]
            assert request.method == "POST"
            # The pages show the path with and without a slash at its end; it goes without.
            assert request.target == f"/api/v2/Group/{verb}"
            # Compared as JSON, for 1 and True are equal to Python.
            assert as_json(sorted_keys(request.body)) == as_json(sorted_keys(head | fields))


def lenient(request: Received) -> dict[str, Any]:
    """A good reply, also for ids that are no numbers."""
    if not str(request.body.get("groupId", 1)).isdigit():
        request.body["groupId"] = 28
        replied = answer(request)
        request.body["groupId"] = "x-28"
        return replied
    return answer(request)


def sorted_keys(body: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(body.items())


@pytest.mark.parametrize("kind", KINDS)
def test_bodies_are_one_compact_json_object_each(kind: str) -> None:
    credentials, head = KINDS[kind]
    identity = wire.Identity(credentials)
    for call in (
        wire.list_groups(name=None, group_id=None, quick=None, forward=None),
        wire.add("Sales"),
        wire.agent_relation(28, quick=True, name=None),
    ):
        body = identity.body(call)
        parsed = json.loads(body, object_pairs_hook=no_key_twice)
        assert set(parsed) > set(head) or parsed == head
        assert body == json.dumps(parsed, separators=(",", ":"), ensure_ascii=False).encode()


def test_the_vendors_own_request() -> None:
    identity = wire.Identity(UserToken("29791451", "t0ken"))
    body = identity.body(wire.agent_relation(28, quick=True, name=None))
    assert json.loads(body) == {
        "userId": "29791451",
        "token": "t0ken",
        "quick": True,
        "groupId": 28,
    }


def test_credentials_are_escaped_like_all_else() -> None:
    identity = wire.Identity(UserToken('a"b', "c\\d é"))
    body = identity.body(wire.delete(1))
    assert json.loads(body) == {"userId": 'a"b', "token": "c\\d é", "groupId": "1"}


# Replies.


def call_of(verb: str) -> wire.Call[Any]:
    calls: dict[str, wire.Call[Any]] = {
        "list": wire.list_groups(name=None, group_id=None, quick=None, forward=None),
        # These replies are about many groups; the check of whom one is about has tests of its own.
        "getGroupAgentRelation": replace(
            wire.agent_relation(28, quick=True, name=None), group_id=None
        ),
        "add": wire.add("Sales"),
        "update": wire.update(28, name="A", status=None),
        "delete": wire.delete(28),
        "submitAssignGroupToAgent": wire.assign_agents(28, [1], receive_call=()),
    }
    return calls[verb]


VERBS = ["list", "getGroupAgentRelation", "add", "update", "delete", "submitAssignGroupToAgent"]
RESULTS = {
    "list": tuple,
    "getGroupAgentRelation": GroupAgentRelation,
    "add": AddedGroup,
    "update": str,
    "delete": DeletedGroup,
    "submitAssignGroupToAgent": str,
}
every_verb = pytest.mark.parametrize("verb", VERBS)


def decode(
    verb: str | wire.Call[Any],
    body: object,
    status: int = 200,
    headers: Any = None,
    rosters: replies.Rosters | None = None,
) -> Any:
    call = call_of(verb) if isinstance(verb, str) else verb
    content = body if isinstance(body, (bytes, bytearray)) else as_json(body)
    return wire.decode(
        call, status, headers or {}, content, IDENTITY, rosters or replies.Rosters(), lambda: 0.0
    )


def listed(response: object) -> Any:
    return decode("list", {"status": "success", "response": response, "code": 200})


def test_lists_of_every_shape_the_pages_make_likely() -> None:
    one, two = group(1), group(2, "EU")
    assert [each.unique_id for each in listed([one, two])] == [1, 2]
    assert [each.unique_id for each in listed({"groupData": [one, two]})] == [1, 2]
    assert [each.unique_id for each in listed({"groupData": one})] == [1]
    assert listed([]) == ()
    assert listed({"groupData": []}) == ()
    quick = {"name": "Sales", "unique_id": 3}
    assert listed([quick]) == (Group(unique_id=3, name="Sales"),)


@pytest.mark.parametrize(
    "response",
    [None, 1, "groups", True, {}, {"groups": []}, {"groupData": None}, {"groupData": "x"}, [1],
     [[]], [{}], [{"name": "x"}], [{"unique_id": 1}], [{"unique_id": None, "name": "x"}],
     [{"unique_id": 1, "name": None}], {"unique_id": 1, "name": "x"}],
)  # fmt: skip
def test_lists_of_another_shape_are_unexpected(response: object) -> None:
    found = listed(response)
    assert type(found) is UnexpectedReply
    assert found.http_status == 200
    assert "$.response" in str(found)


def test_a_list_asked_for_one_group_keeps_only_that() -> None:
    for asked in (2, "2"):
        call = wire.list_groups(name=None, group_id=asked, quick=None, forward=None)
        body = {"status": "success", "response": [group(1), group(2), group(3)], "code": 200}
        assert [each.unique_id for each in decode(call, body)] == [2]
    call = wire.list_groups(name=None, group_id=9, quick=None, forward=None)
    assert decode(call, body) == ()


def test_numbers_may_come_as_text() -> None:
    body = SAMPLE
    for field in (b"unique_id", b"status", b"create_date", b"group_id", b"agent_id", b"code"):
        body = re.sub(b'"%b":([0-9]+)' % field, b'"%b":"\\1"' % field, body)
    assert body.count(b'"unique_id":"') == 12
    assert decode("getGroupAgentRelation", body) == decode("getGroupAgentRelation", SAMPLE)
    assert decode("add", {"status": "success", "groupId": "31"}) == AddedGroup(31)
    assert decode("add", {"status": "success", "groupId": 31}) == AddedGroup(31)


@pytest.mark.parametrize("number", ["x", "", None, [1], 1.5, True, "1.5", 2**63, "9" * 30, 10**400])
def test_what_is_no_whole_number_is_unexpected(number: object) -> None:
    found = decode("add", {"status": "success", "groupId": number})
    assert type(found) is UnexpectedReply
    assert "9999" not in str(found)


def test_fields_nobody_knows_are_passed_over() -> None:
    replied = json.loads(SAMPLE)
    expected = decode("getGroupAgentRelation", SAMPLE)
    replied["new"] = {"deep": [1, None]}
    replied["response"]["new"] = "x"
    for part in ("groupData", "agentData", "relationData"):
        rows = replied["response"][part]
        for row in rows if isinstance(rows, list) else [rows]:
            row["new"] = {"x": [1]}
    assert decode("getGroupAgentRelation", replied) == expected


def test_absent_and_null_optional_fields_are_none() -> None:
    bare = {"name": "x", "unique_id": 1}
    nulls = bare | {"user_id": None, "create_by": None, "status": None, "create_date": None}
    assert listed([bare]) == listed([nulls]) == (Group(unique_id=1, name="x"),)


@every_verb
@pytest.mark.parametrize("framing", [b"%b", b" \r\n%b\t\n"])
def test_good_replies_of_every_verb(verb: str, framing: bytes) -> None:
    request = Received(1, 1, 1, "POST", f"/api/v2/Group/{verb}", {}, {"name": "S", "groupId": 28})
    for headers in ({}, {"Content-Type": "text/html"}, {"Content-Type": "application/json"}):
        for body in (bytes, bytearray):
            found = decode(verb, body(framing % as_json(answer(request))), 200, headers)
            assert isinstance(found, RESULTS[verb]), found


@pytest.mark.parametrize("message", [None, 7, {"a": 1}, ["x"], True])
@pytest.mark.parametrize("verb", ["update", "submitAssignGroupToAgent", "delete"])
def test_a_message_that_is_no_text_spoils_no_success(verb: str, message: object) -> None:
    found = decode(verb, {"status": "success", "message": message, "code": 200})
    assert found == (DeletedGroup(message="") if verb == "delete" else "")
    assert isinstance(decode(verb, {"status": "success"}), RESULTS[verb])


# Refusals.

CODES: dict[int, type[ApiError]] = {
    1000: BadRequest,
    1009: ServerFault,
    1010: ServerFault,
    1014: AuthenticationFailed,
    1015: PermissionDenied,
    1020: AuthenticationFailed,
    1032: ServerFault,
    1039: PermissionDenied,
    1047: BadRequest,
    1501: BadRequest,
    1502: BadRequest,
    1503: GroupUnavailable,
}
STATUSES: dict[int, type[DeepCallError]] = {
    401: AuthenticationFailed,
    403: PermissionDenied,
    429: RateLimited,
    **dict.fromkeys([500, 501, 502, 503, 504, 511, 599], ServerFault),
    **dict.fromkeys([400, 402, 404, 405, 409, 413, 418, 499], UnexpectedReply),
    **dict.fromkeys([200, 201, 204, 300, 301, 302, 303, 307, 308], UnexpectedReply),
}


@every_verb
@pytest.mark.parametrize("code", CODES)
def test_a_documented_code_decides_whatever_the_status(verb: str, code: int) -> None:
    spellings = (code, str(code), f" {code} ", float(code))
    for spelled, http in product(spellings, (200, 400, 401, 403, 404, 413, 429, 500, 503)):
        found = decode(verb, {"status": "error", "message": "because", "code": spelled}, http)
        assert type(found) is CODES[code]
        assert (found.code, found.message, found.http_status) == (code, "because", http)
        assert found.endpoint == call_of(verb).endpoint.name
        for part in (found.endpoint, "because", str(code), f"HTTP {http}"):
            assert part in str(found)


@every_verb
@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"{}", b"null", b'{"code":1014}'])
def test_without_a_code_the_status_decides(verb: str, body: bytes) -> None:
    for http, kind in STATUSES.items():
        found = decode(verb, body, http, {"Content-Type": "text/html"})
        assert type(found) is kind
        assert found.http_status == http
        assert f"HTTP {http}" in str(found)
        if isinstance(found, ApiError):
            assert (found.code, found.message) == (None, "")
        else:
            assert "text/html" in str(found)
            assert "<html>" not in str(found)


@pytest.mark.parametrize("code", [1, 0, -1, 9999, 1504, 200, 2**62])
@pytest.mark.parametrize(
    ("http", "kind"), [(200, ApiError), (404, ApiError), (429, RateLimited), (503, ServerFault)]
)
def test_an_unknown_code_is_kept(code: int, http: int, kind: type[ApiError]) -> None:
    found = decode("list", {"status": "error", "message": "x", "code": code}, http)
    assert type(found) is kind
    assert found.code == code


@pytest.mark.parametrize(
    "code", [None, "", "x", "1503x", True, 1503.5, [1503], {"a": 1}, 10**30, "9" * 40, -(10**30)]
)
def test_a_code_that_is_none_leaves_a_plain_refusal(code: object) -> None:
    found = decode("delete", {"status": "error", "message": "x", "code": code})
    assert type(found) is ApiError
    assert found.code is None
    absent = decode("delete", {"status": "error"})
    assert type(absent) is ApiError
    assert (absent.code, absent.message) == (None, "")


@pytest.mark.parametrize(
    "message", [None, 7, 1.5, True, {"a": ["b"]}, ["x" * 10_000], "x" * 10_000_000, 10**40]
)
def test_whatever_the_message_the_code_counts(message: object) -> None:
    found = decode("delete", {"status": "error", "message": message, "code": 1503})
    assert type(found) is GroupUnavailable
    assert isinstance(found.message, str)
    assert len(str(found)) < 500


@every_verb
@pytest.mark.parametrize("status", ["", "ok", "Success", "SUCCESS", "fail", None, 1, True, []])
def test_an_unknown_status_word_is_unexpected(verb: str, status: object) -> None:
    request = Received(1, 1, 1, "POST", f"/api/v2/Group/{verb}", {}, {"name": "S", "groupId": 28})
    body = answer(request) | {"status": status}
    assert type(decode(verb, body)) is UnexpectedReply


@every_verb
def test_a_success_under_a_failing_status_is_no_success(verb: str) -> None:
    request = Received(1, 1, 1, "POST", f"/api/v2/Group/{verb}", {}, {"name": "S", "groupId": 28})
    for http, kind in STATUSES.items():
        if not 200 <= http < 300:
            assert type(decode(verb, answer(request), http)) is kind


def test_a_redirect_is_never_a_refusal_of_the_service() -> None:
    for http in (301, 302, 303, 307, 308):
        found = decode("list", {"status": "error", "message": "x", "code": 1503}, http)
        assert type(found) is UnexpectedReply
        assert "redirect" in str(found)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"<html>", "not JSON"),
        (b"{", "not JSON"),
        (SAMPLE[:-1], "not JSON"),
        (SAMPLE + b"x", "not JSON"),
        (b"\xef\xbb\xbf" + SAMPLE, "not JSON"),
        (SAMPLE.replace(b"manoj", b"\xff"), "UTF-8"),
        (b'{"new":' + b"[" * 100_000, "nested|not JSON"),
        (b'{"a":' * 100_000, "nested|not JSON"),
        (SAMPLE.replace(b":28,", b":NaN,"), "not JSON"),
        (SAMPLE.replace(b":28,", b":" + b"9" * 5000 + b","), "shape|JSON"),
        (SAMPLE.replace(b":28,", b":1e999,"), "shape|JSON"),
        (b'{"status":"success"}', r"\$|shape"),
        (b"[]", "shape|status"),
        (b'"success"', "shape|status"),
        (SAMPLE.replace(b'"agent_id":3', b'"agent_id":null'), r"\$\.response\.relationData"),
        (SAMPLE.replace(b'"unique_id":6', b'"unique_id":"six"'), r"\$\.response\.agentData"),
        (SAMPLE.replace(b'"name":"Mahipal singh",', b""), r"\$\.response\.groupData"),
        (SAMPLE.replace(b"agentData", b"agents"), "agentData"),
    ],
)
def test_bodies_that_are_no_reply(body: bytes, says: str) -> None:
    found = decode("getGroupAgentRelation", body, 200, {"Content-Type": "text/plain"})
    assert type(found) is UnexpectedReply
    assert re.search(says, str(found)), str(found)
    assert "text/plain" in str(found)
    for datum in ("bhawesh", "29791451", "Mahipal", "six"):
        assert datum not in str(found)


# Any answer at all.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from(["success", "error", "fail", 1, None])
NUMBERS = st.integers() | st.integers().map(str) | st.sampled_from([1014, 1503, None, "x", 1e300])
GROUPS = st.fixed_dictionaries(
    {}, optional={"unique_id": NUMBERS, "name": st.text() | st.none(), "status": NUMBERS,
                  "create_date": NUMBERS, "agents": st.lists(st.text(), max_size=3) | st.none()}
)  # fmt: skip
AGENTS = st.fixed_dictionaries({}, optional={"unique_id": NUMBERS, "name": st.text()})
ROWS = st.fixed_dictionaries(
    {}, optional={"group_id": NUMBERS, "agent_id": NUMBERS, "receive_call": st.text(max_size=2)}
)
RESPONSES = st.fixed_dictionaries(
    {},
    optional={
        "groupData": GROUPS | st.lists(GROUPS, max_size=3) | JSON,
        "agentData": st.lists(AGENTS, max_size=4) | JSON,
        "relationData": st.lists(ROWS, max_size=4) | JSON,
    },
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "status": WORDS | JSON,
        "code": NUMBERS | JSON,
        "message": st.text() | JSON,
        "groupId": NUMBERS | JSON,
        "response": RESPONSES | st.lists(GROUPS, max_size=3) | JSON,
    },
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The vendor's reply with a stretch of it replaced."""
    start = draw(st.integers(0, len(SAMPLE)))
    end = draw(st.integers(start, min(len(SAMPLE), start + 40)))
    return SAMPLE[:start] + draw(st.binary(max_size=20)) + SAMPLE[end:]


BODIES = (
    st.binary(max_size=300)
    | damaged()
    | JSON.map(lambda value: json.dumps(value).encode())
    | NEARLY.map(lambda value: json.dumps(value).encode())
    | NEARLY.map(
        lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    )
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["Content-Type", "Retry-After", "content-type", "X"]) | st.text(min_size=1),
        st.text(),
    ),
    max_size=4,
).map(CIMultiDict)


@given(st.sampled_from(VERBS), BODIES, st.integers(100, 599) | st.just(200), HEADERS)
def test_any_answer_is_a_result_or_an_error_of_the_tree(
    verb: str, body: bytes, status: int, headers: CIMultiDict[str]
) -> None:
    found = decode(verb, body, status, headers)
    if not isinstance(found, DeepCallError):
        assert type(found) is RESULTS[verb]
        assert 200 <= status < 300
        assert json.loads(body)["status"] == "success"
        repr(found)
        hash(found)
        return
    assert isinstance(found, (ApiError, UnexpectedReply))
    assert type(found) is not DeepCallError
    assert str(found).isprintable()
    assert len(str(found)) < 3000
    assert found.endpoint == call_of(verb).endpoint.name
    assert found.http_status == status
    assert found.__cause__ is None
    assert found.__context__ is None


@given(st.sampled_from(VERBS), BODIES)
def test_a_bytearray_decodes_as_bytes_do(verb: str, body: bytes) -> None:
    one, two = decode(verb, body), decode(verb, bytearray(body))
    assert type(one) is type(two)
    assert str(one) == str(two)


# Which group an answer is about.


@pytest.mark.parametrize("asked", [28, "28", "028"])
def test_an_answer_about_another_group_is_not_an_answer(asked: int | str) -> None:
    call = wire.agent_relation(asked, quick=True, name=None)
    assert decode(call, relation(28)).group.unique_id == 28
    found = decode(call, relation(29))
    assert type(found) is UnexpectedReply
    assert "another group" in str(found)


@pytest.mark.parametrize("asked", [28, "28", "028"])
def test_a_listed_group_is_found_however_its_id_is_written(asked: int | str) -> None:
    call = wire.list_groups(name=None, group_id=asked, quick=None, forward=None)
    found = decode(call, {"status": "success", "response": [group(27), group(28)]})
    assert [each.unique_id for each in found] == [28]


def test_no_data_is_an_error_but_for_a_list() -> None:
    body = {"status": "error", "message": "No data found", "code": 1012}
    assert decode("list", body) == ()
    assert type(decode("getGroupAgentRelation", body)) is NoData


def test_a_code_under_its_other_name() -> None:
    body = {"status": "error", "message": "no", "errCode": "1503"}
    assert type(decode("delete", body)) is GroupUnavailable


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (413, b"<html>413 Request Entity Too Large</html>", "request is too large"),
        (400, b"<html>No required SSL certificate was sent</html>", "client certificate"),
        (400, b"<html>Bad Request</html>", "check base_url"),
    ],
)
def test_a_page_of_a_web_server_says_what_to_mend(status: int, body: bytes, text: str) -> None:
    found = decode("list", body, status)
    assert type(found) is UnexpectedReply
    assert text in str(found)


def test_a_receiver_must_be_among_the_agents() -> None:
    with pytest.raises(ValueError, match="receive_call names agents who are not in agent_ids: 9"):
        wire.assign_agents(28, [3, 8], receive_call=[3, "9"])


# Rosters, which are decoded once and shared.

ROSTER = [{"name": f"agent {n}", "unique_id": n, "user_id": "7"} for n in range(1, 6)]


def relation(number: int, roster: object = ROSTER, **more: object) -> bytes:
    response = {"groupData": group(number), "agentData": roster, "relationData": []}
    return as_json({"status": "success", "response": response | more, "code": 200})


def test_equal_rosters_are_one_tuple() -> None:
    rosters = replies.Rosters()
    found = [decode("getGroupAgentRelation", relation(n), rosters=rosters) for n in range(1, 30)]
    assert len({id(each.agents) for each in found}) == 1
    assert [each.group.unique_id for each in found] == list(range(1, 30))
    assert [agent.unique_id for agent in found[0].agents] == [1, 2, 3, 4, 5]


def test_a_changed_roster_is_noticed_and_the_old_one_still_known() -> None:
    rosters = replies.Rosters()
    old = decode("getGroupAgentRelation", relation(1), rosters=rosters)
    longer = [*ROSTER, {"name": "new", "unique_id": 9, "user_id": "7"}]
    new = decode("getGroupAgentRelation", relation(2, longer), rosters=rosters)
    assert [len(each.agents) for each in (old, new)] == [5, 6]
    shorter = decode("getGroupAgentRelation", relation(3, ROSTER[:2]), rosters=rosters)
    assert len(shorter.agents) == 2
    again = decode("getGroupAgentRelation", relation(4), rosters=rosters)
    assert again.agents is old.agents


def test_only_the_last_few_rosters_are_held() -> None:
    rosters = replies.Rosters()
    for number in range(50):
        roster = [{"name": "x" * number, "unique_id": number}]
        decode("getGroupAgentRelation", relation(1, roster), rosters=rosters)
        assert len(rosters._seen) <= replies.Rosters.capacity


def test_a_bad_roster_is_not_held() -> None:
    rosters = replies.Rosters()
    bad = relation(1, [{"name": "x"}])
    for _ in range(2):
        found = decode("getGroupAgentRelation", bad, rosters=rosters)
        assert type(found) is UnexpectedReply
        assert "$.response.agentData[0]" in str(found)
    assert rosters._seen == []


def test_a_group_named_like_the_key_confuses_nobody() -> None:
    rosters = replies.Rosters()
    decode("getGroupAgentRelation", relation(1), rosters=rosters)
    named = as_json(ROSTER).decode()
    for name in ('"agentData":' + named, '"agentData":[', "agentData", '\\"agentData\\":[0]'):
        body = relation(2, groupData=group(2, name))
        found = decode("getGroupAgentRelation", body, rosters=rosters)
        assert found.group.name == name
        assert len(found.agents) == 5


TWICE = [
    b'{"status":"success","response":{"agentData":%b,"groupData":%b,"agentData":%b,"relationData":[]}}',
    b'{"x":{"agentData":%b},"status":"success","response":{"groupData":%b,"agentData":%b,"relationData":[]}}',
    b'{"status":"success","response":{"groupData":{"agentData":%b,"name":"n","unique_id":1},"g":%b,"agentData":%b,"relationData":[]}}',
]


@pytest.mark.parametrize("template", TWICE)
@pytest.mark.parametrize("warm", ["first", "second", "both", "none"])
def test_a_reply_with_two_rosters_decodes_as_if_nothing_were_known(
    template: bytes, warm: str
) -> None:
    one, two = as_json(ROSTER), as_json(ROSTER[:2])
    body = template % (one, as_json(group(1)), two)
    rosters = replies.Rosters()
    if warm in ("first", "both"):
        decode("getGroupAgentRelation", relation(1, ROSTER), rosters=rosters)
    if warm in ("second", "both"):
        decode("getGroupAgentRelation", relation(1, ROSTER[:2]), rosters=rosters)
    for _ in range(2):
        found = decode("getGroupAgentRelation", body, rosters=rosters)
        assert found == decode("getGroupAgentRelation", body)
        assert [agent.unique_id for agent in found.agents] == [1, 2]


@given(
    st.lists(
        st.tuples(
            st.lists(
                st.fixed_dictionaries(
                    {"name": st.text(max_size=5), "unique_id": st.integers(0, 5)},
                    optional={"agentData": st.lists(st.integers(), max_size=2)},
                ),
                max_size=3,
            ),
            st.booleans(),
            st.sampled_from(["name", '"agentData":[]', "x"]),
        ),
        max_size=12,
    )
)
def test_sharing_rosters_changes_no_result(shown: list[tuple[list[Any], bool, str]]) -> None:
    rosters = replies.Rosters()
    for roster, spaced, name in shown:
        response = {"groupData": group(1, name), "agentData": roster, "relationData": []}
        whole = {"status": "success", "response": response}
        body = json.dumps(whole).encode() if spaced else as_json(whole)
        assert decode("getGroupAgentRelation", body, rosters=rosters) == decode(
            "getGroupAgentRelation", body
        )


# Over real sockets.


@pytest.mark.anyio
async def test_the_vendors_reply_over_a_socket() -> None:
    async with (
        FaultServer([Send(reply(SAMPLE))]) as server,
        DeepCall(UserToken("29791451", "t0ken"), base_url=server.base_url) as dc,
    ):
        found = await dc.groups.agent_relation(28)
        again = await dc.groups.agent_relation(28)
    assert (len(found.members), len(found.agents)) == (3, 11)
    assert again == found
    assert again.agents is found.agents


@pytest.mark.anyio
@pytest.mark.parametrize("code", CODES)
async def test_every_code_over_a_socket(code: int) -> None:
    async with (
        FaultServer([Send(error(code, "because"))]) as server,
        DeepCall(SessionId("s"), base_url=server.base_url, retry=RetryPolicy(attempts=1)) as dc,
    ):
        with pytest.raises(CODES[code]) as caught:
            await dc.groups.agent_relation(28)
    assert type(caught.value) is CODES[code]
    assert (caught.value.code, caught.value.http_status) == (code, 200)
    assert caught.value.attempts == 1


@pytest.mark.anyio
async def test_a_group_deleted_by_an_attempt_whose_answer_was_lost() -> None:
    script: list[Sequence[Step]] = [[Send(error(1009))], [Send(error(1503))]]
    policy = RetryPolicy(base_delay=0.0)
    async with (
        FaultServer(*script) as server,
        DeepCall(SessionId("s"), base_url=server.base_url, retry=policy) as dc,
    ):
        assert (await dc.groups.delete(28)).already_absent
        with pytest.raises(GroupUnavailable):
            await dc.groups.delete(28)
    async with (
        FaultServer(serve) as server,
        DeepCall(SessionId("s"), base_url=server.base_url) as dc,
    ):
        assert await dc.groups.delete(28) == DeletedGroup(False, "delete 28")
