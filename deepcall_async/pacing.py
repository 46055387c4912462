"""How many calls at once pay: additive increase, multiplicative decrease.

Law: arithmetic over what attempts report; it knows neither what is called nor by whom.
"""

from __future__ import annotations

import asyncio
from collections import deque

from msgspec import Struct

from deepcall_async.errors import ConnectionLost, DeepCallError, RateLimited, RequestTimeout

__all__ = ["Adaptive", "Pace"]

_SLOWER = 1.8
"""A window whose mean latency is this many times the base is a sign of a queue."""
_CUT = 0.9
_FIRST_GROWTH = 1.5
_HOLD = 100
"""Completions for which growth is held after a refusal."""
_CLEAN = 6
"""Windows without a sign after which growth gets faster."""


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
        self._changed_at = 0.0
        self._seen = 0
        self._latencies = 0.0
        self._base = float("inf")
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
        refused = isinstance(error, (RateLimited, RequestTimeout, ConnectionLost))
        self._hold = min(self._hold + _HOLD, _HOLD * 10) if refused else max(0, self._hold - 1)
        # What was sent under an earlier limit says nothing of this one.
        if sent < self._changed_at:
            return
        if refused:
            self._cut(ended)
            return
        self._seen += 1
        self._latencies += ended - sent
        if self._seen >= int(self._limit):
            self._judge(ended)

    def _judge(self, now: float) -> None:
        mean = self._latencies / self._seen
        # The base drifts up slowly, so that a service that has become slower for good is
        # not taken for one that queues for ever.
        self._base = min(mean, self._base * 1.002)
        if mean > _SLOWER * self._base:
            self._cut(now)
            return
        self._clean += 1
        if self._hold == 0 or self._starting:
            if self._starting:
                grown = self._limit * _FIRST_GROWTH
            else:
                grown = self._limit + 1 + (self._limit * 0.1 if self._clean > _CLEAN else 0)
            self._set(grown, now)
        else:
            self._restart_window()

    def _cut(self, now: float) -> None:
        self._starting = False
        self._clean = 0
        self._set(self._limit * _CUT, now)

    def _set(self, limit: float, now: float) -> None:
        self._limit = min(float(self._bounds.max), max(float(self._bounds.min), limit))
        self._changed_at = now
        self._restart_window()
        self._let_in()

    def _restart_window(self) -> None:
        self._seen = 0
        self._latencies = 0.0

    def _let_in(self) -> None:
        while self._waiting and self._active < int(self._limit):
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._active += 1
                waiter.set_result(None)
