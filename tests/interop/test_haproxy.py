"""HAProxy: what it answers itself when no server stands behind it, and what a reload costs."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from deepcall_async import Ok, OutcomeUnknown, RetryPolicy, ServerFault, fan_out
from tests.interop import peers

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]


@pytest.fixture(scope="module")
def haproxy(sandboxes):
    with peers.haproxy(sandboxes[0]) as peer:
        yield peer


async def test_no_server_behind_it_is_a_fault_that_may_pass(haproxy):
    quick = RetryPolicy(attempts=3, base_delay=0.01)
    async with haproxy.client("down", retry=quick) as dc:
        with pytest.raises(ServerFault) as failed:
            await dc.groups.agent_relation(28)
        assert (failed.value.http_status, failed.value.attempts) == (503, 3)
        with pytest.raises(OutcomeUnknown):
            await dc.groups.add("Sales")


async def test_a_reload_under_load_loses_no_lookup(haproxy, scheme):
    seen: Counter[int] = Counter()
    ids = range(1, peers.GROUPS + 1)
    async with haproxy.client(scheme) as dc:
        async with fan_out(dc.groups.agent_relation, ids, concurrency=32) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Ok), outcome
                assert outcome.value.group.unique_id == outcome.key
                seen[outcome.key] += 1
                if len(seen) in (200, 600):
                    haproxy.program.process.send_signal(signal.SIGUSR2)
        requests = dc.stats.requests
    assert seen == Counter(ids)
    assert requests <= 1.5 * len(ids)
