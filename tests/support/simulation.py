"""A service that exists only in a simulation: time that jumps, and a gate where calls wait.

Nothing here reads or writes.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from deepcall_async.pacing import current_patience

__all__ = ["Gate", "SimulatedLoop", "simulate"]

T = TypeVar("T")


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.now


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # Nothing here reads or writes, so there is nobody to ask.
        self._loop.now += max(0.0, timeout or 0.0)
        return []


def simulate(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it on a simulated clock."""
    with asyncio.Runner(loop_factory=SimulatedLoop, debug=False) as runner:
        return runner.run(coroutine)


class Gate:
    """Calls wait here as they wait for a service that is away."""

    def __init__(self) -> None:
        self.closed = False
        self.opened = asyncio.Event()
        self.begun: list[int] = []

    async def call(self, key: int) -> int:
        self.begun.append(key)
        patience = current_patience.get()
        if self.closed and patience is not None:
            patience.hold("no answer from brand.invalid:443")
            try:
                await self.opened.wait()
            finally:
                patience.release()
        await asyncio.sleep(0)
        return key
