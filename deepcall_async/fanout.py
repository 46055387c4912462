"""Many lookups at once, without losing any.

Law: a fixed number of workers pull keys lazily from one source and hand outcomes to one consumer,
with O(concurrency) of memory and tasks. Nothing here knows what a call does or how it is repeated.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Iterator,
    Sized,
)
from itertools import count
from types import TracebackType
from typing import Generic, Literal, Self, TypeAlias, TypeVar

import anyio
from msgspec import Struct

from deepcall_async.errors import (
    AuthenticationFailed,
    DeepCallError,
    RateLimited,
    TooManyFailures,
)
from deepcall_async.events import attempt_observer
from deepcall_async.pacing import Adaptive, Pace

__all__ = ["Batch", "Failed", "FanOut", "Ok", "Outcome", "Progress", "collect", "fan_out"]

_PATIENCE = 50
"""How often a throttled key is tried again under adaptive concurrency."""
_LONGEST_WAIT = 60.0
"""The longest ``Retry-After``, in seconds, that is waited for under adaptive concurrency."""

K = TypeVar("K")
H = TypeVar("H", bound=Hashable)
V = TypeVar("V")


class Ok(Struct, Generic[K, V], frozen=True):
    """A key's value."""

    key: K
    value: V


class Failed(Struct, Generic[K], frozen=True):
    """A key's error."""

    key: K
    error: DeepCallError


Outcome: TypeAlias = Ok[K, V] | Failed[K]


class Progress(Struct, frozen=True):
    """How far a fan-out has come.

    ``total`` and ``eta`` (seconds left) are None when the number of keys is not known;
    ``rate`` is in keys a second.
    """

    done: int
    failed: int
    total: int | None
    seconds: float
    rate: float
    eta: float | None


class Batch(Struct, Generic[H, V], frozen=True):
    """What `collect` found, by key."""

    ok: dict[H, V]
    failed: dict[H, DeepCallError]

    def __repr__(self) -> str:
        # In few words: before Python 3.13, `asyncio.run` makes the repr of what it returns.
        return f"Batch({len(self.ok)} ok, {len(self.failed)} failed)"

    def raise_if_failed(self) -> None:
        """Raise the first failure, with a note on how many there were, if there was any."""
        for key, error in self.failed.items():
            total = len(self.ok) + len(self.failed)
            note = f"{len(self.failed)} of {total} keys failed; this is key {key!r}"
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            raise error


def fan_out(
    call: Callable[[K], Awaitable[V]],
    keys: Iterable[K] | AsyncIterable[K],
    *,
    concurrency: int | Adaptive = 32,
    ordered: bool = False,
    on_error: Literal["yield", "raise"] = "yield",
    max_failures: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    fatal: tuple[type[DeepCallError], ...] = (AuthenticationFailed,),
) -> FanOut[K, V]:
    """Call a coroutine function for many keys at once and stream the outcomes.

    Use it as ``async with fan_out(...) as outcomes: async for outcome in outcomes: ...``. Leaving
    early stops the workers. Exceptions other than `DeepCallError` are raised as they are.

    Args:
        call: the lookup, such as ``client.groups.agent_relation``.
        keys: what to look up; pulled as workers become free, duplicates included.
        concurrency: lookups in flight at once, or `Adaptive` to find out how many pay; then a key
            whose lookup was throttled is looked up again, up to 50 times, after the ``Retry-After``
            of up to a minute; a throttled change never is.
        ordered: give outcomes in the order of the keys instead of as they finish.
        on_error: "yield" a `Failed`, or "raise" the first error.
        max_failures: how many failures are borne; one more ends the run.
        progress: called with a `Progress` after each lookup.
        fatal: errors that doom the rest, raised whatever `on_error` says.

    Returns:
        A context manager that gives an async iterator of `Ok` and `Failed`, one for each key.

    Raises:
        TooManyFailures: more than `max_failures` keys failed; the finished ones were given first.
    """
    if not isinstance(concurrency, Adaptive):
        if isinstance(concurrency, bool) or not isinstance(concurrency, int):
            raise TypeError("concurrency must be an int or Adaptive(...)")
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
    if on_error not in ("yield", "raise"):
        raise ValueError('on_error must be "yield" or "raise"')
    if max_failures is not None and max_failures < 0:
        raise ValueError("max_failures must not be negative; 0 ends the run at the first failure")
    _check_keys(keys)
    return FanOut(
        call,
        keys,
        concurrency=concurrency,
        ordered=ordered,
        on_error=on_error,
        max_failures=max_failures,
        progress=progress,
        fatal=fatal,
    )


async def collect(
    call: Callable[[H], Awaitable[V]],
    keys: Iterable[H] | AsyncIterable[H],
    *,
    concurrency: int | Adaptive = 32,
    max_failures: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    fatal: tuple[type[DeepCallError], ...] = (AuthenticationFailed,),
) -> Batch[H, V]:
    """Look up each distinct key once and gather the outcomes.

    Args:
        call: the lookup.
        keys: what to look up; duplicates are looked up once.
        concurrency: lookups in flight at once, or `Adaptive`.
        max_failures: how many failures are borne; one more raises `TooManyFailures`.
        progress: called with a `Progress` after each lookup.
        fatal: errors that doom the rest and are raised at once.

    Returns:
        The values and the errors, by key.
    """
    _check_keys(keys)
    batch: Batch[H, V] = Batch({}, {})
    distinct: Iterable[H] | AsyncIterable[H] = keys
    if isinstance(keys, AsyncIterable):
        distinct = _distinct_async(keys)
    elif isinstance(keys, Sized):
        distinct = dict.fromkeys(keys)
    else:
        distinct = _distinct(keys)
    async with fan_out(
        call,
        distinct,
        concurrency=concurrency,
        max_failures=max_failures,
        progress=progress,
        fatal=fatal,
    ) as outcomes:
        async for outcome in outcomes:
            if isinstance(outcome, Ok):
                batch.ok[outcome.key] = outcome.value
            else:
                batch.failed[outcome.key] = outcome.error
    return batch


def _check_keys(keys: object) -> None:
    if isinstance(keys, (str, bytes)) or not isinstance(keys, (Iterable, AsyncIterable)):
        raise TypeError("keys must be an iterable or async iterable of keys")


def _distinct(keys: Iterable[H]) -> Iterator[H]:
    seen: set[H] = set()
    for key in keys:
        if key not in seen:
            seen.add(key)
            yield key


async def _distinct_async(keys: AsyncIterable[H]) -> AsyncIterator[H]:
    seen: set[H] = set()
    source = aiter(keys)
    try:
        async for key in source:
            if key not in seen:
                seen.add(key)
                yield key
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()


class FanOut(Generic[K, V]):
    """A running fan-out: made by `fan_out`, entered once."""

    def __init__(
        self,
        call: Callable[[K], Awaitable[V]],
        keys: Iterable[K] | AsyncIterable[K],
        *,
        concurrency: int | Adaptive,
        ordered: bool,
        on_error: Literal["yield", "raise"],
        max_failures: int | None,
        progress: Callable[[Progress], object] | None,
        fatal: tuple[type[DeepCallError], ...],
    ) -> None:
        self._call = call
        self._keys = keys
        self._pace = Pace(concurrency) if isinstance(concurrency, Adaptive) else None
        self._workers = concurrency.max if isinstance(concurrency, Adaptive) else concurrency
        # Outcomes not yet taken and lookups in flight together never exceed this.
        self._window = 2 * self._workers
        self._ordered = ordered
        self._raise = on_error == "raise"
        self._max_failures = max_failures
        self._progress = progress
        self._fatal = fatal
        self._total = len(keys) if isinstance(keys, Sized) else None
        self._started = 0.0
        self._issued = 0
        self._taken = 0
        self._done = 0
        self._failures = 0
        self._running = 0
        # By index when ordered; in the order of finishing otherwise.
        self._ahead: dict[int, Outcome[K, V]] = {}
        self._queue: deque[Outcome[K, V]] = deque()
        self._ready = asyncio.Event()
        self._waiting_for_room: deque[asyncio.Future[None]] = deque()
        self._stop: BaseException | None = None
        self._source_error: Exception | None = None
        self._leaving = False
        self._exhausted = False
        self._source: Iterator[K] | None = None
        self._async_source: AsyncIterator[K] | None = None
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[object]] = set()
        self._runner: asyncio.Task[None] | None = None
        # Where a stopped run in order has come to: what finishes late is not given out of order.
        self._passed = 0

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("a fan-out can be entered only once: call fan_out() again")
        if isinstance(self._keys, AsyncIterable):
            self._async_source = aiter(self._keys)
        else:
            self._source = iter(self._keys)
        self._started = time.monotonic()
        self._running = self._workers
        # The group lives in a task of its own, and not in the caller's: a caller that is an async
        # generator may be left unfinished, and then be closed in another task.
        self._runner = asyncio.create_task(self._run())
        return self

    async def _run(self) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(self._workers - 1):
                group.start_soon(self._work)
            await self._work()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        runner = self._runner
        assert runner is not None  # noqa: S101  (entered, or it could not be left)
        self._leaving = self._exhausted = True
        # Each once, not through the group's scope: that would cancel every await of a lookup's or
        # a key generator's clean-up again. Workers that have not begun see that all is over.
        for task in self._tasks:
            task.cancel()
        interrupted: asyncio.CancelledError | None = None
        while not runner.done():
            try:
                await asyncio.wait([runner])
            except asyncio.CancelledError as again:
                # Leaving is under way already; it ends when the lookups' own clean-up has.
                interrupted = again
        self._queue.clear()
        self._ahead.clear()
        if isinstance(self._async_source, AsyncGenerator):
            await self._async_source.aclose()
        bug, self._stop = self._stop, None
        if interrupted is not None:
            raise interrupted
        if not runner.cancelled():
            runner.result()
        if exc is None and bug is not None and not isinstance(bug, DeepCallError):
            raise bug

    def __aiter__(self) -> AsyncIterator[Outcome[K, V]]:
        return self

    async def __anext__(self) -> Outcome[K, V]:
        if self._runner is None:
            raise RuntimeError("enter a fan-out first: `async with fan_out(...) as outcomes:`")
        while True:
            outcome = self._next()
            if outcome is not None:
                self._taken += 1
                self._make_room()
                return outcome
            if self._stop is not None:
                stop, self._stop = self._stop, None
                self._running = 0
                raise _unmistakable(stop)
            # Below zero by the workers that were still in flight when it was raised.
            if self._running <= 0:
                error, self._source_error = self._source_error, None
                if error is not None:
                    raise _unmistakable(error)
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()

    def _next(self) -> Outcome[K, V] | None:
        if not self._ordered:
            return self._queue.popleft() if self._queue else None
        if self._stop is None or not self._ahead:
            return self._ahead.pop(self._taken, None)
        # Once stopped, what finished is still given: in order, though with gaps.
        self._passed = min(self._ahead)
        return self._ahead.pop(self._passed)

    async def _work(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
        try:
            if self._pace is not None:
                attempt_observer.set(self._pace.observe)
            await self._pull()
        except asyncio.CancelledError:
            if not self._leaving:
                self._end(RuntimeError("a lookup was cancelled from within, so its key was lost"))
            # Not passed on: the group would cancel the others again, in the midst of their own
            # clean-up.
        except Exception as bug:
            self._end(bug)
        finally:
            if task is not None:
                self._tasks.discard(task)
            self._running -= 1
            self._ready.set()

    async def _pull(self) -> None:
        call, pace = self._call, self._pace
        while True:
            if self._source is not None:
                await self._room()
                found = self._pull_key()
            else:
                found = await self._await_key()
            if found is None:
                return
            index, key = found
            outcome: Outcome[K, V]
            try:
                value = await (call(key) if pace is None else self._paced(key, pace))
            except DeepCallError as error:
                if self._raise or isinstance(error, self._fatal):
                    self._end(error)
                    return
                outcome = Failed(key, error)
                self._failures += 1
                if self._max_failures is not None and self._failures > self._max_failures:
                    self._end(_too_many(self._failures, self._max_failures, error))
            else:
                outcome = Ok(key, value)
            self._done += 1
            if not self._ordered:
                self._queue.append(outcome)
            elif index >= self._passed:
                self._ahead[index] = outcome
            if self._progress is not None:
                self._progress(self._progress_now())
            self._ready.set()

    def _pull_key(self) -> tuple[int, K] | None:
        if self._exhausted or self._source is None:
            return None
        try:
            key = next(self._source)
        except StopIteration:
            self._exhausted = True
            return None
        except Exception as error:
            self._source_error, self._exhausted = error, True
            return None
        self._issued += 1
        return self._issued - 1, key

    async def _await_key(self) -> tuple[int, K] | None:
        async with self._turn:
            await self._room()
            if self._exhausted or self._async_source is None:
                return None
            try:
                key = await anext(self._async_source)
            except StopAsyncIteration:
                self._exhausted = True
                return None
            except Exception as error:
                self._source_error, self._exhausted = error, True
                return None
            self._issued += 1
            return self._issued - 1, key

    async def _paced(self, key: K, pace: Pace) -> V:
        for refused in count(1):
            await pace.enter()
            try:
                return await self._call(key)
            except RateLimited as error:
                # A throttled key is not a failed one. It waits here, outside the retry budget,
                # while the pace falls; only a service that never lets it in ends the waiting.
                # Whether a change that was throttled was applied is not known.
                delay = error.retry_after or 0.0
                if refused == _PATIENCE or error.of_change or delay > _LONGEST_WAIT:
                    raise
            finally:
                pace.leave()
            await asyncio.sleep(delay + random.uniform(0.0, min(5.0, 0.1 * refused)))  # noqa: S311
        raise AssertionError

    def _end(self, why: BaseException) -> None:
        if self._stop is None:
            self._stop = why
        self._exhausted = True
        self._ready.set()

    async def _room(self) -> None:
        while self._issued - self._taken >= self._window:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting_for_room.append(waiter)
            await waiter

    def _make_room(self) -> None:
        # One worker for one outcome taken: waking all would cost each key the whole pool.
        while self._waiting_for_room:
            waiter = self._waiting_for_room.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _progress_now(self) -> Progress:
        seconds = time.monotonic() - self._started
        rate = self._done / seconds if seconds > 0 else 0.0
        left = None if self._total is None else self._total - self._done
        eta = None if left is None or rate == 0 else left / rate
        return Progress(self._done, self._failures, self._total, seconds, rate, eta)


def _unmistakable(error: BaseException) -> BaseException:
    if not isinstance(error, StopAsyncIteration):
        return error
    # As Python does for generators: passed on as it is, it would end the iteration in silence.
    wrapped = RuntimeError("a lookup or the keys raised StopAsyncIteration")
    wrapped.__cause__ = error
    return wrapped


def _too_many(failures: int, allowed: int, last: DeepCallError) -> TooManyFailures:
    error = TooManyFailures(
        f"stopped: {failures} keys failed and max_failures is {allowed}; the last: {last}"
    )
    error.endpoint, error.attempts = last.endpoint, last.attempts
    error.__cause__ = last
    return error
