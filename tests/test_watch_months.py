"""Months of a watch: what is told is what the model tells, and nothing grows.

The short runs are a sample; ``--ways all`` looks as often as in 90 days.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import closing
from datetime import timedelta

import pytest

from deepcall_async import DeepCall, UserToken
from deepcall_async.audit import Snapshot
from deepcall_async.audit.watch import State, step
from deepcall_async.sandbox import Sandbox
from deepcall_async.watch import watch
from deepcall_async.watch.store import Store
from tests.support.audit_accounts import NOW
from tests.support.loops import needs_proc, sockets
from tests.support.memory import Growth
from tests.support.watched import BLIND, Model, seen, told

pytestmark = pytest.mark.anyio

DAYS = 90
LOOKS = DAYS * 24 * 12


FILE_LIMIT = 5_000_000
"""Bytes: SQLite lets its log grow to 1,000 pages of 4 KiB."""


def _ninety_days(groups: int, looks: int = LOOKS) -> list[dict[int, str] | None]:
    """Weeks in which little happens, and hours in which much does; None is a blind look."""
    pick = random.Random(90)
    now: dict[int, str] = dict.fromkeys(range(1, groups + 1), "g")
    out: list[dict[int, str] | None] = []
    blind = 0
    next_id = groups + 1
    while len(out) < looks:
        if blind:
            blind -= 1
            out.append(None)
            continue
        stormy = len(out) // 288 % 7 == 5
        if pick.random() < (0.5 if stormy else 0.05):
            now = dict(now)
            group_id = pick.choice([*now])
            if pick.random() < 0.05:
                del now[group_id]
                now[next_id], next_id = "g", next_id + 1
            else:
                now[group_id] = pick.choice("ggggtdou")
        if pick.random() < 0.005:
            blind = pick.randrange(1, 8)
        out.append(now)
    return out


@pytest.mark.parametrize("looks", [LOOKS // 9, pytest.param(LOOKS, marks=pytest.mark.thorough)])
def test_ninety_days_of_looks_tell_what_the_model_tells_and_nothing_grows(tmp_path, looks):
    path = tmp_path / "watch.db"
    model, state, now = Model(), State(), NOW
    said, expected, sizes, acknowledged = 0, 0, [], 0
    snapshots: dict[int, Snapshot] = {}
    with closing(Store(path, "account", ("default",))) as mine, Growth(looks) as memory:
        for number, groups in enumerate(_ninety_days(2, looks)):
            memory.turn(number)
            now += timedelta(seconds=300)
            if groups is None:
                snapshot = BLIND
            elif (snapshot := snapshots.get(id(groups))) is None:
                snapshots = {id(groups): seen(groups)}
                snapshot = snapshots[id(groups)]
            state, changes = step(state, snapshot, now)
            model_said = model.look(groups, now)
            assert sorted(map(told, changes), key=str) == sorted(model_said, key=str)
            mine.record(state, changes)
            said, expected = said + len(changes), expected + len(model_said)
            if changes:
                given = mine.take("default", acknowledged)
                assert [each.change for each in given] == [*changes]
                acknowledged = changes[-1].number
            if number % (looks // 100) == 0:
                sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
                memory.sample(number)
    assert state.looks == looks
    assert said == expected > looks // 52
    assert len(state.groups) < 8
    assert max(sizes) < FILE_LIMIT
    assert memory.blocks < 100  # sqlite3 lets go of what it notes of cursors 200 at a time


class Storm:
    """Changes a sandbox's groups through the API, as people do."""

    def __init__(self, server: Sandbox, dc: DeepCall) -> None:
        self._server, self._dc, self._pick = server, dc, random.Random(3)
        self._agents = [server.add_agent(f"Agent {i}") for i in range(4)]
        self.groups = {self._add(f"Group {i}"): "g" for i in range(2)}

    async def change(self, turn: int) -> None:
        group_id = self._pick.choice([*self.groups])
        letter = self.groups[group_id] = self._pick.choice("gtdo-")
        if letter == "-":
            await self._dc.groups.delete(group_id)
            del self.groups[group_id]
            self.groups[self._add(f"New {turn}")] = "g"
            return
        await self._dc.groups.update(group_id, name=f"Named {turn}", status=int(letter != "o"))
        ringing = self._agents[: {"t": 2, "d": 0}.get(letter, 4)]
        await self._dc.groups.assign_agents(group_id, self._agents, receive_call=ringing)

    def _add(self, name: str) -> int:
        return self._server.add_group(name, members=dict.fromkeys(self._agents, "Y"))


@needs_proc
@pytest.mark.virtual_time
@pytest.mark.timeout(1800)  # for 90 days
@pytest.mark.parametrize("looks", [288 // 2, pytest.param(LOOKS, marks=pytest.mark.thorough)])
async def test_months_against_a_changing_sandbox(tmp_path, caplog, looks):
    """The whole way from the account's groups to what a bot is told, for half a day or 90 days."""
    caplog.set_level("CRITICAL")  # it keeps what is logged
    pick, loop = random.Random(7), asyncio.get_running_loop()
    # The store is measured above; the 256 heads of replies that are kept fill up in half a day.
    left_out = "*/sandbox/*", "*/watch/store.py", "*/transport/plain.py"
    with Growth(looks, *left_out) as memory:
        async with (
            Sandbox(groups=0) as server,
            DeepCall(UserToken(server.user_id, server.token), base_url=server.base_url) as dc,
            watch(dc, state=tmp_path / "watch.db", patience=0) as changes,
        ):
            storm, start, model = Storm(server, dc), loop.time(), Model()
            changes._now = lambda: NOW + timedelta(seconds=loop.time() - start)
            kinds: Counter[str] = Counter()
            open_sockets, sizes = [], []
            for turn in range(looks):
                memory.turn(turn)
                if turn and pick.random() < (0.4 if turn // 48 % 7 == 0 else 0.04):
                    await storm.change(turn)
                away = pick.random() < 0.05
                server.error_rate = {1032: 1.0} if away else {}
                look = await (changes.next_look() if turn else changes.look_now())
                server.error_rate = {}
                assert look.blind == away
                said = model.look(None if away else storm.groups, changes.state.last_look)
                given = [told(await anext(changes)) for _ in said]
                assert sorted(given, key=str) == sorted(said, key=str)
                assert [*map(told, look.changes)] == given
                kinds.update(kind for kind, _ in given)
                server._calls.clear()
                if turn % max(5, looks // 100) == 0 and not away:
                    open_sockets.append(sockets())
                    sizes.append(sum(file.stat().st_size for file in tmp_path.iterdir()))
                    memory.sample(turn)
            assert len(kinds) >= 5
            assert changes.state.looks >= looks
            third = len(open_sockets) // 3
            assert max(open_sockets[-third:]) <= max(open_sockets[:third])
            assert max(sizes) < FILE_LIMIT
            assert memory.blocks < 20
