"""A running fan-out: begins calls where there is room, and ends them all on leaving.

Each call is a task in a copy of the caller's context. What a call does, and how it is repeated, is
not known here.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextvars import Context, copy_context
from reprlib import repr as shortened
from types import TracebackType
from typing import Generic, Self, TypeVar

from msgspec import Struct

from deepcall_async.errors import DeepCallError, TooManyFailures
from deepcall_async.events import attempt_observer
from deepcall_async.fanout.keys import AsyncKeys, Keys, SyncKeys, how_many
from deepcall_async.fanout.outcomes import Failed, Ok, Outcome, Progress
from deepcall_async.fanout.window import Tally, Window
from deepcall_async.pacing import Adaptive, Limiter, Pace, Patience, current_patience

__all__ = ["FailurePolicy", "FanOut"]

_CLEAN_UP_SECONDS = 0.8
"""How long what was cancelled may take to clean up, before it is cancelled again."""
_LAST_SECONDS = 0.1
"""How long it may take then, before it is left running."""

K = TypeVar("K")
V = TypeVar("V")


class FailurePolicy(Struct, frozen=True):
    """Which failures end a fan-out: the first, those of some types, or one more than so many."""

    first_ends: bool
    fatal: tuple[type[DeepCallError], ...]
    max_failures: int | None

    def is_fatal(self, error: DeepCallError) -> bool:
        """Whether this failure ends it at once."""
        return self.first_ends or isinstance(error, self.fatal)

    def too_many(self, failures: int, last: DeepCallError) -> TooManyFailures | None:
        """What ends it after so many failures."""
        if self.max_failures is None or failures <= self.max_failures:
            return None
        error = TooManyFailures(
            f"stopped: {failures} keys failed and max_failures is {self.max_failures};"
            f" the last: {last}"
        )
        error.endpoint, error.attempts = last.endpoint, last.attempts
        error.__cause__ = last
        return error


class FanOut(Generic[K, V]):
    """A running fan-out: made by `fan_out`, entered once."""

    def __init__(
        self,
        call: Callable[[K], Awaitable[V]],
        keys: Iterable[K] | AsyncIterable[K],
        *,
        concurrency: int | Adaptive,
        ordered: bool,
        failures: FailurePolicy,
        patience: float,
        progress: Callable[[Progress], object] | None,
    ) -> None:
        self._call = call
        self._failures = failures
        most = concurrency.max if isinstance(concurrency, Adaptive) else concurrency
        self._limiter = Limiter(most)
        self._pace = Pace(concurrency, self._limiter) if isinstance(concurrency, Adaptive) else None
        self._patience = Patience(patience, self._on_patience)
        self._window: Window[K, V] = Window(2 * most, ordered=ordered)
        self._tally = Tally(how_many(keys), progress, self._patience, self._end)
        kind = AsyncKeys[K] if isinstance(keys, AsyncIterable) else SyncKeys[K]
        self._keys: Keys[K] = kind(
            keys, self._limiter, self._window, self._patience, self._begin, self._end
        )
        self._calls: dict[int, tuple[asyncio.Task[None], K]] = {}
        self._context = Context()
        self._entered = False
        # Set whenever there may be something new to give.
        self._ready = asyncio.Event()
        # What is to be raised when all that was finished before has been given.
        self._stop: BaseException | None = None
        # From then on, or from leaving on, nothing is given any more.
        self._over = False

    def __repr__(self) -> str:
        return f"<FanOut {len(self._calls)} in flight, {self._tally.done} done>"

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a fan-out can be entered only once: call fan_out() again")
        self._entered = True
        self._context = context = copy_context()
        # Both are this fan-out's own, also where it has none: those of an outer one must not be
        # told of these calls.
        context.run(current_patience.set, self._patience if self._patience.seconds else None)
        context.run(attempt_observer.set, self._pace.attempt_ended if self._pace else None)
        self._create_task = asyncio.get_running_loop().create_task
        self._tally.start()
        self._keys.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over = True
        self._window.clear()
        self._tally.stop()
        running = {task for task, _ in self._calls.values()}
        for task in running:
            task.cancel()
        if (closing := self._keys.close()) is not None:
            running.add(closing)
        interrupted: asyncio.CancelledError | None = None
        for again, seconds in enumerate((_CLEAN_UP_SECONDS, _LAST_SECONDS)):
            for task in running if again else ():
                task.cancel()
            try:
                if running:
                    await asyncio.wait(running, timeout=seconds)
            except asyncio.CancelledError as cancelled:
                interrupted = cancelled
            running = {task for task in running if not task.done()}
        if running:
            self._warn(running)
        if interrupted is not None:
            raise interrupted
        bug = self._stop
        if exc is None and bug is not None and not isinstance(bug, DeepCallError):
            raise _wrap_stop_iteration(bug)

    def _warn(self, running: set[asyncio.Task[None]]) -> None:
        name = getattr(self._call, "__qualname__", type(self._call).__name__)
        keys = ", ".join(shortened(key) for task, key in self._calls.values() if task in running)
        what = f"{name} for {keys}" if keys else "the iteration over the keys"
        warnings.warn(
            f"left running, as two cancellations did not end it: {what}",
            RuntimeWarning,
            stacklevel=3,
        )

    def __aiter__(self) -> AsyncIterator[Outcome[K, V]]:
        return self

    async def __anext__(self) -> Outcome[K, V]:
        if not self._entered:
            raise RuntimeError("enter a fan-out first: `async with fan_out(...) as outcomes:`")
        while True:
            outcome = self._window.take()
            if outcome is None and self._stop is not None:
                outcome = self._window.take_over_gaps()
            if outcome is not None:
                # With more room than for one, the keys wait for something else.
                if self._window.room == 1:
                    self._keys.pull()
                return outcome
            if self._stop is not None:
                error, self._stop, self._over = self._stop, None, True
                raise _wrap_stop_iteration(error)
            if self._over or (self._keys.exhausted and not self._calls):
                if self._keys.error is not None:
                    error, self._keys.error = self._keys.error, None
                    raise _wrap_stop_iteration(error)
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()

    def _begin(self, key: K) -> None:
        number = self._window.begin()
        task = self._create_task(self._run(number, key), context=self._context.copy())
        # An eager task may have ended already.
        if not task.done():
            self._calls[number] = task, key

    async def _run(self, number: int, key: K) -> None:
        outcome: Outcome[K, V] | None = None
        try:
            outcome = Ok(key, await self._call(key))
        except DeepCallError as error:
            outcome = self._failed(key, error)
        except GeneratorExit:
            raise
        except asyncio.CancelledError:
            if not self._over:
                self._end(RuntimeError("a lookup was cancelled from within, so its key was lost"))
        except BaseException as bug:
            self._end(bug)
        # At the end of the task, and not in a callback of it, which would cost another turn.
        if outcome is not None and not self._over:
            self._tally.done += 1
            self._window.put(number, outcome)
            if self._tally.is_shown:
                self._tally.show()
        self._calls.pop(number, None)
        self._limiter.release()
        self._keys.pull()
        self._ready.set()

    def _failed(self, key: K, error: DeepCallError) -> Failed[K] | None:
        if self._failures.is_fatal(error):
            self._end(error)
            return None
        self._tally.failed += 1
        self._end(self._failures.too_many(self._tally.failed, error))
        return Failed(key, error)

    def _end(self, why: BaseException | None) -> None:
        """Begin no more calls: for this reason, or because there are no more keys."""
        if why is not None:
            self._keys.exhausted = True
            if self._stop is None:
                self._stop = why
        self._ready.set()

    def _on_patience(self) -> None:
        """Calls have begun to wait for the service, or none waits any more."""
        # Not at once: this is called from the midst of a call.
        if self._patience.waiting:
            self._tally.watch()
        else:
            asyncio.get_running_loop().call_soon(self._keys.pull)


def _wrap_stop_iteration(error: BaseException) -> BaseException:
    """As PEP 479: passed on as it is, the end of another iteration would end this one."""
    if not isinstance(error, StopAsyncIteration):
        return error
    wrapped = RuntimeError("a lookup or the keys raised StopAsyncIteration")
    wrapped.__cause__ = error
    return wrapped
