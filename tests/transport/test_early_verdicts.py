"""What is known early is said early: heads that no HTTP parser takes, and connections that have ended."""

from __future__ import annotations

import asyncio

import pytest

from deepcall_async import UnexpectedReply
from tests.support.clients import both_paths, client, connect
from tests.support.endpoints import RELATION
from tests.support.faultserver import FaultServer, Send, Stall, Wait
from tests.support.replies import serve

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\n"


@both_paths
@pytest.mark.parametrize(
    "beginning",
    [
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 2x0 OK\r\n",
        OK + b"no colon\r\n",
        OK + b"Content-Type: application/json\r\nb\0d: x\r\n",
        OK + b"Content-Length: 20\r\n: no name\r\n",
        OK + b"Content-Length: +5\r\n",
    ],
)
async def test_an_invalid_head_is_told_before_its_end(beginning: bytes, path: str) -> None:
    """The server says no more, and the attempt's timeout is far away."""
    async with connect([Send(beginning), Stall()], path, timeout=60.0) as (server, dc):
        await asyncio.wait_for(RELATION.fails(dc, UnexpectedReply), 15)
        await server.until(lambda s: s.open_connections == 0)


async def test_connections_that_have_ended_are_not_counted_as_idle() -> None:
    gate = asyncio.Event()
    async with FaultServer(lambda request: [Wait(gate), *serve(request)]) as server:
        async with client(server) as dc:
            calls = [asyncio.ensure_future(RELATION(dc, number)) for number in range(1, 5)]
            await server.until(lambda s: len(s.ledger) == 4)
            gate.set()
            await asyncio.gather(*calls)
            assert dc.stats.idle == 4
            await server.until(lambda s: s.idle_connections == 4)
            assert server.close_idle(3) == 3
            async with asyncio.timeout(10):
                while dc.stats.idle > 1:
                    await asyncio.sleep(0.001)
            assert dc.stats.idle == 1
