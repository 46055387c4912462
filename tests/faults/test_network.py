"""What the client makes of connections that fail: before, during and after the request.

Real sockets and a ledger on the far side: every test says how often a request was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult

from deepcall_async import (
    AddedGroup,
    ConnectFailed,
    ConnectionLost,
    DeepCallError,
    OutcomeUnknown,
    RequestTimeout,
    RetryPolicy,
)
from tests.support.clients import both_paths, client, quick
from tests.support.endpoints import (
    ADD,
    CHANGES,
    DELETE,
    ENDPOINTS,
    LIST,
    READS,
    Endpoint,
    each_endpoint,
    over,
)
from tests.support.faultserver import (
    Commit,
    Early,
    FaultServer,
    Fin,
    HalfClose,
    Reaction,
    Received,
    Reset,
    Send,
    Stall,
    Step,
    Wait,
)
from tests.support.hazards import Certificates, black_hole, refused_port
from tests.support.replies import answer, chunk, error, reply, serve, success, zipped

pytestmark = pytest.mark.anyio

ENDINGS: dict[str, Step] = {"fin": Fin(), "reset": Reset()}
each_ending = pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS.keys())


# A connection that died while it was idle --------------------------------------------------------


@both_paths
@over(*READS, DELETE)
@each_ending
async def test_a_repeatable_request_outlives_a_stale_connection(
    endpoint: Endpoint, path: str, ending: Step
) -> None:
    """That repeat is free: it is not counted, so another may follow."""
    async with (
        FaultServer(serve, Early(1, [ending]), serve) as server,
        client(server.base_url, path, retry=quick(attempts=2)) as dc,
    ):
        await endpoint(dc, 27)
        await server.until(lambda s: s.idle_connections == 1)
        await endpoint(dc, 28)
        assert (server.begun, server.connections) == (3, 2)


@both_paths
@over(*READS)
async def test_only_one_repeat_is_free(endpoint: Endpoint, path: str) -> None:
    async with (
        FaultServer(serve, Early(1, [Reset()])) as server,
        client(server.base_url, path, retry=quick(attempts=2)) as dc,
    ):
        await endpoint(dc)
        await server.until(lambda s: s.idle_connections == 1)
        await endpoint.fails(dc, ConnectionLost, attempts=3)
        assert server.begun == 4


@both_paths
@over(*READS, DELETE)
async def test_a_policy_of_one_attempt_sends_once(endpoint: Endpoint, path: str) -> None:
    lost = OutcomeUnknown if endpoint is DELETE else ConnectionLost
    async with (
        FaultServer(serve, Early(1, [Reset()]), serve) as server,
        client(server.base_url, path, retry=quick(attempts=1)) as dc,
    ):
        await endpoint(dc)
        await server.until(lambda s: s.idle_connections == 1)
        await endpoint.fails(dc, lost, attempts=1)
        assert server.begun == 2


@both_paths
@over(*CHANGES)
@each_ending
async def test_a_change_on_a_stale_connection_is_sent_once(
    endpoint: Endpoint, path: str, ending: Step
) -> None:
    async with (
        FaultServer(serve, Early(1, [ending]), serve) as server,
        client(server.base_url, path) as dc,
    ):
        await endpoint(dc, 27)
        await server.until(lambda s: s.idle_connections == 1)
        unknown = await endpoint.fails(dc, OutcomeUnknown)
        assert type(unknown.__cause__) is ConnectionLost
        assert server.begun == 2


@each_endpoint
async def test_a_connection_closed_unnoticed_costs_our_own_pool_nothing(endpoint: Endpoint) -> None:
    async with FaultServer(serve) as server, client(server.base_url) as dc:
        await endpoint(dc, 27)
        await server.until(lambda s: s.idle_connections == 1)
        assert server.close_idle() == 1
        await endpoint(dc, 28)
        assert [r.connection for r in server.ledger] == [1, 2]
        assert dc.stats.retries == 0


@each_endpoint
async def test_a_connection_closed_unnoticed_in_a_borrowed_pool(endpoint: Endpoint) -> None:
    async with FaultServer(serve) as server, client(server.base_url, "borrowed") as dc:
        await endpoint(dc, 27)
        await server.until(lambda s: s.idle_connections == 1)
        assert server.close_idle() == 1
        if endpoint in CHANGES:
            # Somebody else's pool cannot be asked for a connection proved alive.
            await endpoint.fails(dc, OutcomeUnknown)
            assert server.begun == 1
        else:
            await endpoint(dc, 28)
            assert server.begun == 2


@pytest.mark.virtual_time
async def test_a_change_does_not_go_out_on_a_connection_idle_for_long() -> None:
    """A connection idle for a second may be closing; a handshake costs less than a doubt."""

    async def ask(endpoint: Endpoint) -> None:
        async with FaultServer(serve) as server, client(server.base_url) as dc:
            await endpoint(dc, 27)
            await asyncio.sleep(1.1)
            await endpoint(dc, 28)
            assert server.connections == (2 if endpoint in CHANGES else 1)

    await asyncio.gather(*(ask(endpoint) for endpoint in (*READS, *CHANGES)))


@both_paths
@each_endpoint
async def test_a_connection_seen_to_close_is_not_used_again(endpoint: Endpoint, path: str) -> None:
    async with FaultServer(serve) as server, client(server.base_url, path) as dc:
        await endpoint(dc, 27)
        await server.until(lambda s: s.idle_connections == 1)
        server.close_idle()
        await server.until(lambda s: s.open_connections == 0)
        await asyncio.sleep(0)
        await endpoint(dc, 28)
        assert (server.begun, dc.stats.retries) == (2, 0)


@each_endpoint
@pytest.mark.parametrize("noticed", [True, False])
async def test_a_reply_nobody_asked_for_reaches_nobody(endpoint: Endpoint, noticed: bool) -> None:
    async with FaultServer(serve) as server, client(server.base_url) as dc:
        await endpoint(dc, 27)
        await server.until(lambda s: s.idle_connections == 1)
        server.push(success(_as_if_asked_for(server.ledger[0], 99)))
        if noticed:
            await server.until(lambda s: s.open_connections == 0)
        await endpoint(dc, 28)
        assert server.connections == 2


@both_paths
@each_endpoint
async def test_a_second_reply_in_the_same_breath_reaches_nobody(
    endpoint: Endpoint, path: str
) -> None:
    def twice(request: Received) -> list[Step]:
        return [Send(success(request) + success(_as_if_asked_for(request, 99)))]

    async with FaultServer(twice) as server, client(server.base_url, path) as dc:
        await endpoint(dc, 27)
        await endpoint(dc, 28)
        assert (server.begun, server.connections) == (2, 2)


def _as_if_asked_for(request: Received, group: int) -> Received:
    body = {**request.body, "groupId": group, "groupid": group, "name": f"Sales {group}"}
    return Received(0, 0, 0, request.method, request.target, {}, body)


# A connection that ends under a request ----------------------------------------------------------


def _cut(framing: Any, keep: float, ending: Step) -> Reaction:
    def react(request: Received) -> list[Step]:
        whole = reply(answer(request), framing=framing)
        head, body = whole.split(b"\r\n\r\n", 1)
        size = len(head) + 4 + int(len(body) * keep) if keep else len(head) // 2
        return [Send(whole[:size]), ending]

    return react


def _without_last_chunk(request: Received) -> list[Step]:
    return [Send(reply(answer(request), framing="chunked")[: -len(b"0\r\n\r\n")]), Fin()]


def _half_closed(request: Received) -> list[Step]:
    return [Send(success(request)[:-5]), HalfClose(), Stall()]


def _cut_gzip(request: Received) -> list[Step]:
    return [Send(zipped(answer(request))[:-4]), Fin()]


LOST: dict[str, Reaction] = {
    "reset-in-request": Early(1, [Reset()]),
    "fin-in-request": Early(1, [Fin()]),
    "reset-before-reply": [Reset()],
    "fin-before-reply": [Fin()],
    "fin-in-status-line": [Send(b"HTTP/1.1 20"), Fin()],
    "fin-in-headers": _cut("length", 0, Fin()),
    "reset-in-headers": _cut("length", 0, Reset()),
    "fin-after-headers": _cut("length", 0.01, Fin()),
    "fin-in-body": _cut("length", 0.5, Fin()),
    "reset-in-body": _cut("length", 0.5, Reset()),
    "fin-in-chunk": _cut("chunked", 0.5, Fin()),
    "reset-in-chunk": _cut("chunked", 0.5, Reset()),
    "fin-before-last-chunk": _without_last_chunk,
    "half-closed-in-body": _half_closed,
    "fin-in-gzip-body": _cut_gzip,
}
each_loss = pytest.mark.parametrize("loss", LOST.values(), ids=LOST.keys())


@both_paths
@each_loss
async def test_a_connection_lost_at_every_attempt(path: str, loss: Reaction) -> None:
    async with FaultServer(loss) as server, client(server.base_url, path) as dc:
        for endpoint in ENDPOINTS:
            before = server.begun
            await endpoint.fails_for_good(dc, ConnectionLost, attempts=3)
            assert server.begun - before == (3 if endpoint.repeats(ConnectionLost) else 1)
        await server.until(lambda s: s.open_connections == 0)


@both_paths
@each_loss
async def test_a_connection_lost_once_costs_one_repeat(path: str, loss: Reaction) -> None:
    for endpoint in (*READS, DELETE):
        async with FaultServer(loss, serve) as server, client(server.base_url, path) as dc:
            await endpoint(dc)
            assert (server.begun, server.connections, dc.stats.retries) == (2, 2, 1)


# No connection at all ----------------------------------------------------------------------------


@both_paths
@each_endpoint
async def test_a_refused_connection(endpoint: Endpoint, path: str) -> None:
    with refused_port() as port:
        async with client(f"http://127.0.0.1:{port}", path) as dc:
            failed = await endpoint.fails(dc, ConnectFailed, attempts=3)
            assert not failed.untrusted


@pytest.mark.virtual_time
@both_paths
async def test_a_black_hole(path: str) -> None:
    with black_hole() as port:
        async with client(f"http://127.0.0.1:{port}", path, timeout=0.1, retry=quick(2)) as dc:
            await asyncio.gather(*(each.fails(dc, ConnectFailed, attempts=2) for each in ENDPOINTS))


@pytest.mark.virtual_time
@both_paths
async def test_a_stalled_tls_handshake(path: str) -> None:
    async with (
        FaultServer(serve, ssl=False, on_connect=[Stall()]) as server,
        client(server.url("https"), path, timeout=0.2, retry=quick(2)) as dc,
    ):
        await asyncio.gather(*(each.fails(dc, ConnectFailed, attempts=2) for each in ENDPOINTS))
        assert (server.connections, server.begun) == (2 * len(ENDPOINTS), 0)
        await server.until(lambda s: s.open_connections == 0)


# The first byte of what the server takes for a request is a client's greeting.
GREETED: dict[str, Reaction] = {
    "reset": Early(1, [Reset()]),
    "fin": Early(1, [Fin()]),
    "plain-text": Early(1, [Send(b"HTTP/1.1 400 Bad\r\n\r\n"), Fin()]),
}


@both_paths
@each_endpoint
@pytest.mark.parametrize("greeted", GREETED.values(), ids=GREETED.keys())
async def test_a_broken_tls_handshake(endpoint: Endpoint, path: str, greeted: Reaction) -> None:
    async with FaultServer(greeted, ssl=False) as server, client(server.url("https"), path) as dc:
        # That no TLS is spoken there does not pass by itself.
        attempts = 1 if greeted is GREETED["plain-text"] else 3
        failed = await endpoint.fails(dc, ConnectFailed, attempts=attempts)
        assert not failed.untrusted
        assert failed.fatal is (attempts == 1)
        assert server.connections == attempts


async def test_a_connection_reset_as_soon_as_it_is_made() -> None:
    async with (
        FaultServer(serve, on_connect=[Reset()]) as server,
        client(server.base_url) as dc,
    ):
        # Whether the reset is seen before the request is written is a matter of turns of the loop.
        with pytest.raises((ConnectFailed, OutcomeUnknown)) as caught:
            await dc.groups.add("Sales")
        assert server.begun == 0
        assert server.connections == (1 if isinstance(caught.value, OutcomeUnknown) else 3)


async def test_a_connection_reset_before_its_tls_handshake() -> None:
    async with (
        FaultServer(serve, ssl=False, on_connect=[Reset()]) as server,
        client(server.url("https")) as dc,
    ):
        await ADD.fails(dc, ConnectFailed, attempts=3)
        assert (server.connections, server.begun) == (3, 0)


@both_paths
@each_endpoint
async def test_any_call_is_repeated_until_there_is_a_connection(
    endpoint: Endpoint, path: str
) -> None:
    with refused_port() as port:
        pass
    retry = RetryPolicy(attempts=10, base_delay=0.05)
    async with client(f"http://127.0.0.1:{port}", path, retry=retry) as dc:
        call = asyncio.create_task(endpoint(dc))
        while dc.stats.requests < 2:
            await asyncio.sleep(0)
        async with FaultServer(serve, port=port, ssl=False) as server:
            await call
            assert (server.begun, len(server.committed)) == (1, 1)
            assert dc.stats.retries >= 1


@each_endpoint
async def test_any_call_is_repeated_after_a_broken_tls_handshake(endpoint: Endpoint) -> None:
    certificates = Certificates()
    async with (
        FaultServer(serve, ssl=certificates.good, drop={1, 2}) as server,
        client(server.base_url, "borrowed", tls=certificates.client()) as dc,
    ):
        await endpoint(dc)
        assert (server.connections, server.begun) == (3, 1)


# Certificates ------------------------------------------------------------------------------------


@each_endpoint
@pytest.mark.parametrize("kind", ["expired", "wrong_host", "untrusted"])
async def test_a_bad_certificate_ends_the_call_at_once(endpoint: Endpoint, kind: str) -> None:
    certificates = Certificates()
    async with (
        FaultServer(serve, ssl=getattr(certificates, kind)) as server,
        client(server.base_url, "borrowed", tls=certificates.client()) as dc,
    ):
        failed = await endpoint.fails(dc, ConnectFailed, attempts=1)
        assert failed.untrusted
        assert (server.connections, server.begun) == (1, 0)


@each_endpoint
async def test_an_unknown_authority_ends_the_call_at_once(endpoint: Endpoint) -> None:
    async with (
        FaultServer(serve, ssl=Certificates().good) as server,
        client(server.base_url, tls=ssl.create_default_context()) as dc,
    ):
        failed = await endpoint.fails(dc, ConnectFailed, attempts=1)
        assert failed.untrusted
        assert (server.connections, server.begun) == (1, 0)


_PROGRAM = """
import asyncio, sys
from deepcall_async import ConnectFailed, DeepCall, UserToken

async def main():
    for url in sys.argv[1:]:
        async with DeepCall(UserToken("7", "t"), base_url=url) as dc:
            try:
                print("group", (await dc.groups.add("Sales 28")).group_id)
            except ConnectFailed as error:
                print("untrusted", error.untrusted, error.attempts)

asyncio.run(main())
"""


async def test_our_own_connections_judge_certificates(tmp_path: Path) -> None:
    """In a process of its own, whose trusted authorities are read from a file at its start."""
    certificates = Certificates()
    authority = tmp_path / "authority.pem"
    certificates.authority.cert_pem.write_to_path(str(authority))
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(FaultServer(serve, ssl=getattr(certificates, kind)))
            for kind in ("good", "expired", "wrong_host", "untrusted")
        ]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "error", "-c", _PROGRAM),
            *(server.base_url for server in servers),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "SSL_CERT_FILE": str(authority)},
            cwd=Path(__file__).parents[2],
        )
        output, told = await process.communicate()
        # Development mode also tells of what took long, which is no warning.
        assert b"Warning" not in told
        assert output.decode().splitlines() == ["group 28", *["untrusted True 1"] * 3]
        assert [server.connections for server in servers] == [1, 1, 1, 1]
        assert [server.begun for server in servers] == [1, 0, 0, 0]


# Slowness ----------------------------------------------------------------------------------------

SLOW: dict[str, Reaction] = {
    "silence": [Stall()],
    "one-byte-at-a-time": lambda request: [Send(success(request), chunk=1, pause=0.05)],
    "stall-in-headers": [Send(b"HTTP/1.1 200 OK\r\nContent-"), Stall()],
    "stall-in-body": lambda request: [Send(success(request)[:-5]), Stall()],
    "stall-in-chunk": [Send(reply(framing="none", headers=[("Transfer-Encoding", "chunked")])),
                       Send(chunk(b'{"status"')), Stall()],
    "endless-interim": [Send(b"HTTP/1.1 100 Continue\r\n\r\n", repeat=None)],
}  # fmt: skip


@pytest.mark.virtual_time
async def test_an_attempt_ends_in_time() -> None:
    async def ask(slow: str, path: str) -> None:
        async with (
            FaultServer(SLOW[slow]) as server,
            client(server.base_url, path, timeout=0.4, retry=quick(2)) as dc,
        ):
            begun = asyncio.get_running_loop().time()
            await asyncio.gather(
                *(each.fails_for_good(dc, RequestTimeout, attempts=2) for each in ENDPOINTS)
            )
            # One attempt of the changes, and two of the others.
            assert asyncio.get_running_loop().time() - begun == pytest.approx(0.8, abs=0.1), slow
            sent = Counter(request.verb for request in server.ledger)
            expected = {each.verb: 2 if each.repeats(RequestTimeout) else 1 for each in ENDPOINTS}
            assert sent == expected, slow
            await server.until(lambda s: s.open_connections == 0)

    paths = ("direct", "borrowed")
    # A server that never pauses leaves a clock no time to jump.
    pausing = SLOW.keys() - {"endless-interim"}
    await asyncio.gather(*(ask(slow, path) for slow in pausing for path in paths))


@both_paths
@pytest.mark.parametrize("slow", ["silence", "stall-in-body", "endless-interim"])
async def test_an_attempt_ends_in_real_time_too(path: str, slow: str) -> None:
    async with (
        FaultServer(serve, SLOW[slow]) as server,
        client(server.base_url, path, retry=quick(1)) as dc,
    ):
        # Connected before, so that a slow machine's handshake is not what takes so long.
        await LIST(dc)
        await LIST.fails(dc.with_options(timeout=0.3), RequestTimeout)
        await server.until(lambda s: s.open_connections == 0)


@pytest.mark.virtual_time
@both_paths
@over(*READS, DELETE)
async def test_a_slow_attempt_costs_one_repeat(endpoint: Endpoint, path: str) -> None:
    async with (
        FaultServer([Stall()], serve) as server,
        client(server.base_url, path, timeout=0.2) as dc,
    ):
        await endpoint(dc)
        assert (server.begun, server.connections) == (2, 2)


@pytest.mark.virtual_time
@both_paths
@each_endpoint
async def test_an_answer_after_the_timeout_reaches_nobody(endpoint: Endpoint, path: str) -> None:
    go = asyncio.Event()

    def late(request: Received) -> list[Step]:
        return [Wait(go), Send(success(_as_if_asked_for(request, 99)))]

    async with (
        FaultServer(late, serve) as server,
        client(server.base_url, path, timeout=0.1, retry=quick(1)) as dc,
    ):
        with pytest.raises((RequestTimeout, OutcomeUnknown)):
            await endpoint(dc, 27)
        go.set()
        await endpoint(dc.with_options(timeout=5.0), 28)
        assert server.connections == 2


@pytest.mark.virtual_time
@both_paths
async def test_the_deadline_bounds_all_attempts(path: str) -> None:
    retry = RetryPolicy(attempts=10, base_delay=0.001, deadline=0.5)
    async with (
        FaultServer([Stall()]) as server,
        client(server.base_url, path, timeout=0.2, retry=retry) as dc,
    ):
        begun = asyncio.get_running_loop().time()
        errors = await asyncio.gather(
            *(each.call(dc, 28) for each in ENDPOINTS), return_exceptions=True
        )
        assert asyncio.get_running_loop().time() - begun == pytest.approx(0.5, abs=0.01)
        kinds = {each.kind: type(error) for each, error in zip(ENDPOINTS, errors, strict=True)}
        assert kinds == {
            "read": RequestTimeout,
            "delete": OutcomeUnknown,
            "change": OutcomeUnknown,
        }
        sent = Counter(request.verb for request in server.ledger)
        for each in ENDPOINTS:
            assert (
                2 <= sent[each.verb] <= 3 if each.repeats(RequestTimeout) else sent[each.verb] == 1
            )


# Segments ----------------------------------------------------------------------------------------


def _chunks(body: bytes, size: int, extension: bytes = b"") -> bytes:
    head = reply(framing="none", headers=[("Transfer-Encoding", "chunked")])
    pieces = (chunk(body[start : start + size]) for start in range(0, len(body), size))
    return head + b"".join(each.replace(b"\r\n", extension + b"\r\n", 1) for each in pieces)


PIECES: dict[str, Reaction] = {
    "bytewise": lambda r: [Send(success(r), chunk=1)],
    "bytewise-chunked": lambda r: [Send(reply(answer(r), framing="chunked"), chunk=1)],
    "bytewise-gzip": lambda r: [Send(zipped(answer(r)), chunk=1)],
    "bytewise-gzip-chunked": lambda r: [Send(zipped(answer(r), framing="chunked"), chunk=1)],
    "small-chunks": lambda r: [
        Send(_chunks(reply(answer(r)).partition(b"\r\n\r\n")[2], 3) + b"0\r\n\r\n")
    ],
    "chunks-with-extensions-and-trailers": lambda r: [
        Send(_chunks(reply(answer(r)).partition(b"\r\n\r\n")[2], 7, b";a=b"), chunk=5),
        Send(b"0\r\nX-Trailer: 1\r\n\r\n"),
    ],
    "until-closed": lambda r: [Send(reply(answer(r), framing="close"), chunk=9), Fin()],
    "http-1.0": lambda r: [Send(reply(answer(r), framing="none", version="1.0")), Fin()],
    "interim-replies-first": lambda r: [
        Send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n"),
        Send(success(r)),
    ],
}


@both_paths
@pytest.mark.parametrize("pieces", PIECES.values(), ids=PIECES.keys())
async def test_however_it_is_cut_the_answer_is_the_same(path: str, pieces: Reaction) -> None:
    async with FaultServer(pieces) as server, client(server.base_url, path) as dc:
        for endpoint in ENDPOINTS:
            await endpoint(dc, 31)
        assert (server.begun, dc.stats.retries) == (len(ENDPOINTS), 0)


# Addresses ---------------------------------------------------------------------------------------

# Nothing listens on the first; both are this machine.
_ADDRESSES = {"two.example": ("127.0.0.2", "127.0.0.1")}


class _Resolver(AbstractResolver):
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=each, port=port, family=socket.AF_INET, proto=0, flags=0
            )
            for each in _look_up(host)
        ]

    async def close(self) -> None:
        pass


def _look_up(host: str) -> tuple[str, ...]:
    if host not in _ADDRESSES:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")
    return _ADDRESSES[host]


@pytest.fixture
def own_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepcall_async.transport.direct.DefaultResolver", _Resolver)


@each_endpoint
async def test_a_live_address_behind_a_dead_one(endpoint: Endpoint) -> None:
    async with (
        FaultServer(serve, ssl=False) as server,
        client(
            server.url("http", "two.example"),
            "borrowed",
            connector=TCPConnector(resolver=_Resolver()),
            allow_http=True,
        ) as dc,
    ):
        await endpoint(dc)
        assert dc.stats.requests == 1


@each_endpoint
@pytest.mark.usefixtures("own_resolver")
async def test_our_own_connections_find_the_live_address(endpoint: Endpoint) -> None:
    async with (
        FaultServer(serve, ssl=False) as server,
        client(server.url("http", "two.example"), allow_http=True) as dc,
    ):
        await endpoint(dc)
        assert dc.stats.requests == 1


@each_endpoint
async def test_a_name_that_does_not_resolve(endpoint: Endpoint) -> None:
    connector = TCPConnector(resolver=_Resolver())
    async with client("https://no.example", "borrowed", connector=connector) as dc:
        await endpoint.fails(dc, ConnectFailed, attempts=3)


@each_endpoint
@pytest.mark.usefixtures("own_resolver")
async def test_a_name_that_our_own_connections_cannot_resolve(endpoint: Endpoint) -> None:
    async with client("https://no.example") as dc:
        await endpoint.fails(dc, ConnectFailed, attempts=3)


# Many changes ------------------------------------------------------------------------------------


async def _add_all(dc: Any, names: range, width: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    left = iter(names)

    async def work() -> None:
        for number in left:
            try:
                added = await dc.groups.add(f"Sales {number}")
            except DeepCallError as problem:
                outcomes[type(problem).__name__] += 1
            else:
                assert added == AddedGroup(number)
                outcomes["added"] += 1

    await asyncio.gather(*(work() for _ in range(width)))
    return outcomes


@pytest.mark.parametrize("closed", [1, 20, 39, 40])
async def test_a_server_that_closes_idle_connections_costs_no_add(closed: int) -> None:
    """It closes some of them just before each burst, and nothing has told the client yet."""
    async with FaultServer(serve) as server, client(server.base_url) as dc:
        for first in range(0, 200, 40):
            outcomes = await _add_all(dc, range(first, first + 40), width=40)
            assert outcomes == {"added": 40}
            await server.until(lambda s: s.idle_connections == 40)
            assert server.close_idle(closed) == closed
        assert len(server.ledger) == 200
        assert server.connections == 40 + 4 * closed


async def test_an_impatient_server_costs_no_add() -> None:
    async with (
        FaultServer(serve, close_idle_after=0.05) as server,
        client(server.base_url) as dc,
    ):
        for first in range(0, 60, 20):
            outcomes = await _add_all(dc, range(first, first + 20), width=20)
            assert outcomes == {"added": 20}
            await server.until(lambda s: s.open_connections == 0)
        assert (len(server.ledger), server.connections) == (60, 60)


async def test_closing_idle_connections_never_doubles_an_add_in_a_borrowed_pool() -> None:
    async with (
        FaultServer(serve, close_idle_after=0.05) as server,
        client(server.base_url, "borrowed") as dc,
    ):
        outcomes: Counter[str] = Counter()
        for first in range(0, 60, 20):
            outcomes += await _add_all(dc, range(first, first + 20), width=20)
            await asyncio.sleep(0.05)
        assert outcomes.keys() <= {"added", "OutcomeUnknown"}
        assert len(server.ledger) == len({r.body["name"] for r in server.ledger})
        assert outcomes["added"] == len(server.committed)


_POINTS: tuple[Reaction, ...] = (
    *(loss for loss in LOST.values() if isinstance(loss, Early)),
    *([Commit(), *steps] for steps in LOST.values() if isinstance(steps, list)),
    *([*steps] for steps in LOST.values() if isinstance(steps, list)),
    [Commit(), Stall()],
    lambda request: [Commit(), Send(success(request)[:-3]), Fin()],
    lambda request: [Commit(), Send(success(request), chunk=1, pause=0.005)],
    lambda request: [Commit(), Send(success(request)), Reset()],
    lambda request: [Commit(), Send(success(request)), Fin()],
    [Commit(), Send(error(1009))],
    [Commit(), Send(reply(b"", 503))],
    [Commit(), Send(reply(b"", 429))],
    [Commit(), Send(reply(b"<html>"))],
    [Send(error(1010))],
    [Send(reply(b"", 502))],
    [Send(reply(b"", 429))],
)


@both_paths
async def test_no_add_is_ever_committed_twice(path: str, anyio_backend: object) -> None:
    count = int(os.environ.get("DEEPCALL_ADDS", "100"))
    chance = random.Random(repr((path, anyio_backend)))
    script = [serve if chance.random() < 0.5 else chance.choice(_POINTS) for _ in range(count * 2)]
    certificates = Certificates()
    tls = path == "borrowed"
    async with (
        FaultServer(
            *script,
            serve,
            ssl=certificates.good if tls else None,
            drop={number for number in range(1, count * 2) if chance.random() < 0.1},
            close_idle_after=0.05,
        ) as server,
        client(
            server.base_url,
            path,
            timeout=1.5,
            tls=certificates.client(),
            retry=quick(4),
        ) as dc,
    ):
        outcomes = await _add_all(dc, range(count), width=20)
        commits = Counter(r.body["name"] for r in server.committed)
        assert outcomes.total() == count
        assert set(commits.values()) == {1}
        assert outcomes["added"] <= len(commits) <= count
        # Each of them was met: what went well, what is not known, and what was refused.
        assert outcomes.keys() >= {"added", "OutcomeUnknown", "RateLimited"}, outcomes
        sent = Counter(r.body["name"] for r in server.ledger)
        assert max(sent.values()) == 1
