"""A body that turns out to be garbled midway ends its call there and then, on either path."""

from __future__ import annotations

import asyncio
import time

import pytest

from deepcall_async import RequestTimeout, UnexpectedReply
from tests.support.clients import ONCE, both_paths, client
from tests.support.faultserver import FaultServer, Send, Stall, Wait

pytestmark = pytest.mark.anyio


@pytest.mark.virtual_time
@both_paths
@pytest.mark.parametrize("rest", [b"zz\r\nabc", b"3\r\nabcde", b"-1\r\n", b"3"])
async def test_a_body_that_goes_bad_midway(path: str, rest: bytes) -> None:
    head = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"sta\r\n'
    more = asyncio.Event()
    script = [Send(head), Wait(more), Send(rest), Stall()]
    async with FaultServer(script) as server, client(server, path, timeout=5.0, retry=ONCE) as dc:
        task = asyncio.ensure_future(dc.groups.list())
        await server.until(lambda s: s.sent == len(head))
        await asyncio.sleep(0.02)
        sent = time.monotonic()
        more.set()
        # What may still become a chunk is waited for; what cannot is not.
        garbled = len(rest) > 1
        with pytest.raises(UnexpectedReply if garbled else RequestTimeout):
            await task
        waited = time.monotonic() - sent
        assert waited < 0.01 if garbled else waited > 4
        await server.until(lambda s: s.open_connections == 0)
