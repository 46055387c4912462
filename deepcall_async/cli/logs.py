"""What the client logs, told on stderr while a command runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from deepcall_async.cli.exits import in_options
from deepcall_async.cli.terminal import say
from deepcall_async.redaction import printable

__all__ = ["log_to_stderr"]


class _ToStderr(logging.Handler):
    def __init__(self, patience: float, *, once: bool) -> None:
        super().__init__()
        self._patience = patience
        self._said: set[str] | None = set() if once else None

    def emit(self, record: logging.LogRecord) -> None:
        said = in_options(printable(record.getMessage()))
        if said.startswith("no answer from ") and self._patience:
            said += f"; waiting up to {self._patience:g} s for it (--patience)"
        if self._said is not None:
            if said in self._said:
                return
            self._said.add(said)
        say(f"deepcall: {said}")


@contextmanager
def log_to_stderr(
    *, verbose: bool, quiet: bool, patience: float, once: bool = False
) -> Iterator[None]:
    """Tell of each request when asked; otherwise of trouble that a long run waits for.

    Args:
        verbose: tell of each request.
        quiet: tell of errors only.
        patience: seconds that are waited for a service that cannot be reached, to be said.
        once: tell the same only once, where thousands of accounts wait for one service.
    """
    handler, log = _ToStderr(patience, once=once), logging.getLogger("deepcall_async")
    level = log.level
    handler.setLevel(logging.ERROR if quiet else logging.DEBUG)
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.WARNING)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
