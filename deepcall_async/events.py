"""What happens to a call, told to those who observe it: observers, the log, and a fan-out's pace.

Nothing is sent, waited for or decided here. No event holds a body, an id of a group or a secret.
"""

from __future__ import annotations

import inspect
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from itertools import count
from typing import Any, Protocol, TypeAlias

from msgspec import Struct

from deepcall_async import validation
from deepcall_async.errors import DeepCallError

__all__ = [
    "AttemptEnded",
    "AttemptObserver",
    "AttemptStarted",
    "CallEnded",
    "CallReport",
    "Observer",
    "Observers",
    "Stats",
    "Trace",
    "attempt_observer",
    "log_last",
]

log: logging.Logger = logging.getLogger("deepcall_async")

_METHODS = ("attempt_started", "attempt_ended", "call_ended")
_call_ids = count(1)


class Stats(Struct, frozen=True):
    """What a client has sent under its credentials, and what its connections are doing.

    ``requests`` and ``retries`` (those of them that were repeats) count since it was made.
    ``active``, ``idle`` and ``waiting`` are the present numbers of requests in flight, connections
    not in use, and calls that wait for a connection; siblings on the same connections share them.

    Example:
        >>> relation = await dc.groups.agent_relation(28)
        >>> dc.stats
        Stats(requests=1, retries=0, active=0, idle=1, waiting=0)
    """

    requests: int = 0
    retries: int = 0
    active: int = 0
    idle: int = 0
    waiting: int = 0


# Without the garbage collector's bookkeeping events cost half. They are in no cycle: nothing that
# an error holds leads to an event.


class AttemptStarted(Struct, frozen=True, gc=False):
    """An attempt is about to be sent. Times are in seconds of `time.monotonic`.

    Attributes:
        id: shared by all events of one call.
        endpoint: such as ``"groups.agent_relation"``.
        attempt: the attempt's number, from 1.
        url: where it goes; it has no query and holds no id.
        call_started: when the call began; until ``started`` it waited, such as for a connection.
        started: when it is sent.
        last: no attempt follows this one, which is not the first, unless it costs none.
        previous: how the attempt before failed; None for the first.
        stats: gives the present numbers of the connections, as `DeepCall.stats` does; equal for
            clients that share their connections.
    """

    id: int
    endpoint: str
    attempt: int
    url: str
    call_started: float
    started: float
    last: bool
    previous: DeepCallError | None
    stats: Callable[[], Stats]


class AttemptEnded(Struct, frozen=True, gc=False):
    """An attempt was answered, failed or was cancelled. Times as in `AttemptStarted`.

    Attributes:
        id: shared by all events of one call.
        endpoint: such as ``"groups.agent_relation"``.
        attempt: the attempt's number, from 1.
        http_status: of the answer; None without one.
        code: DeepCall's code when it refused, which can be so under HTTP 200; else None.
        error: how it failed, or None. `asyncio.CancelledError` when the call was cancelled.
        started: when it was sent.
        ended: when it ended.
        reused: the connection had carried a request before.
        sent: bytes of the request's body.
        received: bytes of the answer's body, decompressed; 0 without an answer.
    """

    id: int
    endpoint: str
    attempt: int
    http_status: int | None
    code: int | None
    error: BaseException | None
    started: float
    ended: float
    reused: bool
    sent: int
    received: int


class CallEnded(Struct, frozen=True, gc=False):
    """A call has come to its end. Times as in `AttemptStarted`.

    Attributes:
        id: shared by all events of one call.
        endpoint: such as ``"groups.agent_relation"``.
        attempts: how many attempts were made; 0 when it failed before anything was sent.
        http_status: of the last answer; None without one.
        code: DeepCall's code when it refused, else None.
        error: what the caller gets raised, or None.
        started: when the call began.
        ended: when it ended.
    """

    id: int
    endpoint: str
    attempts: int
    http_status: int | None
    code: int | None
    error: BaseException | None
    started: float
    ended: float


class Observer(Protocol):
    """Learns of each attempt and each call of a client.

    Its methods are called in the caller's context and must be quick: the call waits for them. What
    they raise is logged once and breaks nothing. A class that derives from this one need only
    define what it listens to; nothing is spent on the rest.

    Example:
        >>> class Slow(Observer):
        ...     def call_ended(self, event: CallEnded) -> None:
        ...         if event.ended - event.started > 1:
        ...             print(event.endpoint, event.attempts)
        >>> dc = dc.with_options(observers=[Slow()])
    """

    def attempt_started(self, event: AttemptStarted, /) -> Mapping[str, str] | None:
        """An attempt is about to be sent.

        Returns:
            Headers to add to its request, such as ``traceparent``, or None. Those that the client
            sends anyway stay as they are.
        """
        return None

    def attempt_ended(self, event: AttemptEnded, /) -> None:
        """An attempt has ended; it is told of each that has started."""
        return  # written out, as type checkers take an empty method of a protocol for abstract

    def call_ended(self, event: CallEnded, /) -> None:
        """A call has ended; the last of its events."""
        return


AttemptObserver: TypeAlias = Callable[[AttemptEnded], object]

attempt_observer: ContextVar[AttemptObserver | None] = ContextVar("attempt_observer", default=None)
"""Is told of each attempt of the calls in this context, beside the client's own observers.

A fan-out listens so, without either module importing the other.
"""


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
        ended, listener = self.ended, attempt_observer.get()
        if listener is not None:
            ended = (listener, *ended)
        if log.isEnabledFor(logging.DEBUG):
            ended = (_log_attempt, *ended)
        if ended or self.calls or self.started:
            return CallReport(self, ended, endpoint, path, start)
        return None

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


class Trace(Protocol):
    """What an attempt's observers give to the transport, and what it gives back.

    Attributes:
        headers: to add to the request.
        reused: whether its connection had carried a request before.
        sent: bytes of the request's body.
    """

    headers: dict[str, str] | None
    reused: bool
    sent: int


class CallReport:
    """Tells of one call; a `Trace` of its present attempt.

    Args:
        observers: the client's.
        ended: who is told of attempts that ended: they, the log, and the context's observer.
        endpoint: the call's.
        path: where its requests go.
        started: when it began.

    Attributes:
        last: what `AttemptStarted.last` will say of the next attempt.
        previous: what `AttemptStarted.previous` will say of it.
    """

    __slots__ = (
        "_attempt",
        "_call_started",
        "_ended",
        "_endpoint",
        "_http_status",
        "_id",
        "_observers",
        "_path",
        "_started",
        "headers",
        "last",
        "previous",
        "reused",
        "sent",
    )

    def __init__(
        self,
        observers: Observers,
        ended: tuple[Callable[[AttemptEnded], object], ...],
        endpoint: str,
        path: str,
        started: float,
    ) -> None:
        self._observers = observers
        self._ended = ended
        self._id = next(_call_ids)
        self._endpoint = endpoint
        self._path = path
        self._call_started = started
        self._attempt = 0
        self._started = 0.0
        self._http_status: int | None = None
        self.last: bool = False
        self.previous: DeepCallError | None = None
        self.headers: dict[str, str] | None = None
        self.reused: bool = False
        self.sent: int = 0

    def attempt_started(self, attempt: int, started: float) -> None:
        """An attempt is about to be sent."""
        self._attempt, self._started = attempt, started
        if attempt > 1:
            self._http_status, self.headers, self.reused, self.sent = None, None, False, 0
        tell = self._observers.started
        if not tell:
            return
        event = AttemptStarted(
            self._id,
            self._endpoint,
            attempt,
            self._observers.base_url + self._path,
            self._call_started,
            started,
            self.last,
            self.previous,
            self._observers.stats,
        )
        for each in tell:
            try:
                headers = each(event)
                if headers:
                    self.headers = (self.headers or {}) | validation.headers(headers)
            except Exception as error:
                self._observers.failed(each, error)

    def attempt_ended(
        self, http_status: int | None, error: BaseException | None, received: int = 0
    ) -> None:
        """The attempt that started last has ended."""
        code = None
        if error is not None:
            code = getattr(error, "code", None)
            if http_status is None:
                http_status = getattr(error, "http_status", None)
        self._http_status = http_status
        if not self._ended:
            return
        event = AttemptEnded(
            self._id,
            self._endpoint,
            self._attempt,
            http_status,
            code,
            error,
            self._started,
            time.monotonic(),
            self.reused,
            self.sent,
            received,
        )
        for each in self._ended:
            try:
                each(event)
            except Exception as bug:
                self._observers.failed(each, bug)

    def call_ended(self, error: BaseException | None = None) -> None:
        """The call has ended."""
        tell = self._observers.calls
        if not tell:
            return
        event = CallEnded(
            self._id,
            self._endpoint,
            self._attempt,
            self._http_status,
            None if error is None else getattr(error, "code", None),
            error,
            self._call_started,
            time.monotonic(),
        )
        for each in tell:
            try:
                each(event)
            except Exception as bug:
                self._observers.failed(each, bug)


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
