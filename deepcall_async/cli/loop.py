"""Running a command's coroutine: on uvloop where it is installed, ended in order by a signal."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from types import FrameType
from typing import Any, TypeVar

from deepcall_async.cli.exits import SIGNALS, Stopped

__all__ = ["run_async"]

T = TypeVar("T")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and give its result.

    A signal cancels it; a second one ends the process at once.

    Args:
        work: what to run.

    Raises:
        Stopped: a signal came, and the coroutine has ended.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        loop = runner.get_loop()
        task = loop.create_task(work)
        received: list[int] = []

        def stop(signum: int, _: FrameType | None) -> None:
            if received:
                signal.signal(signum, signal.SIG_DFL)
                signal.raise_signal(signum)
            received.append(signum)
            loop.call_soon_threadsafe(task.cancel)

        before = {}
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    before[signum] = signal.signal(signum, stop)
        try:
            return loop.run_until_complete(task)
        except BaseException:
            # Whatever the cancelled calls made of it.
            if received:
                raise Stopped(received[0]) from None
            raise
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
