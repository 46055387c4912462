"""Calls that end before anything of them was sent: what they raise, and what they leave behind."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from deepcall_async import (
    AttemptStarted,
    ConnectFailed,
    ConnectionLost,
    DeepCall,
    DeepCallError,
    Failed,
    GroupUnavailable,
    Outcome,
    OutcomeUnknown,
    RequestTimeout,
    RetryPolicy,
    ServerFault,
    fan_out,
)
from tests.support.clients import ME, both_paths, client, quick
from tests.support.faultserver import FaultServer, Received, Reset, Send, Stall, Step
from tests.support.hazards import refused_port
from tests.support.replies import error, reply, serve
from tests.test_observers import Recorder

pytestmark = pytest.mark.anyio

AWAY: dict[str, list[Step]] = {
    "lost": [Reset()],
    "silent": [Stall()],
    "bare 503": [Send(reply(b"", 503))],
}
ERRORS = {"lost": ConnectionLost, "silent": RequestTimeout, "bare 503": ServerFault}


def failed(outcome: Outcome[Any, Any]) -> DeepCallError | None:
    return outcome.error if isinstance(outcome, Failed) else None


@both_paths
@pytest.mark.virtual_time
@pytest.mark.parametrize("how", AWAY)
async def test_a_change_that_was_held_and_never_sent_has_no_unknown_outcome(
    how: str, path: str
) -> None:
    keys = [f"Sales {number}" for number in range(40)]
    found: dict[str, DeepCallError] = {}
    async with FaultServer(lambda _: AWAY[how]) as server:
        async with client(server, path, timeout=5) as dc:
            with pytest.raises(ERRORS[how]):
                await dc.groups.list()
            async with fan_out(dc.groups.add, keys, concurrency=40, patience=5) as outcomes:
                async for outcome in outcomes:
                    assert isinstance(outcome, Failed)
                    found[outcome.key] = outcome.error
        sent = {request.body["name"] for request in server.received("add")}
    assert set(found) == set(keys)
    assert 0 < len(sent) < len(keys)
    for key, failure in found.items():
        assert failure.endpoint == "groups.add"
        assert str(failure).startswith("groups.add: ")
        assert "groups.list: " not in str(failure)
        if key in sent:
            assert type(failure) is OutcomeUnknown
        else:
            assert (type(failure), failure.attempts) == (ERRORS[how], 0)
            assert "not sent" in str(failure)
            assert not getattr(failure, "sent", False)


@both_paths
@pytest.mark.virtual_time
async def test_a_delete_that_was_held_and_then_refused_was_not_deleted_by_it(path: str) -> None:
    loop, patience = asyncio.get_running_loop(), 5.0
    back = float("inf")
    lost: set[int] = set()

    def react(request: Received) -> list[Step]:
        if loop.time() >= back:
            return [Send(error(1503))]
        lost.add(int(request.body.get("groupId", -1)))
        return [Reset()]

    seen = Recorder()
    options: Any = {"retry": quick(4), "observers": [seen]}
    async with FaultServer(react) as server, client(server, path, **options) as dc:
        with pytest.raises(ConnectionLost):
            await dc.groups.list()
        back = loop.time() + patience
        keys = range(40)
        async with fan_out(dc.groups.delete, keys, concurrency=40, patience=patience) as outcomes:
            found = {outcome.key: outcome async for outcome in outcomes}
        refused = {int(each.body["groupId"]) for each in server.received("delete")} - lost
    assert refused
    # Who deleted it, if not one of our requests that was lost? Of these there was none.
    for key in refused:
        assert isinstance(failed(found[key]), GroupUnavailable)
    for key in lost.intersection(keys):
        assert isinstance(failed(found[key]), OutcomeUnknown | type(None))
    for key in set(keys) - lost - refused:
        assert isinstance(failed(found[key]), ConnectionLost)
    started = seen.of(AttemptStarted)
    # What is sent for the first time repeats nothing.
    assert all((each.previous is None) is (each.attempt == 1) for each in started)
    assert not any(each.last for each in started if each.attempt == 1)
    assert dc.stats.retries == sum(each.attempt > 1 for each in started)


@both_paths
async def test_after_its_deadline_no_change_is_sent(path: str) -> None:
    seen = Recorder()
    async with FaultServer(serve) as server, client(server, path, observers=[seen]) as dc:
        await dc.groups.list()
        late = dc.with_options(retry=RetryPolicy(deadline=1e-9))
        with pytest.raises(RequestTimeout, match="before the request could be sent") as caught:
            await late.groups.add("Sales")
        assert (caught.value.sent, caught.value.attempts) == (False, 0)
        assert dc.stats.active == 0
        await dc.groups.list()
        assert [each.verb for each in server.ledger] == ["list", "list"]
    assert len(seen.events) == 3 + 1 + 3


def test_a_call_left_in_a_loop_that_ended_gives_back_no_slot_of_the_next() -> None:
    with refused_port() as port:
        dc = DeepCall(
            ME,
            base_url=f"http://127.0.0.1:{port}",
            max_connections=1,
            per_second=1e-6,
            retry=RetryPolicy(attempts=1),
        )

        async def fail() -> None:
            with pytest.raises(ConnectFailed):
                await dc.groups.list()
            assert dc.stats.active == 0

        ended = asyncio.new_event_loop()
        ended.run_until_complete(fail())
        # The only slot is its while it waits for the rate.
        left = [ended.create_task(dc.groups.list())]
        ended.run_until_complete(asyncio.sleep(0))
        assert dc.stats.active == 1
        ended.close()

        async def on_the_next() -> None:
            await fail()
            left.clear()
            gc.collect()
            assert dc.stats.active == 0
            await dc.aclose()

        asyncio.run(on_the_next())
