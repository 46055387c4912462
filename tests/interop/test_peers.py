"""What every user does, through each server and proxy: all six endpoints, and a large fan-out."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from deepcall_async import GroupUnavailable, Ok, fan_out
from tests.interop.conftest import GROUPS

pytestmark = pytest.mark.anyio


async def test_the_six_endpoints(peer, scheme):
    sandbox = peer.sandboxes[scheme]
    agent = sandbox.add_agent("Asha")
    async with peer.client(scheme) as dc:
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


async def test_names_in_every_script_come_back_as_they_were(peer, scheme):
    names = ["Vertrieb Süd", "販売", "بيع", "🐘" * 50, 'quote " \\ and <tag>']
    async with peer.client(scheme) as dc:
        for name in names:
            added = await dc.groups.add(name)
            (group,) = await dc.groups.list(group_id=added.group_id)
            assert group.name == name


async def test_a_fan_out_of_a_thousand(peer, scheme):
    seen: Counter[int] = Counter()
    async with peer.client(scheme) as dc:
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


async def test_changes_over_connections_that_are_about_to_end(peer, scheme):
    """Peers close a connection after a second without a request: no change falls into that."""
    pauses = [0.9, 0.97, 0.99, 1.0, 1.01, 1.03, 1.1]
    sandbox = peer.sandboxes[scheme]
    async with peer.client(scheme) as dc:

        async def twice(number: int, pause: float) -> None:
            await dc.groups.add(f"first {number}")
            await asyncio.sleep(pause)
            await dc.groups.add(f"second {number}")

        await asyncio.gather(*(twice(i, pause) for i, pause in enumerate(pauses)))
    assert sandbox.requests["add"] == 2 * len(pauses)
