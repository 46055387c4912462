"""What the client makes of bodies: too large, garbled, or not of the shape it knows.

Real sockets and a ledger on the far side: every test says how often a request was sent. A
canary stands in what must not be shown.
"""

from __future__ import annotations

import copy
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from deepcall_async import ResponseTooLarge, UnexpectedReply
from tests.support.clients import both_paths, client
from tests.support.endpoints import ADD, ENDPOINTS, LIST, RELATION, Endpoint, each_endpoint, over
from tests.support.faultserver import FaultServer, Fin, Reaction, Received, Send, Stall, Step
from tests.support.replies import Framing, answer, as_json, chunk, group, reply, serve, zipped

pytestmark = pytest.mark.anyio

KIB, MIB = 2**10, 2**20


# Too large ---------------------------------------------------------------------------------------

CAP = 64 * KIB


def _head(*headers: tuple[str, str]) -> Send:
    return Send(reply(headers=[("Content-Type", "application/json"), *headers], framing="none"))


def _bomb(size: int, *, wbits: int = 31) -> bytes:
    """Zeros, compressed about a thousand to one: to gzip, or with 15 for wbits to zlib's form."""
    squeeze = zlib.compressobj(9, wbits=wbits)
    block = bytes(MIB)
    return b"".join([*(squeeze.compress(block) for _ in range(size // MIB)), squeeze.flush()])


BOMB = _bomb(4 * MIB)
ZLIB_BOMB = _bomb(4 * MIB, wbits=15)
BLOCK = b" " * 32 * KIB
CHUNKED = ("Transfer-Encoding", "chunked")

TOO_LARGE: dict[str, Sequence[Step]] = {
    "declared": [_head(("Content-Length", str(10 * 2**30))), Send(b"{}"), Stall()],
    "declared-by-one": [Send(reply(b" " * (CAP + 1)))],
    "chunked-by-one": [Send(reply(b" " * (CAP + 1), framing="chunked"))],
    "closed-by-one": [Send(reply(b" " * (CAP + 1), framing="close")), Fin()],
    "endless-chunks": [_head(CHUNKED), Send(chunk(BLOCK), repeat=None)],
    "endless-chunk": [_head(CHUNKED), Send(b"ffffffffff\r\n"), Send(BLOCK, repeat=None)],
    "endless": [_head(), Send(BLOCK, repeat=None)],
    "gzip-by-one": [Send(zipped(b" " * (CAP + 1)))],
    "gzip-bomb": [_head(("Content-Encoding", "gzip"), ("Content-Length", str(len(BOMB)))),
                  Send(BOMB), Stall()],
    "gzip-bomb-in-chunks": [_head(("Content-Encoding", "gzip"), CHUNKED),
                            Send(chunk(BOMB) + b"0\r\n\r\n"), Stall()],
    "deflate-bomb": [_head(("Content-Encoding", "deflate"),
                           ("Content-Length", str(len(ZLIB_BOMB)))), Send(ZLIB_BOMB), Stall()],
    "endless-gzip": [_head(("Content-Encoding", "gzip")), Send(BOMB, repeat=None)],
}  # fmt: skip
each_excess = pytest.mark.parametrize("excess", TOO_LARGE.values(), ids=TOO_LARGE.keys())


def test_the_bomb_is_one() -> None:
    assert 4 * MIB / len(BOMB) > 1000


@both_paths
@each_excess
async def test_a_body_over_the_limit(path: str, excess: Sequence[Step]) -> None:
    script: list[Reaction] = [excess, serve] * len(ENDPOINTS)
    async with (
        FaultServer(*script) as server,
        client(server.base_url, path, max_response_bytes=CAP) as dc,
    ):
        for endpoint in ENDPOINTS:
            large = await endpoint.fails(dc, ResponseTooLarge)
            assert large.http_status == 200
            assert str(CAP) in str(large)
            # A connection with more to say is closed; one that had said it all may serve again.
            await server.until(lambda s: s.open_connections == s.idle_connections)
            await endpoint(dc)
            assert len(server.received(endpoint.verb)) == 2


@both_paths
@each_excess
async def test_a_body_over_the_limit_does_not_fill_the_memory(
    path: str, excess: Sequence[Step]
) -> None:
    limit = MIB
    async with (
        FaultServer(serve, excess) as server,
        client(server.base_url, path, max_response_bytes=limit) as dc,
    ):
        await RELATION(dc)
        tracemalloc.start()
        try:
            with pytest.raises(UnexpectedReply):
                await RELATION(dc)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak <= limit + MIB


@both_paths
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("compressed", [False, True])
async def test_a_body_at_the_limit(path: str, framing: Framing, compressed: bool) -> None:
    def padded(request: Received) -> list[Step]:
        body = as_json(answer(request)).ljust(CAP)
        whole = zipped(body, framing=framing) if compressed else reply(body, framing=framing)
        return [Send(whole), *([Fin()] if framing == "close" else [])]

    async with (
        FaultServer(padded) as server,
        client(server.base_url, path, max_response_bytes=CAP) as dc,
    ):
        for endpoint in ENDPOINTS:
            await endpoint(dc)
        assert dc.stats.requests == len(ENDPOINTS)


# Compressed --------------------------------------------------------------------------------------

COMPRESSED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw-deflate": ("deflate", lambda data: zlib.compress(data)[2:-4]),
    "identity": ("identity", bytes),
    "two-members": ("gzip", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
}


@both_paths
@pytest.mark.parametrize(("coding", "squeeze"), COMPRESSED.values(), ids=COMPRESSED.keys())
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_compressed_replies_are_welcome(
    path: str, coding: str, squeeze: Callable[[bytes], bytes], framing: Framing
) -> None:
    def squeezed(request: Received) -> list[Step]:
        headers = [("Content-Encoding", coding)]
        return [Send(reply(squeeze(as_json(answer(request))), 200, headers, framing=framing))]

    async with FaultServer(squeezed) as server, client(server.base_url, path) as dc:
        for endpoint in ENDPOINTS:
            await endpoint(dc)
        assert dc.stats.requests == len(ENDPOINTS)


# Garbled -----------------------------------------------------------------------------------------

_DEEP = 100_000
GARBLED: dict[str, Callable[[bytes], bytes]] = {
    "cut-by-one": lambda body: body[:-1],
    "cut-in-half": lambda body: body[: len(body) // 2],
    "byte-order-mark": lambda body: b"\xef\xbb\xbf" + body,
    "trailing-letter": lambda body: body + b"x",
    "trailing-null": lambda body: body + b"\x00",
    "twice": lambda body: body + body,
    "not-utf8": lambda body: body.replace(b"Canary", b"\xff\xfe"),
    "overlong-utf8": lambda body: body.replace(b"Canary", b"\xc0\xaf"),
    "surrogate-utf8": lambda body: body.replace(b"Canary", b"\xed\xa0\x80"),
    "utf16": lambda body: body.decode().encode("utf-16"),
    "latin1": lambda body: body.replace(b"Canary", b"caf\xe9"),
    "deep": lambda body: b'{"x":' + b"[" * _DEEP + b"]" * _DEEP + b"," + body[1:],
    "deep-objects": lambda body: b'{"x":' + b'{"a":' * _DEEP + b"1" + b"}" * (_DEEP + 1),
    "deep-and-open": lambda _: b"[" * _DEEP,
    "nan": lambda body: b'{"x":NaN,' + body[1:],
    "infinity": lambda body: b'{"x":-Infinity,' + body[1:],
    "hexadecimal": lambda body: b'{"x":0x10,' + body[1:],
    "single-quotes": lambda body: body.replace(b'"', b"'"),
    "trailing-comma": lambda body: body[:-1] + b",}",
    "comment": lambda body: b"/* Canary */" + body,
    "padding-for-scripts": lambda body: b")]}',\n" + body,
    "array": lambda body: b"[" + body + b"]",
    "string": lambda _: b'"Canary"',
    "number": lambda _: b"28",
    "null": lambda _: b"null",
    "true": lambda _: b"true",
    "nothing-in-it": lambda _: b"{}",
}  # fmt: skip


@both_paths
@pytest.mark.parametrize("garble", GARBLED.values(), ids=GARBLED.keys())
async def test_what_is_not_json(path: str, garble: Callable[[bytes], bytes]) -> None:
    def garbled(request: Received) -> list[Step]:
        return [Send(reply(garble(b'{"x":"Canary",' + as_json(answer(request))[1:])))]

    async with FaultServer(garbled) as server, client(server.base_url, path) as dc:
        for endpoint in ENDPOINTS:
            unexpected = await endpoint.fails(dc, UnexpectedReply)
            _shows_no_data(unexpected)
            assert unexpected.http_status == 200
            assert len(server.received(endpoint.verb)) == 1


def _shows_no_data(error: BaseException | None) -> None:
    while error is not None:
        assert "Canary" not in str(error) + repr(error)
        error = error.__cause__ or error.__context__


# Shapes ------------------------------------------------------------------------------------------


def _richer(value: Any) -> Any:
    """The same JSON with a new field in every object."""
    if isinstance(value, dict):
        return {"new": [{"Canary": None}], **{key: _richer(each) for key, each in value.items()},
                "newer": 1.5}  # fmt: skip
    return [_richer(each) for each in value] if isinstance(value, list) else value


def _as_text(value: Any) -> Any:
    """The same JSON with its ids as text."""
    if isinstance(value, dict):
        return {
            key: str(each) if key.endswith(("id", "Id", "code")) else _as_text(each)
            for key, each in value.items()
        }
    return [_as_text(each) for each in value] if isinstance(value, list) else value


def _without_code(value: Any) -> Any:
    return {key: each for key, each in value.items() if key != "code"}


@both_paths
@each_endpoint
@pytest.mark.parametrize("change", [_richer, _as_text, _without_code])
async def test_shapes_that_are_taken(
    endpoint: Endpoint, path: str, change: Callable[[Any], Any]
) -> None:
    def changed(request: Received) -> list[Step]:
        return [Send(reply(change(answer(request))))]

    async with FaultServer(changed) as server, client(server.base_url, path) as dc:
        await endpoint(dc)
        assert len(server.ledger) == 1


@both_paths
@pytest.mark.parametrize(
    "response",
    [[group(28)], {"groupData": [group(28)]}, {"groupData": group(28)}, [group(27), group(28)]],
    ids=["array", "holder", "holder-of-one", "more-than-asked-for"],
)
async def test_lists_come_in_several_shapes(path: str, response: Any) -> None:
    body = reply({"status": "success", "response": response, "code": 200})
    async with FaultServer([Send(body)]) as server, client(server.base_url, path) as dc:
        await LIST(dc)
        assert len(server.ledger) == 1


# What each endpoint cannot do without: the path of the object, and the field in it.
REQUIRED: tuple[tuple[Endpoint, str, str], ...] = (
    *((each, "$", "status") for each in ENDPOINTS),
    (ADD, "$", "groupId"),
    (LIST, "$", "response"),
    (LIST, "$.response[0]", "unique_id"),
    (LIST, "$.response[0]", "name"),
    (RELATION, "$", "response"),
    (RELATION, "$.response", "groupData"),
    (RELATION, "$.response.groupData", "unique_id"),
    (RELATION, "$.response.groupData", "name"),
    (RELATION, "$.response", "agentData"),
    (RELATION, "$.response.agentData[1]", "unique_id"),
    (RELATION, "$.response.agentData[1]", "name"),
    (RELATION, "$.response", "relationData"),
    (RELATION, "$.response.relationData[0]", "group_id"),
    (RELATION, "$.response.relationData[0]", "agent_id"),
    (RELATION, "$.response.relationData[0]", "receive_call"),
)
each_required = pytest.mark.parametrize(
    ("endpoint", "where", "field"), REQUIRED, ids=lambda part: getattr(part, "name", part)
)


def _find(value: Any, where: str) -> Any:
    for step in where.replace("[", ".").replace("]", "").split(".")[1:]:
        value = value[int(step)] if step.isdigit() else value[step]
    return value


@both_paths
@each_required
async def test_a_required_field_is_missing(
    endpoint: Endpoint, where: str, field: str, path: str
) -> None:
    def lacking(request: Received) -> list[Step]:
        body = copy.deepcopy(answer(request))
        del _find(body, where)[field]
        return [Send(reply({"x": "Canary", **body}))]

    async with FaultServer(lacking) as server, client(server.base_url, path) as dc:
        unexpected = await endpoint.fails(dc, UnexpectedReply)
        _shows_no_data(unexpected)
        assert field in str(unexpected)
        assert where == "$" or where in str(unexpected), str(unexpected)
        assert len(server.ledger) == 1


WRONG: list[Any] = [None, {"Canary": "Canary"}, ["Canary"]]


def _in_place_of(where: str, field: str, value: bytes) -> Reaction:
    def react(request: Received) -> list[Step]:
        body = copy.deepcopy(answer(request))
        _find(body, where)[field] = "<here>"
        return [Send(reply(as_json(body).replace(b'"<here>"', value)))]

    return react


@both_paths
@each_required
async def test_a_required_field_has_the_wrong_type(
    endpoint: Endpoint, where: str, field: str, path: str
) -> None:
    script = [_in_place_of(where, field, as_json(value)) for value in WRONG]
    async with FaultServer(*script) as server, client(server.base_url, path) as dc:
        for sent in range(1, len(WRONG) + 1):
            unexpected = await endpoint.fails(dc, UnexpectedReply)
            _shows_no_data(unexpected)
            assert f"{where}.{field}" in str(unexpected), str(unexpected)
            assert len(server.ledger) == sent


NOT_IDS = [b"1" + b"0" * 400, b"9223372036854775808", b"-1e400", b"2.5", b'"Canary"', b'"2_8"',
           b'"1' + b"0" * 400 + b'"', b'""', b"true", b'" 28"']  # fmt: skip


@both_paths
@pytest.mark.parametrize(
    ("endpoint", "where", "field"),
    [each for each in REQUIRED if each[2] in ("groupId", "unique_id", "group_id", "agent_id")],
    ids=lambda part: getattr(part, "name", part),
)
async def test_an_id_that_is_none(endpoint: Endpoint, where: str, field: str, path: str) -> None:
    script = [_in_place_of(where, field, value) for value in NOT_IDS]
    async with FaultServer(*script) as server, client(server.base_url, path) as dc:
        for sent in range(1, len(NOT_IDS) + 1):
            unexpected = await endpoint.fails(dc, UnexpectedReply)
            _shows_no_data(unexpected)
            assert len(server.ledger) == sent


@both_paths
@over(LIST, RELATION)
async def test_half_a_character_never_comes_out(endpoint: Endpoint, path: str) -> None:
    """A lone surrogate could be neither printed nor sent again."""

    def wrong(request: Received) -> list[Step]:
        return [
            Send(reply(as_json(answer(request)).replace(b'"name":"Sales"', b'"name":"\\ud800"')))
        ]

    async with FaultServer(wrong) as server, client(server.base_url, path) as dc:
        await endpoint.fails(dc, UnexpectedReply)
        assert len(server.ledger) == 1


# What is not sent --------------------------------------------------------------------------------

NAMES: list[Any] = ["", " ", "\t\n", "a\ud800", "\udfffa", "a\x00b", "a\x1b[0m", "x" * MIB, None,
                    5, b"Sales", True, ["Sales"]]  # fmt: skip
IDS: list[Any] = [True, False, -1, "-1", "", "  ", " 28", "2\x008", "\ud800", None, 2.8, b"28",
                  10**30, "x" * MIB, [28]]  # fmt: skip
FLAGS: list[Any] = [1, 0, "true", "no", []]
# Groups' methods, and the argument to spoil: by place, or by name beside the place.
SPOILT: list[tuple[str, tuple[Any, ...], dict[str, Any], list[Any]]] = [
    ("add", (...,), {}, NAMES),
    ("update", (28,), {"name": ...}, NAMES),
    ("list", (), {"name": ...}, [each for each in NAMES if each is not None]),
    ("agent_relation", (28,), {"name": ...}, [each for each in NAMES if each is not None]),
    ("update", (...,), {"name": "Sales"}, IDS),
    ("delete", (...,), {}, IDS),
    ("agent_relation", (...,), {}, IDS),
    ("list", (), {"group_id": ...}, [each for each in IDS if each is not None]),
    ("assign_agents", (..., [3]), {}, IDS),
    ("assign_agents", (28, [3, ...]), {}, IDS),
    ("assign_agents", (28, [3]), {"receive_call": [...]}, IDS),
    ("assign_agents", (28, ...), {}, ["38", b"38", 3, None]),
    ("assign_agents", (28, [3]), {"receive_call": ...}, ["3", b"3", 3, None]),
    ("list", (), {"quick": ...}, FLAGS),
    ("list", (), {"forward": ...}, FLAGS),
    ("agent_relation", (28,), {"quick": ...}, [*FLAGS, None]),
    ("update", (28,), {"name": "Sales", "status": ...}, [True, -1, "1", 1.0, 2**63]),
]


def _spoil(value: Any, bad: Any) -> Any:
    if isinstance(value, list):
        return [_spoil(each, bad) for each in value]
    return bad if value is ... else value


@both_paths
@pytest.mark.parametrize(
    ("method", "places", "names", "values"), SPOILT, ids=lambda part: part or "-"
)
async def test_wrong_arguments_never_leave(
    path: str, method: str, places: tuple[Any, ...], names: dict[str, Any], values: list[Any]
) -> None:
    async with FaultServer(serve) as server, client(server.base_url, path) as dc:
        for bad in values:
            with pytest.raises((ValueError, TypeError)) as caught:
                await getattr(dc.groups, method)(
                    *(_spoil(each, bad) for each in places),
                    **{name: _spoil(each, bad) for name, each in names.items()},
                )
            # A short message: it says what to do and does not repeat what was given.
            assert 0 < len(str(caught.value)) < 200
        assert (server.connections, dc.stats.requests) == (0, 0)


@both_paths
@pytest.mark.parametrize(
    "name", ['"quoted"', "back\\slash", "Łódź 🚀", "x" * 255, "' OR 1=1 --", "</script>"]
)
async def test_any_other_name_arrives_as_it_is(path: str, name: str) -> None:
    async with FaultServer(serve) as server, client(server.base_url, path) as dc:
        await dc.groups.add(name)
        await dc.groups.update(28, name=name)
        assert [request.body["name"] for request in server.ledger] == [name, name]
        assert json.dumps(server.ledger[0].body)
