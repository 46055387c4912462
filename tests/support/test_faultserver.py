"""The fault server does what its script says: each kind of step, seen from a plain socket.

Raw asyncio streams are the client, so that these tests trust nothing but the operating system.
"""

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.support.faultserver import (
    Commit,
    Delay,
    Early,
    FaultServer,
    Fin,
    HalfClose,
    Reset,
    Send,
    Stall,
    Step,
    Wait,
)
from tests.support.hazards import Certificates, black_hole, refused_port
from tests.support.replies import answer, as_json, chunk, error, reply, serve, success, zipped

pytestmark = pytest.mark.anyio

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def connect(
    server: FaultServer, context: ssl.SSLContext | None = None
) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def ask(verb: str = "add", **body: object) -> bytes:
    content = as_json(body)
    head = (
        f"POST /api/v2/Group/{verb} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def read_reply(reader: asyncio.StreamReader) -> Any:
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return json.loads(await reader.readexactly(size))


async def test_the_ledger_tells_requests_and_connections_apart() -> None:
    async with FaultServer(serve) as server:
        async with connect(server) as (reader, writer):
            for number in (5, 6):
                writer.write(ask("update", groupId=number))
                await read_reply(reader)
        async with connect(server) as (reader, writer):
            writer.write(ask("delete", groupId=7))
            await read_reply(reader)
            assert server.open_connections == 1
        seen = [(r.number, r.connection, r.number_on_connection, r.verb) for r in server.ledger]
        assert seen == [(1, 1, 1, "update"), (2, 1, 2, "update"), (3, 2, 1, "delete")]
        assert [r.body for r in server.ledger] == [{"groupId": n} for n in (5, 6, 7)]
        assert server.ledger[0].headers["host"] == "x"
        assert server.ledger[0].method == "POST"
        assert len(server.committed) == 3
        await server.until(lambda s: s.open_connections == 0)
        assert server.connections == 2


async def test_reactions_go_by_arrival_and_the_last_repeats() -> None:
    script = [Send(reply(b"1"))], [Send(reply(b"2"))]
    async with FaultServer(*script) as server, connect(server) as (reader, writer):
        for expected in (1, 2, 2):
            writer.write(ask())
            assert await read_reply(reader) == expected
        assert server.committed == []


async def test_segments_arrive_one_by_one() -> None:
    segments: list[bytes] = []

    class Recorder(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            segments.append(data)

    async with FaultServer([Send(b"abc", chunk=1), Fin()]) as server:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(Recorder, "127.0.0.1", server.port)
        transport.write(ask())
        await server.until(lambda s: s.begun == 1 and s.open_connections == 0)
        assert segments == [b"a", b"b", b"c"]
        assert server.sent == 3


async def test_a_pause_and_a_delay_take_their_time() -> None:
    slow: Sequence[Step] = [Delay(0.05), Send(b"ab", chunk=1, pause=0.05), Fin()]
    async with FaultServer(slow) as server, connect(server) as (reader, writer):
        begun = asyncio.get_running_loop().time()
        writer.write(ask())
        assert await reader.read() == b"ab"
        assert asyncio.get_running_loop().time() - begun >= 0.14


async def test_an_endless_reply_stops_with_the_connection() -> None:
    async with FaultServer([Send(b"x" * 1024, repeat=None)]) as server:
        async with connect(server) as (reader, writer):
            writer.write(ask())
            await reader.readexactly(100_000)
        await server.until(lambda s: s.open_connections == 0)
        assert server.sent >= 100_000


async def test_a_stall_ends_when_the_peer_leaves() -> None:
    async with FaultServer([Stall()]) as server:
        async with connect(server) as (reader, writer):
            writer.write(ask())
            await server.until(lambda s: len(s.ledger) == 1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.02)
        await server.until(lambda s: s.open_connections == 0)


async def test_waiting_for_the_test_to_go_on() -> None:
    go = asyncio.Event()
    script = [Wait(go), Send(reply(b"1"))]
    async with FaultServer(script) as server, connect(server) as (reader, writer):
        writer.write(ask())
        await server.until(lambda s: len(s.ledger) == 1)
        go.set()
        assert await read_reply(reader) == 1


async def test_reset_and_fin_differ() -> None:
    script = [Send(b"abc"), Reset()], [Send(b"abc"), Fin()]
    async with FaultServer(*script) as server:
        async with connect(server) as (reader, writer):
            writer.write(ask())
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(4)
        async with connect(server) as (reader, writer):
            writer.write(ask())
            assert await reader.read() == b"abc"


async def test_a_half_closed_connection_still_listens() -> None:
    script = [Send(b"abc"), HalfClose(), Stall()]
    async with FaultServer(script) as server, connect(server) as (reader, writer):
        writer.write(ask())
        assert await reader.read() == b"abc"
        writer.write(ask())
        await writer.drain()
        assert server.open_connections == 1


async def test_acting_before_the_request_is_whole() -> None:
    script = Early(10, [Reset()]), Early(10, [Send(error(1), chunk=None)]), serve
    async with FaultServer(*script) as server:
        async with connect(server) as (reader, writer):
            writer.write(ask()[:10])
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
        assert (server.begun, server.ledger) == (1, [])
        async with connect(server) as (reader, writer):
            request = ask(name="g")
            writer.write(request[:10])
            assert (await read_reply(reader))["code"] == 1
            assert server.ledger == []
            writer.write(request[10:] + ask(name="Sales 8"))
            assert (await read_reply(reader))["groupId"] == 8
            assert [r.committed for r in server.ledger] == [False, True]


async def test_acting_before_any_request() -> None:
    script: dict[int, Sequence[Step]] = {1: [Reset()], 2: [Send(b"hello"), Fin()]}
    async with FaultServer(serve, on_connect=lambda number: script.get(number, ())) as server:
        with pytest.raises(ConnectionResetError):
            async with connect(server) as (reader, _):
                await reader.readexactly(1)
        async with connect(server) as (reader, _):
            assert await reader.read() == b"hello"
        async with connect(server) as (reader, writer):
            writer.write(ask(name="Sales 3"))
            assert (await read_reply(reader))["groupId"] == 3


async def test_bytes_nobody_asked_for() -> None:
    async with FaultServer(serve) as server, connect(server) as (reader, writer):
        writer.write(ask(name="g"))
        await server.until(lambda s: len(s.ledger) == 1)
        await read_reply(reader)
        server.push(b"more", connection=2)
        server.push(b"again", connection=1)
        assert await reader.readexactly(5) == b"again"


async def test_idle_connections_are_closed_at_once_or_in_time() -> None:
    async with FaultServer(serve) as server, connect(server) as (reader, writer):
        writer.write(ask(name="g"))
        await read_reply(reader)
        await server.until(lambda s: s.idle_connections == 1)
        assert server.close_idle() == 1
        assert await reader.read() == b""
    patient = FaultServer(serve, close_idle_after=0.03)
    async with patient as server, connect(server) as (reader, writer):
        await asyncio.sleep(0.06)
        writer.write(ask(name="g"))
        await read_reply(reader)
        assert await asyncio.wait_for(reader.read(), 1) == b""


async def test_it_closes_with_clients_still_connected() -> None:
    tasks = len(asyncio.all_tasks())
    endless = Send(b"x" * 65536, repeat=None)
    async with contextlib.AsyncExitStack() as clients:
        async with FaultServer([Stall()], [endless], on_connect=[Send(b"hello")]) as server:
            for request in (ask(), ask(), b""):
                reader, writer = await clients.enter_async_context(connect(server))
                await reader.readexactly(5)
                writer.write(request)
            await server.until(lambda s: s.begun == 2)
            assert server.open_connections == 3
        assert server.open_connections == 0
        assert len(asyncio.all_tasks()) == tasks
        with pytest.raises(ConnectionRefusedError):
            await connect(server).__aenter__()


async def test_a_broken_script_is_not_passed_over() -> None:
    def broken(_: object) -> Sequence[Step]:
        raise LookupError

    server = FaultServer(broken)
    await server.__aenter__()
    async with connect(server) as (reader, writer):
        writer.write(ask())
        assert await reader.read() == b""
    with pytest.raises(LookupError):
        await server.__aexit__()


@pytest.mark.parametrize("verb", ["add", "update", "delete", "submitAssignGroupToAgent"])
async def test_answers_name_the_group(verb: str) -> None:
    async with FaultServer(serve) as server, connect(server) as (reader, writer):
        writer.write(ask(verb, groupId="31", name="Sales 31"))
        assert "31" in json.dumps(await read_reply(reader))
        assert answer(server.ledger[0])["status"] == "success"
        assert success(server.ledger[0]).startswith(b"HTTP/1.1 200 ")


async def test_lists_and_relations_name_the_group() -> None:
    async with FaultServer(serve) as server, connect(server) as (reader, writer):
        writer.write(ask("list", groupid="31"))
        assert (await read_reply(reader))["response"][0]["unique_id"] == 31
        writer.write(ask("getGroupAgentRelation", groupId=32))
        assert (await read_reply(reader))["response"]["groupData"]["unique_id"] == 32


def test_replies_to_the_byte() -> None:
    assert reply(
        b"ab", 503, [("A", "b")], framing="chunked", version="1.0", connection="close"
    ) == (
        b"HTTP/1.0 503 Reason\r\nA: b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"2\r\nab\r\n0\r\n\r\n"
    )
    assert reply(b"ab", headers=()) == b"HTTP/1.1 200 Reason\r\nContent-Length: 2\r\n\r\nab"
    assert reply(b"ab", headers=(), framing="none") == b"HTTP/1.1 200 Reason\r\n\r\nab"
    assert reply(b"", headers=(), framing="close").endswith(b"Reason\r\nConnection: close\r\n\r\n")
    assert reply({"a": 1}).endswith(b'\r\n\r\n{"a":1}')
    assert chunk(b"") == b""
    assert gzip.decompress(zipped({"a": 1}).partition(b"\r\n\r\n")[2]) == b'{"a":1}'
    assert error(1503, "gone").endswith(b'{"status":"error","message":"gone","code":1503}')


async def test_places_where_nobody_answers() -> None:
    with refused_port() as port, pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    with black_hole() as port, socket.socket() as client:
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.connect(("127.0.0.1", port))


@pytest.mark.parametrize("kind", ["good", "expired", "wrong_host", "untrusted"])
async def test_certificates(kind: str) -> None:
    certificates = Certificates()
    async with FaultServer(serve, ssl=getattr(certificates, kind)) as server:
        assert server.base_url.startswith("https://")
        if kind != "good":
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(server, certificates.client()).__aenter__()
        else:
            async with connect(server, certificates.client()) as (reader, writer):
                writer.write(ask(name="Sales 4"))
                assert (await read_reply(reader))["groupId"] == 4
        assert server.connections == 1


async def test_dropping_connections_before_tls() -> None:
    certificates = Certificates()
    async with FaultServer(serve, ssl=certificates.good, drop={1}) as server:
        with pytest.raises(ConnectionResetError):
            await connect(server, certificates.client()).__aenter__()
        async with connect(server, certificates.client()):
            await server.until(lambda s: s.idle_connections == 1)
        port = server.port
    async with FaultServer(serve, port=port) as server, connect(server):
        assert server.port == port


async def test_steps_work_inside_tls() -> None:
    certificates = Certificates()
    script = [Commit(), Send(b"abc"), Reset()], [Send(b"abc"), Fin()]
    async with FaultServer(*script, ssl=certificates.good) as server:
        async with connect(server, certificates.client()) as (reader, writer):
            writer.write(ask())
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(4)
        async with connect(server, certificates.client()) as (reader, writer):
            writer.write(ask())
            assert await reader.read() == b"abc"
        assert [r.committed for r in server.ledger] == [True, False]
