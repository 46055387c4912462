"""However the bytes of answers are cut into receipts, and wherever calls are given up, nobody gets another's answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepcall_async import DeepCall, DeepCallError
from deepcall_async.transport.base import Answer
from deepcall_async.transport.connection import Connection, State
from deepcall_async.transport.direct import DirectTransport
from tests.support.clients import both_paths, client, quick
from tests.support.endpoints import ADD, DELETE, RELATION
from tests.support.faultserver import Delay, FaultServer, Fin, Received, Reset, Send, Stall, Step
from tests.support.replies import answer, chunk, reply, serve, success, zipped

pytestmark = pytest.mark.anyio

POISON = reply({"status": "success", "groupId": 666})


@dataclass(frozen=True)
class Response:
    """A response, the body that it has to give, and whether its connection may be used again."""

    data: bytes
    body: bytes
    reusable: bool = True


def in_chunks(body: bytes, size: int, trailer: bytes = b"") -> bytes:
    pieces = b"".join(chunk(body[at : at + size]) for at in range(0, len(body), size))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + pieces + b"0\r\n" + trailer + b"\r\n"


@st.composite
def responses(draw: st.DrawFn) -> Response:
    body = draw(st.binary(max_size=60))
    kind = draw(st.sampled_from(["plain", "odd", "chunked", "trailer", "gzip", "gzip chunked"]))
    data = {
        "plain": reply(body),
        # Read by aiohttp's parser, since there is a field that decides what follows.
        "odd": reply(body, connection="Keep-Alive, X"),
        "chunked": in_chunks(body, draw(st.integers(1, 30))),
        "trailer": in_chunks(body, 20, b"X: y\r\n"),
        "gzip": zipped(body),
        "gzip chunked": zipped(body, framing="chunked"),
    }[kind]
    interim = b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * draw(st.integers(0, 2))
    return Response(interim + data, body, kind != "trailer")


@dataclass(frozen=True)
class Receipts:
    """Bytes as they arrive: turns of the loop, and in each the portions that it delivers."""

    turns: list[list[bytes]]


def cut(draw: st.DrawFn, data: bytes) -> Receipts:
    places = draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=6))
    edges = [0, *sorted(place for place in places if place < len(data)), len(data)]
    turns: list[list[bytes]] = [[]]
    for start, end in pairwise(edges):
        if draw(st.booleans()):
            turns.append([])
        turns[-1].append(data[start:end])
    return Receipts(turns)


BEHIND = st.sampled_from([b"", b"", POISON, POISON[:-4], POISON[:20], b"\r\n", b"\0", b"0\r\n\r\n"])


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[Response, bytes, Receipts]:
    response, behind = draw(responses()), draw(BEHIND)
    return response, behind, cut(draw, response.data + behind)


async def delivered(transport: DirectTransport, receipts: Receipts) -> Answer | DeepCallError:
    """Send a request, deliver these receipts as the event loop does, and give what came of it."""
    sending = asyncio.create_task(
        transport.send("/x", lambda: b"{}", started=time.monotonic(), timeout=10.0, max_idle=10.0)
    )
    while not (busy(transport) or sending.done()):
        await asyncio.sleep(0)
    (connection,) = busy(transport)
    assert connection.state is State.WAITING
    for turn in receipts.turns:
        await asyncio.sleep(0)
        for portion in turn:
            at = 0
            while at < len(portion) and connection.state is not State.CLOSED:
                room = connection.get_buffer(-1)
                size = min(len(room), len(portion) - at)
                room[:size] = portion[at : at + size]
                connection.buffer_updated(size)
                at += size
    return await sending


def busy(transport: DirectTransport) -> list[Connection]:
    return [each for each in transport._connections if each.is_busy]


def idle(transport: DirectTransport) -> int:
    """How many connections can be used again."""
    return sum(each.state is State.IDLE for each in transport._idle)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(exchanges(), min_size=1, max_size=4))
async def test_receipts_at_random(
    sequence: list[tuple[Response, bytes, Receipts]],
) -> None:
    """The reference is what the responses were made of."""
    async with FaultServer([Stall()]) as server, client(server.base_url) as dc:
        transport = dc._session.pool.transport()
        assert isinstance(transport, DirectTransport)
        connections = 0
        for response, behind, receipts in sequence:
            connections += idle(transport) == 0
            found = await delivered(transport, receipts)
            if isinstance(found, DeepCallError):
                # Only noise behind what aiohttp's parser reads may make an answer unreadable.
                assert behind
            else:
                status, _, body = found
                assert (status, bytes(body)) == (200, response.body)
            assert idle(transport) == (response.reusable and not behind), (behind, found)
        assert server.connections == connections


PLAIN = Response(reply(b"first"), b"first")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), BEHIND)
async def test_a_plain_answer_is_always_delivered(data: st.DataObject, behind: bytes) -> None:
    receipts = data.draw(st.composite(cut)(PLAIN.data + behind))
    async with FaultServer([Stall()]) as server, client(server.base_url) as dc:
        transport = dc._session.pool.transport()
        assert isinstance(transport, DirectTransport)
        found = await delivered(transport, receipts)
        assert not isinstance(found, DeepCallError)
        assert bytes(found[2]) == b"first"
        assert idle(transport) == (not behind)


class Moody:
    """A server that answers rightly, in pieces, too much, too late, half or not at all.

    What it sends too much leaves in one write with the end of an answer. Once the next request is
    on its way, no client can tell it from an answer.
    """

    def __init__(self, dice: random.Random, *, too_much: bool) -> None:
        self.dice, self.too_much = dice, too_much

    def __call__(self, request: Received) -> Sequence[Step]:
        dice = self.dice
        framing = dice.choice(["length", "length", "chunked"])
        whole = reply(answer(request), framing=framing)
        if dice.random() < 0.2:
            whole = zipped(answer(request), framing=framing)
        place = dice.randrange(len(whole))
        mood = dice.random()
        if mood < 0.45:
            return [Send(whole)]
        if mood < 0.6:
            return [Send(whole[:place]), Delay(0.001), Send(whole[place:])]
        if mood < 0.7 and self.too_much:
            behind = dice.choice([POISON, POISON[:-3], b"\0", success(request)])
            return [Send(whole[:place]), Delay(0.001), Send(whole[place:] + behind)]
        if mood < 0.85:
            return [Delay(dice.random() * 0.02), Send(whole)]
        if mood < 0.9:
            return [Send(whole[:place]), Reset()]
        if mood < 0.95:
            return [Send(whole[:place]), Fin()]
        return [Send(whole[:place]), Stall()]


SLOTS = 8


def calls() -> int:
    """How many calls are made: many where the many examples of CI are wanted."""
    return 10_000 if settings().max_examples >= 500 else 300


@both_paths
async def test_calls_given_up_at_random_swap_nothing(path: str) -> None:
    dice = random.Random(20261124)
    ends: Counter[str] = Counter()

    async def one(dc: DeepCall, number: int) -> None:
        endpoint = dice.choice([RELATION, ADD, DELETE])
        patient = dc.with_options(timeout=dice.choice([0.005, 0.02, 1.0]))
        call = asyncio.ensure_future(endpoint.call(patient, number))
        if dice.random() < 0.3:
            await asyncio.sleep(dice.random() * 0.01)
            call.cancel()
        try:
            result = await call
        except asyncio.CancelledError:
            ends["cancelled"] += 1
        except DeepCallError as error:
            assert "another group" not in str(error)
            ends["failed"] += 1
        else:
            if endpoint is not DELETE or not result.already_absent:
                assert endpoint.good(result, number), (endpoint.name, number, result)
            ends["answered"] += 1

    total = calls()
    async with FaultServer(Moody(dice, too_much=path == "direct")) as server:
        async with client(server.base_url, path, retry=quick(3), max_connections=SLOTS) as dc:
            numbers = iter(range(1, total + 1))

            async def work() -> None:
                for number in numbers:
                    await one(dc, number)

            await asyncio.gather(*(work() for _ in range(3 * SLOTS)))
            assert ends.total() == total
            assert min(ends["answered"], ends["cancelled"], ends["failed"]) > total // 50
            assert (dc.stats.active, dc.stats.waiting) == (0, 0)
            if path == "direct":
                await server.until(lambda s: s.open_connections <= SLOTS)
                assert dc.stats.idle <= SLOTS
            server._script = (serve,)
            await asyncio.gather(*(RELATION(dc, number) for number in range(1, SLOTS + 1)))
