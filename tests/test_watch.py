"""A watch at work: when it looks, whom it tells, and what of that survives an end at any moment."""

from __future__ import annotations

import asyncio
import gc
import random
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from deepcall_async import AuthenticationFailed, ClientClosed, DeepCall, UserToken
from deepcall_async.audit import Snapshot
from deepcall_async.audit.watch import State, step
from deepcall_async.errors import ConnectionLost
from deepcall_async.sandbox import Sandbox
from deepcall_async.watch import (
    Blind,
    FirstLook,
    StateInUse,
    StateUnusable,
    Watch,
    WentDark,
    watch,
)
from deepcall_async.watch.store import _MIGRATIONS, _OURS, Store
from tests.support.audit_accounts import NOW
from tests.support.loops import at_once, nothing_left
from tests.support.watched import found, seen, told

pytestmark = pytest.mark.anyio

ACCOUNT = "https://brand.example"
virtual = pytest.mark.virtual_time


class Account:
    """An account that is looked at without a network, and when that was."""

    def __init__(self, groups: Mapping[int, str] | None = None, takes: float = 1.0) -> None:
        self.groups = {1: "g"} if groups is None else dict(groups)
        self.takes = takes
        self.error: Exception | None = None
        self.begun: list[float] = []
        self.at_work = 0

    async def look(self) -> Snapshot:
        self.at_work += 1
        assert self.at_work == 1, "looks overlap"
        self.begun.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(self.takes)
        finally:
            self.at_work -= 1
        if self.error is not None:
            raise self.error
        return seen(self.groups)

    @property
    def since_the_first(self) -> list[float]:
        return [round(time - self.begun[0], 6) for time in self.begun]


def watched(account: Account, folder: Path, **more: Any) -> Watch:
    start = asyncio.get_running_loop().time()

    def now():
        return NOW + timedelta(seconds=asyncio.get_running_loop().time() - start)

    return Watch(
        account.look,
        **{"state": folder / "watch.db", "account": ACCOUNT, "every": 300.0, "now": now} | more,
    )


def store(path: Path, *followers: str, account: str = ACCOUNT) -> Store:
    return Store(path, account, followers or ("default",))


def dark(number: int, group_id: int = 1) -> WentDark:
    return WentDark(number=number, at=NOW, group_id=group_id, name="Sales", members=2, since=NOW)


async def test_a_bot_is_told_when_a_group_goes_dark(tmp_path):
    async with (
        nothing_left(),
        Sandbox(groups=0) as server,
        DeepCall(UserToken(server.user_id, server.token), base_url=server.base_url) as dc,
    ):
        asha = server.add_agent("Asha")
        sales = server.add_group("Sales", members={asha: "Y"})
        async with watch(dc, state=tmp_path / "watch.db", cooldown=0) as changes:
            kinds = []
            async for change in changes:
                kinds.append(told(change)[0])
                if isinstance(change, FirstLook):
                    await dc.groups.assign_agents(sales, [asha])
                elif isinstance(change, WentDark):
                    assert (change.group_id, change.name, change.members) == (sales, "Sales", 1)
                    await dc.groups.assign_agents(sales, [asha], receive_call=[asha])
                else:
                    break
                for _ in range(2):
                    look = await changes.look_now()
                assert (look.groups, look.read, look.blind) == (1, 1, False)
        assert kinds == ["FirstLook", "WentDark", "Recovered dark"]


@virtual
async def test_looks_begin_at_their_interval_however_long_they_take(tmp_path):
    account = Account(takes=200)
    async with watched(account, tmp_path) as changes:
        for _ in range(4):
            look = await changes.next_look()
    assert account.since_the_first == [0, 300, 600, 900]
    assert (look.number, look.late, look.seconds) == (4, 0, pytest.approx(200))


@virtual
async def test_a_look_that_is_late_says_so_and_none_overlaps(tmp_path, caplog):
    account = Account(takes=700)
    async with watched(account, tmp_path) as changes:
        await changes.next_look()
        look = await changes.next_look()
        assert look.late == pytest.approx(400)
        account.takes = 1
        for _ in range(2):
            look = await changes.next_look()
    assert account.since_the_first == [0, 700, 1400, 1700]  # what was missed is not made up for
    assert look.late == 0
    assert "a look is 400 s late" in caplog.text


@virtual
@pytest.mark.parametrize(("takes", "said"), [(300.9, False), (301.1, True)])
async def test_from_a_second_on_a_look_is_late(tmp_path, caplog, takes, said):
    async with watched(Account(takes=takes), tmp_path) as changes:
        for _ in range(2):
            await changes.next_look()
    assert ("a look is 1 s late" in caplog.text) == said


@virtual
async def test_look_now(tmp_path):
    account = Account()
    async with watched(account, tmp_path) as changes:
        await changes.next_look()
        await asyncio.sleep(99)
        look = await changes.look_now()
        assert (look.number, look.late) == (2, 0)
        assert account.since_the_first == [0, 100]
        # One that is asked for during a look begins after it, and one serves all who asked.
        await asyncio.sleep(299.5)
        both = await asyncio.gather(changes.look_now(), changes.look_now())
        assert [look.number for look in both] == [4, 4]
        assert account.since_the_first == [0, 100, 400, 401]


@virtual
async def test_a_slow_consumer_loses_nothing_and_holds_no_look_up(tmp_path):
    account, kinds = Account(), []
    async with watched(account, tmp_path, decide=_without_cooldown) as changes:

        async def consume():
            async for change in changes:
                kinds.append((change.number, told(change)[0]))
                await asyncio.sleep(3600)

        consuming = asyncio.create_task(consume())
        for letter in "ggddggddgg":
            account.groups[1] = letter
            await changes.next_look()
        looks = len(account.begun)
        while len(kinds) < 4:
            await asyncio.sleep(60)
        consuming.cancel()
        assert looks >= 10
    assert kinds == [*enumerate(["FirstLook", "WentDark", "Recovered dark", "WentDark"], start=1)]


def _without_cooldown(*arguments: Any, **more: Any) -> Any:
    return step(*arguments, cooldown=0, **more)


@virtual
@pytest.mark.parametrize("way", ["left", "raised", "cancelled"])
async def test_what_was_told_is_not_told_again_and_what_was_not_is(tmp_path, way):
    async def first() -> None:
        async with watched(Account(), tmp_path) as changes:
            async for change in changes:
                assert isinstance(change, FirstLook)
                if way == "left":
                    break
                if way == "cancelled":
                    asyncio.current_task().cancel()
                    await asyncio.sleep(0)
                raise KeyError("while it was handled")

    ended = {"left": None, "raised": KeyError, "cancelled": asyncio.CancelledError}[way]
    if ended is None:
        await first()
    else:
        with pytest.raises(ended):
            await asyncio.create_task(first())
    async with watched(Account(), tmp_path) as changes:
        assert await changes.waiting() == (0 if way == "left" else 1)


@virtual
async def test_a_timeout_while_waiting_for_a_change_loses_none(tmp_path):
    account = Account()
    async with watched(account, tmp_path, decide=_without_cooldown) as changes:
        kinds = []
        for turn in range(80):
            account.groups[1] = "gd"[turn // 30 % 2]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(70 + turn):
                    while True:
                        kinds.append(told(await anext(changes))[0])
    assert kinds[0] == "FirstLook"
    assert kinds[1:] == ["WentDark", "Recovered dark"]


@virtual
async def test_cancelling_in_the_middle_of_a_look_ends_it_at_once(tmp_path):
    account = Account(takes=10_000)
    async with nothing_left():
        async with watched(account, tmp_path):
            await asyncio.sleep(5)
            began = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - began < 0.5
    assert account.at_work == 0
    store(tmp_path / "watch.db").close()  # and the file is free


@virtual
async def test_iteration_elsewhere_ends_with_the_watch(tmp_path):
    async with watched(Account(), tmp_path) as changes:
        follower = changes.follow("default")

        async def consume():
            return [batch async for batch in follower]

        consuming = asyncio.create_task(consume())
        await changes.next_look()
        await asyncio.sleep(1)
    assert len(await at_once(consuming)) == 1
    with pytest.raises(RuntimeError, match="async with"):
        await changes.look_now()
    with pytest.raises(RuntimeError, match="make another"):
        await changes.__aenter__()


@virtual
async def test_followers_are_told_each_at_its_own_pace_and_look_by_look(tmp_path):
    account = Account({1: "g", 2: "g"})
    async with watched(account, tmp_path, followers=("mail", "chat")) as changes:
        mail, chat = changes.follow("mail"), changes.follow("chat")
        assert len(await anext(mail)) == 1
        account.groups = {1: "d", 2: "d"}
        assert [told(change) for change in await anext(mail)] == [("WentDark", 1), ("WentDark", 2)]
        assert isinstance((await anext(chat))[0], FirstLook)
        assert len(await anext(chat)) == 2
        with pytest.raises(ValueError, match="'post' is not one"):
            await anext(changes.follow("post"))
        with pytest.raises(ValueError, match="default"):
            await anext(changes)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await anext(mail)
    # Mail has acknowledged all, chat not the last; somebody new is not told old news.
    async with watched(account, tmp_path, followers=("mail", "chat", "post")) as changes:
        assert len(await at_once_or_later(anext(changes.follow("chat")))) == 2
        for name in ("mail", "post"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3600):
                    await anext(changes.follow(name))


async def at_once_or_later(awaitable):
    async with asyncio.timeout(1):
        return await awaitable


@virtual
async def test_errors_of_the_service_are_told_as_blindness_with_the_reason(tmp_path, caplog):
    account = Account()
    async with watched(account, tmp_path) as changes:
        assert isinstance(await anext(changes), FirstLook)
        account.error = ConnectionLost("the connection ended")
        blind = await anext(changes)
        assert isinstance(blind, Blind)
        assert blind.reason == "ConnectionLost: the connection ended"
        assert changes.last.blind
        assert changes.last.error == blind.reason
        account.error = None
        assert told(await anext(changes))[0] == "SightAgain"
        account.groups = {1: "u"}
        look = await changes.next_look()
        assert (look.blind, look.read) == (True, 0)
        assert look.error.startswith("RequestTimeout")
    assert "a look saw nothing: ConnectionLost: the connection ended" in caplog.text


@virtual
@pytest.mark.parametrize("error", [ZeroDivisionError(), ClientClosed("closed")])
async def test_an_error_that_is_no_answer_ends_the_watch_and_is_raised(tmp_path, error):
    account = Account()
    with pytest.raises(type(error)):
        async with watched(account, tmp_path) as changes:
            await changes.next_look()
            account.error = error
            await asyncio.sleep(1000)
    with pytest.raises(type(error)):
        async with watched(account, tmp_path) as changes:
            async for _ in changes:
                pass
    with pytest.raises(type(error)):
        async with watched(account, tmp_path) as changes:
            await changes.look_now()


@virtual
async def test_wrong_credentials_end_it_before_anything_was_seen_and_are_told_later(tmp_path):
    account = Account()
    account.error = AuthenticationFailed("no")
    with pytest.raises(AuthenticationFailed):
        async with watched(account, tmp_path) as changes:
            await anext(changes)
    account.error = None
    async with watched(account, tmp_path) as changes:
        await anext(changes)
        account.error = AuthenticationFailed("no")
        assert isinstance(await anext(changes), Blind)


@virtual
async def test_another_account_under_the_same_address_is_refused(tmp_path):
    account = Account()
    async with watched(account, tmp_path) as changes:
        await changes.next_look()

    async def other() -> Snapshot:
        relation = found(1, "g")
        theirs = replace(
            relation,
            group=replace(relation.group, user_id="7"),
            relations=tuple(replace(row, user_id="7") for row in relation.relations),
        )
        return Snapshot(asked=(1,), relations={1: theirs})

    account.look = other  # type: ignore[method-assign]
    with pytest.raises(StateUnusable, match="another user's account"):
        async with watched(account, tmp_path) as changes:
            await changes.look_now()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("every", value) for value in (0, 0.5, -1, float("inf"), float("nan"), True)),
        *(("confirm", value) for value in (0, 1.5)),
        ("clear", 0),
        *(("cooldown", value) for value in (-1, float("nan"))),
        ("patience", -1),
    ],
)
async def test_wrong_arguments(option, value, tmp_path):
    async with DeepCall(UserToken("1", "x"), base_url="https://brand.invalid") as dc:
        with pytest.raises((ValueError, TypeError), match=option):
            watch(dc, state=tmp_path / "watch.db", **{option: value})


# The state file


def test_a_second_watch_on_one_file_is_refused(tmp_path):
    first = store(tmp_path / "watch.db")
    with pytest.raises(StateInUse, match="another watch"):
        store(tmp_path / "watch.db")
    first.record(State(looks=1), [dark(1)])
    first.close()
    second = store(tmp_path / "watch.db")
    assert second.state.looks == 1
    second.close()


def test_what_cannot_be_a_state_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        store(tmp_path / "nowhere" / "watch.db")
    with pytest.raises(IsADirectoryError):
        store(tmp_path)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE customers (name)")
    db.close()
    with pytest.raises(StateUnusable, match="another program's"):
        store(other)
    mine = tmp_path / "watch.db"
    store(mine).close()
    with pytest.raises(StateUnusable, match=r"is the state of .* not of .*acme"):
        store(mine, account="https://acme.example")
    with sqlite3.connect(mine) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StateUnusable, match="newer version"):
        store(mine)


def test_a_file_of_an_older_schema_is_migrated(tmp_path):
    old = tmp_path / "watch.db"
    with sqlite3.connect(old, isolation_level=None) as db:
        db.executescript(_MIGRATIONS[0])
        db.execute(f"PRAGMA application_id = {_OURS}")
        db.execute("PRAGMA user_version = 1")
        db.execute(
            "INSERT INTO state VALUES (1, ?, ?, ?)", (ACCOUNT, b'{"looks": 7, "numbers": 1}', b"{}")
        )
        change = b'{"kind": "vanished", "number": 1, "at": "2026-06-01T12:00:00Z", "group_id": 1, "name": ""}'
        db.execute("INSERT INTO outbox VALUES (1, 7, ?)", (change,))
    db.close()
    new = store(old)
    assert new.state.looks == 7
    assert [each.change.number for each in new.take("default", 0)] == [1]
    new.close()
    store(old).close()


def test_a_file_whose_migration_fails_is_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "watch.db"
    first = store(path)
    first.record(State(looks=1), [dark(1)])
    first.close()
    broken = (*_MIGRATIONS, "CREATE TABLE new (x); INSERT INTO nowhere VALUES (1);")
    monkeypatch.setattr("deepcall_async.watch.store._MIGRATIONS", broken)
    with pytest.raises(OSError, match="nowhere"):
        store(path)
    monkeypatch.undo()
    again = store(path)
    assert [each.change.number for each in again.take("default", 0)] == [1]
    again.close()


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:6000])


def _overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 : 4096 * 3] = random.Random(1).randbytes(4096 * 2)
    path.write_bytes(content)


def _undecodable(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE state SET groups = '{'")
    db.close()


@virtual
@pytest.mark.parametrize("damage", [_garbage, _truncated, _overwritten, _undecodable])
async def test_a_damaged_file_is_set_aside_said_and_begun_anew(
    tmp_path, caplog, damage: Callable[[Path], None]
):
    path = tmp_path / "watch.db"
    async with watched(Account(), tmp_path) as changes:
        await changes.next_look()
    damage(path)
    content = path.read_bytes()
    async with watched(Account(), tmp_path) as changes:
        aside = changes.set_aside
        first = await anext(changes)
    assert isinstance(first, FirstLook)
    assert f"it was moved to {aside.name}" in str(first)
    assert f"moved to {aside}" in caplog.text
    assert aside.name.startswith("watch.db.damaged-")
    if damage is not _undecodable:  # SQLite has opened that one, as a file that is well
        assert aside.read_bytes() == content
    async with watched(Account(), tmp_path) as changes:
        assert changes.set_aside is None
        assert changes.state.looks >= 1


@virtual
async def test_what_a_full_disk_would_not_take_is_told_later(tmp_path, caplog):
    account = Account(dict.fromkeys(range(1, 200), "g"))
    async with watched(account, tmp_path) as changes:
        await anext(changes)
        db = changes._store._db
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")
        account.groups = dict.fromkeys(account.groups, "d")
        for _ in range(3):
            look = await changes.next_look()
        assert "could not be written" in look.error
        assert look.changes == ()
        assert await changes.waiting() == 1  # the summary, not acknowledged yet
        db.execute("PRAGMA max_page_count = 10000")
        assert told(await anext(changes))[0] == "WentDark"
    assert "the state could not be written" in caplog.text


@virtual
async def test_what_cannot_be_noted_is_noted_after_the_next_look(tmp_path, caplog):
    account = Account()
    async with watched(account, tmp_path) as changes:
        assert isinstance(await anext(changes), FirstLook)
        db = changes._store._db
        db.execute("PRAGMA query_only = ON")
        account.groups[1] = "d"
        waiting = asyncio.create_task(anext(changes))
        for _ in range(4):
            look = await changes.next_look()
        assert "could not be written" in look.error
        assert changes.seconds_since_look > 3 * changes.every
        db.execute("PRAGMA query_only = OFF")
        assert isinstance(await waiting, WentDark)
        assert await changes.waiting() == 1
        assert changes.seconds_since_look < changes.every
    assert "what was told could not be noted" in caplog.text


@virtual
async def test_a_watch_that_is_cancelled_while_it_opens_leaves_the_file_free(tmp_path):
    async def opened() -> None:
        async with watched(Account(), tmp_path):
            raise AssertionError("it was cancelled")

    opening = asyncio.create_task(opened())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await asyncio.sleep(1)
    async with watched(Account(), tmp_path) as changes:
        await changes.next_look()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_why_it_did_not_open_is_raised_once_and_logged_nowhere(tmp_path, caplog, cancelled):
    opening = asyncio.create_task(watched(Account(), tmp_path / "nowhere").__aenter__())
    if cancelled:
        await asyncio.sleep(0)
        opening.cancel()
    with pytest.raises(asyncio.CancelledError if cancelled else FileNotFoundError):
        await opening
    await asyncio.get_running_loop().run_in_executor(None, gc.collect)
    await asyncio.sleep(0)
    assert caplog.text == ""


def test_killed_at_any_point_it_neither_repeats_nor_loses(tmp_path):
    """What is on disk at each moment is what a killed watch leaves; a new one is opened on it."""
    path, pick = tmp_path / "live" / "watch.db", random.Random(5)
    path.parent.mkdir()
    live = store(path)
    state, numbers, acknowledged = State(), 0, 0
    for turn in range(60):
        if pick.random() < 0.5:
            changes = [dark(numbers + i + 1, group_id=i) for i in range(pick.randrange(3))]
            numbers += len(changes)
            state = replace(state, looks=state.looks + 1, numbers=numbers)
            live.record(state, changes)
        elif pending := live.take("default", acknowledged, one=pick.random() < 0.5):
            acknowledged = pending[-1].change.number
            live.take("default", acknowledged)
        killed = tmp_path / f"killed{turn}"
        shutil.copytree(path.parent, killed)
        left = store(killed / "watch.db")
        assert left.set_aside is None
        assert (left.state.looks, left.state.numbers) == (state.looks, numbers)
        given, after = [], 0
        while pending := left.take("default", after):
            given += [each.change.number for each in pending]
            after = given[-1]
        assert given == [*range(acknowledged + 1, numbers + 1)]
        left.close()
    live.close()


def test_the_file_stays_small_and_what_nobody_was_told_stays(tmp_path):
    path = tmp_path / "watch.db"
    mine = store(path, "quick", "slow")
    for number in range(1, 1001):
        mine.record(State(looks=number, numbers=number), [dark(number)])
        mine.take("quick", number)
    assert len(mine.recent(10_000)) == 1000
    assert mine.waiting() == 1000
    assert mine.recent(1)[0].number == 1000
    mine.close()
    mine = store(path, "quick")  # the slow one is none of them any more
    mine.record(State(looks=1001, numbers=1001), [dark(1001)])
    assert len(mine.recent(10_000)) == 100
    mine.close()
