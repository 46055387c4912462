"""How many calls run at once, how fast, and how long a fan-out waits for a service that is away.

`Limiter` holds calls to a limit that `Adaptive` moves, `RateLimiter` to a rate; `Patience` is one
fan-out's clock. Nothing here sends a request or knows what a call does.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from contextvars import ContextVar

from msgspec import Struct

from deepcall_async.errors import DeepCallError, RequestTimeout
from deepcall_async.events import AttemptEnded
from deepcall_async.retry import is_refusal
from deepcall_async.validation import is_int

__all__ = ["Adaptive", "Limiter", "Pace", "Patience", "RateLimiter", "current_patience"]

_CATCH_UP = 0.02
"""Seconds by which turns may be late and still be made up for."""
_SPACING = 1.035
"""Turns are this much further apart than the rate says, so that catching up never exceeds it."""

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
"""Slow windows in a row after which the limit is lowered."""
_LIKE_BASE = 1.2
"""Up to this many times the base, a latency says where the base is now."""
_DRIFT = 0.05
_USELESS = 2
"""Cuts in a row that made nothing faster, after which the service counts as slower for good."""


class Adaptive(Struct, frozen=True, kw_only=True):
    """Concurrency that follows the service: up while latency stays low, down when it rises.

    Args:
        min: calls in flight at least.
        max: calls in flight at most.

    Raises:
        TypeError: a bound is not an int.
        ValueError: not 1 <= min <= max.

    Example:
        >>> batch = await collect(dc.groups.agent_relation, [28], concurrency=Adaptive(max=64))
    """

    min: int = 4
    max: int = 256

    def __post_init__(self) -> None:
        if not (is_int(self.min) and is_int(self.max)):
            raise TypeError("Adaptive: min and max must be ints")
        if not 1 <= self.min <= self.max:
            raise ValueError("Adaptive: 1 <= min <= max must hold")


class Limiter:
    """Holds callers to a limit that may be moved; who waits is let in in the order of coming.

    Args:
        limit: how many may be in at once.
    """

    __slots__ = ("_waiters", "active", "limit")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        # Whenever `active` is below the limit nobody waits: places are given the moment they are
        # free. So `active` alone tells whether one may come in without passing others.
        self._waiters: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self.active: int = 0

    def __repr__(self) -> str:
        return f"<Limiter {self.active} of {self.limit}, {len(self._waiters)} waiting>"

    def move_to(self, limit: int) -> None:
        """Change how many may be in at once; a lower limit takes back no place that is held."""
        self.limit = limit
        self._let_in()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiters)

    def try_acquire(self) -> bool:
        """Take a place if one is free now."""
        if self.active < self.limit:
            self.active += 1
            return True
        return False

    async def acquire(self) -> None:
        """Wait for a place and take it."""
        if self.try_acquire():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        except BaseException:
            # The place may have come in the very turn in which the waiting was given up.
            if waiter.done() and not waiter.cancelled():
                self.release()
            else:
                self._waiters.pop(waiter, None)
            raise

    def release(self) -> None:
        """Give a place back."""
        self.active -= 1
        if self._waiters:
            self._let_in()

    def _let_in(self) -> None:
        while self._waiters and self.active < self.limit:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                self.active += 1
                waiter.set_result(None)


class RateLimiter:
    """Turns at a fixed rate, given in the order in which they were asked for.

    The next turn is counted from the one before and not from when that one was taken, so the
    event loop's own delays do not add up. A waiter that was cancelled costs no turn.

    Args:
        per_second: the most turns in any second.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = _SPACING / per_second
        self._next = 0.0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<RateLimiter {_SPACING / self._interval:g} a second, {len(self._waiters)} waiting>"

    def try_acquire(self) -> bool:
        """Take a turn, if one is due and nobody waits for it."""
        return not self._waiters and self._take(asyncio.get_running_loop().time())

    async def acquire(self) -> None:
        """Wait for a turn."""
        if self.try_acquire():
            return
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.append(waiter)
        if self._timer is None:
            self._timer = loop.call_at(self._next, self._on_timer)
        await waiter

    def _take(self, now: float) -> bool:
        if now < self._next:
            return False
        self._next = max(self._next, now - _CATCH_UP) + self._interval
        return True

    def _on_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._waiters:
            if self._waiters[0].done():
                self._waiters.popleft()
            elif self._take(loop.time()):
                self._waiters.popleft().set_result(None)
            else:
                self._timer = loop.call_at(self._next, self._on_timer)
                return


class Patience:
    """For how long the calls of one fan-out are held while the service is away or refuses all.

    The clock runs from the first trouble after the last success: a fan-out whose consumer is busy
    with something else loses none of it.

    Args:
        seconds: how long there may be trouble without any success; infinity is allowed.
        on_change: called when calls begin to wait and when none waits any more.
    """

    __slots__ = ("_on_change", "_since", "seconds", "waiting", "waiting_for")

    def __init__(self, seconds: float, on_change: Callable[[], object] | None = None) -> None:
        self.waiting: int = 0
        self.waiting_for: str | None = None
        self.seconds: float = seconds
        self._on_change = on_change
        self._since: float | None = None

    def __repr__(self) -> str:
        return f"<Patience of {self.seconds:g} s: {self.waiting} waiting for {self.waiting_for}>"

    def trouble(self, now: float) -> None:
        """Note that a call found the service away or throttled, at a monotonic time in seconds."""
        if self._since is None:
            self._since = now

    def succeeded(self) -> None:
        """Note that a call got through: the clock is reset."""
        self._since = None

    def remaining(self, now: float) -> float:
        """Seconds that calls may still be held; 0.0 when there are none left."""
        if self._since is None:
            return self.seconds
        return max(0.0, self._since + self.seconds - now)

    def hold(self, reason: str) -> None:
        """Note that a call begins to wait, and for what, in words for a person."""
        self.waiting += 1
        self.waiting_for = reason
        if self.waiting == 1 and self._on_change is not None:
            self._on_change()

    def release(self) -> None:
        """Note that a call has stopped waiting."""
        self.waiting -= 1
        if self.waiting == 0:
            self.waiting_for = None
            if self._on_change is not None:
                self._on_change()


current_patience: ContextVar[Patience | None] = ContextVar("current_patience", default=None)
"""The patience of the fan-out that a call belongs to; None outside one, and in one without."""


class Pace:
    """Moves a limit by what attempts report: additive increase, multiplicative decrease.

    Args:
        bounds: between which the limit moves.
        limiter: whose limit is moved.
    """

    def __init__(self, bounds: Adaptive, limiter: Limiter) -> None:
        self._bounds = bounds
        self._limiter = limiter
        # With its fraction, so that several small cuts or steps add up.
        self._limit = float(bounds.min)
        limiter.move_to(bounds.min)
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
        return f"<Pace {self._limit:.1f} of {self._bounds.max}>"

    def attempt_ended(self, attempt: AttemptEnded) -> None:
        """Learn from an attempt."""
        sent, ended = attempt.started, attempt.ended
        refused = _is_overload(attempt.error)
        self._hold = min(self._hold + _HOLD, 3 * _HOLD) if refused else max(0, self._hold - 1)
        # What was sent under an earlier limit says nothing of this one.
        if sent < self._changed_at:
            return
        if refused:
            # A refusal too says nothing while calls from before a cut may still fill the service.
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
        used = self._limiter.active >= self._limiter.limit
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
        self._limiter.move_to(int(self._limit))


def _is_overload(error: BaseException | None) -> bool:
    # A lost connection is no sign: those that are lost by chance would press the limit down.
    if isinstance(error, RequestTimeout):
        return True
    return isinstance(error, DeepCallError) and is_refusal(error)
