"""Adaptive concurrency, on a simulated service and a simulated clock: nothing waits for real."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count, pairwise
from typing import Literal, NamedTuple, TypeVar

import pytest

from deepcall_async import (
    Adaptive,
    ConnectionLost,
    DeepCallError,
    Ok,
    Progress,
    RateLimited,
    RequestTimeout,
    ServerFault,
    collect,
    fan_out,
)
from deepcall_async.events import AttemptEnded, attempt_observer
from deepcall_async.pacing import Limiter, Pace, Patience
from tests.support.loops import simulate
from tests.support.rows import mostly_thorough
from tests.support.simulation import Gate

T = TypeVar("T")
Mode = Literal["queue", "refuse"]

SERVICE = 0.05
SETTLED, PHASE = 3.0, 5.0
BOUNDS = Adaptive(min=4, max=256)


def attempted(started: float, ended: float, error: DeepCallError | None) -> AttemptEnded:
    return AttemptEnded(1, "groups.list", 1, None, None, error, started, ended, True, 0, 0)


class Service:
    """Serves some at once; what is more waits in line, or is refused at once."""

    def __init__(self, capacity: int, mode: Mode, *, service: float, hiccup: float = 0.0) -> None:
        self.capacity = capacity
        self.service = service
        self.answered = 0
        self.refused = 0
        self._mode = mode
        self._hiccup = hiccup
        self._busy = 0
        self._line: deque[asyncio.Future[None]] = deque()
        self._chance = random.Random(1)

    async def ask(self) -> bool:
        """Whether it was answered."""
        await asyncio.sleep(0.0003)
        if self._busy >= self.capacity:
            if self._mode == "refuse":
                self.refused += 1
                return False
            turn = asyncio.get_running_loop().create_future()
            self._line.append(turn)
            await turn
        self._busy += 1
        await asyncio.sleep(self.service + self._chance.expovariate(500))
        # Every now and then all that is in flight is held up at once.
        since = asyncio.get_running_loop().time() % 2
        if since < self._hiccup:
            await asyncio.sleep(self._hiccup - since)
        self._busy -= 1
        self.answered += 1
        if self._line and self._busy < self.capacity:
            self._line.popleft().set_result(None)
        return True

    async def attempt(self) -> RateLimited | None:
        """One attempt of a lookup, reported as the client reports its own."""
        loop = asyncio.get_running_loop()
        sent = loop.time()
        error = None if await self.ask() else RateLimited("too much")
        observer = attempt_observer.get()
        assert observer is not None
        observer(attempted(sent, loop.time(), error))
        return error

    async def lookup(self, key: int) -> int:
        """A lookup that is repeated with backoff until it is answered."""
        for number in count():
            if await self.attempt() is None:
                break
            await asyncio.sleep(self._chance.random() * 0.2 * 2 ** min(number, 3))
        return key


class Settled(NamedTuple):
    """A phase, once settled: the part of what the service can do, and of requests refused."""

    share: float
    refused: float
    lowest: int
    highest: int


async def _phases(
    mode: Mode,
    phases: list[tuple[int, float]],
    *,
    hiccup: float = 0.0,
    bounds: Adaptive = BOUNDS,
) -> list[Settled]:
    """Fan out without end over a service whose capacity and speed change."""
    found: list[Settled] = []
    service = Service(phases[0][0], mode, service=SERVICE, hiccup=hiccup)
    over = False

    def keys() -> Iterator[int]:
        number = 0
        while not over:
            yield number
            number += 1

    async with fan_out(service.lookup, keys(), concurrency=bounds) as outcomes:

        async def direct() -> None:
            nonlocal over
            for service.capacity, service.service in phases:
                await asyncio.sleep(SETTLED)
                answered, refused, limits = service.answered, service.refused, []
                for _ in range(80):
                    await asyncio.sleep((PHASE - SETTLED) / 80)
                    limits.append(outcomes._limiter.limit)
                answered, refused = service.answered - answered, service.refused - refused
                able = min(service.capacity, bounds.max) / (service.service + 0.002)
                share = answered / (able * (PHASE - SETTLED))
                part = refused / (refused + answered)
                found.append(Settled(share, part, min(limits), max(limits)))
            over = True

        director = asyncio.create_task(direct())
        async for outcome in outcomes:
            assert isinstance(outcome, Ok)
        await director
    return found


@pytest.mark.parametrize("mode", mostly_thorough(["refuse", "queue"]))
def test_it_follows_a_capacity_that_changes(mode: Mode) -> None:
    found = simulate(_phases(mode, [(40, SERVICE), (120, SERVICE), (10, SERVICE)]))
    for phase in found:
        assert phase.share >= 0.9
        assert phase.refused < 0.02
        assert phase.lowest >= BOUNDS.min


def test_it_does_not_creep_up_where_all_excess_waits() -> None:
    found = simulate(_phases("queue", [(40, SERVICE)] * 3))
    assert all(phase.highest <= 2.2 * 40 for phase in found)
    assert all(phase.share >= 0.95 for phase in found)


@pytest.mark.parametrize("factor", mostly_thorough([1.5, 5]))
def test_a_service_that_becomes_slower_for_good_is_not_taken_for_a_queue(factor: float) -> None:
    phases = [(1000, SERVICE), (1000, SERVICE * factor), (1000, SERVICE)]
    found = simulate(_phases("queue", phases, bounds=Adaptive(min=4, max=64)))
    assert all(phase.share >= 0.9 for phase in found)


@pytest.mark.parametrize("mode", mostly_thorough(["queue", "refuse"]))
def test_a_hiccup_costs_no_more_than_its_own_time(mode: Mode) -> None:
    for phase in simulate(_phases(mode, [(40, SERVICE), (120, SERVICE)], hiccup=0.3)):
        assert phase.share >= 0.85 * 0.85
        assert phase.refused < 0.02


def test_a_tiny_capacity_and_bounds_that_leave_no_choice() -> None:
    (phase,) = simulate(_phases("refuse", [(4, SERVICE)]))
    assert phase.share >= 0.85
    pace = paced(Adaptive(min=3, max=3))
    for error in (None, RateLimited("no"), None, RequestTimeout("late")) * 50:
        _answer(pace, error)
        assert pace.limiter.limit == 3


def test_it_grows_by_half_until_the_first_sign() -> None:
    pace = paced(BOUNDS)
    limits = [pace.limiter.limit]
    while pace.limiter.limit < BOUNDS.max:
        _fill(pace)
        _window(pace)
        limits.append(pace.limiter.limit)
    assert all(after <= 1.5 * before + 1 for before, after in pairwise(limits))
    assert len(limits) < 15


def test_after_a_sign_it_grows_by_one_then_faster() -> None:
    pace = _at_some_hundred()
    _answer(pace, RateLimited("no"), after=1.0)
    start = pace.limiter.limit
    while pace.limiter.limit == start:
        _window(pace)
    for step in range(1, 5):
        assert pace.limiter.limit == start + step
        _fill(pace)
        _window(pace)
    for _ in range(4):
        _fill(pace)
        _window(pace)
    assert pace.limiter.limit > start + 15


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (RateLimited("no"), True),
        (RequestTimeout("late"), True),
        (ServerFault("busy"), False),
        (ConnectionLost("gone"), False),
    ],
)
def test_what_is_a_sign_of_too_much(error: DeepCallError, counts: bool) -> None:
    pace = _at_some_hundred()
    before = pace.limiter.limit
    _answer(pace, error, after=1.0)
    assert (pace.limiter.limit < before) is counts


def test_a_server_that_says_when_to_come_back_has_too_much() -> None:
    pace = _at_some_hundred()
    before, error = pace.limiter.limit, ServerFault("busy")
    error.retry_after = 1.0
    _answer(pace, error, after=1.0)
    assert pace.limiter.limit < before


def test_many_refusals_at_once_are_one_sign() -> None:
    pace = _at_some_hundred()
    before = pace.limiter.limit
    _answer(pace, RateLimited("no"), after=1.0)
    for _ in range(50):
        _answer(pace, RateLimited("no"), after=0.0001)
    assert 0.88 * before < pace.limiter.limit < 0.92 * before


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    pace = paced(BOUNDS)
    for _ in range(50):
        _window(pace)
    assert pace.limiter.limit == BOUNDS.min


class Paced(NamedTuple):
    """A pace, and the limiter whose limit it moves."""

    observe: Callable[[AttemptEnded], None]
    limiter: Limiter


def paced(bounds: Adaptive) -> Paced:
    limiter = Limiter(bounds.max)
    return Paced(Pace(bounds, limiter).attempt_ended, limiter)


class _Clock:
    now = 0.0


def _answer(pace: Paced, error: DeepCallError | None, *, after: float = 0.0) -> None:
    """An attempt that began `after` seconds from now and took the service's time."""
    _Clock.now += after
    sent = _Clock.now
    _Clock.now += 1e-6
    pace.observe(attempted(sent, sent + SERVICE, error))


def _window(pace: Paced) -> None:
    _Clock.now += SERVICE
    for _ in range(pace.limiter.limit):
        _answer(pace, None)


def _fill(pace: Paced) -> None:
    """Let calls in up to the limit."""
    while pace.limiter.try_acquire():
        pass


def _at_some_hundred() -> Paced:
    _Clock.now += 100
    pace = paced(Adaptive(min=4, max=1000))
    while pace.limiter.limit < 100:
        _fill(pace)
        _window(pace)
    _fill(pace)
    return pace


# The limiter.


async def _turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_limiter_lets_in_up_to_its_limit_and_in_order() -> None:
    async def scene() -> None:
        limiter = Limiter(2)
        order: list[int] = []

        async def enter(number: int) -> None:
            await limiter.acquire()
            order.append(number)

        tasks = [asyncio.create_task(enter(number)) for number in range(5)]
        await _turns()
        assert (limiter.active, limiter.waiting, order) == (2, 3, [0, 1])
        # The place goes to who waits, not to who asks in this turn.
        limiter.release()
        assert not limiter.try_acquire()
        await _turns()
        assert order == [0, 1, 2]
        limiter.move_to(4)
        await _turns()
        assert order == [0, 1, 2, 3, 4]
        assert (limiter.active, limiter.waiting) == (4, 0)
        limiter.move_to(1)
        for _ in range(3):
            limiter.release()
            assert not limiter.try_acquire()
        limiter.release()
        assert limiter.try_acquire()
        await asyncio.gather(*tasks)

    simulate(scene())


def test_cancelled_waiters_leave_no_place_taken_and_none_empty() -> None:
    async def scene() -> None:
        chance = random.Random(3)
        limiter = Limiter(3)
        entered = 0

        async def stay() -> None:
            nonlocal entered
            await limiter.acquire()
            try:
                entered += 1
                assert limiter.active <= 5
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                limiter.release()

        tasks: list[asyncio.Task[None]] = []
        for _ in range(3000):
            tasks.append(asyncio.create_task(stay()))
            if chance.random() < 0.5:
                await asyncio.sleep(0)
            if chance.random() < 0.4:
                chance.choice(tasks).cancel()
            if chance.random() < 0.05:
                limiter.move_to(chance.randrange(1, 6))
        await asyncio.gather(*tasks, return_exceptions=True)
        assert entered > 1000
        assert (limiter.active, limiter.waiting) == (0, 0)

    simulate(scene())


def test_a_waiter_that_is_gone_does_not_block_the_next() -> None:
    async def scene() -> None:
        limiter = Limiter(1)
        assert limiter.try_acquire()
        waiter = asyncio.create_task(limiter.acquire())
        await _turns()
        # In one turn: given up, not yet noticed, and the place is free.
        waiter.cancel()
        limiter.release()
        assert limiter.try_acquire()
        await asyncio.gather(waiter, return_exceptions=True)
        assert (limiter.active, limiter.waiting) == (1, 0)

    simulate(scene())


# Patience.


def test_the_clock_of_patience_runs_from_the_first_trouble_after_a_success() -> None:
    patience = Patience(60.0)
    assert patience.remaining(1000.0) == 60.0
    patience.trouble(1000.0)
    patience.trouble(1030.0)
    assert patience.remaining(1040.0) == 20.0
    patience.succeeded()
    assert patience.remaining(1055.0) == 60.0
    patience.trouble(1060.0)
    assert patience.remaining(1119.0) == 1.0
    assert patience.remaining(5000.0) == 0.0


def test_patience_tells_when_calls_begin_to_wait_and_when_none_does() -> None:
    told: list[tuple[int, str | None]] = []
    patience = Patience(60.0, lambda: told.append((patience.waiting, patience.waiting_for)))
    patience.hold("throttled")
    patience.hold("no answer from brand.invalid:443")
    assert (patience.waiting, patience.waiting_for) == (2, "no answer from brand.invalid:443")
    patience.release()
    assert patience.waiting_for is not None
    patience.release()
    assert told == [(1, "throttled"), (0, None)]
    assert Patience(float("inf")).remaining(1e9) == float("inf")


def test_progress_is_shown_each_second_while_calls_wait() -> None:
    told: list[Progress] = []

    async def main() -> None:
        gate = Gate()
        gate.closed = True
        asyncio.get_running_loop().call_later(10.5, gate.opened.set)
        batch = await collect(gate.call, range(3), progress=told.append)
        assert len(batch.ok) == 3
        # And no more when all is over.
        await asyncio.sleep(10)

    simulate(main())
    waited = [each for each in told if each.waiting_for is not None]
    assert len(waited) == 11
    assert [each.done for each in waited] == [0] * 11
    assert [each.done for each in told[11:]] == [1, 2, 3]


def test_a_bug_in_the_progress_callback_is_raised_also_while_calls_wait() -> None:
    def broken(_: Progress) -> None:
        raise LookupError("mine")

    async def main() -> None:
        gate = Gate()
        gate.closed = True
        with pytest.raises(LookupError, match="mine"):
            await collect(gate.call, range(3), progress=broken)

    simulate(main())
