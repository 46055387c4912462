"""What an observer is told of calls and attempts, and what it has to be.

Data and protocols. No event holds a body, an id of a group or a secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Protocol, TypeAlias

from msgspec import Struct

from deepcall_async.errors import DeepCallError

__all__ = [
    "AttemptEnded",
    "AttemptObserver",
    "AttemptStarted",
    "CallEnded",
    "Observer",
    "Stats",
    "Trace",
    "attempt_observer",
]


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
