"""The command as a process: its standard streams and signals, before and after the command runs.

Nothing of a command is known here. It imports little, so that a signal is answered from early on.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from types import FrameType

from deepcall_async.cli import run
from deepcall_async.cli.exits import (
    FOUND,
    PIPE,
    SIGNALS,
    UNWRITTEN,
    Stopped,
    is_closed_pipe,
    reason,
)

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run the command as this process.

    Args:
        arguments: the command line's, without the program's name.

    Returns:
        The process's exit code.
    """
    _open_missing_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        with _signals_raise():
            code = run(arguments)
    except Stopped as stopped:
        # Before or after `run`, which handles its own.
        _complain(f"ended by {signal.Signals(stopped.signum).name}")
        code = 128 + stopped.signum
    code = _flush(code)
    # At its end the interpreter would look for garbage among all that was ever imported, which
    # takes longer than all else from a signal to the end.
    gc.freeze()
    return code


@contextmanager
def _signals_raise() -> Iterator[None]:
    def stop(signum: int, _: FrameType | None) -> None:
        raise Stopped(signum)

    before = {}
    for signum in SIGNALS:
        # nohup, and shells for what runs in the background, set signals to be ignored.
        if signal.getsignal(signum) is not signal.SIG_IGN:
            before[signum] = signal.signal(signum, stop)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _open_missing_streams() -> None:
    # A descriptor that is closed would be given to the next file or socket that is opened, and
    # what is printed would go there; uvloop aborts when it meets its own there.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  (for good)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _flush(code: int) -> int:
    """Write out what is buffered, so that a failure to do so is known by the exit code."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if is_closed_pipe(error):
            code = PIPE
        elif code != UNWRITTEN:
            _complain(f"stdout: {reason(error)}")
            code = UNWRITTEN if code in (0, FOUND) else code
    with suppress(OSError):
        sys.stderr.flush()
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        # What could not be written is still buffered: the interpreter would try again and say so.
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)
    return code


def _complain(text: str) -> None:
    with suppress(OSError, ValueError):
        sys.stderr.write(f"deepcall: {text}\n")
