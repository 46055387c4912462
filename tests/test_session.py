"""The session manager on real sockets: pool, slots, rate, deadlines, loops, headers, logs, framing."""

from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import platform
import re
import socket
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from functools import partial
from typing import Any

import pytest

from deepcall_async import (
    BadRequest,
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    DeepCall,
    DeepCallError,
    OutcomeUnknown,
    RequestTimeout,
    RetryPolicy,
    ServerFault,
    SessionId,
    Stats,
    __version__,
)
from deepcall_async.sandbox import Sandbox
from deepcall_async.transport import connection, direct
from deepcall_async.transport.direct import is_possible
from tests.support import clients
from tests.support.clients import ME, ONCE, both_paths, every_path, session_to_borrow
from tests.support.faultserver import (
    Delay,
    Early,
    FaultServer,
    Fin,
    Received,
    Reset,
    Send,
    Stall,
    Step,
    Wait,
)
from tests.support.hazards import black_hole
from tests.support.loops import loop_factory, needs_proc, nothing_left
from tests.support.replies import answer, as_json, error, reply, serve, success, zipped

pytestmark = pytest.mark.anyio

TWICE = RetryPolicy(attempts=2, base_delay=0.0)
QUICK = RetryPolicy(attempts=4, base_delay=0.01, max_delay=0.02)
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

client = partial(clients.client, retry=ONCE)


@pytest.fixture
def runners(anyio_backend: Any) -> Iterator[tuple[asyncio.Runner, asyncio.Runner]]:
    """Two event loops of the kind under test."""
    factory = loop_factory("uvloop" if anyio_backend[1].get("use_uvloop") else "asyncio")
    with asyncio.Runner(loop_factory=factory) as first, asyncio.Runner(loop_factory=factory) as two:
        yield first, two


def sandbox_client(server: Sandbox, **options: Any) -> DeepCall:
    return DeepCall(SessionId(server.ssid), base_url=server.base_url, retry=ONCE, **options)


# Making, using and closing a client.


@pytest.mark.deepcall_sandbox(groups=5)
def test_a_client_made_outside_any_loop_works_in_one(
    deepcall_sandbox: Sandbox, runners: tuple[asyncio.Runner, asyncio.Runner]
) -> None:
    made = sandbox_client(deepcall_sandbox, per_second=1000.0)

    async def main() -> int:
        async with made as dc:
            assert dc is made
            return len(await dc.groups.list())

    assert runners[0].run(main()) == 5


@pytest.mark.deepcall_sandbox(groups=5)
def test_a_second_event_loop_is_refused_and_the_first_still_works(
    deepcall_sandbox: Sandbox, runners: tuple[asyncio.Runner, asyncio.Runner]
) -> None:
    first, second = runners
    dc = sandbox_client(deepcall_sandbox)
    assert len(first.run(dc.groups.list())) == 5
    with pytest.raises(RuntimeError, match="event loop"):
        second.run(dc.groups.list())
    assert len(first.run(dc.groups.list())) == 5
    first.run(dc.aclose())


@pytest.mark.deepcall_sandbox(groups=5)
def test_closing_on_the_wrong_loop_is_refused_and_closing_on_the_right_one_still_possible(
    deepcall_sandbox: Sandbox, runners: tuple[asyncio.Runner, asyncio.Runner]
) -> None:
    first, second = runners
    dc = sandbox_client(deepcall_sandbox)
    first.run(dc.groups.list())
    with pytest.raises(RuntimeError, match="event loop"):
        second.run(dc.aclose())
    first.run(dc.aclose())
    first.close()
    del dc
    # An unclosed connection would warn here, and warnings are errors.
    gc.collect()


async def test_closing_twice_and_closing_unused_is_no_error() -> None:
    async with FaultServer(serve) as server:
        dc = DeepCall(ME, base_url=server.base_url)
        await dc.aclose()
        await dc.aclose()
        async with client(server) as used:
            await used.groups.list()
            await used.aclose()
            await asyncio.gather(used.aclose(), used.aclose())
        assert len(server.ledger) == 1


@both_paths
@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
async def test_use_after_close_is_refused_without_a_request(path: str, used: bool) -> None:
    async with FaultServer(serve) as server, client(server, path) as dc:
        if used:
            await dc.groups.list()
        await dc.aclose()
        before = server.begun
        for call in (
            dc.groups.list(),
            dc.groups.agent_relation(1),
            dc.groups.add("A"),
            dc.groups.add("A", reconcile=True),
            dc.groups.update(1, name="A"),
            dc.groups.delete(1),
            dc.groups.assign_agents(1, [2]),
            dc.with_options(timeout=1.0).groups.list(),
        ):
            with pytest.raises(ClientClosed, match="closed") as caught:
                await call
            assert caught.value.attempts == 0
            assert caught.value.endpoint.startswith("groups.")
            assert not caught.value.sent
        assert server.begun == before


async def test_the_repr_tells_what_the_pool_does_and_no_secret() -> None:
    release = asyncio.Event()
    async with FaultServer([Wait(release), Send(error(1000))], serve) as server:
        async with client(server) as dc:
            assert "unused" in repr(dc)
            task = asyncio.create_task(dc.groups.list())
            await server.until(lambda s: s.begun == 1)
            assert "1 active, 0 idle" in repr(dc)
            release.set()
            with pytest.raises(BadRequest):
                await task
            assert "0 active, 1 idle" in repr(dc)
            assert server.base_url in repr(dc)
        assert "closed" in repr(dc)
        assert "t0ken" not in repr(dc)


# Siblings.


async def test_siblings_share_the_pool_under_their_own_options() -> None:
    async with FaultServer(serve) as server, client(server) as dc:
        other = dc.with_options(credentials=SessionId("s3ssion"))
        await dc.groups.list()
        await other.groups.list()
        await other.with_options(retry=QUICK).groups.list()
        await dc.groups.list()
        assert server.connections == 1
        sent = [request.body for request in server.ledger]
        assert [body.get("ssid") for body in sent] == [None, "s3ssion", "s3ssion", None]
        assert [body.get("token") for body in sent] == ["t0ken", None, None, "t0ken"]
        assert dc.stats.requests == 2
        assert other.stats.requests == 2


@pytest.mark.virtual_time
async def test_a_siblings_timeout_and_retry_are_its_own() -> None:
    replies: list[Sequence[Step]] = [[Send(error(1009))], [Send(error(1009))], [Stall()]]
    async with FaultServer(*replies) as server, client(server, retry=QUICK) as dc:
        patient = dc.with_options(retry=ONCE)
        with pytest.raises(ServerFault) as fault:
            await patient.groups.list()
        assert fault.value.attempts == 1
        hasty = dc.with_options(timeout=0.05, retry=RetryPolicy(attempts=2, base_delay=0.0))
        with pytest.raises(RequestTimeout) as late:
            await hasty.groups.list()
        assert late.value.attempts == 2
        assert len(server.ledger) == 3


async def test_closing_a_sibling_leaves_the_pool_and_closing_the_first_ends_all() -> None:
    async with FaultServer(serve) as server, client(server) as dc:
        async with dc.with_options(timeout=3.0) as sibling:
            await sibling.groups.list()
        with pytest.raises(ClientClosed):
            await sibling.groups.list()
        await dc.groups.list()
        assert server.connections == 1
        second = dc.with_options(timeout=3.0)
        await dc.aclose()
        with pytest.raises(ClientClosed):
            await second.groups.list()
        assert len(server.ledger) == 2


async def test_siblings_refuse_wrong_options() -> None:
    dc = DeepCall(ME)
    with pytest.raises(ValueError, match="timeout"):
        dc.with_options(timeout=0)
    with pytest.raises(TypeError, match="credentials"):
        dc.with_options(credentials="t0ken")  # type: ignore[arg-type]
    await dc.aclose()


# A borrowed session.


async def test_a_borrowed_session_keeps_its_headers_and_is_never_closed() -> None:
    headers = {"X-Tenant": "north", "User-Agent": "owner/1.0"}
    async with FaultServer(serve) as server, session_to_borrow(headers=headers) as session:
        async with client(server, session=session) as dc:
            await dc.groups.agent_relation(28)
        assert not session.closed
        async with client(server, session=session, app_info="bot/2") as dc:
            await dc.groups.list()
        async with session.post(f"{server.base_url}/api/v2/Group/list", json={}) as response:
            assert response.status == 200
        for request in server.ledger:
            assert request.headers["x-tenant"] == "north"
            assert request.headers["user-agent"] == "owner/1.0"
        assert server.ledger[0].headers["content-type"] == "application/json"


async def test_a_borrowed_session_without_a_user_agent_gets_ours() -> None:
    async with FaultServer(serve) as server, client(server, "borrowed", app_info="bot/2") as dc:
        await dc.groups.list()
        assert server.ledger[0].headers["user-agent"].endswith(" bot/2")


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    "limits", [{"limit": 2}, {"limit": 100, "limit_per_host": 2}, {"limit": 0}]
)
async def test_waiting_for_a_borrowed_connectors_slot_is_no_timeout(limits: dict[str, int]) -> None:
    most = 3 if limits == {"limit": 0} else 2

    def slow(request: Received) -> Sequence[Step]:
        return Delay(0.1), *serve(request)

    async with FaultServer(slow) as server, session_to_borrow(**limits) as session:
        async with client(server, session=session, max_connections=3, timeout=0.28) as dc:
            done = await asyncio.gather(*(dc.groups.agent_relation(n) for n in range(1, 8)))
        assert [relation.group.unique_id for relation in done] == list(range(1, 8))
        assert server.connections == most


async def test_a_borrowed_session_that_raises_for_status_and_follows_nothing() -> None:
    moved = reply(b"", 307, [("Location", "/elsewhere")])
    async with (
        FaultServer([Send(moved)], [Send(error(1503, status=404))], serve) as server,
        session_to_borrow(raise_for_status=True) as session,
        client(server, session=session) as dc,
    ):
        with pytest.raises(DeepCallError, match="redirect"):
            await dc.groups.list()
        with pytest.raises(DeepCallError, match="1503"):
            await dc.groups.agent_relation(1)
        assert [request.verb for request in server.ledger] == ["list", "getGroupAgentRelation"]


# Slots and rate.


@both_paths
async def test_max_connections_is_never_exceeded_at_the_server(path: str) -> None:
    most = 0

    def slow(request: Received) -> Sequence[Step]:
        nonlocal most
        most = max(most, server.open_connections)
        # A few connections end, so that new ones have to be made under load.
        ends = {"connection": "close"} if request.number % 7 == 0 else {}
        return Delay(0.002), Send(reply(answer(request), **ends))  # type: ignore[arg-type]

    async with FaultServer(slow) as server, client(server, path, max_connections=5) as dc:
        done = await asyncio.gather(*(dc.groups.agent_relation(n) for n in range(1, 151)))
    assert [relation.group.unique_id for relation in done] == list(range(1, 151))
    # A connection that has just ended may still be on the server's books.
    assert 2 <= most <= 6
    assert max(Counter(request.number for request in server.ledger).values()) == 1


@pytest.mark.virtual_time
@both_paths
async def test_waiting_for_a_slot_never_counts_as_a_timeout(path: str) -> None:
    def slow(request: Received) -> Sequence[Step]:
        return Delay(0.08), *serve(request)

    async with FaultServer(slow) as server:
        async with client(server, path, max_connections=1, timeout=0.28) as dc:
            done = await asyncio.gather(*(dc.groups.agent_relation(n) for n in range(1, 6)))
    assert [relation.group.unique_id for relation in done] == list(range(1, 6))
    assert server.connections == 1


def most_in_a_second(moments: Sequence[float]) -> int:
    # Less what a sum of fractions is off by.
    return max(sum(start <= each < start + 1 - 1e-6 for each in moments) for start in moments)


@pytest.mark.virtual_time
async def test_per_second_holds_in_every_second() -> None:
    moments: list[float] = []

    def note(request: Received) -> Sequence[Step]:
        moments.append(time.monotonic())
        return serve(request)

    async with FaultServer(note) as server, client(server, per_second=20.0) as dc:
        started = time.monotonic()
        await asyncio.gather(*(dc.groups.list() for _ in range(28)))
        seconds = time.monotonic() - started
    assert most_in_a_second(moments) <= 20
    assert 27 / 20 <= seconds < 27 / 20 * 1.05


@pytest.mark.virtual_time
async def test_waiting_for_a_slot_saves_no_rate_for_a_burst() -> None:
    moments: list[float] = []
    release = asyncio.Event()

    def note(request: Received) -> Sequence[Step]:
        moments.append(time.monotonic())
        return (Wait(release), *serve(request)) if request.number == 1 else serve(request)

    async with FaultServer(note) as server:
        async with client(server, per_second=10.0, max_connections=1) as dc:
            calls = [asyncio.create_task(dc.groups.list()) for _ in range(13)]
            await asyncio.sleep(0.8)
            release.set()
            await asyncio.gather(*calls)
    assert most_in_a_second(moments) <= 10


@pytest.mark.virtual_time
async def test_a_rate_below_one_a_second_spaces_requests() -> None:
    async with FaultServer(serve) as server, client(server, per_second=0.5) as dc:
        await dc.groups.list()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.9):
                await dc.groups.list()
        assert len(server.ledger) == 1


@pytest.mark.virtual_time
async def test_repeats_count_against_the_rate() -> None:
    async with FaultServer([Send(error(1009))]) as server:
        policy = RetryPolicy(attempts=5, base_delay=0.0, max_delay=0.0)
        async with client(server, per_second=8.0, retry=policy) as dc:
            started = time.monotonic()
            with pytest.raises(ServerFault):
                await dc.groups.list()
            assert time.monotonic() - started == pytest.approx(4 / 8, rel=0.01)
        assert len(server.ledger) == 5


# Deadlines.


@pytest.mark.virtual_time
@both_paths
async def test_the_deadline_covers_all_attempts(path: str) -> None:
    policy = RetryPolicy(attempts=50, base_delay=0.01, max_delay=0.01, deadline=0.45)
    async with FaultServer([Stall()]) as server:
        async with client(server, path, timeout=0.13, retry=policy) as dc:
            started = time.monotonic()
            with pytest.raises(RequestTimeout) as late:
                await dc.groups.list()
            assert time.monotonic() - started == pytest.approx(0.45, abs=0.01)
            assert late.value.attempts == len(server.ledger) == 4


@pytest.mark.virtual_time
@both_paths
async def test_one_attempt_never_outlives_the_deadline(path: str) -> None:
    policy = RetryPolicy(attempts=1, deadline=0.1)
    async with FaultServer([Stall()]) as server, client(server, path, retry=policy) as dc:
        started = time.monotonic()
        with pytest.raises(RequestTimeout):
            await dc.groups.list()
        with pytest.raises(OutcomeUnknown) as unknown:
            await dc.groups.add("A")
        assert isinstance(unknown.value.__cause__, RequestTimeout)
        assert time.monotonic() - started == pytest.approx(0.2, abs=0.01)


@pytest.mark.virtual_time
@both_paths
async def test_a_deadline_while_waiting_for_a_slot_is_a_timeout_in_time(path: str) -> None:
    async with FaultServer([Stall()]) as server, client(server, path, max_connections=1) as dc:
        holder = asyncio.create_task(dc.groups.list())
        await server.until(lambda s: s.begun == 1)
        hasty = dc.with_options(retry=RetryPolicy(deadline=0.1))
        started = time.monotonic()
        for call in (hasty.groups.list(), hasty.groups.add("A")):
            # A change that was never sent is no unknown outcome.
            with pytest.raises(RequestTimeout, match="before the request could be sent") as late:
                await call
            assert not late.value.sent
            assert late.value.attempts == 0
        assert time.monotonic() - started == pytest.approx(0.2, abs=0.01)
        assert server.begun == 1
        holder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holder
        # Whoever gave up waiting has not taken the slot along.
        await asyncio.sleep(0)
        assert "0 active" in repr(dc)


@pytest.mark.virtual_time
async def test_a_deadline_while_waiting_for_the_rate_is_a_timeout_in_time() -> None:
    policy = RetryPolicy(deadline=0.2)
    async with FaultServer(serve) as server, client(server, per_second=0.2, retry=policy) as dc:
        await dc.groups.list()
        started = time.monotonic()
        with pytest.raises(RequestTimeout) as late:
            await dc.groups.add("A")
        assert not late.value.sent
        assert time.monotonic() - started == pytest.approx(0.2, abs=0.01)
        assert len(server.ledger) == 1


@pytest.mark.virtual_time
async def test_a_deadline_while_connecting_ends_in_time() -> None:
    policy = RetryPolicy(attempts=5, deadline=0.3)
    with black_hole() as port:
        async with DeepCall(ME, base_url=f"http://127.0.0.1:{port}", retry=policy) as dc:
            started = time.monotonic()
            with pytest.raises(ConnectFailed):
                await dc.groups.add("A")
            assert time.monotonic() - started == pytest.approx(0.3, abs=0.01)


@pytest.mark.virtual_time
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_wait_that_the_deadline_does_not_allow_is_not_begun(form: str) -> None:
    until = "30" if form == "seconds" else formatdate(time.time() + 30, usegmt=True)
    busy = reply(b"", 503, [("Retry-After", until)])
    policy = RetryPolicy(attempts=5, deadline=3.0)
    async with FaultServer([Send(busy)]) as server, client(server, retry=policy) as dc:
        started = time.monotonic()
        with pytest.raises(ServerFault) as fault:
            await dc.groups.list()
        assert time.monotonic() - started < 0.01
        assert fault.value.retry_after == pytest.approx(30, abs=2)
        assert len(server.ledger) == 1


# What goes out.


@every_path
async def test_the_head_of_a_request(path: str) -> None:
    async with FaultServer(serve) as server, client(server, path, app_info="bot/1.2") as dc:
        await dc.groups.list()
        request = server.ledger[0]
        assert (request.method, request.target) == ("POST", "/api/v2/Group/list")
        own = f"deepcall-async/{__version__} Python/{platform.python_version()}"
        assert request.headers["user-agent"] == f"{own} bot/1.2"
        assert request.headers["host"] == f"127.0.0.1:{server.port}"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["accept"] == "application/json"
        assert request.headers["accept-encoding"] == "identity"
        assert request.headers["content-length"].isdigit()
        assert not {"cookie", "authorization", "transfer-encoding"} & set(request.headers)


@both_paths
@pytest.mark.parametrize(("compress", "asked"), [(True, "gzip, deflate"), (False, "identity")])
async def test_whether_replies_are_compressed_is_the_callers_choice(
    path: str, compress: bool, asked: str
) -> None:
    async with FaultServer(serve) as server, client(server, path, compress=compress) as dc:
        await dc.groups.list()
        assert server.ledger[0].headers["accept-encoding"] == asked


@both_paths
@pytest.mark.parametrize("prefix", ["/", "/brand", "/brand/", "/br%20and/x"])
async def test_the_base_url_may_have_a_path(path: str, prefix: str) -> None:
    async with FaultServer(serve) as server:
        async with client(server.base_url + prefix, path) as dc:
            await dc.groups.agent_relation(28)
        expected = f"{prefix.rstrip('/')}/api/v2/Group/getGroupAgentRelation"
        assert server.ledger[0].target == expected


@both_paths
async def test_an_ipv6_loopback_address_is_called_under_its_name(path: str) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")

    async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reply({"status": "success", "response": [], "code": 200}))
        await reader.read()
        writer.close()

    head: list[bytes] = []
    raw = await asyncio.start_server(answer_one, "::1", 0)
    port = raw.sockets[0].getsockname()[1]
    async with raw:
        async with client(f"http://[::1]:{port}", path) as dc:
            assert await dc.groups.list() == ()
    assert f"host: [::1]:{port}".encode() in head[0].lower()


@pytest.mark.parametrize("path", ["direct", "trust_env"])
async def test_our_own_session_keeps_no_cookies(path: str) -> None:
    def with_cookie(request: Received) -> Sequence[Step]:
        headers = [("Set-Cookie", "account=7; Path=/"), ("Set-Cookie2", "a=b")]
        return (Send(reply(answer(request), headers=headers)),)

    async with FaultServer(with_cookie) as server:
        # A name, not an address: aiohttp keeps no cookies of bare addresses anyway.
        async with client(server.url(server.scheme, "localhost"), path) as dc:
            await dc.groups.list()
            await dc.groups.list()
        assert len(server.ledger) == 2
        assert all("cookie" not in request.headers for request in server.ledger)


async def test_a_proxy_from_the_environment_is_used_only_when_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Another variable names the proxy for https, and to that a proxy would be a tunnel.
    async with FaultServer(serve, ssl=False) as server, FaultServer(serve, ssl=False) as proxy:
        for name in PROXY_VARIABLES:
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url)
        monkeypatch.setenv("http_proxy", proxy.base_url)
        async with client(server) as dc:
            await dc.groups.list()
        async with client(server, "borrowed") as dc:
            await dc.groups.list()
        assert (len(server.ledger), proxy.connections) == (2, 0)
        async with client(server, "trust_env") as dc:
            await dc.groups.list()
        assert (len(server.ledger), len(proxy.ledger)) == (2, 1)
        assert proxy.ledger[0].target == f"{server.base_url}/api/v2/Group/list"


# What is told: logs and statistics.


async def attempts_of_every_kind(dc: DeepCall) -> None:
    await dc.groups.agent_relation(28, name="zz-private")
    with pytest.raises(BadRequest):
        await dc.groups.add("zz-private")


@both_paths
async def test_each_attempt_leaves_one_line_and_never_a_body(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    script: list[Sequence[Step]] = [
        [Send(error(1009, "zz-private"))],
        [Send(reply(b"zz-private", 503))],
        [Reset()],
    ]
    async with FaultServer(*script, serve, [Send(error(1000, "zz-private"))]) as server:
        async with client(server, path, retry=QUICK, timeout=0.5) as dc:
            await attempts_of_every_kind(dc)
    lines = [record for record in caplog.records if record.name == "deepcall_async"]
    assert [record.levelno for record in lines if record.levelno != logging.DEBUG] == [
        logging.WARNING
    ]
    expected = [
        r"groups\.agent_relation attempt=1 http=200 ServerFault code=1009 ms=\d+\.\d",
        r"groups\.agent_relation attempt=2 http=503 ServerFault ms=\d+\.\d",
        r"groups\.agent_relation attempt=3 http=- \w+ ms=\d+\.\d",
        r"groups\.agent_relation attempt=4 is the last, after \w+",
        r"groups\.agent_relation attempt=4 http=200 success ms=\d+\.\d",
        r"groups\.add attempt=1 http=200 BadRequest code=1000 ms=\d+\.\d",
    ]
    messages = [record.getMessage() for record in lines]
    assert len(messages) == len(expected)
    for message, pattern in zip(messages, expected, strict=True):
        assert re.fullmatch(pattern, message), message
    assert "zz-private" not in caplog.text
    assert "t0ken" not in caplog.text


async def test_only_an_outage_and_a_last_attempt_are_logged_above_debug(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with FaultServer(*[[Reset()]] * 5, serve) as server, client(server, retry=QUICK) as dc:
        with pytest.raises(ConnectionLost):
            await dc.groups.list()
        await dc.groups.list()
    own = [each.getMessage() for each in caplog.records if each.name.startswith("deepcall")]
    address = server.base_url.partition("//")[2]
    assert own[0] == f"no answer from {address} (ConnectionLost)"
    assert own[1] == "groups.list attempt=4 is the last, after ConnectionLost"
    assert own[2].startswith(f"{address} answers again after ")
    assert len(own) == 3


@both_paths
async def test_stats_count_requests_and_repeats(path: str) -> None:
    async with FaultServer([Send(error(1009))], [Send(error(1010))], serve) as server:
        async with client(server, path, retry=QUICK) as dc:
            assert dc.stats == Stats()
            await dc.groups.list()
            assert (dc.stats.requests, dc.stats.retries) == (3, 2)
            await dc.groups.add("A")
            assert (dc.stats.requests, dc.stats.retries) == (4, 2)
        assert len(server.ledger) == 4


# How replies are framed.


@both_paths
@pytest.mark.parametrize(
    ("label", "reused"),
    [
        ("length", True),
        ("chunked", True),
        ("close", False),
        ("connection-close", False),
        ("http-1.0", False),
        ("http-1.0-length", False),
        ("http-1.0-keep-alive", True),
        ("100", True),
        ("103-102", True),
        ("no content type", True),
    ],
)
async def test_framings_give_the_same_result(path: str, label: str, reused: bool) -> None:
    def framed(request: Received) -> Sequence[Step]:
        body = answer(request)
        interim = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        data = {
            "length": reply(body),
            "chunked": reply(body, framing="chunked"),
            "close": reply(body, framing="close"),
            "connection-close": reply(body, connection="close"),
            "http-1.0": reply(body, framing="none", version="1.0"),
            "http-1.0-length": reply(body, version="1.0"),
            "http-1.0-keep-alive": reply(body, version="1.0", connection="keep-alive"),
            "100": b"HTTP/1.1 100 Continue\r\n\r\n" + reply(body),
            "103-102": interim + reply(body),
            "no content type": reply(body, headers=[]),
        }[label]
        ends = label in ("close", "http-1.0")
        return (Send(data), Fin()) if ends else (Send(data),)

    async with FaultServer(framed) as server, client(server, path) as dc:
        for number in (28, 29):
            relation = await dc.groups.agent_relation(number)
            assert relation.group.unique_id == number
            assert [member.agent_id for member in relation.members] == [3]
        assert server.connections == (1 if reused else 2)


@every_path
@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_compressed_replies_are_welcome(path: str, coding: str, framing: Any) -> None:
    def compressed(request: Received) -> Sequence[Step]:
        body = as_json(answer(request))
        if coding == "gzip":
            data = zipped(body, framing=framing)
        else:
            packer = zlib.compressobj(wbits=-15 if coding == "raw deflate" else 15)
            packed = packer.compress(body) + packer.flush()
            headers = [("Content-Encoding", "deflate")]
            data = reply(packed, headers=headers, framing=framing)
        return (Send(data, chunk=7), *((Fin(),) if framing == "close" else ()))

    async with FaultServer(compressed) as server, client(server, path) as dc:
        for number in (28, 29):
            assert (await dc.groups.agent_relation(number)).group.unique_id == number


@both_paths
async def test_a_large_compressed_reply_arrives_whole(path: str) -> None:
    groups = [{"name": f"group {n} " + "x" * 50, "unique_id": n} for n in range(20_000)]
    body = gzip.compress(as_json({"status": "success", "response": groups, "code": 200}))
    data = reply(body, headers=[("Content-Encoding", "gzip")])
    async with FaultServer([Send(data)]) as server, client(server, path) as dc:
        found = await dc.groups.list()
        assert [group.unique_id for group in found] == list(range(20_000))


# Connections that ended, or spoke, while idle.


async def test_a_connection_that_died_idle_costs_a_read_no_attempt() -> None:
    script = [serve, Early(1, [Reset()]), serve]
    async with FaultServer(*script) as server, client(server, retry=TWICE) as dc:
        await dc.groups.list()
        assert (await dc.groups.agent_relation(28)).group.unique_id == 28
        assert (dc.stats.requests, dc.stats.retries) == (3, 1)
        assert server.connections == 2


async def test_the_free_repeat_is_free_only_once_and_only_for_reads() -> None:
    dies = Early(1, [Reset()])
    script = [serve, dies, dies, dies, serve, dies]
    async with FaultServer(*script) as server, client(server, retry=TWICE) as dc:
        await dc.groups.list()
        with pytest.raises(ConnectionLost) as lost:
            await dc.groups.list()
        assert lost.value.attempts == 3
        await dc.groups.list()
        with pytest.raises(OutcomeUnknown) as unknown:
            await dc.groups.add("A")
        assert unknown.value.attempts == 1
        assert isinstance(unknown.value.__cause__, ConnectionLost)
        assert server.begun == 6


async def test_a_fresh_connection_that_ends_is_no_free_repeat() -> None:
    async with FaultServer([Reset()], serve) as server, client(server) as dc:
        with pytest.raises(ConnectionLost) as lost:
            await dc.groups.list()
        assert lost.value.attempts == 1
        assert server.begun == 1


POISON = reply({"status": "success", "response": [{"name": "poison", "unique_id": 666}]})
UNASKED = [
    pytest.param(POISON, id="whole"),
    pytest.param(POISON[:20], id="half a status line"),
    pytest.param(b"HTTP/1.1 500 Poison\r\nX: ", id="half a head"),
    pytest.param(POISON[:-5], id="half a body"),
    pytest.param(b"\r\n", id="blank line"),
    pytest.param(b"\0" * 100, id="noise"),
    pytest.param(POISON * 50, id="many"),
]


@pytest.mark.parametrize("unasked", UNASKED)
@pytest.mark.parametrize("when", ["seen", "in the kernel's buffer", "behind the answer"])
@pytest.mark.parametrize("verb", ["list", "add"])
async def test_what_nobody_asked_for_never_reaches_the_next_caller(
    unasked: bytes, when: str, verb: str
) -> None:
    def first(request: Received) -> Sequence[Step]:
        return (Send(success(request) + (unasked if when == "behind the answer" else b"")),)

    async with FaultServer(first, serve) as server, client(server) as dc:
        await dc.groups.agent_relation(28)
        if when != "behind the answer":
            await server.until(lambda s: s.idle_connections == 1)
        if when == "seen":
            server.push(unasked)
            await server.until(lambda s: s.open_connections == 0)
        elif when == "in the kernel's buffer":
            # Past the server's transport, so that it is there before this loop turns again.
            next(iter(server._live.values())).socket.send(unasked)
        if verb == "list":
            assert [group.unique_id for group in await dc.groups.list(group_id=41)] == [41]
        else:
            assert (await dc.groups.add("Sales 41")).group_id == 41
        assert dc.stats.requests == 2
        assert server.connections == 2


async def test_connections_closed_while_idle_cost_a_burst_of_changes_nothing() -> None:
    async with FaultServer(serve) as server, client(server) as dc:
        for number in range(10):
            added = await asyncio.gather(
                *(dc.groups.add(f"Sales {each}") for each in range(number, number + 5))
            )
            assert [group.group_id for group in added] == list(range(number, number + 5))
            await server.until(lambda s: s.idle_connections == 5)
            assert server.close_idle() == 5
        assert len(server.committed) == 50
        assert (dc.stats.requests, dc.stats.retries) == (50, 0)


@pytest.mark.virtual_time
async def test_idle_connections_are_let_go_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (direct, connection):
        monkeypatch.setattr(module, "KEEPALIVE", 0.1)
    async with FaultServer(serve) as server, client(server) as dc:
        await asyncio.gather(*(dc.groups.agent_relation(n) for n in range(1, 6)))
        assert server.connections == 5
        await server.until(lambda s: s.open_connections == 0, 2)
        assert "0 idle" in repr(dc)
        await dc.groups.list()


async def test_a_connection_lost_as_soon_as_it_is_made_is_a_typed_error() -> None:
    async with FaultServer(on_connect=[Reset()]) as server, client(server) as dc:
        outcomes = await asyncio.gather(
            *(dc.groups.list() for _ in range(300)), return_exceptions=True
        )
    assert {type(each) for each in outcomes} <= {ConnectFailed, ConnectionLost}


async def test_an_answer_before_the_request_was_read_ends_the_connection() -> None:
    ids = range(10**18, 10**18 + 160_000)
    hasty = Early(1, [Send(reply({"status": "success", "message": "m", "code": 200})), Stall()])
    async with FaultServer(hasty, serve) as server, client(server) as dc:
        assert await dc.groups.assign_agents(1, ids) == "m"
        assert [group.unique_id for group in await dc.groups.list(group_id=9)] == [9]
        assert server.connections == 2


@needs_proc
@every_path
async def test_many_calls_leave_no_socket_and_no_task_behind(path: str) -> None:
    async with FaultServer(serve) as server:
        async with nothing_left(server), client(server, path, max_connections=20) as dc:
            for _ in range(4):
                await asyncio.gather(*(dc.groups.agent_relation(n) for n in range(1, 101)))


async def test_an_unknown_aiohttp_is_used_through_its_public_api_with_one_warning(monkeypatch):
    assert is_possible()
    monkeypatch.setattr("deepcall_async.transport.direct.is_possible", lambda: False)
    async with FaultServer(serve) as server, client(server) as dc:
        with pytest.warns(RuntimeWarning, match="calls work, but slower") as warned:
            found = [await dc.groups.agent_relation(number) for number in (28, 29)]
        assert [relation.group.unique_id for relation in found] == [28, 29]
        assert len(warned) == 1
        assert "ClientSessionTransport" in repr(dc)


async def test_a_borrowed_session_that_its_owner_closed_is_an_error_of_ours() -> None:
    async with FaultServer(serve) as server, session_to_borrow() as session:
        async with client(server, session=session) as dc:
            await dc.groups.list()
            await session.close()
            with pytest.raises(ClientClosed, match="borrowed session") as caught:
                await dc.groups.add("Sales")
            assert not caught.value.sent
            assert len(server.ledger) == 1
