"""What every user does: all six endpoints, and a large fan-out."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from deepcall_async import GroupUnavailable, Ok, fan_out
from tests.interop.peers import GROUPS, Peer

__all__ = ["fan_out_of_a_thousand", "six_endpoints"]


async def six_endpoints(peer: Peer, scheme: str, **options: Any) -> None:
    """Call all six, and see that each was sent once and came through unchanged."""
    sandbox = peer.sandboxes[scheme]
    agent = sandbox.add_agent("Asha")
    async with peer.client(scheme, **options) as dc:
        added = await dc.groups.add("Sales")
        await dc.groups.update(added.group_id, name="Sales EU", status=1)
        await dc.groups.assign_agents(added.group_id, [agent], receive_call=[agent])
        (listed,) = await dc.groups.list(group_id=added.group_id)
        relation = await dc.groups.agent_relation(added.group_id)
        assert not (await dc.groups.delete(added.group_id)).already_absent
        with pytest.raises(GroupUnavailable) as refused:
            await dc.groups.agent_relation(added.group_id)
    assert listed.name == relation.group.name == "Sales EU"
    assert [member.agent.name for member in relation.receivers] == ["Asha"]
    assert refused.value.code == 1503
    # Each was sent once, and none of them changed on its way.
    assert [(call.endpoint, call.code) for call in sandbox.calls] == [
        ("add", 200),
        ("update", 200),
        ("submitAssignGroupToAgent", 200),
        ("list", 200),
        ("getGroupAgentRelation", 200),
        ("delete", 200),
        ("getGroupAgentRelation", 1503),
    ]


async def fan_out_of_a_thousand(peer: Peer, scheme: str, **options: Any) -> None:
    """Look all groups up at once: one outcome for each, the right one, hardly anything twice."""
    seen: Counter[int] = Counter()
    async with peer.client(scheme, **options) as dc:
        ids = [group.unique_id for group in await dc.groups.list()]
        async with fan_out(dc.groups.agent_relation, ids, concurrency=32) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Ok), outcome
                assert outcome.value.group.unique_id == outcome.key
                seen[outcome.key] += 1
        stats = dc.stats
    assert len(ids) == GROUPS
    assert seen == Counter(ids)
    assert stats.active == 0
    # A connection that ended while it was idle costs a read one repeat; nothing else was repeated.
    assert stats.requests <= 1.06 * (GROUPS + 1)
