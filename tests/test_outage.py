"""A service that throttles, restarts or is away: what a fan-out with patience makes of it."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Sequence

import pytest

from deepcall_async import (
    Adaptive,
    ConnectFailed,
    DeepCall,
    Failed,
    Ok,
    Progress,
    RateLimited,
    RetryPolicy,
    ServerFault,
    UserToken,
    collect,
    fan_out,
)
from deepcall_async.sandbox import Sandbox
from tests.support.clients import ME, client
from tests.support.faultserver import FaultServer, Received, Send, Step
from tests.support.hazards import refused_port
from tests.support.replies import reply, serve

pytestmark = pytest.mark.anyio

WORKERS = 8


@pytest.mark.parametrize("retry_after", [True, False])
@pytest.mark.parametrize("concurrency", [WORKERS, Adaptive()])
async def test_a_throttled_service_costs_no_key(
    retry_after: bool, concurrency: int | Adaptive
) -> None:
    async with Sandbox(60, rate_limit=20, retry_after=retry_after) as server:
        login = UserToken(server.user_id, server.token)
        async with DeepCall(login, base_url=server.base_url) as dc:
            batch = await collect(dc.groups.agent_relation, range(1, 61), concurrency=concurrency)
        assert len(batch.ok) == 60
        asked = server.requests["getGroupAgentRelation"]
        allowed = 1.5 * 60 + 10 if isinstance(concurrency, Adaptive) else 2 * 60 + WORKERS
        assert asked <= allowed


@pytest.mark.parametrize("concurrency", [WORKERS, Adaptive()])
async def test_a_restart_costs_no_key(concurrency: int | Adaptive) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    keys = [number % 40 + 1 for number in range(400)]
    begun, away = asyncio.Event(), asyncio.Event()

    async def service() -> None:
        async with Sandbox(40, port=port):
            begun.set()
            await away.wait()
        await asyncio.sleep(0.5)
        async with Sandbox(40, port=port):
            await asyncio.Event().wait()

    task = asyncio.create_task(service())
    await begun.wait()
    sandbox = Sandbox(40)  # the same seed, so the same token
    login = UserToken(sandbox.user_id, sandbox.token)
    found: Counter[int] = Counter()
    async with DeepCall(login, base_url=f"http://127.0.0.1:{port}", timeout=5.0) as dc:
        async with fan_out(dc.groups.agent_relation, keys, concurrency=concurrency) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Ok), outcome
                found[outcome.key] += 1
                if found.total() == 100:
                    away.set()
        assert found == Counter(keys)
        assert dc.stats.requests <= 1.5 * len(keys) + 10
    task.cancel()
    await asyncio.wait([task])


def refuse(request: Received) -> Sequence[Step]:
    return [Send(reply(b"", 429))]


async def test_a_service_that_refuses_everything_is_asked_little() -> None:
    async with FaultServer(refuse) as server, client(server.base_url) as dc:
        batch = await collect(dc.groups.agent_relation, range(60), concurrency=4, patience=0.5)
        assert {type(error) for error in batch.failed.values()} == {RateLimited}
        assert len(batch.failed) == 60
        assert server.begun <= 1.1 * 60 + 10 + 4


async def test_no_server_at_all_is_waited_for_and_then_asked_little() -> None:
    seen: list[Progress] = []
    with refused_port() as port:
        async with client(f"http://127.0.0.1:{port}") as dc:
            batch = await collect(
                dc.groups.agent_relation,
                range(60),
                concurrency=4,
                patience=0.5,
                progress=seen.append,
            )
            assert {type(error) for error in batch.failed.values()} == {ConnectFailed}
            assert len(batch.failed) == 60
            assert dc.stats.requests <= 1.1 * 60 + 10 + 4 + 20
    assert f"no answer from 127.0.0.1:{port}" in {each.waiting_for for each in seen}


async def test_without_patience_a_fan_out_fails_as_fast_as_its_calls() -> None:
    with refused_port() as port:
        async with client(f"http://127.0.0.1:{port}") as dc:
            batch = await collect(dc.groups.agent_relation, range(60), concurrency=4, patience=0)
            assert len(batch.failed) == 60
            assert dc.stats.requests <= 1.1 * 60 + 10


async def test_a_single_call_has_no_patience() -> None:
    with refused_port() as port:
        async with client(f"http://127.0.0.1:{port}", retry=RetryPolicy(base_delay=0.0)) as dc:
            with pytest.raises(ConnectFailed) as caught:
                await dc.groups.list()
            assert caught.value.attempts == 4


async def test_a_wait_longer_than_the_patience_fails_at_once() -> None:
    def later(request: Received) -> Sequence[Step]:
        return [Send(reply(b"", 429, [("Retry-After", "3000")]))]

    async with FaultServer(later) as server, client(server.base_url) as dc:
        batch = await collect(dc.groups.agent_relation, range(20), concurrency=4, patience=600)
        assert len(batch.failed) == 20
        assert server.begun <= 20


async def test_a_lone_503_is_the_keys_own_failure() -> None:
    def react(request: Received) -> Sequence[Step]:
        if request.body["groupId"] == 7:
            return [Send(reply(b"", 503))]
        return serve(request)

    retry = RetryPolicy(base_delay=0.001)
    async with FaultServer(react) as server, client(server.base_url, retry=retry) as dc:
        batch = await collect(dc.groups.agent_relation, range(1, 41), concurrency=4)
        assert list(batch.failed) == [7]
        assert isinstance(batch.failed[7], ServerFault)
        assert server.begun == 39 + 4


async def test_one_accounts_throttle_is_not_anothers() -> None:
    def react(request: Received) -> Sequence[Step]:
        return refuse(request) if request.body.get("token") == ME.token else serve(request)

    async with FaultServer(react) as server, client(server.base_url) as dc:
        other = dc.with_options(credentials=UserToken("8", "another"))
        refused, answered = await asyncio.gather(
            collect(dc.groups.agent_relation, range(1, 11), concurrency=2, patience=0.5),
            collect(other.groups.agent_relation, range(1, 201), concurrency=2),
        )
        assert len(refused.failed) == 10
        assert len(answered.ok) == 200
        assert other.stats.requests == 200


async def test_a_held_change_is_sent_once() -> None:
    """A change is held only while it was surely not sent."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with client(f"http://127.0.0.1:{port}") as dc:
        names = [f"Sales {number}" for number in range(1, 21)]
        adding = asyncio.create_task(collect(dc.groups.add, names, concurrency=4))
        while dc.stats.requests < 4:
            await asyncio.sleep(0)
        async with FaultServer(serve, port=port) as server:
            batch = await adding
            assert len(batch.ok) == 20
            assert sorted(request.body["name"] for request in server.ledger) == sorted(names)
            assert not [each for each in batch.failed.values() if isinstance(each, Failed)]
