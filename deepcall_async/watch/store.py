"""A watch's memory on disk: its state, and the changes that are still to be told.

Plain, blocking SQLite; one process at a time. What is worth keeping is decided elsewhere.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from deepcall_async.audit.change import Change
from deepcall_async.audit.watch import GroupState, State

__all__ = ["StateInUse", "StateUnusable", "Store"]

_OURS = 0x44435754
"""The ``application_id`` in the file's header, by which a file of another program is known."""

_MIGRATIONS = (
    """
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1), account TEXT NOT NULL,
        looks BLOB NOT NULL, groups BLOB NOT NULL
    );
    CREATE TABLE outbox (number INTEGER PRIMARY KEY, look INTEGER NOT NULL, change BLOB NOT NULL);
    """,
    "CREATE TABLE follower (name TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;",
)
"""One for each version of the schema; the version is the ``user_version`` of the file."""

_KEPT = 100
"""Changes that are kept although everybody was told."""
_MOST = 100_000
"""Changes that are kept for those who were not told; the oldest go first."""

_Groups = dict[int, GroupState]
_encode = msgspec.json.Encoder().encode
_decode_change = msgspec.json.Decoder(Change).decode


class StateUnusable(ValueError):
    """The state file cannot be used: it is another program's, account's or version's."""


class StateInUse(StateUnusable):
    """Another watch is using the state file."""


class Told(NamedTuple):
    """A change in the outbox, and the number of the look that it came from."""

    look: int
    change: Change


class Store:
    """The state file, held open and locked until it is closed.

    Args:
        path: the file; made when it is not there. One that is damaged is moved aside.
        account: whose state it is, such as the service's address.
        followers: who is to be told of changes; whoever else was told before is forgotten. A new
            one goes on where one that is forgotten was, otherwise with what nobody was told yet.

    Attributes:
        state: what was last recorded.
        set_aside: where a damaged file was moved, if there was one.

    Raises:
        StateInUse: another watch is using it.
        StateUnusable: it is another account's, another program's or a newer version's.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, account: str, followers: Sequence[str]) -> None:
        self._path: Path = path
        self.set_aside: Path | None = None
        self.state: State = State()
        if not path.parent.is_dir():
            raise FileNotFoundError(2, f"there is no folder {path.parent}", str(path))
        if path.is_dir():
            raise IsADirectoryError(21, "is a folder; name a file in it", str(path))
        # SQLite would call it an I/O error. The folder holds the log, too.
        for place in (path.parent, path):
            if place.exists() and not os.access(place, os.W_OK):
                raise PermissionError(errno.EACCES, "cannot be written to", str(place))
        self._followers: tuple[str, ...] = tuple(followers)
        try:
            self._open(account)
        except _Damaged:
            self.set_aside = self._move_aside()
            self._open(account)

    def close(self) -> None:
        """Close the file, for another watch to use."""
        self._db.close()

    def record(self, state: State, changes: Iterable[Change]) -> None:
        """Keep what a look led to, all of it or nothing.

        Args:
            state: the state after the look.
            changes: what is to be told.
        """
        groups = state.groups
        with self._transaction() as db:
            db.execute("UPDATE state SET looks = ?", (_encode(replace(state, groups={})),))
            if groups != self.state.groups:
                db.execute("UPDATE state SET groups = ?", (_encode(groups),))
            rows = [(change.number, state.looks, _encode(change)) for change in changes]
            if rows:
                db.executemany("INSERT INTO outbox VALUES (?, ?, ?)", rows)
                self._prune(db)
        self.state = state

    def take(self, follower: str, told: int, one: bool = False) -> list[Told]:
        """Note up to where a follower was told, and give what is next.

        Args:
            follower: whose turn it is.
            told: the number of the last change that it has acknowledged; 0 for none.
            one: only the next change, instead of all that are left of its look.

        Raises:
            ValueError: there is no such follower.
        """
        if follower not in self._followers:
            raise ValueError(f"{follower!r} is not one of the watch's followers")
        if told:
            with self._transaction() as db:
                # Never backwards: an acknowledgement may come twice.
                db.execute(
                    "UPDATE follower SET number = max(number, ?) WHERE name = ?", (told, follower)
                )
        found = self._db.execute(
            "SELECT look, change FROM outbox"
            " WHERE number > (SELECT number FROM follower WHERE name = :follower)"
            " AND look = (SELECT look FROM outbox WHERE number >"
            " (SELECT number FROM follower WHERE name = :follower) ORDER BY number LIMIT 1)"
            " ORDER BY number LIMIT :most",
            {"follower": follower, "most": 1 if one else -1},
        )
        return [Told(look, _decode_change(change)) for look, change in found.fetchall()]

    def recent(self, limit: int) -> list[Change]:
        """Give the last changes, the newest first, told or not; about a hundred are kept."""
        found = self._db.execute(
            "SELECT change FROM outbox ORDER BY number DESC LIMIT ?", (limit,)
        ).fetchall()
        return [_decode_change(change) for (change,) in found]

    def waiting(self) -> int:
        """How many changes are in the outbox that somebody was not told."""
        (found,) = self._db.execute(
            "SELECT count(*) FROM outbox WHERE number > (SELECT min(number) FROM follower)"
        ).fetchone()
        return int(found)

    def _open(self, account: str) -> None:
        try:
            # Only one thread uses it at a time; a transaction is begun and ended by us.
            self._db: sqlite3.Connection = sqlite3.connect(
                self._path, timeout=0, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise _hindrance(error, self._path) from None
        try:
            self._prepare()
            state = self._read(account)
            self._follow()
        except sqlite3.OperationalError as error:
            self._db.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # such as a table that is missing
                raise _Damaged from None
            raise _hindrance(error, self._path) from None
        except (sqlite3.DatabaseError, msgspec.MsgspecError, UnicodeError, TypeError):
            self._db.close()
            raise _Damaged from None
        except BaseException:
            self._db.close()
            raise
        self.state = state

    def _prepare(self) -> None:
        db = self._db
        # The lock is the system's: it ends with the process, however that ends. With the log,
        # a record is safe when the process is killed; a power failure may undo the last ones,
        # which are then looked for and told again.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        db.execute("COMMIT")
        (ours,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and ours != _OURS:
            raise StateUnusable(f"{self._path} is another program's database; name another file")
        if version < 0 or (tables and not version):
            raise _Damaged
        if version > len(_MIGRATIONS):
            raise StateUnusable(
                f"{self._path} was written by a newer version of deepcall-async; update, or name"
                " another file"
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise _Damaged
        for number in range(version, len(_MIGRATIONS)):
            try:
                # One script, so that a file is never between two versions.
                db.executescript(
                    f"BEGIN; {_MIGRATIONS[number]} PRAGMA application_id = {_OURS};"
                    f"PRAGMA user_version = {number + 1}; COMMIT;"
                )
            except sqlite3.OperationalError as error:
                raise _hindrance(error, self._path) from None

    def _read(self, account: str) -> State:
        db = self._db
        # Found damaged now, while it can be begun anew, and not when it is somebody's turn.
        for (change,) in db.execute("SELECT change FROM outbox"):
            _decode_change(change)
        row = db.execute("SELECT account, looks, groups FROM state").fetchone()
        if row is None:
            state = State()
            db.execute("INSERT INTO state VALUES (1, ?, ?, ?)", (account, _encode(state), b"{}"))
            return state
        if row[0] != account:
            raise StateUnusable(
                f"{self._path} is the state of {row[0]}, not of {account}; name another file"
            )
        groups = msgspec.json.decode(row[2], type=_Groups)
        return replace(msgspec.json.decode(row[1], type=State), groups=groups)

    def _follow(self) -> None:
        marks = ", ".join("?" * len(self._followers))
        with self._transaction() as db:
            # Somebody new takes the place of who is gone, such as a URL that was mended.
            (reached,) = db.execute(
                f"SELECT coalesce(min(number) FILTER (WHERE name NOT IN ({marks})), max(number), 0)"  # noqa: S608  (question marks)
                " FROM follower",
                self._followers,
            ).fetchone()
            db.executemany(
                "INSERT OR IGNORE INTO follower VALUES (?, ?)",
                [(name, reached) for name in self._followers],
            )
            db.execute(f"DELETE FROM follower WHERE name NOT IN ({marks})", self._followers)  # noqa: S608  (question marks)

    def _prune(self, db: sqlite3.Connection) -> None:
        db.execute(
            "DELETE FROM outbox WHERE number <= (SELECT max(number) FROM outbox) - :kept AND ("
            " number <= (SELECT min(number) FROM follower)"
            " OR number <= (SELECT max(number) FROM outbox) - :most)",
            {"kept": _KEPT, "most": _MOST},
        )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _move_aside(self) -> Path:
        stamp = f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}"
        aside = self._path.with_name(f"{self._path.name}.damaged-{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = self._path.with_name(f"{self._path.name}.damaged-{stamp}_{number}")
        self._path.rename(aside)
        return aside


class _Damaged(Exception):
    """The file cannot be read as what it should be."""


def _hindrance(error: sqlite3.Error, path: Path) -> Exception:
    """Say what hinders us: a lock, permissions, or the disk."""
    # The lower byte; the rest says more of the same.
    if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StateInUse(f"{path}: another watch is using this state file")
    # SQLite's codes are no numbers of `errno`.
    return OSError(errno.EIO, str(error), str(path))
