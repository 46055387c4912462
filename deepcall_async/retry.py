"""When to send again, and how long to wait first.

Law: pure decisions over the error tree. Nobody sleeps here, nobody reads a clock, and nothing of
HTTP is known beyond what an error says of itself.
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from msgspec import Struct

from deepcall_async.errors import (
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    DeepCallError,
    OutcomeUnknown,
    RateLimited,
    RequestTimeout,
    ServerFault,
)

__all__ = ["Repeat", "RetryBudget", "RetryPolicy", "may_have_applied", "settle", "worth_repeating"]

Repeat: TypeAlias = Literal["safe", "until_gone", "unsent_only"]
"""Whether a request may be sent again: always; always, because "not found" on a repeat means done;
or only when the first was provably never sent."""

LONGEST_RETRY_AFTER = 60.0
_REPEATED_STATUSES = frozenset({500, 502, 503, 504})
_PASSING_CODES = frozenset({1009, 1010, 1032})


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How failed calls are repeated.

    Args:
        attempts: attempts a call may make in all; 1 means no retry. Beside these, a call that is
            safe to repeat may be sent once more when a pooled connection proves to have died idle,
            and once more after a renewal of credentials.
        base_delay: seconds; the first delay is drawn between 0 and this, and the range doubles.
        max_delay: seconds; the range of a delay never grows past this.
        deadline: seconds for the whole call, all attempts and waits included; None for no limit.

    Raises:
        ValueError: a number is out of range.
    """

    attempts: int = 4
    base_delay: float = 0.2
    max_delay: float = 5.0
    deadline: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise TypeError("RetryPolicy: attempts must be an int")
        if self.attempts < 1:
            raise ValueError("RetryPolicy: attempts must be at least 1 (1 means no retry)")
        for name in ("base_delay", "max_delay"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"RetryPolicy: {name} must be a finite number of seconds >= 0")
        if self.deadline is not None and not 0 < self.deadline < float("inf"):
            raise ValueError(
                "RetryPolicy: deadline must be a finite number of seconds > 0, or None"
            )

    def delay(
        self, error: DeepCallError, *, attempt: int, elapsed: float, chance: float
    ) -> float | None:
        """Seconds to wait before the next attempt, or None to stop.

        Args:
            error: why the attempt failed; that it is worth repeating was decided before.
            attempt: how many attempts have been made.
            elapsed: seconds since the call began.
            chance: a random number from 0 to 1: the full jitter.
        """
        if attempt >= self.attempts:
            return None
        # The exponent is bounded so that a policy of many thousand attempts cannot overflow.
        ceiling = min(self.max_delay, self.base_delay * 2.0 ** min(attempt - 1, 64))
        delay = ceiling * chance
        asked = getattr(error, "retry_after", None)
        if asked is not None:
            if asked > LONGEST_RETRY_AFTER:
                return None
            # The jitter comes on top: clients told the same second must not all return in it.
            delay = asked + min(delay, 1.0)
        if self.deadline is not None and elapsed + delay >= self.deadline:
            return None
        return delay


class RetryBudget:
    """A client's allowance of retries: ten, and a tenth of one back for each success.

    It keeps a total outage from being answered with a multiple of the usual load. Repeats of what
    met a connection that had died idle are counted apart: each success allows one, since it left
    one connection that may die so.
    """

    __slots__ = ("stale", "tokens")
    capacity: ClassVar[float] = 10.0
    refill: ClassVar[float] = 0.1
    most_stale: ClassVar[int] = 100

    def __init__(self) -> None:
        self.tokens: float = self.capacity
        self.stale: int = 0

    def __repr__(self) -> str:
        return f"<RetryBudget {self.tokens:.1f} of {self.capacity:.0f}>"

    def earn(self) -> None:
        """Count a success."""
        if self.tokens < self.capacity:
            self.tokens = min(self.capacity, self.tokens + self.refill)
        if self.stale < self.most_stale:
            self.stale += 1

    def spend(self) -> bool:
        """Take the allowance for one retry; False when there is none left."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True

    def spend_stale(self) -> bool:
        """Take the allowance for a repeat after a stale connection; False when there is none."""
        if self.stale < 1:
            return False
        self.stale -= 1
        return True


def worth_repeating(error: DeepCallError, repeat: Repeat) -> bool:
    """Whether another attempt is safe for this kind of request, and could end better."""
    if isinstance(error, ConnectFailed):
        return not error.untrusted
    if repeat == "unsent_only":
        return False
    if isinstance(error, RateLimited):
        # A throttled change is a plain refusal: the caller decides, as for every other change.
        return repeat == "safe"
    if isinstance(error, ServerFault):
        return error.code in _PASSING_CODES or error.http_status in _REPEATED_STATUSES
    return isinstance(error, (ConnectionLost, RequestTimeout))


def may_have_applied(error: DeepCallError) -> bool:
    """Whether a change that ended so may have been carried out all the same."""
    if isinstance(error, (RequestTimeout, ClientClosed)):
        return error.sent
    return isinstance(error, (ConnectionLost, ServerFault))


def settle(error: DeepCallError, repeat: Repeat, *, ambiguous: bool) -> DeepCallError:
    """The error to raise in the end: a change that may have been applied is an unknown outcome."""
    if isinstance(error, RateLimited):
        error.of_change = repeat != "safe"
    if repeat == "safe" or not ambiguous:
        return error
    unknown = OutcomeUnknown(
        f"{error.endpoint}: the request was sent but not answered, so it may or may not have been"
        f" applied ({type(error).__name__}); look with groups.list() or groups.agent_relation()"
        " before you repeat it"
    )
    unknown.endpoint, unknown.attempts = error.endpoint, error.attempts
    unknown.__cause__ = error
    return unknown
