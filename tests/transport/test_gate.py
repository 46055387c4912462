"""What every request passes before it is sent: credentials, rate, the loop and process it belongs to, and its arguments."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import gc
import itertools
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from deepcall_async import (
    ApiError,
    AuthenticationFailed,
    DeepCall,
    RetryPolicy,
    SessionId,
    UserToken,
    collect,
)
from deepcall_async.pacing import RateLimiter
from deepcall_async.retry import Recovery, Retry, RetryBudget
from tests.support.clients import both_paths, client, quick
from tests.support.endpoints import ADD, ASSIGN, LIST, RELATION, each_endpoint
from tests.support.faultserver import Delay, FaultServer, Received, Send, Step
from tests.support.hazards import Certificates
from tests.support.loops import simulate
from tests.support.replies import error, serve
from tests.support.ways import server_context, trusting

pytestmark = pytest.mark.anyio

# Credentials that end ----------------------------------------------------------------------------


class Login:
    """Gives session ids; the server says how long each is good."""

    def __init__(self, seconds: float = float("inf")) -> None:
        self.seconds = seconds
        self.refreshes = 0
        self.ends: dict[str, float] = {"dead": 0.0}

    async def credentials(self) -> SessionId:
        return SessionId("dead")

    async def refresh(self, rejected: SessionId | UserToken) -> SessionId:
        self.refreshes += 1
        ssid = f"alive-{self.refreshes}"
        self.ends[ssid] = time.monotonic() + self.seconds
        return SessionId(ssid)

    def serve(self, request: Received) -> Sequence[Step]:
        if time.monotonic() >= self.ends[request.body["ssid"]]:
            return [Send(error(1014))]
        return [Delay(0.002), *serve(request)]

    def client(self, server: FaultServer, **options: Any) -> DeepCall:
        return DeepCall(
            self, base_url=server.base_url, ssl=trusting(), **{"retry": quick(), **options}
        )


async def test_a_dead_session_costs_a_handful_of_rejected_requests() -> None:
    """The calls that wait for a connection take their credentials when they get one."""
    login = Login()
    async with FaultServer(login.serve) as server:
        async with login.client(server, max_connections=2) as dc:
            await asyncio.gather(*(RELATION(dc, number) for number in range(1, 101)))
        rejected = [each for each in server.ledger if not each.committed]
        assert 1 <= len(rejected) <= 4
        assert len(server.ledger) == 100 + len(rejected)
        assert login.refreshes == 1


async def test_short_sessions_under_a_rate_finish_a_fan_out() -> None:
    """The calls that wait for the rate take their credentials when their turn comes."""
    login = Login(seconds=0.5)
    async with FaultServer(login.serve) as server:
        async with login.client(server, max_connections=2, per_second=40.0) as dc:
            batch = await collect(dc.groups.agent_relation, range(1, 61), concurrency=32)
        assert (len(batch.ok), len(batch.failed)) == (60, 0)
        rejected = [each for each in server.ledger if not each.committed]
        assert 1 <= login.refreshes <= len(rejected) <= 2 * login.refreshes + 4


async def test_a_call_may_meet_the_end_of_several_sessions() -> None:
    """Credentials that were accepted before have expired; they were not wrong.

    A call that was rejected waits for the rate behind all others, which use the new session up.
    """
    login = Login()
    rejected: list[str] = []
    used: set[str] = set()

    def expiring(request: Received) -> Sequence[Step]:
        ssid = request.body["ssid"]
        if request.body["groupId"] == 13 and ssid in used and len(rejected) < 2:
            rejected.append(ssid)
            login.ends[ssid] = 0.0
        elif ssid != "dead":
            used.add(ssid)
        return login.serve(request)

    async with FaultServer(expiring) as server:
        async with login.client(server, per_second=100.0) as dc:
            await RELATION(dc, 1)
            calls = [RELATION(dc, number) for number in range(13, 40)]
            await asyncio.gather(*calls)
        assert rejected == ["alive-1", "alive-2"]
        assert login.refreshes == 3


async def test_a_call_that_is_always_rejected_ends() -> None:
    login = Login()

    def choosy(request: Received) -> Sequence[Step]:
        rejected = request.body.get("groupId") == 13
        return [Send(error(1014))] if rejected else login.serve(request)

    async with FaultServer(choosy) as server, login.client(server, retry=quick(3)) as dc:
        await RELATION(dc, 1)
        await RELATION.fails(dc, AuthenticationFailed, attempts=2, group=13)
        assert login.refreshes == 2


def test_renewals_come_to_an_end() -> None:
    """Also where others are accepted all the while under what this call is rejected with."""
    recovery = Recovery(quick(3), "safe", RetryBudget())
    found = [
        recovery.after(
            AuthenticationFailed("no"),
            elapsed=0.0,
            chance=0.0,
            renewable=True,
            held=False,
            patient=False,
            expired=True,
        )
        for _ in range(4)
    ]
    assert found == [Retry(renew=True), Retry(renew=True), Retry(renew=True), None]


async def test_one_attempt_is_one_request_and_no_renewal() -> None:
    login = Login()
    async with FaultServer(login.serve) as server:
        async with login.client(server, retry=RetryPolicy(attempts=1)) as dc:
            with pytest.raises(AuthenticationFailed) as caught:
                await dc.groups.agent_relation(28)
        assert caught.value.attempts == 1
        assert (len(server.ledger), login.refreshes) == (1, 0)


# The rate ----------------------------------------------------------------------------------------


def turns(
    rate: float, count: int, lateness: Iterator[float], *, cancelled: float = 0.0, gap: float = 0.0
) -> list[float]:
    """When each turn was given; a share of those who wait is cancelled meanwhile."""
    dice = random.Random(7)
    moments: list[float] = []

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        limiter = RateLimiter(rate)

        async def one() -> None:
            await limiter.acquire()
            moments.append(loop.time())

        tasks = [asyncio.ensure_future(one()) for _ in range(count)]
        if gap:
            await asyncio.sleep(count / rate + gap)
            tasks += [asyncio.ensure_future(one()) for _ in range(count)]
        if cancelled:
            for task in tasks:
                if dice.random() < cancelled:
                    loop.call_later(dice.random() * count / rate, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)
        return moments

    return simulate(main(), lateness)


def most_in_a_second(moments: Sequence[float]) -> int:
    end, most = 0, 0
    for start, first in enumerate(moments):
        while end < len(moments) and moments[end] < first + 1:
            end += 1
        most = max(most, end - start)
    return most


RATES = [50, 73, 100, 200, 317, 500]


@pytest.mark.parametrize(
    "lateness", [0.0, 0.001, 0.015], ids=["punctual", "1 ms late", "15 ms late"]
)
@pytest.mark.parametrize("cancelled", [0.0, 0.3])
@pytest.mark.parametrize("rate", RATES)
def test_a_rate_is_kept_from_below(rate: int, cancelled: float, lateness: float) -> None:
    dice = random.Random(3)
    late = (dice.random() * lateness for _ in itertools.count())
    moments = turns(rate, rate * 4, late, cancelled=cancelled)
    assert moments == sorted(moments)
    assert most_in_a_second(moments) <= rate
    seconds = moments[-1] - moments[0]
    assert seconds > 1
    assert len(moments) - 1 >= 0.95 * rate * seconds


@pytest.mark.parametrize("rate", RATES)
def test_a_pause_saves_nothing_for_a_burst(rate: int) -> None:
    moments = turns(rate, rate, itertools.repeat(0.0), gap=10.0)
    assert len(moments) == 2 * rate
    assert most_in_a_second(moments) <= rate


@pytest.mark.virtual_time
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_rate_is_never_passed_at_the_server(cancelled: bool) -> None:
    moments: list[float] = []

    def note(request: Received) -> Sequence[Step]:
        moments.append(time.monotonic())
        return serve(request)

    async with FaultServer(note) as server, client(server.base_url, max_connections=4) as dc:
        # Connections that are being made would let requests catch up with one another.
        await asyncio.gather(*(LIST(dc, number) for number in range(1, 5)))
        moments.clear()
        limited = dc.with_options(per_second=100.0)
        calls = [asyncio.ensure_future(LIST(limited, number)) for number in range(1, 181)]
        if cancelled:
            await asyncio.sleep(0.3)
            for call in calls[::4]:
                call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    assert len(moments) >= 135
    # One more than the rate: what is on its way when a second begins arrives in it.
    assert most_in_a_second(moments) <= 101


# Loops and processes -----------------------------------------------------------------------------


@contextlib.contextmanager
def served() -> Iterator[FaultServer]:
    """A server on a loop of its own in another thread."""
    server = FaultServer(serve)
    ready, done = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        async with server:
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(main()))
    thread.start()
    try:
        assert ready.wait(10)
        yield server
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def run(anyio_backend: Any) -> Any:
    """Run a coroutine on a new loop of the kind under test, which ends with it."""

    def run(coroutine: Any) -> Any:
        factory = None
        if anyio_backend[1].get("use_uvloop"):
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(coroutine)

    return run


def test_a_client_outlives_its_loop(run: Any) -> None:
    with served() as server:
        dc = DeepCall(UserToken("7", "t"), base_url=server.base_url, ssl=trusting())

        async def several(first: int) -> None:
            await asyncio.gather(*(RELATION(dc, first + more) for more in range(3)))

        for first in (1, 11, 21):
            run(several(first))
            assert server.connections == first // 10 * 3 + 3
        run(dc.aclose())
        # What was not closed would warn here, and warnings are errors.
        gc.collect()


def test_a_client_whose_loop_ended_amid_its_calls_goes_on(run: Any) -> None:
    with served() as server:
        dc = DeepCall(UserToken("7", "t"), base_url=server.base_url, ssl=trusting(), per_second=5.0)

        async def leave() -> None:
            calls = [asyncio.ensure_future(LIST(dc, number)) for number in range(1, 9)]
            await calls[0]

        for _ in range(3):
            run(leave())
        assert run(dc.groups.list(group_id=28))[0].unique_id == 28
        assert (dc.stats.active, dc.stats.waiting) == (0, 0)
        run(dc.aclose())
        gc.collect()


_FORKING = """
import asyncio, gc, os, ssl, sys
from deepcall_async import DeepCall, UserToken

url, authority, loop = sys.argv[1:]
factory = None
if loop == "uvloop":
    import uvloop
    factory = uvloop.new_event_loop
tls = ssl.create_default_context(cafile=authority) if authority else None
dc = DeepCall(UserToken("7", "t"), base_url=url, ssl=tls)

async def ask(number):
    print(number, (await dc.groups.agent_relation(number)).group.unique_id, flush=True)

async def last(number):
    await ask(number)
    await dc.aclose()

runner = asyncio.Runner(loop_factory=factory)
runner.run(ask(1))
child = os.fork()
if not child:
    with asyncio.Runner(loop_factory=factory) as own:
        own.run(ask(2))
        own.run(last(3))
    # As multiprocessing ends its children; what can be finalised before is.
    gc.collect()
    os._exit(0)
_, status = os.waitpid(child, 0)
runner.run(last(4))
runner.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
async def test_a_forked_child_makes_its_own_connections(tmp_path: Path, anyio_backend: Any) -> None:
    authority = tmp_path / "authority.pem"
    Certificates().authority.cert_pem.write_to_path(str(authority))
    async with FaultServer(serve) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", _FORKING, server.base_url),
            *(str(authority) if server_context() else "",),
            "uvloop" if anyio_backend[1].get("use_uvloop") else "asyncio",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).parents[2],
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert output.decode().splitlines() == ["1 1", "2 2", "3 3", "4 4"]
        assert process.returncode == 0
        # A byte or a close_notify from the child would have ended the parent's connection.
        assert [each.connection for each in server.ledger] == [1, 2, 2, 1]
        assert server.connections == 2


# Secrets -----------------------------------------------------------------------------------------

CORE = "Vd3RtY7uPq1"


class Loud(str):
    """Text that shows itself otherwise than it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Loud({str.__str__(self)})"

    def __str__(self) -> str:
        return f"<{str.__str__(self)}>"

    def __iter__(self) -> Iterator[str]:
        return iter("something else")

    def __format__(self, spec: str) -> str:
        return "formatted"


class Named(enum.StrEnum):
    TOKEN = CORE


def echo(request: Received) -> Sequence[Step]:
    """What a careless service says of a request that it refuses."""
    return [Send(error(1000, f"bad request: {request.body}"))]


@pytest.mark.parametrize("token", [Loud(CORE), Named.TOKEN], ids=["a subclass", "an enumeration"])
@both_paths
async def test_a_subclass_of_str_is_sent_as_it_is_and_not_shown(token: str, path: str) -> None:
    async with FaultServer(serve, echo) as server, client(server.base_url, path) as dc:
        for credentials in (UserToken(Loud("29791451"), token), SessionId(token)):
            mine = dc.with_options(credentials=credentials)
            server._script = (serve,)
            await RELATION(mine)
            body = server.ledger[-1].body
            assert CORE in (body.get("token"), body.get("ssid"))
            assert body.get("userId", "29791451") == "29791451"
            server._script = (echo,)
            with pytest.raises(ApiError) as caught:
                await mine.groups.add("x")
            assert CORE not in str(caught.value) + repr(caught.value) + repr(vars(caught.value))
            assert CORE not in repr(credentials) + repr(mine)


async def test_user_id_and_token_in_the_wrong_order_are_both_hidden() -> None:
    async with FaultServer(echo) as server, client(server.base_url) as dc:
        swapped = dc.with_options(credentials=UserToken(CORE, "29791451"))
        with pytest.raises(ApiError) as caught:
            await swapped.groups.add("x")
        shown = str(caught.value) + repr(vars(caught.value))
        assert CORE not in shown
        assert "29791451" not in shown
        assert "bad request" in shown


class Failing:
    """A provider whose error tells its secret."""

    async def credentials(self) -> SessionId:
        raise LookupError(CORE)

    async def refresh(self, rejected: SessionId | UserToken) -> SessionId:
        return await self.credentials()


async def test_a_failing_provider_is_logged_by_type_and_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with FaultServer(serve) as server, client(server.base_url) as dc:
        with pytest.raises(AuthenticationFailed, match="LookupError") as caught:
            await dc.with_options(credentials=Failing()).groups.list()
        assert not server.ledger
    (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert "LookupError" in record.getMessage()
    assert f"{Path(__file__).name}:" in record.getMessage()
    assert CORE not in caplog.text + str(caught.value) + repr(caught.value.__cause__)


# Arguments ---------------------------------------------------------------------------------------


class Index:
    """A number that is no int, as numpy's are."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


async def test_receivers_must_be_among_the_agents() -> None:
    async with FaultServer(serve) as server, client(server.base_url) as dc:
        with pytest.raises(ValueError, match=r"receive_call names agents.*\b9\b"):
            await dc.groups.assign_agents(28, [3, 8], receive_call=[3, 9])
        await dc.groups.assign_agents(28, [3, "8"], receive_call=["3", 8])
        await ASSIGN(dc)
        assert len(server.ledger) == 2


@each_endpoint
async def test_what_has_an_index_is_an_id(endpoint: Any) -> None:
    async with FaultServer(serve) as server, client(server.base_url) as dc:
        result = await endpoint.call(dc, Index(28) if endpoint is not ADD else 28)
        assert endpoint.good(result, 28)
        assert len(server.ledger) == 1


async def test_agents_may_have_an_index_too() -> None:
    async with FaultServer(serve) as server, client(server.base_url) as dc:
        await dc.groups.assign_agents(Index(28), [Index(3), 8], receive_call=[Index(3)])  # type: ignore[arg-type,list-item]
        assert server.ledger[0].body["agent_unique_id"] == ["3", "8"]
        assert server.ledger[0].body["receive_call"] == ["3"]


async def test_an_id_with_leading_zeros_is_found() -> None:
    async with FaultServer(serve) as server, client(server.base_url) as dc:
        found = await dc.groups.list(group_id="028")
        assert [each.unique_id for each in found] == [28]
        assert (await dc.groups.agent_relation("028")).group.unique_id == 28


class Mine(DeepCall):
    """Somebody's own client."""

    colour = "red"


async def test_a_subclass_gives_a_sibling_of_its_own_class() -> None:
    async with FaultServer(serve) as server:
        async with Mine(UserToken("7", "t"), base_url=server.base_url, ssl=trusting()) as dc:
            dc.colour = "blue"
            sibling = dc.with_options(timeout=3.0)
            assert type(sibling) is Mine
            assert sibling.colour == "blue"
            await RELATION(sibling)
            await sibling.aclose()
            await RELATION(dc)
            assert server.connections == 1
