"""How many calls at once pay: additive increase, multiplicative decrease.

Law: arithmetic over what attempts report; it knows neither what is called nor by whom.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import ContextVar

from msgspec import Struct

from deepcall_async.errors import ApiError, DeepCallError, RateLimited, RequestTimeout

__all__ = ["Adaptive", "Limiter", "Pace", "Patience", "current_patience"]

_FIRST_GROWTH = 1.5
"""Growth of the limit by the window, until the first sign of too much."""
_CUT = 0.9
"""What a refusal leaves of the limit."""
_HOLD = 100
"""Answers for which growth is held after a refusal; for several at once at most three times as
many."""
_CLEAN = 6
"""Windows without a sign after which growth gets faster."""
_FASTER = 0.1
_QUEUED = 1.8
"""A window whose mean latency is this many times the base is a sign of a queue."""
_SLOW = 3
"""So many windows in a row are taken for one."""
_LIKE_BASE = 1.2
"""Up to this many times the base, a latency says where the base is now."""
_DRIFT = 0.05
_USELESS = 2
"""Cuts in a row that made nothing faster, after which the service counts as slower for good."""


class Adaptive(Struct, frozen=True, kw_only=True):
    """Concurrency that follows the service: it grows while latency holds and backs off else.

    Args:
        min: calls in flight at least.
        max: calls in flight at most.

    Raises:
        ValueError: not 1 <= min <= max.
    """

    min: int = 4
    max: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.max:
            raise ValueError("Adaptive: 1 <= min <= max must hold")


class Pace:
    """The present limit of an adaptive run, and who is let in under it."""

    def __init__(self, bounds: Adaptive) -> None:
        self._bounds = bounds
        self._limit = float(bounds.min)
        self._active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        # A window is as many answers as the limit, to what was sent since the limit changed.
        self._changed_at = float("-inf")
        self._cut_at = float("-inf")
        self._seen = 0
        self._latencies = 0.0
        self._base = float("inf")
        self._before_cut = float("inf")
        self._slow = 0
        self._useless = 0
        self._starting = True
        self._clean = 0
        self._hold = 0

    def __repr__(self) -> str:
        return f"<Pace {self._active} of {int(self._limit)}>"

    @property
    def limit(self) -> int:
        """Calls let in at once, as of now."""
        return int(self._limit)

    async def enter(self) -> None:
        """Wait to be let in."""
        if self._active < int(self._limit):
            self._active += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Make room for the next."""
        self._active -= 1
        self._let_in()

    def observe(self, sent: float, ended: float, error: DeepCallError | None) -> None:
        """Learn from an attempt.

        Args:
            sent: when it was sent, in seconds of a monotonic clock.
            ended: when it ended.
            error: how it failed, or None.
        """
        refused = _is_refusal(error)
        self._hold = min(self._hold + _HOLD, 3 * _HOLD) if refused else max(0, self._hold - 1)
        # What was sent under an earlier limit says nothing of this one.
        if sent < self._changed_at:
            return
        if refused:
            # Nor does a refusal while what was let in before a cut may still fill the service.
            if sent >= self._cut_at + self._base:
                self._cut(_CUT, ended)
            return
        self._seen += 1
        self._latencies += ended - sent
        if self._seen >= int(self._limit):
            self._judge(self._latencies / self._seen, ended)

    def _judge(self, mean: float, now: float) -> None:
        self._follow(mean)
        if mean > _QUEUED * self._base:
            # One such window can be a hiccup, of either side's machine.
            self._slow += 1
            if self._slow < _SLOW:
                self._seen, self._latencies = 0, 0.0
                return
            # By as much as it queues and a little more, so that the line gets empty and the base
            # is seen again; but by halves, as the window may reach back to before a change.
            self._useless = self._useless + 1 if mean > _CUT * self._before_cut else 0
            self._before_cut = mean
            if self._useless < _USELESS:
                self._cut(max(0.5, _CUT * self._base / mean), now)
                return
            self._base, self._starting = mean, True
        self._slow = 0
        self._before_cut, self._useless = float("inf"), 0
        self._clean += 1
        used = self._active >= int(self._limit)
        if self._starting and used:
            self._set(self._limit * _FIRST_GROWTH, now)
        elif self._hold == 0 and used:
            more = self._limit * _FASTER if self._clean > _CLEAN else 0.0
            self._set(self._limit + 1 + more, now)
        else:
            self._seen, self._latencies = 0, 0.0

    def _follow(self, mean: float) -> None:
        if mean < self._base:
            self._base = mean
        elif mean < _LIKE_BASE * self._base:
            self._base += _DRIFT * (mean - self._base)

    def _cut(self, share: float, now: float) -> None:
        self._starting = False
        self._clean = 0
        self._cut_at = now
        self._set(self._limit * share, now)

    def _set(self, limit: float, now: float) -> None:
        self._limit = min(float(self._bounds.max), max(float(self._bounds.min), limit))
        self._changed_at = now
        self._seen, self._latencies = 0, 0.0
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._active < int(self._limit):
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._active += 1
                waiter.set_result(None)


def _is_refusal(error: DeepCallError | None) -> bool:
    # A lost connection is no sign: those that are lost by chance would press the limit down.
    if isinstance(error, ApiError) and error.retry_after is not None:
        return True
    return isinstance(error, (RateLimited, RequestTimeout))


class Limiter:
    """A semaphore whose limit can be moved: waiters are served in the order in which they came.

    Args:
        limit: how many may hold it at once.
    """

    __slots__ = ("_active", "_limit", "_waiters")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._active = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    def __repr__(self) -> str:
        return f"<Limiter {self._active} of {self._limit}, {self.waiting} waiting>"

    @property
    def limit(self) -> int:
        """How many may hold it at once; what is held already is never taken back."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._wake()

    @property
    def active(self) -> int:
        """How many hold it."""
        return self._active

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        return sum(not waiter.done() for waiter in self._waiters)

    def try_acquire(self) -> bool:
        """Take a place, if one is free and nobody waits for it."""
        if self._active < self._limit and not self._waiters:
            self._active += 1
            return True
        return False

    async def acquire(self) -> None:
        """Wait for a place."""
        if self.try_acquire():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        # Those ahead may all have been cancelled.
        self._wake()
        try:
            await waiter
        except asyncio.CancelledError:
            # The place may have come in the very turn in which the waiting was given up.
            if waiter.done() and not waiter.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Give the place back."""
        self._active -= 1
        if self._waiters:
            self._wake()

    def _wake(self) -> None:
        while self._waiters and self._active < self._limit:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._active += 1
                waiter.set_result(None)


class Patience:
    """How long the calls of one fan-out are held while the service is away or refuses everything.

    Args:
        seconds: without any success, from the first trouble after the last success.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._clear = asyncio.Event()
        self._clear.set()
        self.waiting: int = 0
        self.waiting_for: str | None = None

    def __repr__(self) -> str:
        return f"<Patience {self._seconds:g} s, {self.waiting} held>"

    def trouble(self, now: float) -> None:
        """Note that a call met an outage or a refusal."""
        if self._since is None:
            self._since = now

    def succeeded(self) -> None:
        """Note that a call got through."""
        self._since = None

    def remaining(self, now: float) -> float:
        """Seconds that are left."""
        if self._since is None:
            return self._seconds
        return max(0.0, self._since + self._seconds - now)

    def hold(self, reason: str) -> None:
        """Note that a call begins to wait, and for what."""
        self.waiting += 1
        self.waiting_for = reason
        self._clear.clear()

    def release(self) -> None:
        """Note that a call has stopped waiting."""
        self.waiting -= 1
        if self.waiting == 0:
            self.waiting_for = None
            self._clear.set()

    async def cleared(self) -> None:
        """Wait until no call is held."""
        await self._clear.wait()


current_patience: ContextVar[Patience | None] = ContextVar("current_patience", default=None)
"""Set by a fan-out for each of its calls."""
