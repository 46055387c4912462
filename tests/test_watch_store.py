"""A watch's state file: whatever became of it, it is used, refused or set aside, and never later."""

from __future__ import annotations

import errno
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from deepcall_async.audit.watch import State, step
from deepcall_async.watch import StateInUse, StateUnusable, WentDark
from deepcall_async.watch.store import Store, _hindrance
from tests.support.audit_accounts import NOW
from tests.support.watched import seen

ACCOUNT = "https://brand.example"


def store(path: Path, *followers: str) -> Store:
    return Store(path, ACCOUNT, followers or ("default",))


def dark(number: int) -> WentDark:
    return WentDark(number=number, at=NOW, group_id=1, name="Sales", members=2, since=NOW)


def numbers(mine: Store, follower: str) -> list[int]:
    given: list[int] = []
    while found := mine.take(follower, given[-1] if given else 0):
        given += [each.change.number for each in found]
    return given


def recorded(path: Path, *followers: str) -> None:
    mine = store(path, *followers)
    state, changes = step(State(), seen({i: "gtdo"[i % 4] for i in range(60)}), NOW)
    mine.record(state, changes)
    for number in range(2, 40):
        mine.record(State(groups=state.groups, looks=number, numbers=number), [dark(number)])
    mine.close()


def sql(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement)
    db.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE outbox SET change = 'nothing' WHERE number = 20",
        "UPDATE outbox SET change = 7 WHERE number = 20",
        "UPDATE outbox SET change = x'7b22c1' WHERE number = 20",
        "UPDATE state SET looks = x'7b22c1'",
        "UPDATE state SET groups = 7",
        "DROP TABLE outbox",
        "DROP TABLE state",
        "ALTER TABLE follower RENAME COLUMN number TO numbe2",
        "PRAGMA user_version = -1",
        "PRAGMA user_version = 0",
    ],
)
def test_damage_that_sqlite_does_not_see_is_found_when_it_opens(tmp_path, statement):
    path = tmp_path / "watch.db"
    recorded(path)
    sql(path, statement)
    mine = store(path)
    assert mine.set_aside is not None
    assert mine.set_aside.exists()
    assert mine.state == State()
    mine.record(State(looks=1, numbers=1), [dark(1)])
    assert numbers(mine, "default") == [1]
    mine.close()


def _bit(content: bytearray, pick: random.Random) -> None:
    content[pick.randrange(len(content))] ^= 1 << pick.randrange(8)


def _header(content: bytearray, pick: random.Random) -> None:
    content[pick.randrange(100)] = pick.randrange(256)


def _zeros(content: bytearray, pick: random.Random) -> None:
    start, length = pick.randrange(len(content)), pick.randrange(1, 600)
    content[start : start + length] = bytes(length)


def _cut(content: bytearray, pick: random.Random) -> None:
    del content[pick.randrange(len(content)) :]


@pytest.mark.parametrize("damage", [_bit, _header, _zeros, _cut])
def test_a_file_damaged_anywhere_never_ends_a_watch_later(
    tmp_path, damage: Callable[[bytearray, random.Random], None]
):
    recorded(tmp_path / "well.db")
    well, pick, used = (tmp_path / "well.db").read_bytes(), random.Random(1), 0
    for turn in range(60):
        content = bytearray(well)
        damage(content, pick)
        path = tmp_path / f"{turn}.db"
        path.write_bytes(content)
        try:
            mine = store(path)
        except (StateUnusable, OSError):
            assert path.read_bytes() == content  # refused, and left as it was
            continue
        used += 1
        mine.record(State(looks=99, numbers=99), [dark(99)])
        assert numbers(mine, "default")[-1] == 99
        assert mine.recent(20)[0].number == 99
        mine.close()
    assert used > 30


def test_what_hinders_it_is_said_in_the_systems_words_and_not_as_another_error(tmp_path):
    path = tmp_path / "watch.db"
    recorded(path)
    content = bytearray(path.read_bytes())
    content[18] = 9  # a format that this SQLite can only read
    path.write_bytes(content)
    with pytest.raises(OSError, match="attempt to write a readonly database") as caught:
        store(path)
    assert type(caught.value) is OSError
    assert caught.value.filename == str(path)


def test_a_follower_that_takes_the_place_of_another_is_told_what_that_one_was_not(tmp_path):
    path = tmp_path / "watch.db"
    mine = store(path, "stdout", "wrong url")
    for number in range(1, 4):
        mine.record(State(looks=number, numbers=number), [dark(number)])
    mine.take("stdout", 3)
    mine.take("wrong url", 1)
    mine.close()
    mine = store(path, "stdout", "mended url")
    assert numbers(mine, "mended url") == [2, 3]
    mine.take("mended url", 3)
    mine.close()
    mine = store(path, "stdout", "mended url", "one more")
    assert numbers(mine, "one more") == []
    mine.record(State(looks=4, numbers=4), [dark(4)])
    assert numbers(mine, "one more") == [4]
    mine.close()


@pytest.mark.parametrize("denied", ["", "watch.db"])
def test_a_place_that_cannot_be_written_to_is_named(tmp_path, monkeypatch, denied):
    recorded(tmp_path / "watch.db")
    # Not by permissions: they do not hold for root.
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path / denied)
    with pytest.raises(PermissionError, match="cannot be written to") as caught:
        store(tmp_path / "watch.db")
    assert Path(caught.value.filename) == tmp_path / denied


def test_what_sqlite_cannot_open_at_all_is_an_oserror(tmp_path):
    (tmp_path / "watch.db").symlink_to(tmp_path / "nowhere" / "watch.db")
    with pytest.raises(OSError, match="unable to open"):
        store(tmp_path / "watch.db")


def test_a_kill_in_the_midst_of_a_record_leaves_all_of_it_or_nothing(tmp_path):
    """What is on disk before each statement is what a killed watch leaves."""
    path, left = tmp_path / "live" / "watch.db", []
    path.parent.mkdir()
    mine = store(path)
    mine.record(State(looks=1, numbers=1), [dark(1)])

    def killed(_: str) -> None:
        left.append(tmp_path / f"killed{len(left)}")
        shutil.copytree(path.parent, left[-1])

    mine._db.set_trace_callback(killed)
    mine.record(step(State(looks=1, numbers=1), seen({1: "d"}), NOW)[0], [dark(2), dark(3)])
    mine.take("default", 1)
    mine._db.set_trace_callback(None)
    mine.close()
    found = []
    for folder in left:
        again = store(folder / "watch.db")
        assert again.set_aside is None
        found.append((again.state.looks, len(again.state.groups), numbers(again, "default")))
        again.close()
    assert [*dict.fromkeys(map(str, found))] == [
        "(1, 0, [1])",
        "(2, 1, [1, 2, 3])",
        "(2, 1, [2, 3])",
    ]


def test_a_record_does_not_wait_for_the_disk(tmp_path):
    mine = store(tmp_path / "watch.db")
    # With the log, the system is asked to write it out once in a thousand pages.
    for pragma, value in (
        ("journal_mode", "wal"),
        ("synchronous", 1),
        ("locking_mode", "exclusive"),
    ):
        assert mine._db.execute(f"PRAGMA {pragma}").fetchone() == (value,)
    mine.close()


def test_an_acknowledgement_that_comes_late_takes_nothing_back(tmp_path):
    mine = store(tmp_path / "watch.db")
    mine.record(State(looks=1, numbers=3), [dark(1), dark(2), dark(3)])
    mine.take("default", 2)
    assert [each.change.number for each in mine.take("default", 1)] == [3]
    mine.close()


def test_groups_that_are_again_as_they_were_when_it_opened_are_recorded_as_such(tmp_path):
    mine = store(tmp_path / "watch.db")
    state, _ = step(State(), seen({1: "d"}), NOW)
    for groups in ({}, state.groups, {}):
        mine.record(State(groups=groups), [])
    mine.close()
    mine = store(tmp_path / "watch.db")
    assert mine.state.groups == {}
    mine.close()


def test_what_nobody_takes_is_bounded_and_the_newest_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("deepcall_async.watch.store._MOST", 200)
    mine = store(tmp_path / "watch.db", "quick", "never")
    for number in range(1, 401):
        mine.record(State(looks=number, numbers=number), [dark(number)])
        mine.take("quick", number)
    assert numbers(mine, "never") == [*range(201, 401)]
    mine.close()


def test_files_that_are_set_aside_within_a_second_are_all_kept(tmp_path):
    aside = []
    for content in (b"one", b"two", b"three"):
        (tmp_path / "watch.db").write_bytes(content * 400)
        mine = store(tmp_path / "watch.db")
        mine.close()
        aside.append((mine.set_aside, content * 400))
    assert [path.read_bytes() for path, _ in aside] == [content for _, content in aside]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_BUSY, StateInUse),
        (sqlite3.SQLITE_BUSY_RECOVERY, StateInUse),
        (sqlite3.SQLITE_LOCKED_SHAREDCACHE, StateInUse),
        (sqlite3.SQLITE_IOERR_READ, OSError),
        (sqlite3.SQLITE_FULL, OSError),
    ],
)
def test_every_code_of_sqlite_is_a_lock_or_an_error_of_the_disk(code, expected):
    error = sqlite3.OperationalError("it says why")
    error.sqlite_errorcode = code
    hindrance = _hindrance(error, Path("watch.db"))
    assert type(hindrance) is expected
    if expected is OSError:
        assert (hindrance.errno, hindrance.strerror) == (errno.EIO, "it says why")


def test_what_sqlite_has_rolled_back_itself_hides_no_error(tmp_path):
    mine = store(tmp_path / "watch.db")
    with pytest.raises(KeyError), mine._transaction() as db:
        db.execute("ROLLBACK")  # as it does when the disk is full
        raise KeyError
    mine.close()
