"""The sandbox's clock, which tests may move on."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """Real time, or a fixed time, and what `advance` has added to it.

    Args:
        stands_at: Unix seconds that dates are taken from; None for the real time.
    """

    def __init__(self, stands_at: float | None) -> None:
        self._stands_at = stands_at
        self._added = 0.0

    def unix(self) -> int:
        """Return the time in Unix seconds, for dates."""
        return int((time.time() if self._stands_at is None else self._stands_at) + self._added)

    def monotonic(self) -> float:
        """Return seconds that never go back, for durations; a fixed time does not stop them."""
        return time.monotonic() + self._added

    def advance(self, seconds: float) -> None:
        """Move the clock on."""
        self._added += seconds

    def reset(self) -> None:
        """Forget what was added."""
        self._added = 0.0
