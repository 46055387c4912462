"""A fan-out's outcomes until they are taken, and how many there have been.

No call begins or ends here.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from deepcall_async.fanout.outcomes import Outcome, Progress
from deepcall_async.pacing import Patience

__all__ = ["Tally", "Window"]

_SHOWN_EVERY = 1.0
"""Seconds between two shows of the progress while calls wait."""

K = TypeVar("K")
V = TypeVar("V")


class Window(Generic[K, V]):
    """The keys begun whose outcomes have not been taken: never more than `size`.

    Args:
        size: so many keys.
        ordered: give outcomes in the order of the keys, not in that of their ends.
    """

    def __init__(self, size: int, *, ordered: bool) -> None:
        self.room: int = size
        self._ordered = ordered
        self._begun = 0
        self._taken = 0
        # By the key's number when ordered; else by their ends.
        self._by_number: dict[int, Outcome[K, V]] = {}
        self._queue: deque[Outcome[K, V]] = deque()

    def begin(self) -> int:
        """The number of a key that begins."""
        self.room -= 1
        self._begun += 1
        return self._begun

    def put(self, number: int, outcome: Outcome[K, V]) -> None:
        """Keep the outcome of the key with this number."""
        if not self._ordered:
            self._queue.append(outcome)
        elif number > self._taken:
            self._by_number[number] = outcome

    def take(self) -> Outcome[K, V] | None:
        """The next outcome, if it is there."""
        if not self._ordered:
            if not self._queue:
                return None
            self.room += 1
            return self._queue.popleft()
        outcome = self._by_number.pop(self._taken + 1, None)
        if outcome is not None:
            self.room += 1
            self._taken += 1
        return outcome

    def take_over_gaps(self) -> Outcome[K, V] | None:
        """The first outcome that is there, when those before it will not come."""
        if self._by_number:
            self._taken = min(self._by_number) - 1
        return self.take()

    def clear(self) -> None:
        """Let all go that has not been taken."""
        self._queue.clear()
        self._by_number.clear()


class Tally:
    """How many lookups have ended, told after each, and each second while calls wait.

    Args:
        total: the number of keys, if known.
        tell: given a `Progress`.
        patience: whose calls wait.
        on_bug: given what `tell` raised.
    """

    def __init__(
        self,
        total: int | None,
        tell: Callable[[Progress], object] | None,
        patience: Patience,
        on_bug: Callable[[BaseException], object],
    ) -> None:
        self.done: int = 0
        self.failed: int = 0
        self.is_shown: bool = tell is not None
        self._total = total
        self._tell = tell
        self._patience = patience
        self._on_bug = on_bug
        self._started = 0.0
        self._timer: asyncio.Handle | None = None

    def start(self) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def stop(self) -> None:
        """Tell no more."""
        self._tell = None
        if self._timer is not None:
            self._timer.cancel()

    def show(self) -> None:
        """Tell how far it has come, and what calls wait for."""
        if self._tell is None:
            return
        seconds = time.monotonic() - self._started
        rate = self.done / seconds if seconds > 0 else 0.0
        left = None if self._total is None else max(0, self._total - self.done)
        eta = None if left is None or rate == 0 else left / rate
        waiting_for = self._patience.waiting_for
        progress = Progress(self.done, self.failed, self._total, seconds, rate, eta, waiting_for)
        try:
            told = self._tell(progress)
            if inspect.iscoroutine(told):
                told.close()
                raise TypeError("progress must be a plain function: it gave a coroutine")  # noqa: TRY301
        except BaseException as bug:
            self._on_bug(bug)

    def watch(self) -> None:
        """Tell soon, and each second while calls wait."""
        if self._timer is None and self.is_shown:
            self._timer = asyncio.get_running_loop().call_soon(self._show_waiting)

    def _show_waiting(self) -> None:
        self._timer = None
        if self._patience.waiting and self._tell is not None:
            self.show()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_SHOWN_EVERY, self._show_waiting)
