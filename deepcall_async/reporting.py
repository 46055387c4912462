"""Tells observers, the log and a fan-out's pace what happens to a call.

Nothing is sent, waited for or decided here.
"""

from __future__ import annotations

import inspect
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any

from msgspec import Struct

from deepcall_async import validation
from deepcall_async.errors import DeepCallError
from deepcall_async.events import (
    AttemptEnded,
    AttemptStarted,
    CallEnded,
    Observer,
    Stats,
    Trace,
    attempt_observer,
)

__all__ = ["CallReport", "Observers", "log_last"]

log: logging.Logger = logging.getLogger("deepcall_async")

_METHODS = ("attempt_started", "attempt_ended", "call_ended")
_call_ids = count(1)


class Observers:
    """A client's observers, and which of their methods do anything.

    Args:
        observers: in the order in which they are told.
        base_url: the service's address.
        stats: gives the present numbers of the connections.

    Raises:
        TypeError: one is not an `Observer`, or has a coroutine function for a method.
    """

    __slots__ = ("_failed", "base_url", "calls", "ended", "given", "started", "stats")

    def __init__(
        self, observers: Iterable[Observer], base_url: str, stats: Callable[[], Stats]
    ) -> None:
        self.given: tuple[Observer, ...] = _checked(observers)
        self.base_url: str = base_url
        self.stats: Callable[[], Stats] = stats
        self.started: tuple[Callable[[AttemptStarted], Mapping[str, str] | None], ...]
        self.ended: tuple[Callable[[AttemptEnded], object], ...]
        self.calls: tuple[Callable[[CallEnded], object], ...]
        self.started, self.ended, self.calls = (
            tuple(getattr(each, name) for each in self.given if _does_anything(each, name))
            for name in _METHODS
        )
        self._failed: list[object] = []

    def __repr__(self) -> str:
        return f"<Observers {len(self.given)}>"

    def report(self, endpoint: str, path: str, start: float) -> CallReport | None:
        """What tells of a call that begins in this context; None when nobody wants to know.

        Args:
            endpoint: its name.
            path: where its requests go, below the base URL.
            start: when it began, in monotonic seconds.
        """
        listener, is_logged = attempt_observer.get(), log.isEnabledFor(logging.DEBUG)
        if listener is None and not is_logged and not self.given:
            return None
        ended = self.ended
        if listener is not None:
            ended = (listener, *ended)
        if is_logged:
            ended = (_log_attempt, *ended)
        return CallReport(self, ended, endpoint, path, start, next(_call_ids))

    def failed(self, method: Callable[..., object], error: Exception) -> None:
        """Log that an observer raised, the first time that it does."""
        observer = getattr(method, "__self__", method)
        if any(each is observer for each in self._failed):
            return
        self._failed.append(observer)
        # By type and place alone: its own words may hold what must not be shown.
        last = traceback.extract_tb(error.__traceback__)[-1:]
        place = "".join(f" in {each.name} ({each.filename}:{each.lineno})" for each in last)
        kind, whose = type(error).__name__, type(observer).__name__
        log.error("the observer %s failed, which is not logged again: %s%s", whose, kind, place)


class CallReport(Struct):
    """Tells of one call; a `Trace` of its present attempt.

    Attributes:
        observers: the client's.
        ended: who is told of attempts that ended: they, the log, and the context's observer.
        endpoint: the call's.
        path: where its requests go.
        call_started: when it began.
        id: of all its events.
        last: what `AttemptStarted.last` will say of the next attempt.
        previous: what `AttemptStarted.previous` will say of it.
        attempt: the number of the present attempt.
        started: when that was sent.
        http_status: of the last answer.
        headers: see `Trace`, and the next two.
    """

    observers: Observers
    ended: tuple[Callable[[AttemptEnded], object], ...]
    endpoint: str
    path: str
    call_started: float
    id: int
    last: bool = False
    previous: DeepCallError | None = None
    attempt: int = 0
    started: float = 0.0
    http_status: int | None = None
    headers: dict[str, str] | None = None
    reused: bool = False
    sent: int = 0

    def attempt_started(self, attempt: int, started: float) -> Trace | None:
        """An attempt is about to be sent.

        Returns:
            What the transport has to note of it; None when nobody listens to attempts.
        """
        self.attempt, self.started = attempt, started
        tell = self.observers.started
        if not tell and not self.ended:
            return None
        self.headers, self.reused, self.sent = None, False, 0
        if tell:
            event = AttemptStarted(
                self.id,
                self.endpoint,
                attempt,
                self.observers.base_url + self.path,
                self.call_started,
                started,
                self.last,
                self.previous,
                self.observers.stats,
            )
            for each in tell:
                try:
                    headers = each(event)
                    if headers:
                        self.headers = (self.headers or {}) | validation.headers(headers)
                except Exception as error:
                    self.observers.failed(each, error)
        return self

    def attempt_ended(
        self, http_status: int | None, error: BaseException | None, received: int = 0
    ) -> None:
        """The attempt that started last has ended."""
        code = None
        if error is not None:
            code = getattr(error, "code", None)
            if http_status is None:
                http_status = getattr(error, "http_status", None)
        self.http_status = http_status
        if not self.ended:
            return
        event = AttemptEnded(
            self.id,
            self.endpoint,
            self.attempt,
            http_status,
            code,
            error,
            self.started,
            time.monotonic(),
            self.reused,
            self.sent,
            received,
        )
        for each in self.ended:
            try:
                each(event)
            except Exception as bug:
                self.observers.failed(each, bug)

    def call_ended(self, error: BaseException | None = None) -> None:
        """The call has ended."""
        tell = self.observers.calls
        if not tell:
            return
        event = CallEnded(
            self.id,
            self.endpoint,
            self.attempt,
            self.http_status,
            None if error is None else getattr(error, "code", None),
            error,
            self.call_started,
            time.monotonic(),
        )
        for each in tell:
            try:
                each(event)
            except Exception as bug:
                self.observers.failed(each, bug)


def _log_attempt(event: AttemptEnded) -> None:
    log.debug(
        "%s attempt=%d http=%s %s ms=%.1f",
        event.endpoint,
        event.attempt,
        "-" if event.http_status is None else event.http_status,
        "success" if event.error is None else _outcome(event.error),
        (event.ended - event.started) * 1000,
    )


def log_last(endpoint: str, attempt: int, error: BaseException) -> None:
    """Log that an attempt is the last, and what the one before ended with."""
    log.warning("%s attempt=%d is the last, after %s", endpoint, attempt, _outcome(error))


def _outcome(error: BaseException) -> str:
    code = getattr(error, "code", None)
    return type(error).__name__ if code is None else f"{type(error).__name__} code={code}"


def _checked(observers: Iterable[Observer]) -> tuple[Observer, ...]:
    if isinstance(observers, (str, bytes)) or not isinstance(observers, Iterable):
        raise TypeError("observers must be a list of observers, such as [my_observer]")
    given = tuple(observers)
    for each in given:
        whose = each.__name__ if isinstance(each, type) else type(each).__name__
        if isinstance(each, type):
            raise TypeError(f"observers: give an object, not the class {whose}")
        for name in _METHODS:
            method: Any = getattr(each, name, None)
            if not callable(method):
                raise TypeError(f"observers: {whose} has no method {name}; derive it from Observer")
            if inspect.iscoroutinefunction(method):
                raise TypeError(f"observers: {whose}.{name} must be a plain function, not async")
    return given


def _does_anything(observer: Observer, name: str) -> bool:
    return getattr(getattr(observer, name), "__func__", None) is not getattr(Observer, name)
