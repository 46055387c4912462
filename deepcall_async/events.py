"""What the session reports of each attempt.

A context variable, so that a fan-out can listen without either module importing the other.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeAlias

from deepcall_async.errors import DeepCallError

__all__ = ["AttemptObserver", "attempt_observer"]

AttemptObserver: TypeAlias = Callable[[float, float, DeepCallError | None], None]
"""Called after each attempt with the event loop's time when it was sent and when it ended, in
seconds, and the attempt's error, or None for a success."""

attempt_observer: ContextVar[AttemptObserver | None] = ContextVar("attempt_observer", default=None)
