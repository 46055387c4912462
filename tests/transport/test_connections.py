"""Which connection a request goes out on: how many there are, how old they may be, and what a dead server costs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

import pytest

from deepcall_async import RequestTimeout
from tests.support.clients import client, quick
from tests.support.endpoints import ADD, LIST, READS, RELATION, Endpoint, over
from tests.support.faultserver import Delay, FaultServer, Received, Send, Stall, Step, Wait
from tests.support.replies import answer, reply, serve, zipped
from tests.support.rows import mostly_thorough

pytestmark = pytest.mark.anyio

# How many there are ------------------------------------------------------------------------------

_ESTABLISHED = 1


def established(server: FaultServer) -> int:
    """How many connections the peer has not ended; the system knows before the server does."""
    return sum(
        each.socket.fileno() >= 0
        and each.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED
        for each in server._live.values()
    )


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="this system does not tell")
async def test_rounds_of_reads_and_changes_never_open_one_connection_too_many() -> None:
    """A change does not go out on what was idle for long, so it needs room for a new one."""
    most = 0

    def counted(number: int) -> Sequence[Step]:
        nonlocal most
        most = max(most, established(server))
        return []

    def slow(request: Received) -> Sequence[Step]:
        return [Delay(0.002), *serve(request)]

    async with FaultServer(slow, on_connect=counted) as server:
        async with client(server.base_url, max_connections=4) as dc:
            for _ in range(3):
                await asyncio.gather(*(RELATION(dc, number) for number in range(1, 13)))
                await asyncio.sleep(0.32)
                await asyncio.gather(*(ADD(dc, number) for number in range(1, 13)))
                mixed = (ADD(dc, n) if n % 2 else LIST(dc, n) for n in range(1, 13))
                await asyncio.gather(*mixed)
                assert dc.stats.idle <= 4
            assert len(server.received("add")) == 3 * 18
    assert most == 4
    assert server.connections > 8


# A thousand calls --------------------------------------------------------------------------------

FRAMINGS: dict[str, Callable[[Received], bytes]] = {
    "a length": lambda request: reply(answer(request)),
    "chunks": lambda request: reply(answer(request), framing="chunked"),
    "gzip": lambda request: zipped(answer(request)),
    "gzip in chunks": lambda request: zipped(answer(request), framing="chunked"),
    "an interim head": lambda request: b"HTTP/1.1 103 Hints\r\n\r\n" + reply(answer(request)),
}


@pytest.mark.parametrize(("path", "calls"), [("direct", 1000), ("borrowed", 200)])
@pytest.mark.parametrize("framing", mostly_thorough(FRAMINGS))
async def test_all_calls_go_out_on_the_same_connections(
    framing: str, path: str, calls: int
) -> None:
    async with FaultServer(lambda request: [Send(FRAMINGS[framing](request))]) as server:
        async with client(server.base_url, path, max_connections=4) as dc:
            for start in range(1, calls + 1, 20):
                await asyncio.gather(*(RELATION(dc, start + more) for more in range(20)))
        assert len(server.ledger) == calls
        assert server.connections <= 4


@pytest.mark.parametrize("cut", range(1, 6))
async def test_an_end_of_chunks_in_two_portions_keeps_the_connection(cut: int) -> None:
    def halved(request: Received) -> Sequence[Step]:
        whole = reply(answer(request), framing="chunked")
        return [Send(whole[:-cut]), Delay(0.002), Send(whole[-cut:])]

    async with FaultServer(halved) as server, client(server.base_url) as dc:
        for number in range(1, 6):
            await RELATION(dc, number)
        assert server.connections == 1


# A server that is gone without a word ------------------------------------------------------------


async def warmed(server: FaultServer, dc: object, gate: asyncio.Event, count: int) -> None:
    """Leave so many idle connections."""
    calls = [asyncio.ensure_future(RELATION(dc, number)) for number in range(1, count + 1)]  # type: ignore[arg-type]
    await server.until(lambda s: len(s.ledger) == count)
    gate.set()
    await asyncio.gather(*calls)
    assert server.connections == count


@over(*READS)
async def test_the_attempt_after_a_timeout_goes_out_on_a_fresh_connection(
    endpoint: Endpoint,
) -> None:
    gate = asyncio.Event()

    def dying(request: Received) -> Sequence[Step]:
        if request.number <= 16:
            return [Wait(gate), *serve(request)]
        return [Stall()] if request.connection <= 16 else serve(request)

    async with FaultServer(dying) as server:
        async with client(server.base_url, timeout=3.0) as dc:
            await warmed(server, dc, gate, 16)
            await endpoint(dc.with_options(timeout=0.2), 28)
            assert [each.connection > 16 for each in server.ledger[16:]] == [False, True]
            # The others that were idle before that attempt are as dead as the one it met.
            await server.until(lambda s: s.open_connections == 1)
            assert dc.stats.idle == 1
            for number in range(1, 11):
                await endpoint(dc, number)
                await ADD(dc, number)
            assert server.connections == 17


async def test_the_call_after_a_timeout_goes_out_on_a_fresh_connection() -> None:
    gate = asyncio.Event()

    def dying(request: Received) -> Sequence[Step]:
        if request.number <= 16:
            return [Wait(gate), *serve(request)]
        return [Stall()] if request.connection <= 16 else serve(request)

    async with FaultServer(dying) as server:
        async with client(server.base_url, timeout=3.0, retry=quick(1)) as dc:
            await warmed(server, dc, gate, 16)
            await RELATION.fails(dc.with_options(timeout=0.2), RequestTimeout)
            await RELATION(dc, 28)
            await ADD(dc, 29)
            assert server.connections == 17


async def test_what_answered_since_is_kept_after_a_timeout() -> None:
    """It is alive: only what was idle before the attempt that timed out is dropped."""
    gate = asyncio.Event()

    def reaction(request: Received) -> Sequence[Step]:
        if request.number <= 2:
            return [Wait(gate), *serve(request)]
        return [Stall()] if request.verb == "list" else serve(request)

    async with FaultServer(reaction) as server:
        async with client(server.base_url, timeout=3.0, retry=quick(1)) as dc:
            await warmed(server, dc, gate, 2)
            stalled = asyncio.ensure_future(
                LIST.fails(dc.with_options(timeout=0.3), RequestTimeout)
            )
            await server.until(lambda s: len(s.received("list")) == 1)
            # A loop's clock may tell no less than a millisecond.
            await asyncio.sleep(0.005)
            await RELATION(dc, 27)
            await stalled
            assert dc.stats.idle == 1
            await RELATION(dc, 28)
            assert server.connections == 2


# The edge of keep-alive --------------------------------------------------------------------------


async def test_a_server_that_closes_after_a_second_costs_no_change_its_outcome() -> None:
    async with FaultServer(serve, close_idle_after=1.0) as server:

        async def lane(number: int) -> None:
            # A client of its own, so that each has one connection and a pause of its own.
            async with client(server.base_url) as dc:
                await ADD(dc, number)
                await asyncio.sleep(0.94 + number * 0.005)
                await ADD(dc, number)
                await RELATION(dc, number)

        await asyncio.gather(*(lane(number) for number in range(1, 25)))
        assert len(server.received("add")) == 48


async def test_a_change_uses_a_connection_that_was_idle_for_a_moment_only() -> None:
    async with FaultServer(serve) as server, client(server.base_url) as dc:
        await RELATION(dc, 1)
        await asyncio.sleep(0.31)
        await RELATION(dc, 2)
        assert server.connections == 1
        await asyncio.sleep(0.31)
        await ADD(dc, 3)
        assert server.connections == 2
        # The newest goes first, and a read has no need of a new one.
        await asyncio.sleep(0.31)
        await RELATION(dc, 4)
        assert server.ledger[-1].connection == 2
        assert server.connections == 2


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_what_the_server_says_of_keep_alive_holds(framing: str) -> None:
    def told(request: Received) -> Sequence[Step]:
        headers = [("Keep-Alive", "timeout=1, max=100")]
        return [Send(reply(answer(request), 200, headers, framing=framing))]  # type: ignore[arg-type]

    async with FaultServer(told, close_idle_after=1.0) as server, client(server.base_url) as dc:
        await RELATION(dc, 1)
        await RELATION(dc, 2)
        assert server.connections == 1
        # Half a second before the server would close it.
        await asyncio.sleep(0.6)
        await RELATION(dc, 3)
        assert server.connections == 2


@pytest.mark.parametrize("value", ["timeout=0", "timeout=00", "max=5, timeout=0"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_server_that_keeps_nothing_alive_gets_new_connections(
    value: str, framing: str
) -> None:
    def told(request: Received) -> Sequence[Step]:
        return [Send(reply(answer(request), 200, [("Keep-Alive", value)], framing=framing))]  # type: ignore[arg-type]

    async with FaultServer(told) as server, client(server.base_url) as dc:
        for number in range(1, 4):
            await RELATION(dc, number)
            await ADD(dc, number)
        assert server.connections == 6


@pytest.mark.parametrize("value", ["timeout=99999999", "timeout=-1", "timeout=", "x", "timeout=5"])
async def test_an_odd_keep_alive_does_no_harm(value: str) -> None:
    def told(request: Received) -> Sequence[Step]:
        return [Send(reply(answer(request), 200, [("Keep-Alive", value)]))]

    async with FaultServer(told) as server, client(server.base_url) as dc:
        for number in range(1, 4):
            await RELATION(dc, number)
        assert server.connections == 1
