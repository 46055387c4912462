"""When the next call may go to a service that is away, or that throttles.

Arithmetic; the time is given, and nothing waits here.
"""

from __future__ import annotations

import random
from collections import deque

__all__ = ["Outage", "Throttle"]

_FIRST_PROBE_DELAY = 0.1
_PROBE_SHARE = 0.2
"""The wait for the next probe, of the time for which the service has been away."""
_LONGEST_PROBE_DELAY = 5.0

_FIRST_THROTTLED_RATE = 10.0
_LOWEST_THROTTLED_RATE = 1 / 30
_MADE_UP_FOR = 0.02
"""Seconds by which a timer may be late without a turn being lost."""
_HIGHEST_THROTTLED_RATE = 100_000.0
_SEARCH_GROWTH = 1.5
_SEEN_FOR = 1.0
"""Seconds over which admitted calls are counted: many services count by the second."""
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_LIFTED_AFTER = 5.0
"""Seconds after which a rate that holds nobody back is lifted."""


class Outage:
    """A service that does not answer, and when it is asked again.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self.since: float = now
        self.probing: bool = False
        self.next_probe: float = now + self._delay(now)

    def probe_failed(self, now: float) -> None:
        """Ask again later, as it still does not answer."""
        self.probing = False
        self.next_probe = now + self._delay(now)

    def _delay(self, now: float) -> float:
        longest = max(_FIRST_PROBE_DELAY, _PROBE_SHARE * (now - self.since))
        return min(_LONGEST_PROBE_DELAY, longest) * random.uniform(0.5, 1.0)  # noqa: S311 (jitter)


class Throttle:
    """A rate that follows what the service admits.

    It grows fast until it is refused for the first time after successes, and slowly from then on.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self.not_before: float = now
        self._rate = _FIRST_THROTTLED_RATE
        self._next = now
        self._began = self._cut_at = now
        self._succeeded_at: deque[float] = deque()
        self._refusals = 0
        self._searching = True
        self._idle_since: float | None = None

    @property
    def next_at(self) -> float:
        """When the next call may go."""
        return max(self.not_before, self._next)

    def admitted(self, now: float) -> None:
        """Reckon with a call that was let through."""
        self._next = max(now - _MADE_UP_FOR, self._next) + 1 / self._rate

    def refused(self, now: float, sent: float) -> None:
        """Lower the rate towards what was admitted in the last second.

        What was sent before the last cut says nothing of the present rate.
        """
        if sent < self._cut_at:
            return
        if self._succeeded_at:
            self._searching = False
        seconds = min(_SEEN_FOR, max(now - self._began, 0.001))
        seen = (self._seen(now) + 0.5) / seconds
        self._set_rate(max(self._rate / 2, min(0.95 * self._rate, seen)), now)
        self._cut_at = now
        # Until its next second begins, such a service refuses whatever comes.
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._refusals, 10))
        self.not_before = max(self.not_before, now + pause)
        self._refusals += 1

    def succeeded(self, now: float, *, held: bool) -> bool:
        """Raise the rate; True when there is no need for one any more.

        Args:
            now: monotonic seconds.
            held: whether calls wait at the gate.
        """
        self._refusals = 0
        self._seen(now)
        self._succeeded_at.append(now)
        growth = _SEARCH_GROWTH
        if not self._searching:
            growth = 1 + min(0.1, 0.001 * (now - self._cut_at))
        self._set_rate(self._rate * growth, now)
        if held or self._rate < 2 * self._seen(now):
            self._idle_since = None
            return False
        if self._idle_since is None:
            self._idle_since = now
        return now - self._idle_since >= _LIFTED_AFTER

    def _seen(self, now: float) -> int:
        """How many succeeded in the last second."""
        while self._succeeded_at and self._succeeded_at[0] <= now - _SEEN_FOR:
            self._succeeded_at.popleft()
        return len(self._succeeded_at)

    def _set_rate(self, rate: float, now: float) -> None:
        before, self._rate = (
            self._rate,
            min(_HIGHEST_THROTTLED_RATE, max(_LOWEST_THROTTLED_RATE, rate)),
        )
        # What is left of the wait for the next call shrinks or grows with the rate.
        self._next = now + max(0.0, self._next - now) * before / self._rate
