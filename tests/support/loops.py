"""Event loops and time: a clock that jumps, turns of the loop, and what a test leaves behind.

Nothing from the package. With these a test says "at once" or "after two seconds" without asking how
fast the machine is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import selectors
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.faultserver import FaultServer

T = TypeVar("T")

# A real wait before the clock jumps, for what the system delivers a moment later.
_GRACE = 0.001


class _JumpingSelector(selectors.DefaultSelector):
    """Where a selector would wait for time to pass, this one moves the clock on instead."""

    def __init__(self, now: float, grace: float, lateness: Iterator[float]) -> None:
        super().__init__()
        self.now = now
        self.threads = 0
        self._grace = grace
        self._lateness = lateness

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if found := super().select(self._grace):
            return found
        while self.threads:
            # A thread's work takes real time, and its end is an event.
            if found := super().select(_GRACE):
                return found
        self.now += timeout + next(self._lateness)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when there is nothing else to do.

    Sleeps and timeouts of any length take a moment, computing takes no time at all, and so every
    duration that is measured is exact, however busy the machine. All that a test waits for must
    happen on this loop or in its executor: what another process does is not waited for.
    ``time.monotonic`` tells the loop's time while it runs.

    Args:
        now: what the clock shows at first; by default the real time.
        grace: a real wait, in seconds, before the clock jumps; 0 where nothing is read or written.
        lateness: seconds by which each wait ends late, as waits do on a busy machine.
    """

    def __init__(
        self,
        now: float | None = None,
        grace: float = _GRACE,
        lateness: Iterator[float] | None = None,
    ) -> None:
        now = time.monotonic() if now is None else now
        self._jumping = _JumpingSelector(now, grace, lateness or itertools.repeat(0.0))
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def run_forever(self) -> None:
        real = time.monotonic
        time.monotonic = self.time
        try:
            super().run_forever()
        finally:
            time.monotonic = real

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> Any:
        future = super().run_in_executor(executor, func, *args)
        self._jumping.threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    async def shutdown_default_executor(self, *timeout: float | None) -> None:
        self._jumping.threads += 1  # it joins them in one more
        try:
            await super().shutdown_default_executor(*timeout)  # which 3.11 takes none of
        finally:
            self._jumping.threads -= 1

    def _thread_ended(self, _: object) -> None:
        self._jumping.threads -= 1


def simulate(coroutine: Coroutine[Any, Any, T], lateness: Iterator[float] | None = None) -> T:
    """Run what neither reads nor writes on a virtual clock, which always begins at the same time."""

    def loop() -> VirtualTimeLoop:
        return VirtualTimeLoop(1000.0, 0.0, lateness)

    with asyncio.Runner(loop_factory=loop, debug=False) as runner:
        return runner.run(coroutine)


def loop_factory(kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes event loops of this kind: ``"asyncio"``, ``"uvloop"`` or ``"aiofastnet"``."""
    if kind == "aiofastnet":
        import aiofastnet

        made: Callable[[], asyncio.AbstractEventLoop] = aiofastnet.loop_factory()
        return made
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


async def turns(count: int = 30) -> None:
    """Let the loop turn so often that all that can happen without waiting has happened."""
    for _ in range(count):
        await asyncio.sleep(0)


async def at_once(awaitable: Awaitable[T]) -> T:
    """Give what comes of something that must end without waiting for any timer or peer."""
    task = asyncio.ensure_future(awaitable)
    for _ in range(100):
        if task.done():
            break
        await asyncio.sleep(0)
    else:
        task.cancel()
        raise AssertionError("it waits for something")
    return await task


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")


def sockets() -> int:
    """How many sockets this process has open; an event loop's own spare files are not counted."""
    found = 0
    for descriptor in Path(f"/proc/{os.getpid()}/fd").iterdir():
        with contextlib.suppress(OSError):
            # Python 3.12 never frees the parts of a path, and a target is a path to `pathlib`.
            found += os.readlink(descriptor).startswith("socket:")  # noqa: PTH115  (as above)
    return found


@contextlib.asynccontextmanager
async def nothing_left(server: FaultServer | None = None) -> AsyncIterator[None]:
    """Sockets and tasks are back where they were soon after the block's end."""
    await turns()
    before, tasks = sockets(), asyncio.all_tasks()
    yield
    async with asyncio.timeout(10):
        while sockets() > before or asyncio.all_tasks() - tasks:
            await asyncio.sleep(0.005)
    if server is not None:
        await server.until(lambda s: s.open_connections == 0)
