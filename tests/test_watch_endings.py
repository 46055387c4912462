"""How a watch ends, and what others do to it meanwhile: nobody is left waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta

import pytest

from deepcall_async.errors import ConnectionLost
from deepcall_async.watch import FirstLook, Recovered, WentDark
from tests.support.audit_accounts import NOW
from tests.test_watch import Account, watched

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


@pytest.mark.parametrize("wait", ["anext", "look_now", "next_look"])
async def test_who_waits_is_told_when_its_task_is_cancelled_from_outside(tmp_path, wait):
    """As by a program that cancels all its tasks."""
    async with watched(Account(), tmp_path) as changes:
        await anext(changes)
        await changes.next_look()
        waiting = asyncio.ensure_future(
            anext(changes) if wait == "anext" else getattr(changes, wait)()
        )
        await asyncio.sleep(0.1)
        changes._task.cancel()
        with pytest.raises(RuntimeError, match="the watch has ended"):
            await waiting
        with pytest.raises(RuntimeError, match="the watch has ended"):
            await changes.look_now()


async def test_a_thousand_who_ask_for_a_look_share_two(tmp_path):
    account = Account(takes=5)
    async with watched(account, tmp_path) as changes:
        await changes.next_look()
        looks = await asyncio.gather(*[changes.look_now() for _ in range(1000)])
        assert len({look.number for look in looks}) == 1
        first = [asyncio.create_task(changes.look_now()) for _ in range(500)]
        await asyncio.sleep(2)
        second = [asyncio.create_task(changes.look_now()) for _ in range(500)]
        for task in first[::2]:
            task.cancel()
        await asyncio.wait([*first, *second])
        assert {task.result().number for task in first[1::2]} == {3}
        assert {task.result().number for task in second} == {4}
        assert changes._asked == []
    assert len(account.begun) == 4


async def test_a_consumer_who_never_takes_holds_nothing_up(tmp_path):
    account = Account()
    async with watched(account, tmp_path) as changes:
        for turn in range(200):
            account.groups[1] = "gd"[turn // 30 % 2]
            await changes.next_look()
    async with watched(account, tmp_path, every=1e6) as changes:
        given = [type(await anext(changes)).__name__ for _ in range(7)]
    assert given == ["FirstLook", *["WentDark", "Recovered"] * 3]


@pytest.mark.parametrize("jump", [timedelta(days=4000), -timedelta(days=4000)])
async def test_a_clock_that_jumps_moves_no_look_and_hides_no_change(tmp_path, jump):
    account, shift = Account(), timedelta()
    loop = asyncio.get_running_loop()
    start = loop.time()

    def now():
        return NOW + timedelta(seconds=loop.time() - start) + shift

    async with watched(account, tmp_path, now=now) as changes:
        await anext(changes)
        account.groups = {1: "d"}
        assert isinstance(await anext(changes), WentDark)
        shift = jump
        account.groups = {1: "g"}
        assert isinstance(await anext(changes), Recovered)
        shift = timedelta()
        account.groups = {1: "d"}
        assert isinstance(await anext(changes), WentDark)
    gaps = {
        later - earlier
        for earlier, later in zip(
            account.since_the_first, account.since_the_first[1:], strict=False
        )
    }
    assert gaps == {300.0}


@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
async def test_cancelled_in_the_midst_of_a_look_and_of_leaving_it_frees_the_file(tmp_path, twice):
    account, others = Account(takes=50), {*threading.enumerate()}

    async def bot() -> None:
        async with watched(account, tmp_path) as changes:
            async for _ in changes:
                pass

    for seconds in (0, 0.5, 49, 51, 301, 320):
        task = asyncio.create_task(bot())
        await asyncio.sleep(seconds)
        task.cancel()
        if twice:
            await asyncio.sleep(0)
            task.cancel()  # while it closes
        with pytest.raises(asyncio.CancelledError):
            await task
        # The file is closed in a thread, whose time is not the loop's.
        closing = [
            each
            for each in {*threading.enumerate()} - others
            if each.name.startswith("deepcall-watch")
        ]
        for thread in closing:
            await asyncio.to_thread(thread.join)
    async with watched(account, tmp_path) as changes:
        assert (await changes.next_look()).error == ""


async def test_cancelled_while_it_opens_it_has_closed_the_file_when_it_ends(tmp_path):
    changes = watched(Account(), tmp_path)
    opens, is_open = changes._open, threading.Event()

    def slowly():
        store = opens()
        is_open.set()
        time.sleep(0.02)  # longer than it takes to be cancelled
        return store

    changes._open = slowly
    opening = asyncio.create_task(changes.__aenter__())
    await asyncio.to_thread(is_open.wait)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    async with watched(Account(), tmp_path) as changes:
        await changes.next_look()


async def test_what_ends_the_block_is_raised_and_not_what_ended_the_looks(tmp_path):
    account = Account()
    account.error = ZeroDivisionError()
    with pytest.raises(KeyError):
        async with watched(account, tmp_path):
            await asyncio.sleep(10)
            raise KeyError


async def test_a_service_that_is_away_at_first_ends_no_watch(tmp_path):
    account = Account()
    account.error = ConnectionLost("away")
    async with watched(account, tmp_path) as changes:
        assert (await changes.next_look()).blind
        account.error = None
        assert isinstance(await anext(changes), FirstLook)


async def test_an_incomplete_look_says_so(tmp_path, caplog):
    async with watched(Account({1: "g", 2: "u"}), tmp_path) as changes:
        look = await changes.next_look()
    assert (look.groups, look.read, look.blind) == (2, 1, False)
    assert "a look is incomplete: 1 lookups failed" in caplog.text
