"""What a failure tells, when to send again, and how long to wait first.

Pure decisions over the error tree. Nothing here sleeps, reads a clock, or knows more of HTTP than
what an error says of itself.
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from msgspec import Struct

from deepcall_async.errors import (
    ApiError,
    AuthenticationFailed,
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    DeepCallError,
    OutcomeUnknown,
    RateLimited,
    RequestTimeout,
    ServerFault,
)
from deepcall_async.validation import positive_int

__all__ = [
    "Method",
    "Recovery",
    "Retry",
    "RetryBudget",
    "RetryPolicy",
    "final_error",
    "is_refusal",
    "is_retryable",
    "is_unanswered",
    "may_have_applied",
]

Method: TypeAlias = Literal["safe", "idempotent", "non_idempotent"]
"""What repeating a request does, in the terms of RFC 9110, 9.2: a read changes nothing; a second
``delete`` has the effect of one; any other change must not be repeated once it may have been
applied."""

LONGEST_RETRY_AFTER = 60.0
_NO_SERVER_STATUSES = frozenset({502, 503, 504})
_REPEATED_STATUSES = frozenset({500, 502, 503, 504})
_PASSING_CODES = frozenset({1009, 1010, 1032})


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How failed calls are repeated.

    Args:
        attempts: attempts a call may make in all; 1 sends once, whatever happens. From 2 on, two
            kinds of repeats are free: one of a read or ``delete`` that met a connection which had
            died idle, and those after a renewal of credentials, which is one, or at most this
            number where the credentials had been accepted before. In a fan-out, calls that are held
            because the service is away are free too.
        base_delay: seconds; the first delay is drawn between 0 and this, and the range doubles.
        max_delay: seconds; the range of a delay never grows past this.
        deadline: seconds for the whole call, all attempts and waits included; None for no limit.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> hasty = dc.with_options(timeout=2, retry=RetryPolicy(attempts=2, deadline=3))
    """

    attempts: int = 4
    base_delay: float = 0.2
    max_delay: float = 5.0
    deadline: float | None = None

    def __post_init__(self) -> None:
        positive_int("RetryPolicy: attempts", self.attempts)
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
            error: why the attempt failed; that it is retryable was decided before.
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


class Retry(Struct, frozen=True):
    """That another attempt follows.

    ``delay`` is in seconds; ``require_fresh`` asks for a new connection, and ``renew`` for new
    credentials. ``last`` tells that the policy allows no further one.
    """

    delay: float = 0.0
    require_fresh: bool = False
    renew: bool = False
    last: bool = False


class Recovery:
    """One call's failures so far, and whether another attempt follows.

    Args:
        policy: how often to try, and how long to wait.
        method: what repeating the request does.
        budget: the allowance of retries.
    """

    def __init__(self, policy: RetryPolicy, method: Method, budget: RetryBudget) -> None:
        self._policy = policy
        self._method = method
        self._budget = budget
        self._counted = 0
        self._stale_retry_used = False
        self.renewals: int = 0
        self.maybe_applied: bool = False

    def after(
        self,
        error: DeepCallError,
        *,
        elapsed: float,
        chance: float,
        renewable: bool,
        held: bool,
        patient: bool,
        expired: bool = False,
    ) -> Retry | None:
        """Decide what follows a failed attempt.

        Args:
            error: how it failed.
            elapsed: seconds since the call began.
            chance: a random number from 0 to 1, for the jitter.
            renewable: new credentials can be asked for.
            held: the call waits until the service is back, so the attempt costs nothing.
            patient: the call belongs to a fan-out that waits for the service, so a repeat of what
                was not answered needs no allowance.
            expired: the credentials of this attempt had been accepted before. A call that waits for
                the rate can meet the end of several short sessions.

        Returns:
            The next attempt, or None to give up.
        """
        once = self._policy.attempts == 1 and not patient
        if isinstance(error, AuthenticationFailed):
            most = self._policy.attempts if expired else 1
            if once or not renewable or self.renewals >= most:
                return None
            self.renewals += 1
            return Retry(renew=True)
        self.maybe_applied = self.maybe_applied or may_have_applied(error)
        if once or not is_retryable(error, self._method):
            return None
        if (
            not self._stale_retry_used
            and isinstance(error, ConnectionLost)
            and error.stale
            and self._budget.spend_stale()
        ):
            self._stale_retry_used = True
            return Retry(require_fresh=True)
        # What was idle longer than the attempt that timed out may lead to the same dead server.
        fresh = isinstance(error, RequestTimeout)
        if held:
            # Where it is held, the waiting is done: only those that found no server pause before.
            pause = self._policy.base_delay * chance if isinstance(error, ConnectFailed) else 0.0
            return Retry(pause, require_fresh=fresh)
        self._counted += 1
        delay = self._policy.delay(error, attempt=self._counted, elapsed=elapsed, chance=chance)
        if delay is None or not (patient or self._budget.spend()):
            return None
        last = self._counted + 1 >= self._policy.attempts
        return Retry(delay, require_fresh=fresh, last=last)


def is_retryable(error: DeepCallError, method: Method) -> bool:
    """Whether another attempt is safe for this kind of request, and could end better."""
    if isinstance(error, ConnectFailed):
        return not error.fatal
    if method == "non_idempotent":
        return False
    if isinstance(error, RateLimited):
        # A throttled change is a plain refusal: the caller decides, as for every other change.
        return method == "safe"
    if isinstance(error, ServerFault):
        return error.code in _PASSING_CODES or error.http_status in _REPEATED_STATUSES
    return isinstance(error, (ConnectionLost, RequestTimeout))


def is_refusal(error: DeepCallError) -> bool:
    """Whether the service asks for fewer requests: HTTP 429, or anything with ``Retry-After``."""
    if isinstance(error, RateLimited):
        return True
    return isinstance(error, ApiError) and error.retry_after is not None


def is_unanswered(error: DeepCallError) -> bool:
    """Whether the service itself did not answer.

    A bare 502, 503 or 504 comes from a proxy in front of it. A connection that had died idle says
    nothing of the service.
    """
    if isinstance(error, ConnectFailed):
        return not error.fatal
    if isinstance(error, RequestTimeout):
        return error.sent
    if isinstance(error, ConnectionLost):
        return not error.stale
    return (
        isinstance(error, ServerFault)
        and error.code is None
        and error.http_status in _NO_SERVER_STATUSES
        and error.retry_after is None
    )


def may_have_applied(error: DeepCallError) -> bool:
    """Whether a change that ended so may have been carried out all the same."""
    if isinstance(error, (RequestTimeout, ClientClosed)):
        return error.sent
    return isinstance(error, (ConnectionLost, ServerFault))


def final_error(error: DeepCallError, method: Method, *, maybe_applied: bool) -> DeepCallError:
    """The error to raise in the end: a change that may have been applied is an unknown outcome."""
    if isinstance(error, RateLimited):
        error.of_change = method != "safe"
    if method == "safe" or not maybe_applied:
        return error
    unknown = OutcomeUnknown(
        f"{error.endpoint}: the request was sent but not answered, so it may or may not have been"
        f" applied ({type(error).__name__}); look with groups.list() or groups.agent_relation()"
        " before you repeat it"
    )
    unknown.endpoint, unknown.attempts = error.endpoint, error.attempts
    unknown.__cause__ = error
    return unknown
