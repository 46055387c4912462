"""What every user does, through each server and proxy: all six endpoints, and a large fan-out."""

from __future__ import annotations

import asyncio

import pytest

from tests.interop.jobs import fan_out_of_a_thousand, six_endpoints

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]


async def test_the_six_endpoints(peer, scheme):
    await six_endpoints(peer, scheme)


async def test_names_in_every_script_come_back_as_they_were(peer, scheme):
    names = ["Vertrieb Süd", "販売", "بيع", "🐘" * 50, 'quote " \\ and <tag>']
    async with peer.client(scheme) as dc:
        for name in names:
            added = await dc.groups.add(name)
            (group,) = await dc.groups.list(group_id=added.group_id)
            assert group.name == name


async def test_a_fan_out_of_a_thousand(peer, scheme):
    await fan_out_of_a_thousand(peer, scheme)


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
