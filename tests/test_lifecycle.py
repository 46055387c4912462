"""Cancelling and closing at every point of a call: who is told what, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import pytest

from deepcall_async import (
    ClientClosed,
    ConnectFailed,
    DeepCall,
    DeepCallError,
    OutcomeUnknown,
    RequestTimeout,
    RetryPolicy,
    SessionId,
    UserToken,
    collect,
    fan_out,
)
from tests.support import clients
from tests.support.clients import ONCE, both_paths
from tests.support.faultserver import FaultServer, Received, Reset, Send, Stall, Step, Wait
from tests.support.hazards import black_hole, refused_port
from tests.support.loops import at_once, nothing_left, sockets, turns
from tests.support.replies import answer, error, reply, serve, success
from tests.support.rows import mostly_thorough

pytestmark = pytest.mark.anyio

TWICE = RetryPolicy(attempts=2)
NEVER_SOON = RetryPolicy(attempts=3, base_delay=1e6, max_delay=1e6)

client = partial(clients.client, retry=ONCE, timeout=20.0)
every_verb = pytest.mark.parametrize("verb", ["agent_relation", "delete", "add"])


def ask(dc: DeepCall, verb: str, number: int = 28) -> Awaitable[Any]:
    if verb == "agent_relation":
        return dc.groups.agent_relation(number)
    return dc.groups.delete(number) if verb == "delete" else dc.groups.add(f"Sales {number}")


class Provider:
    """Gives credentials once it is allowed to."""

    def __init__(self) -> None:
        self.allowed = asyncio.Event()
        self.asked = 0

    async def credentials(self) -> SessionId:
        self.asked += 1
        await self.allowed.wait()
        return SessionId("first")

    async def refresh(self, rejected: SessionId | UserToken) -> SessionId:
        return await self.credentials()


# Where a call can stand when the server has its request.


def half(request: Received, **framing: Any) -> Sequence[Step]:
    return Send(reply(answer(request), **framing)[:-9]), Stall()


SENT: dict[str, Callable[[Received], Sequence[Step]]] = {
    "before the head": lambda _: [Stall()],
    "amid the head": lambda request: [Send(success(request)[:25]), Stall()],
    "after an interim head": lambda _: [Send(b"HTTP/1.1 102 Processing\r\n\r\n"), Stall()],
    "amid a sized body": half,
    "amid a chunked body": lambda request: half(request, framing="chunked"),
    "amid an open-ended body": lambda request: half(request, framing="close"),
    "before an open-ended body's end": lambda request: [
        Send(reply(answer(request), framing="close")),
        Stall(),
    ],
}
at_every_sent_stage = pytest.mark.parametrize("stage", SENT)


@contextlib.asynccontextmanager
async def sent(
    stage: str, path: str, verb: str
) -> AsyncIterator[tuple[FaultServer, DeepCall, asyncio.Task[Any]]]:
    """A call whose request the server has, and which hangs at the stage."""
    async with FaultServer(lambda request: SENT[stage](request), serve) as server:
        async with nothing_left(server), client(server, path, max_connections=1) as dc:
            task = asyncio.ensure_future(ask(dc, verb))
            await server.until(lambda s: len(s.ledger) == 1)
            await turns()
            assert not task.done()
            yield server, dc, task


@both_paths
@every_verb
@at_every_sent_stage
async def test_cancelled_with_its_request_sent(stage: str, path: str, verb: str) -> None:
    async with sent(stage, path, verb) as (server, dc, task):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await at_once(task)
        # The one slot is free, and the connection is not used again.
        relation = await dc.groups.agent_relation(41)
        assert relation.group.unique_id == 41
        assert server.connections == 2
        await server.until(lambda s: s.open_connections == 1)
        assert len(server.ledger) == 2


@both_paths
@every_verb
@at_every_sent_stage
async def test_closed_with_its_request_sent(stage: str, path: str, verb: str) -> None:
    async with sent(stage, path, verb) as (server, dc, task):
        await at_once(dc.aclose())
        with pytest.raises(ClientClosed if verb == "agent_relation" else OutcomeUnknown) as caught:
            await at_once(task)
        why = caught.value if verb == "agent_relation" else caught.value.__cause__
        assert isinstance(why, ClientClosed)
        assert why.sent
        assert caught.value.endpoint == f"groups.{verb}"
        assert caught.value.attempts == 1
        assert len(server.ledger) == 1
        with pytest.raises(ClientClosed):
            await dc.groups.list()


@both_paths
@at_every_sent_stage
async def test_a_caller_that_loses_patience(stage: str, path: str) -> None:
    async with sent(stage, path, "agent_relation") as (server, dc, task):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await task
        assert task.cancelled()
        assert (await dc.groups.agent_relation(41)).group.unique_id == 41
        assert len(server.ledger) == 2


@both_paths
async def test_a_change_cancelled_after_it_was_committed_stays_cancelled(path: str) -> None:
    def commit(request: Received) -> Sequence[Step]:
        return (*serve(request)[:-1], Stall())

    async with FaultServer(commit, serve) as server, client(server, path) as dc:
        task = asyncio.ensure_future(dc.groups.add("Sales 7"))
        await server.until(lambda s: len(s.committed) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert dc.stats.requests == 1


# Where a call can stand before the server has its request.


UNSENT = [
    "connecting",
    "shaking hands",
    "backing off",
    "backing off unsent",
    "waiting for a slot",
    "waiting for the rate",
    "waiting for first credentials",
    "waiting for renewed credentials",
]


@contextlib.asynccontextmanager
async def unsent(
    stage: str, path: str, verb: str
) -> AsyncIterator[tuple[FaultServer, DeepCall, asyncio.Task[Any]]]:
    """A call that waits at the stage, with no request in flight."""
    script: list[Any] = [serve]
    on_connect: list[Step] = []
    options: dict[str, Any] = {"max_connections": 1}
    base_url: str | None = None
    provider = Provider()
    async with contextlib.AsyncExitStack() as stack:
        if stage == "connecting":
            base_url = f"http://127.0.0.1:{stack.enter_context(black_hole())}"
        elif stage == "shaking hands":
            on_connect = [Stall()]
        elif stage == "backing off":
            script = [[Send(error(1009))], serve]
            options["retry"] = NEVER_SOON
        elif stage == "backing off unsent":
            base_url = f"http://127.0.0.1:{stack.enter_context(refused_port())}"
            options["retry"] = NEVER_SOON
        elif stage == "waiting for a slot":
            script = [[Stall()], serve]
        elif stage == "waiting for the rate":
            options["per_second"] = 1e-3
        elif stage == "waiting for first credentials":
            options["credentials"] = provider
        elif stage == "waiting for renewed credentials":
            script = [[Send(error(1014))], serve]
            options |= {"credentials": provider, "retry": TWICE}
            provider.allowed.set()
        plain = False if stage == "shaking hands" else None
        server = await stack.enter_async_context(
            FaultServer(*script, on_connect=on_connect, ssl=plain)
        )
        if stage == "shaking hands":
            base_url = server.url("https")
        await stack.enter_async_context(nothing_left(server))
        dc = await stack.enter_async_context(client(base_url or server.base_url, path, **options))
        if stage == "waiting for a slot":
            holder = asyncio.ensure_future(dc.groups.list())
            await server.until(lambda s: s.begun == 1)
            stack.callback(holder.cancel)
        elif stage == "waiting for the rate":
            await dc.groups.list()
        task = asyncio.ensure_future(ask(dc, verb))
        if stage == "waiting for renewed credentials":
            await server.until(lambda s: s.begun == 1)
            provider.allowed.clear()
        await turns()
        if stage.startswith(("backing off", "waiting for renewed")):
            if stage == "backing off":
                await server.until(lambda s: s.begun == 1)
            while dc.stats.requests < 1 or "0 active" not in repr(dc):
                await asyncio.sleep(0)
            await turns()
        assert not task.done()
        try:
            yield server, dc, task
        finally:
            provider.allowed.set()
            if stage == "waiting for a slot":
                holder.cancel()
                await asyncio.wait([holder])
                if not holder.cancelled():
                    assert isinstance(holder.exception(), ClientClosed)


def unsent_cases() -> list[tuple[str, str]]:
    cases = itertools.product(UNSENT, ["agent_relation", "add"])
    # A change that was answered with a server's fault is not repeated, so it never backs off.
    return [case for case in cases if case != ("backing off", "add")]


@both_paths
@pytest.mark.parametrize(("stage", "verb"), unsent_cases())
async def test_cancelled_without_a_request_in_flight(stage: str, path: str, verb: str) -> None:
    async with unsent(stage, path, verb) as (server, dc, task):
        sent_before = len(server.ledger)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await at_once(task)
        await turns()
        assert len(server.ledger) == sent_before
        after = dc.with_options(retry=RetryPolicy(attempts=1, deadline=0.05))
        if stage in ("connecting", "shaking hands", "backing off unsent"):
            # Not a slot that is waited for in vain, but the same place as before.
            with pytest.raises(ConnectFailed):
                await after.groups.list()
        elif stage in ("waiting for a slot", "waiting for the rate"):
            with pytest.raises(RequestTimeout):
                await after.groups.list()
        elif stage == "backing off":
            assert (await dc.groups.agent_relation(41)).group.unique_id == 41


@both_paths
@pytest.mark.parametrize(("stage", "verb"), unsent_cases())
async def test_closed_without_a_request_in_flight(stage: str, path: str, verb: str) -> None:
    async with unsent(stage, path, verb) as (server, dc, task):
        sent_before = len(server.ledger)
        await at_once(dc.aclose())
        with pytest.raises(ClientClosed) as caught:
            await at_once(task)
        assert caught.value.endpoint == f"groups.{verb}"
        if stage != "backing off":
            assert not caught.value.sent
        assert len(server.ledger) == sent_before


@both_paths
async def test_who_waits_for_the_slot_of_a_cancelled_call_gets_it(path: str) -> None:
    async with FaultServer([Stall()], serve) as server:
        async with client(server, path, max_connections=1) as dc:
            first = asyncio.ensure_future(dc.groups.list())
            await server.until(lambda s: s.begun == 1)
            waiting = [asyncio.ensure_future(dc.groups.agent_relation(n)) for n in range(1, 6)]
            await turns()
            waiting[0].cancel()
            waiting[2].cancel()
            first.cancel()
            done = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(each) for each in done[0:3:2]] == [asyncio.CancelledError] * 2
            got = [each.group.unique_id for each in (done[1], done[3], done[4])]  # type: ignore[union-attr]
            assert got == [2, 4, 5]
            assert len(server.ledger) == 4


# Cancelled after each possible number of turns of the loop.


async def cancel_after(count: int, coroutine: Awaitable[Any]) -> bool:
    """Cancel a coroutine after so many turns of the loop; False when it had ended before."""
    task = asyncio.ensure_future(coroutine)
    await turns(count)
    ended = task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, DeepCallError):
        await task
    if not ended:
        assert task.cancelled() or task.done()
    return not ended


class Renewing:
    """Credentials that take a few turns to come, and are renewed whenever they are rejected."""

    def __init__(self) -> None:
        self.given = 0

    async def credentials(self) -> SessionId:
        await turns(2)
        return SessionId("first")

    async def refresh(self, rejected: SessionId | UserToken) -> SessionId:
        await turns(3)
        self.given += 1
        return SessionId(f"renewed {self.given}")


def first_time_only(steps: Callable[[Received], Sequence[Step]]) -> Callable[[Received], Any]:
    """Reacts so to the first request for each group, and in good health to the next."""
    seen: Counter[str] = Counter()

    def react(request: Received) -> Sequence[Step]:
        key = str(request.body.get("groupId") or request.body.get("name"))
        seen[key] += 1
        return steps(request) if seen[key] == 1 else serve(request)

    return react


def in_pieces(request: Received) -> Sequence[Step]:
    return (Send(reply(answer(request), framing="chunked"), chunk=60),)


SCENES: dict[str, tuple[Callable[[Received], Sequence[Step]], dict[str, Any]]] = {
    "plain": (serve, {}),
    "closing": (lambda request: [Send(reply(answer(request), connection="close"))], {}),
    "in pieces": (in_pieces, {}),
    "lost and repeated": (
        first_time_only(lambda _: [Reset()]),
        {"retry": RetryPolicy(base_delay=0.0)},
    ),
    "refused and repeated": (
        first_time_only(lambda _: [Send(error(1009))]),
        {"retry": RetryPolicy(base_delay=0.0)},
    ),
    "renewed": (
        first_time_only(lambda _: [Send(error(1014))]),
        {"credentials": Renewing(), "retry": TWICE},
    ),
    # Turns of an idle loop are short: the pace must be so that a few dozen of them outlast it.
    "paced": (serve, {"per_second": 5000.0}),
}


@both_paths
@pytest.mark.parametrize("verb", ["agent_relation", "add"])
@pytest.mark.parametrize("scene", SCENES)
async def test_cancelled_after_any_number_of_turns(scene: str, path: str, verb: str) -> None:
    react, options = SCENES[scene]
    sizes: list[int] = []
    async with FaultServer(react) as server:
        async with client(server, path, max_connections=1, **options) as dc:
            for count in itertools.count():
                # Cold and warm by turns.
                if count % 2:
                    server.close_idle()
                number = 1000 + count + (500 if path == "direct" else 0)
                alive = await cancel_after(count, ask(dc, verb, number))
                relation = await dc.groups.agent_relation(28)
                assert relation.group.unique_id == 28
                await turns(3)
                sizes.append(sockets())
                if not alive and count % 2 == 0:
                    break
                assert count < 400, "the call never ends"
            assert count > 3
            assert "0 active" in repr(dc)
        names = Counter(request.body["name"] for request in server.ledger if request.verb == "add")
        if verb == "add" and scene != "renewed":
            assert max(names.values()) == 1
    # The odd connection may be on its way out, but they do not pile up.
    assert max(sizes) - min(sizes) <= 8


@both_paths
async def test_reconciling_cancelled_after_any_number_of_turns(path: str) -> None:
    def react(request: Received) -> Sequence[Step]:
        return (Reset(),) if request.verb == "add" else serve(request)

    async with FaultServer(react) as server:
        async with client(server, path, max_connections=1) as dc:
            for count in itertools.count():
                alive = await cancel_after(count, dc.groups.add(f"N{count}", reconcile=True))
                assert (await dc.groups.agent_relation(28)).group.unique_id == 28
                if not alive:
                    break
                assert count < 400, "the call never ends"
        names = Counter(request.body["name"] for request in server.ledger if request.verb == "add")
        assert set(names.values()) == {1}


@both_paths
@pytest.mark.parametrize("ordered", [True, False])
async def test_a_fan_out_cancelled_after_any_number_of_turns(path: str, ordered: bool) -> None:
    async def run(dc: DeepCall) -> None:
        async with fan_out(
            dc.groups.agent_relation, range(1, 9), concurrency=3, ordered=ordered
        ) as outcomes:
            async for _ in outcomes:
                await asyncio.sleep(0)

    async with FaultServer(serve) as server:
        async with nothing_left(server), client(server, path, max_connections=2) as dc:
            for count in itertools.count():
                tasks = len(asyncio.all_tasks())
                alive = await cancel_after(count, run(dc))
                assert (await dc.groups.agent_relation(28)).group.unique_id == 28
                await server.until(lambda s: s.idle_connections == s.open_connections)
                await turns(5)
                # The server has one for each connection of the pool, and the pool has two.
                assert len(asyncio.all_tasks()) <= tasks + 2
                if not alive:
                    break
                assert count < 400, "the fan-out never ends"


@both_paths
@pytest.mark.parametrize("stage", ["amid a sized body", "before the head"])
async def test_a_close_that_is_cancelled_can_be_repeated(path: str, stage: str) -> None:
    async with FaultServer(lambda request: SENT[stage](request)) as server:
        for count in range(8):
            async with nothing_left(server), client(server, path) as dc:
                task = asyncio.ensure_future(dc.groups.list())
                await server.until(lambda s, n=count: len(s.ledger) == n + 1)
                await cancel_after(count, dc.aclose())
                await dc.aclose()
                with pytest.raises(ClientClosed):
                    await at_once(task)


async def test_a_close_that_was_cancelled_is_finished_by_the_next() -> None:
    async with FaultServer([Stall()]) as server:
        async with client(server, "direct") as dc:
            task = asyncio.ensure_future(dc.groups.list())
            await server.until(lambda s: s.begun == 1)
            await cancel_after(1, dc.aclose())
            await dc.aclose()
            with pytest.raises(ClientClosed):
                await task
            transport: Any = dc._session.pool._transport
            assert transport._connector.closed


# Closing in the very turn of the loop in which something ends by itself.


@both_paths
@pytest.mark.parametrize("first", ["close", "timeout"])
@pytest.mark.parametrize("stage", ["answer", "slot", "connect"])
async def test_closing_as_a_timeout_fires(path: str, first: str, stage: str) -> None:
    """Both timers are due when the loop comes round again, so they fire in one turn of it."""
    loop = asyncio.get_running_loop()
    closing = asyncio.Event()
    soon, late = (0.04, 0.06) if first == "close" else (0.06, 0.04)
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(FaultServer([Stall()]))
        port = stack.enter_context(black_hole()) if stage == "connect" else server.port
        await stack.enter_async_context(nothing_left(server))
        dc = await stack.enter_async_context(
            client(f"{server.scheme}://127.0.0.1:{port}", path, max_connections=1)
        )
        holder = asyncio.ensure_future(dc.groups.list()) if stage == "slot" else None
        await turns()

        async def close() -> None:
            await closing.wait()
            await dc.aclose()

        closer = asyncio.ensure_future(close())
        policy = RetryPolicy(attempts=1, deadline=late)
        task = asyncio.ensure_future(dc.with_options(retry=policy).groups.list())
        await asyncio.sleep(0)
        loop.call_later(soon, closing.set)
        await turns(3)
        time.sleep(0.15)  # noqa: ASYNC251  (the loop must not come round before both are due)
        await closer
        with pytest.raises((ClientClosed, RequestTimeout, ConnectFailed)):
            await task
        if holder is not None:
            with pytest.raises(ClientClosed):
                await holder


@both_paths
async def test_closing_while_many_are_at_every_stage(path: str) -> None:
    def react(request: Received) -> Sequence[Step]:
        stages = list(SENT.values())
        return stages[request.number % len(stages)](request)

    async with FaultServer(react) as server:
        async with nothing_left(server), client(server, path, max_connections=30) as dc:
            tasks = [asyncio.ensure_future(ask(dc, "agent_relation", n)) for n in range(1, 61)]
            tasks += [asyncio.ensure_future(dc.with_options().groups.list()) for _ in range(5)]
            await server.until(lambda s: len(s.ledger) == 30)
            await at_once(dc.aclose())
            done = await at_once(asyncio.gather(*tasks, return_exceptions=True))
            assert {type(each) for each in done} == {ClientClosed}
            assert sum(each.sent for each in done if isinstance(each, ClientClosed)) == 30
            assert len(server.ledger) == 30


@both_paths
async def test_leaving_the_client_during_a_fan_out_ends_it(path: str) -> None:
    async with FaultServer([Stall()]) as server, nothing_left(server):
        async with client(server, path) as dc:
            running = asyncio.ensure_future(collect(dc.groups.agent_relation, range(1, 50)))
            await server.until(lambda s: len(s.ledger) == 32)
        batch = await running
        assert {type(each) for each in batch.failed.values()} == {ClientClosed}
        assert len(batch.failed) == 49


async def test_a_sibling_in_flight_survives_the_close_of_another() -> None:
    release = asyncio.Event()

    def react(request: Received) -> Sequence[Step]:
        return Wait(release), *serve(request)

    async with FaultServer(react) as server, client(server.base_url) as dc:
        sibling = dc.with_options()
        task = asyncio.ensure_future(dc.groups.agent_relation(28))
        await server.until(lambda s: s.begun == 1)
        await sibling.aclose()
        release.set()
        assert (await task).group.unique_id == 28


# Ctrl-C, as a person presses it.


PROGRAM = """
import asyncio, itertools, logging, sys
from deepcall_async import DeepCall, SessionId, fan_out
logging.basicConfig(level=logging.WARNING)

async def main(base_url, ordered):
    async with DeepCall(SessionId("s3ssion"), base_url=base_url) as dc:
        keys = itertools.count(1)
        call = dc.groups.agent_relation
        async with fan_out(call, keys, concurrency=32, ordered=ordered) as outcomes:
            async for outcome in outcomes:
                if outcome.key == 40:
                    print("running", flush=True)

if sys.argv[2] == "uvloop":
    import uvloop
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
else:
    runner = asyncio.Runner()
with runner:
    runner.run(main(sys.argv[1], sys.argv[3] == "ordered"))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize("order", mostly_thorough(["as they come", "ordered"]))
async def test_ctrl_c_ends_a_fan_out_at_once_and_quietly(anyio_backend: Any, order: str) -> None:
    def react(request: Received) -> Sequence[Step]:
        # All stages at once when the key is pressed.
        number = request.body["groupId"]
        return list(SENT.values())[number % len(SENT)](request) if number > 60 else serve(request)

    kind = "uvloop" if anyio_backend[1].get("use_uvloop") else "asyncio"
    async with FaultServer(react, ssl=False) as server:
        flags = ["-X", "dev", "-W", "always::ResourceWarning", "-c", PROGRAM]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *flags,
            server.base_url,
            kind,
            order,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
        )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"running\n"
            await server.until(lambda s: len(s.ledger) == 92, 60)
            process.send_signal(signal.SIGINT)
            # Sooner than the calls' own timeout: it does not wait for what is in flight.
            async with asyncio.timeout(25):
                _, shown = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        stderr = shown.decode()
        assert "KeyboardInterrupt" in stderr
        for complaint in (
            "Task was destroyed",
            "Unclosed",
            "unclosed",
            "never retrieved",
            "never awaited",
            "ResourceWarning",
            "ExceptionGroup",
            "Exception ignored",
            "s3ssion",
        ):
            # The program's own text, which a traceback quotes, does not hold these words.
            assert complaint not in stderr.replace('SessionId("s3ssion")', ""), stderr
