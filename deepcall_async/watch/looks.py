"""A watch at work: a look every few minutes, and its changes to those who follow.

Time, tasks and the one thread that the state file is used in. What a change is stands in
``audit.watch``, what is kept in ``store``.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeAlias, TypeVar

from msgspec import Struct

from deepcall_async.audit.change import Change
from deepcall_async.audit.snapshot import RunInfo, Snapshot
from deepcall_async.audit.watch import State, is_blind, step, why_blind
from deepcall_async.errors import AuthenticationFailed, ClientClosed, DeepCallError
from deepcall_async.watch.followers import Follower, Pulse
from deepcall_async.watch.store import StateUnusable, Store, Told

__all__ = ["DEFAULT_FOLLOWER", "Look", "Watch"]

DEFAULT_FOLLOWER = "default"
"""Who is told by iterating over the watch itself."""

_LATE = 1.0
"""Seconds after its time from which on a look says that it is late."""

_log = logging.getLogger("deepcall_async.watch")
P = ParamSpec("P")
T = TypeVar("T")

Decided: TypeAlias = tuple[State, tuple[Change, ...]]


class Look(Struct, frozen=True, kw_only=True):
    """One look at the account, finished.

    Args:
        number: from 1, over all runs of the watch.
        started: when, in UTC.
        seconds: how long it took.
        late: seconds that it began after its time.
        groups: how many groups the account listed.
        read: how many of them were read.
        error: why nothing was read, or not recorded; empty otherwise.
        changes: what it gave to tell.
    """

    number: int
    started: datetime
    seconds: float
    late: float = 0.0
    groups: int = 0
    read: int = 0
    blind: bool = False
    error: str = ""
    changes: tuple[Change, ...] = ()


def _decide_and_record(store: Store, decide: Callable[[], Decided]) -> Decided:
    state, changes = decide()
    store.record(state, changes)
    return state, changes


def _close(opening: Future[Store]) -> None:
    if opening.exception() is None:
        opening.result().close()


def _now() -> datetime:
    return datetime.now(UTC)


class Watch:
    """A running watch, made by `watch`; iterating over it gives changes one by one.

    Attributes:
        state: what is known of the account, as recorded.
        last: the last look of this run; None before the first has finished.
        every: seconds between looks.

    Args:
        look: looks at the account once; raises DeepCallError when it cannot.
        state: the state file.
        account: whose state that is.
        every: seconds between looks.
        decide: the pure step, with its limits.
        followers: who is told.
        now: the time in UTC.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[Snapshot]],
        *,
        state: Path,
        account: str,
        every: float,
        decide: Callable[..., Decided] = step,
        followers: Sequence[str] = (DEFAULT_FOLLOWER,),
        now: Callable[[], datetime] = _now,
    ) -> None:
        self.every: float = every
        self.last: Look | None = None
        self.state: State = State()
        self._look = look
        self._decide = decide
        self._now = now
        self._open = partial(Store, state, account, tuple(followers))
        self._store: Store | None = None
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        self._asked: list[asyncio.Future[Look]] = []
        self._pulse = Pulse()
        self._followed = Follower(self._take, DEFAULT_FOLLOWER, one=True)

    async def __aenter__(self) -> Self:
        """Open the state file and begin to look.

        Raises:
            StateInUse: another watch is using the file.
            StateUnusable: it is another account's, another program's or a newer version's.
            OSError: it cannot be opened.
        """
        if self._task is not None:
            raise RuntimeError("a watch is opened once: make another")
        loop = asyncio.get_running_loop()
        self._thread: ThreadPoolExecutor = ThreadPoolExecutor(1, "deepcall-watch")
        opening = self._thread.submit(self._open)
        opened = asyncio.wrap_future(opening)
        # asyncio logs an error that nobody asks for, as nobody does when this is cancelled.
        opened.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            self._store = await asyncio.shield(opened)
        except BaseException:
            # In the thread: it is done even if the loop ends meanwhile.
            closed = self._thread.submit(_close, opening)
            self._thread.shutdown(wait=False)
            await asyncio.shield(asyncio.wrap_future(closed))
            raise
        self.state = self._store.state
        if (aside := self._store.set_aside) is not None:
            _log.error("the state file was damaged: it was moved to %s", aside)
        self._recorded = loop.time()
        self._task = asyncio.create_task(self._run(), name="deepcall-watch")
        self._task.add_done_callback(lambda _: self._pulse.end())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the look in progress, and close the state file."""
        task, store = self._require_open()
        task.cancel()
        try:
            await asyncio.wait([task])
        finally:
            self._store = None
            if kind is None:
                self._thread.submit(self._followed.finish, store)
            closed = self._thread.submit(store.close)
            self._thread.shutdown(wait=False)
            self._pulse.end()
        await asyncio.shield(asyncio.wrap_future(closed))
        if kind is None and not task.cancelled() and (failure := task.exception()) is not None:
            raise failure

    def __aiter__(self) -> Self:
        """Give changes, one by one."""
        return self

    async def __anext__(self) -> Change:
        """Acknowledge the change before, and wait for the next."""
        (told,) = await self._followed.__anext__()
        return told

    def follow(self, name: str) -> Follower:
        """Give the changes of each look together, to one of several followers.

        They were told when the next are asked for; leaving the block says nothing of them, since
        somebody may just be passing them on.

        Args:
            name: one of ``followers``. What it was told is kept under this name.

        Example:
            >>> from deepcall_async.watch import digest, watch
            >>> async with watch(dc, state="watch.db", followers=("mail", "chat")) as changes:
            ...     async for found in changes.follow("mail"):
            ...         print(digest(found).title)
            ...         break  # a program would go on
            First look
        """
        return Follower(self._take, name)

    async def look_now(self) -> Look:
        """Look at once, or right after the look that is in progress.

        Returns:
            The look, finished.

        Example:
            >>> from deepcall_async.watch import watch
            >>> async with watch(dc, state="watch.db") as changes:
            ...     look = await changes.look_now()
            ...     print(look.read, "of", look.groups)
            300 of 300
        """
        asked: asyncio.Future[Look] = asyncio.get_running_loop().create_future()
        self._asked.append(asked)
        self._wanted.set()
        while not asked.done():
            await self._next_pulse()
        return asked.result()

    async def next_look(self) -> Look:
        """Wait for the next look to finish."""
        before = self.last
        while self.last is before or self.last is None:
            await self._next_pulse()
        return self.last

    @property
    def set_aside(self) -> Path | None:
        """Where a state file that was damaged has been moved, if there was one."""
        _, store = self._require_open()
        return store.set_aside

    @property
    def seconds_since_look(self) -> float:
        """Seconds since a look was last recorded, or since the beginning."""
        return asyncio.get_running_loop().time() - self._recorded

    async def recent(self, limit: int = 20) -> list[Change]:
        """Give the last changes, the newest first; about a hundred are kept."""
        return await self._with_store(Store.recent, limit)

    async def waiting(self) -> int:
        """How many changes some follower was not told yet."""
        return await self._with_store(Store.waiting)

    async def _take(self, follower: str, told: int, one: bool) -> list[Told]:
        while True:
            beat = self._pulse.next()
            try:
                if found := await self._with_store(Store.take, follower, told, one):
                    return found
                told = 0
            except sqlite3.Error as failure:
                # Such as a full disk: it is tried again after the next look.
                _log.error("what was told could not be noted: %s", failure)
            await asyncio.wait([beat])
            if self._store is None:
                raise StopAsyncIteration
            self._require_running()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self._wanted.clear()
            asked = len(self._asked)
            began = loop.time()
            # A look that was asked for comes before its time, never late.
            late = max(0.0, began - due)
            if late >= _LATE:
                _log.warning("a look is %.0f s late: the one before took longer", late)
            self.last = look = await self._look_once(late)
            for future in self._asked[:asked]:
                if not future.done():
                    future.set_result(look)
            del self._asked[:asked]
            self._pulse.beat()
            due = began + self.every
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._wanted.wait()

    async def _look_once(self, late: float) -> Look:
        loop = asyncio.get_running_loop()
        began, started, error = loop.time(), self._now(), ""
        try:
            snapshot = await self._look()
        except ClientClosed:
            raise
        except DeepCallError as failure:
            if isinstance(failure, AuthenticationFailed) and self.state.last_sight is None:
                raise  # a mistake in setting it up; later it is trouble to be told of
            error = f"{type(failure).__name__}: {failure}"
            snapshot = Snapshot(run=RunInfo(started=started), cut_short=True)
        self._require_same_account(snapshot)
        blind = is_blind(snapshot)
        if blind:
            error = error or why_blind(snapshot)
            _log.warning("a look saw nothing: %s", error)
        elif not snapshot.complete:
            _log.warning("a look is incomplete: %d lookups failed", len(snapshot.failed))
        aside = self.set_aside
        note = f"The state file was damaged; it was moved to {aside.name}." if aside else ""
        decide = partial(self._decide, self.state, snapshot, self._now(), reason=error, note=note)
        changes: tuple[Change, ...] = ()
        try:
            self.state, changes = await self._with_store(_decide_and_record, decide)
            self._recorded = loop.time()
        except sqlite3.Error as failure:
            # As if there had been no look: what it saw is looked for again.
            error = f"the state could not be written: {failure}"
            _log.error("%s", error)
        return Look(
            number=self.state.looks,
            started=started,
            seconds=loop.time() - began,
            late=late,
            groups=len(snapshot.asked),
            read=len(snapshot.relations),
            blind=blind,
            error=error,
            changes=changes,
        )

    def _require_same_account(self, snapshot: Snapshot) -> None:
        if self.last is not None or not snapshot.complete:
            return
        found, known = snapshot.user_ids, self.state.user_ids
        if found and known and found.isdisjoint(known):
            raise StateUnusable(
                "the state file is of another user's account: name another file, or mend the"
                " credentials"
            )

    async def _next_pulse(self) -> None:
        beat = self._pulse.next()
        self._require_running()
        await asyncio.wait([beat])

    def _require_running(self) -> None:
        task, _ = self._require_open()
        if task.done():
            # Cancelled from outside, as by a program that cancels all its tasks.
            raise (None if task.cancelled() else task.exception()) or RuntimeError(
                "the watch has ended: its task was cancelled"
            )

    def _require_open(self) -> tuple[asyncio.Task[None], Store]:
        if self._task is None or self._store is None:
            raise RuntimeError("a watch is used inside its `async with`")
        return self._task, self._store

    async def _with_store(
        self, work: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        _, store = self._require_open()
        return await self._in_thread(partial(work, store, *args, **kwargs))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
