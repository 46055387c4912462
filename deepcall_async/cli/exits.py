"""The exit codes, and which error ends with which.

Codes and exceptions only: nothing is printed here, and nothing of a command is known.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = [
    "BUG",
    "FOUND",
    "INCOMPLETE",
    "PIPE",
    "SIGNALS",
    "UNAUTHENTICATED",
    "UNWRITTEN",
    "USAGE",
    "OutputError",
    "PipeClosed",
    "Stopped",
    "UsageError",
    "ending",
    "is_closed_pipe",
    "reason",
    "usage_errors",
]

FOUND, USAGE, INCOMPLETE, UNAUTHENTICATED, UNWRITTEN = 1, 2, 3, 4, 5
BUG = 70  # EX_SOFTWARE of sysexits.h
PIPE = 141  # as a shell reports SIGPIPE: 128 + 13
SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)
"""What ends the command in order. A terminal that goes away sends SIGHUP; on Windows a window that
is closed, and Ctrl-Break, send SIGBREAK."""


class UsageError(Exception):
    """The command was called or configured wrongly; nothing was begun."""


class OutputError(Exception):
    """An output could not be written."""


class PipeClosed(Exception):
    """Whoever read our stdout has closed it."""


class Stopped(KeyboardInterrupt):
    """A signal ended the command; notes say how to go on."""

    def __init__(self, signum: int = signal.SIGINT) -> None:
        super().__init__(signum)
        self.signum = signum


@contextmanager
def usage_errors(about: object = None) -> Iterator[None]:
    """Turn errors about arguments and files into a `UsageError`.

    Args:
        about: the file or option to name, where the error does not.
    """
    try:
        yield
    except UnicodeError:
        # Its own message may quote what could not be decoded.
        raise UsageError(_with_name(about, "is not UTF-8; save it as UTF-8", None)) from None
    except OSError as error:
        raise UsageError(_with_name(about, reason(error), error.filename)) from None
    except (ValueError, TypeError) as error:
        raise UsageError(_with_name(about, str(error), None)) from None


def ending(error: BaseException) -> tuple[int, str]:
    """Give the exit code of an error, and what to tell the user about it.

    Args:
        error: what ended the command.

    Returns:
        The code, and the text, which is empty when nothing is to be said.
    """
    # Imported late: an error of the command line needs nothing of the client.
    from deepcall_async.errors import (
        AuthenticationFailed,
        BadRequest,
        DeepCallError,
        GroupUnavailable,
    )

    notes = "".join(f"; {note}" for note in getattr(error, "__notes__", ()))
    if isinstance(error, (PipeClosed, BrokenPipeError)):
        return PIPE, ""
    if isinstance(error, UsageError):
        return USAGE, f"{error}{notes}"
    if isinstance(error, OutputError):
        return UNWRITTEN, f"{error}{notes}"
    if isinstance(error, Stopped):
        return 128 + error.signum, f"ended by {signal.Signals(error.signum).name}{notes}"
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT, f"interrupted{notes}"
    if isinstance(error, AuthenticationFailed):
        return UNAUTHENTICATED, f"{error}{notes}; `deepcall check` says where credentials are from"
    if isinstance(error, (BadRequest, GroupUnavailable)):
        return USAGE, f"{error}{notes}"
    if isinstance(error, DeepCallError):
        return INCOMPLETE, f"{error}{notes}"
    if isinstance(error, OSError):
        return USAGE, _with_name(None, reason(error), error.filename) + notes
    import traceback

    # The message of an unforeseen error may hold anything, secrets too: it is not shown.
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return BUG, f"this is a bug: {type(error).__name__}{place}; please report it{notes}"


def is_closed_pipe(error: OSError) -> bool:
    """Whether an error of a stream says that its reader has closed it."""
    # Windows has no EPIPE for this: https://github.com/python/cpython/issues/79935
    windows = os.name == "nt" and error.errno == errno.EINVAL
    return windows or isinstance(error, BrokenPipeError)


def reason(error: OSError) -> str:
    """Say what the system says of an error, as the end of a sentence."""
    return (error.strerror or str(error)).lower()


def _with_name(about: object, said: str, filename: object) -> str:
    names = dict.fromkeys(str(name) for name in (about, filename) if name is not None)
    return ": ".join([*names, said])
