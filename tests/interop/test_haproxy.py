"""HAProxy: what it answers itself when no server stands behind it."""

from __future__ import annotations

import pytest

from deepcall_async import OutcomeUnknown, RetryPolicy, ServerFault
from tests.interop import peers

pytestmark = pytest.mark.anyio


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
