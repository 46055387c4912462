"""Bytes that nobody asked for never become the next answer, in whatever turn the loop sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from deepcall_async.transport.connection import State
from tests.support.clients import client
from tests.support.endpoints import ADD, LIST, RELATION, Endpoint
from tests.support.faultserver import Delay, Early, FaultServer, Fin, Received, Send, Step
from tests.support.replies import answer, error, reply, serve

pytestmark = pytest.mark.anyio

POISON = {
    "status": "success",
    "groupId": 666,
    "response": [{"name": "poison", "unique_id": 666}],
}
BEHIND = {
    "a whole reply": reply(POISON),
    "a chunked reply": reply(POISON, framing="chunked"),
    "half a reply": reply(POISON)[:-5],
    "half a head": b"HTTP/1.1 200 OK\r\nX: ",
    "two bytes": b"\r\n",
    "one byte": b"\0",
    "the end of a chunked body": b"0\r\n\r\n",
}
FRAMINGS = ["length", "chunked"]
each_kind_of_bytes = pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND.keys())


@each_kind_of_bytes
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("cut", ["in the head", "in the body", "before the last byte", "nowhere"])
@pytest.mark.parametrize("following", [LIST, ADD, RELATION], ids=lambda each: each.name)
async def test_bytes_behind_an_answer_reach_nobody(
    behind: bytes, framing: str, cut: str, following: Endpoint
) -> None:
    def first(request: Received) -> Sequence[Step]:
        whole = reply(answer(request), framing=framing)
        body = whole.index(b"\r\n\r\n") + 4
        place = {
            "in the head": body - 7,
            "in the body": body + 9,
            "before the last byte": len(whole) - 1,
            "nowhere": 0,
        }[cut]
        # The rest and what is behind it leave in one write, and arrive in one turn of the loop.
        return [Send(whole[:place]), Delay(0.002), Send(whole[place:] + behind)]

    async with FaultServer(first, serve) as server, client(server.base_url) as dc:
        if framing == "length":
            await RELATION(dc, 27)
        else:
            # Where the answer itself is read by aiohttp's parser, noise in one portion with it can
            # make it unreadable; it is never another answer.
            await asyncio.gather(RELATION.call(dc, 27), return_exceptions=True)
        await following(dc, 28)
        assert dc.stats.requests == server.begun
        assert server.connections == 2


@each_kind_of_bytes
@pytest.mark.parametrize("following", [LIST, ADD], ids=lambda each: each.name)
async def test_what_is_sent_at_accept_is_no_answer(behind: bytes, following: Endpoint) -> None:
    def spoken(number: int) -> Sequence[Step]:
        return [Send(behind)] if number == 1 else []

    async with FaultServer(serve, on_connect=spoken) as server, client(server.base_url) as dc:
        try:
            await following(dc, 28)
        except Exception as failed:
            assert "666" not in str(failed)
        await following(dc, 29)


async def test_an_end_of_stream_on_an_idle_connection_ends_it() -> None:
    async with FaultServer(serve, [Fin()], serve) as server, client(server.base_url) as dc:
        await RELATION(dc, 27)
        (connection,) = dc._session.pool.transport()._idle  # type: ignore[attr-defined]
        connection.eof_received()
        assert connection.state is State.CLOSED


async def test_a_connection_that_the_server_closes_costs_a_change_nothing() -> None:
    """Over TLS the server says so in the stream (close_notify) before the socket ends."""
    async with FaultServer(serve) as server, client(server.base_url) as dc:
        for number in range(1, 6):
            await ADD(dc, number)
            await server.until(lambda s: s.idle_connections == 1)
            server.half_close_idle()
        assert len(server.committed) == 5
        assert server.connections == 5


# The largest is more than the buffers of both sockets hold, so that some of it is surely unsent.
@pytest.mark.parametrize(
    "size", [100, 100_000, pytest.param(12_000_000, marks=pytest.mark.thorough)]
)
async def test_an_answer_to_half_a_request_ends_the_connection(size: int) -> None:
    agents = list(range(10**9, 10**9 + max(1, size // 13)))
    early = Early(50, [Send(reply(error(1000)))])
    async with FaultServer(early, serve) as server, client(server.base_url) as dc:
        refused = await asyncio.gather(dc.groups.assign_agents(27, agents), return_exceptions=True)
        assert isinstance(refused[0], Exception)
        await RELATION(dc, 28)
        if size > 100_000:
            assert server.connections == 2


async def test_answers_that_end_where_their_bytes_end_keep_their_connection() -> None:
    framings = ["length", "chunked"]

    def framed(request: Received) -> Sequence[Step]:
        return [Send(reply(answer(request), framing=framings[request.number % 2]))]

    async with FaultServer(framed) as server, client(server.base_url) as dc:
        for number in range(1, 1001):
            await RELATION(dc, number)
        assert server.connections == 1
