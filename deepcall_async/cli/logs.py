"""What the client logs, told on stderr while a command runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from deepcall_async.cli.terminal import say
from deepcall_async.redaction import printable

__all__ = ["log_to_stderr"]


class _ToStderr(logging.Handler):
    def __init__(self, patience: float, pause: float) -> None:
        super().__init__()
        self._patience = patience
        self._pause = pause
        self._told: dict[tuple[str, str], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        # Of one thing, such as a service that is away: how long it was is said anew each time.
        subject = record.args[0] if isinstance(record.args, tuple) and record.args else ""
        about = (record.msg, str(subject))
        now = time.monotonic()
        if now - self._told.get(about, -self._pause) < self._pause:
            return
        self._told[about] = now
        said = printable(record.getMessage())
        if said.startswith("no answer from ") and self._patience:
            said += f"; waiting up to {self._patience:g} s for it (--patience)"
        say(f"deepcall: {said}")


@contextmanager
def log_to_stderr(
    *, verbose: bool, quiet: bool, patience: float, pause: float = 0.0
) -> Iterator[None]:
    """Tell of each request when asked; otherwise of trouble that a long run waits for.

    Args:
        verbose: tell of each request.
        quiet: tell of errors only.
        patience: seconds that are waited for a service that cannot be reached, to be said.
        pause: seconds for which the same is not told again: thousands of accounts may wait for one
            service.
    """
    handler, log = _ToStderr(patience, pause), logging.getLogger("deepcall_async")
    level = log.level
    handler.setLevel(logging.ERROR if quiet else logging.DEBUG)
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
