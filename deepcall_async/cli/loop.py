"""Running a command's coroutine, on uvloop where it is installed, and ending it in order.

What would block the loop for long runs in a thread that does not hold up the end.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from importlib.util import find_spec
from types import FrameType
from typing import Any, TypeVar

from deepcall_async.cli.exits import SIGNALS, Stopped

__all__ = ["in_daemon_thread", "run_async"]

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


async def in_daemon_thread(work: Callable[[], T]) -> T:
    """Run what may block for long, and give its result.

    When it is cancelled, or the process ends, nobody waits for the thread: an executor's threads
    are waited for, and one that hangs keeps the process alive.

    Args:
        work: what to run; it must hold no lock that the end of the interpreter needs.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            result = work()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    threading.Thread(target=run, name="deepcall-work", daemon=True).start()
    return await asyncio.wrap_future(outcome)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if find_spec("uvloop") is None:
        return None
    import uvloop

    return uvloop.new_event_loop
