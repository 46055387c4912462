"""Retry decisions: delays within bounds whatever the header, the budget, and who may be repeated."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from deepcall_async import (
    ApiError,
    AuthenticationFailed,
    BadRequest,
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    DeepCallError,
    GroupUnavailable,
    NoData,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    ResponseTooLarge,
    RetryPolicy,
    ServerFault,
    SessionId,
    UnexpectedReply,
    replies,
    wire,
)
from deepcall_async.retry import (
    LONGEST_RETRY_AFTER,
    Method,
    RetryBudget,
    final_error,
    is_retryable,
    may_have_applied,
)

SECONDS = st.floats(0, 1e6, allow_nan=False)
CHANCES = st.floats(0, 1, allow_nan=False)


# The policy.


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    return RetryPolicy(
        attempts=draw(st.integers(1, 10**6)),
        base_delay=draw(SECONDS),
        max_delay=draw(SECONDS),
        deadline=draw(st.none() | st.floats(1e-3, 1e6)),
    )


@given(policies(), st.integers(1, 10**7), SECONDS, CHANCES)
@example(RetryPolicy(attempts=10**6, max_delay=1e300, base_delay=1e300), 10**5, 0.0, 1.0)
def test_a_delay_is_within_its_bounds(
    policy: RetryPolicy, attempt: int, elapsed: float, chance: float
) -> None:
    delay = policy.delay(ServerFault("x"), attempt=attempt, elapsed=elapsed, chance=chance)
    if attempt >= policy.attempts:
        assert delay is None
    elif policy.deadline is None:
        assert delay is not None
    if delay is not None:
        assert 0 <= delay <= policy.max_delay
        assert delay <= policy.base_delay * 2.0 ** min(attempt - 1, 1000)
        assert policy.deadline is None or elapsed + delay < policy.deadline


@given(policies(), st.integers(1, 100), SECONDS, CHANCES, st.floats(0, 1e9))
def test_what_the_server_asks_for_is_kept_up_to_a_minute(
    policy: RetryPolicy, attempt: int, elapsed: float, chance: float, asked: float
) -> None:
    error = RateLimited("x")
    error.retry_after = asked
    delay = policy.delay(error, attempt=attempt, elapsed=elapsed, chance=chance)
    if attempt >= policy.attempts or asked > 60:
        assert delay is None
    if delay is not None:
        # Never before it, and not much after it.
        assert asked <= delay <= asked + 1.0
        assert policy.deadline is None or elapsed + delay < policy.deadline


def test_delays_grow_and_are_drawn_from_zero() -> None:
    policy = RetryPolicy(attempts=20, base_delay=0.2, max_delay=5.0)
    highest = [
        policy.delay(ServerFault("x"), attempt=n, elapsed=0.0, chance=1.0) for n in range(1, 19)
    ]
    assert highest[:5] == [0.2, 0.4, 0.8, 1.6, 3.2]
    assert highest[5:] == [5.0] * 13
    for number in range(1, 19):
        lowest = policy.delay(ServerFault("x"), attempt=number, elapsed=0.0, chance=0.0)
        assert lowest == 0.0


def test_one_attempt_means_no_retry() -> None:
    policy = RetryPolicy(attempts=1)
    assert policy.delay(ServerFault("x"), attempt=1, elapsed=0.0, chance=0.5) is None


def test_the_default_policy_is_as_documented() -> None:
    policy = RetryPolicy()
    assert (policy.attempts, policy.base_delay, policy.max_delay) == (4, 0.2, 5.0)
    assert policy.deadline is None
    assert hash(policy) == hash(RetryPolicy())
    with pytest.raises(AttributeError):
        policy.attempts = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": -1},
        {"base_delay": -0.1},
        {"base_delay": math.nan},
        {"base_delay": math.inf},
        {"max_delay": -1},
        {"max_delay": math.inf},
        {"deadline": 0},
        {"deadline": -1.0},
        {"deadline": math.nan},
        {"deadline": math.inf},
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        RetryPolicy(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": True},
        {"attempts": 2.0},
        {"attempts": "3"},
        {"attempts": None},
        {"base_delay": "1"},
        {"max_delay": None},
        {"deadline": "soon"},
    ],
)
def test_what_is_no_number_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        RetryPolicy(**options)


# The header.

NOW = datetime(2030, 5, 1, 12, 0, 0, tzinfo=UTC).timestamp()


def asked_for(*values: str, status: int = 503) -> float | None:
    headers: CIMultiDict[str] = CIMultiDict()
    for value in values:
        headers.add("Retry-After", value)
    identity = wire.Identity(SessionId("s3ssion"))
    call = wire.delete(1)
    error = wire.decode(call, status, headers, b"", identity, replies.Rosters(), lambda: NOW)
    assert isinstance(error, ApiError)
    return error.retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("1", 1),
        (" 7 ", 7),
        ("007", 7),
        ("60", 60),
        ("86400", 86400),
        (formatdate(NOW + 30, usegmt=True), 30),
        (formatdate(NOW - 30, usegmt=True), 0),
        (formatdate(NOW, usegmt=True), 0),
        ("Wednesday, 01-May-30 12:00:10 GMT", 10),
        ("Wed May  1 12:00:10 2030", 10),
        ("Wed, 01 May 2030 14:00:10 +0200", 10),
    ],
)
def test_both_forms_of_the_header_are_read(value: str, seconds: float) -> None:
    assert asked_for(value) == pytest.approx(seconds, abs=0.001)
    assert asked_for(value, status=429) == pytest.approx(seconds, abs=0.001)


@pytest.mark.parametrize(
    "value",
    ["nan", "inf", "-inf", "-1", "+5", "1e400", "1e3", "0x10", "1.5", "1,5", "5 seconds", "soon",
     "", " ", "٣", "²", "1_000", "Wed, 99 May 2030 12:00:10 GMT", "Wed, 01 May 99999 12:00:10 GMT",
     "5;3", "None"],
)  # fmt: skip
def test_junk_in_the_header_is_no_wish(value: str) -> None:
    assert asked_for(value) is None


def test_a_header_that_is_repeated_is_no_wish() -> None:
    assert asked_for("5", "5") is None
    assert asked_for("5", "soon") is None


def test_more_digits_than_a_number_has_are_no_short_wait() -> None:
    asked = asked_for("9" * 500)
    assert asked is None or asked > LONGEST_RETRY_AFTER


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))
        | st.integers().map(str)
        | st.floats().map(str)
        | st.floats(-1e12, 1e12).map(lambda when: formatdate(abs(when) % 1e10, usegmt=True)),
        max_size=3,
    ),
    policies(),
    CHANCES,
)
def test_whatever_the_header_nobody_sleeps_over_a_minute_for_it(
    values: list[str], policy: RetryPolicy, chance: float
) -> None:
    error = ServerFault("x")
    error.retry_after = asked_for(*values)
    assert error.retry_after is None or error.retry_after >= 0
    delay = policy.delay(error, attempt=1, elapsed=0.0, chance=chance)
    assert delay is None or 0 <= delay <= max(policy.max_delay, LONGEST_RETRY_AFTER + 1)


# The budget.


def test_the_budget_begins_with_ten_and_gains_a_tenth_for_each_success() -> None:
    budget = RetryBudget()
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]
    for _ in range(9):
        budget.earn()
        assert not budget.spend()
    for _ in range(2):
        budget.earn()
    assert budget.spend()
    assert not budget.spend()
    for _ in range(1000):
        budget.earn()
    assert [budget.spend() for _ in range(11)] == [True] * 10 + [False]


@given(st.lists(st.booleans(), max_size=500))
def test_repeats_never_exceed_ten_and_a_tenth_of_the_successes(events: list[bool]) -> None:
    budget, successes, repeats = RetryBudget(), 0, 0
    for success in events:
        if success:
            budget.earn()
            successes += 1
        else:
            repeats += budget.spend()
        assert repeats <= 10 + 0.1 * successes + 1e-6
        assert 0 <= budget.tokens <= budget.capacity
    assert "RetryBudget" in repr(budget)


# Who may be repeated, and what is left in the end.


def fault(code: int | None, status: int) -> ServerFault:
    error = ServerFault("x")
    error.code, error.http_status = code, status
    return error


def made(kind: type[DeepCallError], **attributes: Any) -> DeepCallError:
    error = kind("x")
    error.endpoint, error.attempts = "groups.any", 2
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


REPEATS: tuple[Method, ...] = ("safe", "idempotent", "non_idempotent")
# Error, whether to repeat it for each kind of request, and whether a change may have been applied.
TABLE = [
    (made(ConnectFailed), (True, True, True), False),
    (made(ConnectFailed, fatal=True), (False, False, False), False),
    (made(RequestTimeout), (True, True, False), True),
    (made(ConnectionLost), (True, True, False), True),
    (made(ConnectionLost, stale=True), (True, True, False), True),
    (fault(1009, 200), (True, True, False), True),
    (fault(1010, 200), (True, True, False), True),
    (fault(1032, 500), (True, True, False), True),
    (fault(None, 500), (True, True, False), True),
    (fault(None, 502), (True, True, False), True),
    (fault(None, 503), (True, True, False), True),
    (fault(None, 504), (True, True, False), True),
    (fault(None, 501), (False, False, False), True),
    (fault(None, 505), (False, False, False), True),
    (made(RateLimited), (True, False, False), False),
    (made(AuthenticationFailed), (False, False, False), False),
    (made(PermissionDenied), (False, False, False), False),
    (made(BadRequest), (False, False, False), False),
    (made(NoData), (False, False, False), False),
    (made(GroupUnavailable), (False, False, False), False),
    (made(ApiError, code=4711), (False, False, False), False),
    (made(UnexpectedReply), (False, False, False), False),
    (made(ResponseTooLarge), (False, False, False), False),
    (made(ClientClosed), (False, False, False), False),
    (made(ClientClosed, sent=True), (False, False, False), True),
    (made(OutcomeUnknown), (False, False, False), False),
]


@pytest.mark.parametrize(("error", "repeated", "applied"), TABLE, ids=lambda each: repr(each)[:40])
def test_the_table_of_errors_and_kinds_of_request(
    error: DeepCallError, repeated: tuple[bool, ...], applied: bool
) -> None:
    assert tuple(is_retryable(error, repeat) for repeat in REPEATS) == repeated
    assert may_have_applied(error) is applied
    for repeat in REPEATS:
        for ambiguous in (True, False):
            settled = final_error(error, repeat, maybe_applied=ambiguous)
            if repeat == "safe" or not ambiguous:
                assert settled is error
                continue
            assert isinstance(settled, OutcomeUnknown)
            assert settled.__cause__ is error
            assert (settled.endpoint, settled.attempts) == (error.endpoint, error.attempts)
            assert type(error).__name__ in str(settled)
            assert settled.candidates == ()


def test_a_timeout_before_anything_was_sent_leaves_no_doubt() -> None:
    assert not may_have_applied(made(RequestTimeout, sent=False))


def test_a_change_is_never_repeated_when_it_may_have_been_applied() -> None:
    for error, _, applied in TABLE:
        if applied:
            assert not is_retryable(error, "non_idempotent")


def test_every_class_of_error_is_in_the_table() -> None:
    import deepcall_async

    kinds = {
        value
        for name in deepcall_async.__all__
        if isinstance(value := getattr(deepcall_async, name), type)
        and issubclass(value, DeepCallError)
    }
    # Two are roots that are never raised themselves, and one ends a fan-out, not a call.
    kinds -= {DeepCallError, deepcall_async.TransportError, deepcall_async.TooManyFailures}
    assert {type(error) for error, *_ in TABLE} == kinds


def test_the_route_table_says_how_each_endpoint_may_be_repeated() -> None:
    listing = wire.list_groups(name=None, group_id=None, quick=None, forward=None)
    calls: dict[str, wire.Call[Any]] = {
        call.endpoint.name: call
        for call in (
            listing,
            wire.agent_relation(1, quick=True, name=None),
            wire.delete(1),
            wire.add("A"),
            wire.update(1, name="A", status=None),
            wire.assign_agents(1, [1], receive_call=()),
        )
    }
    assert {name: call.endpoint.method for name, call in calls.items()} == {
        "groups.list": "safe",
        "groups.agent_relation": "safe",
        "groups.delete": "idempotent",
        "groups.add": "non_idempotent",
        "groups.update": "non_idempotent",
        "groups.assign_agents": "non_idempotent",
    }
    assert [name for name, call in calls.items() if call.when_gone is not None] == ["groups.delete"]


def test_jitter_is_full() -> None:
    policy = RetryPolicy(base_delay=1.0)
    delays = [
        policy.delay(ServerFault("x"), attempt=1, elapsed=0.0, chance=n / 10) for n in range(11)
    ]
    assert all(b > a for a, b in pairwise(delays))  # type: ignore[operator]
    assert (delays[0], delays[-1]) == (0.0, 1.0)
