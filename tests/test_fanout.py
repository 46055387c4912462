"""Fan-out: one outcome for each key, bounded and lazy, and every way of its ending."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepcall_async import (
    Adaptive,
    AuthenticationFailed,
    BadRequest,
    Batch,
    ConnectFailed,
    ConnectionLost,
    DeepCall,
    DeepCallError,
    Failed,
    FanOut,
    GroupUnavailable,
    Ok,
    Progress,
    RateLimited,
    RequestTimeout,
    RetryPolicy,
    ServerFault,
    SessionId,
    TooManyFailures,
    UserToken,
    collect,
    fan_out,
)
from deepcall_async.events import attempt_observer
from deepcall_async.pacing import Patience, current_patience
from deepcall_async.sandbox import Sandbox
from tests.support.faultserver import Delay, FaultServer, Received, Reset, Send, Stall, Step
from tests.support.hazards import refused_port
from tests.support.replies import error, reply, serve
from tests.support.simulation import Gate

pytestmark = pytest.mark.anyio

Call = Callable[[int], Awaitable[int]]
both_orders = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "as they come"])


async def double(key: int) -> int:
    await asyncio.sleep(0)
    return key * 2


async def at_once(key: int) -> int:
    return key * 2


def refusing(*bad: int) -> Call:
    async def call(key: int) -> int:
        await asyncio.sleep(0)
        if key in bad:
            raise GroupUnavailable(f"no group {key}")
        return key * 2

    return call


class Source:
    """Keys without end, which tells how far it has been asked."""

    def __init__(self, start: int = 0, stop: int = 10_000_000) -> None:
        self.pulled = 0
        self._keys = iter(range(start, stop))

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        key = next(self._keys)
        self.pulled += 1
        return key


class AsyncSource:
    """The same, asynchronously, and not a generator."""

    def __init__(self, stop: int = 10_000_000) -> None:
        self.pulled = 0
        self._stop = stop

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        await asyncio.sleep(0)
        if self.pulled == self._stop:
            raise StopAsyncIteration
        self.pulled += 1
        return self.pulled - 1


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    for _ in range(5):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before
    # The test plugin runs each fixture and each test in a task of its own.
    assert not [task for task in left if "TestRunner" not in repr(task.get_coro())]


async def everything(run: FanOut[Any, Any]) -> list[Any]:
    async with run as outcomes:
        return [outcome async for outcome in outcomes]


# One outcome for each key.


@st.composite
def workloads(draw: st.DrawFn) -> dict[str, Any]:
    keys = draw(st.lists(st.integers(0, 30), max_size=60))
    return {
        "keys": keys,
        "turns": draw(st.lists(st.integers(0, 6), min_size=31, max_size=31)),
        "bad": draw(st.sets(st.integers(0, 30))),
        "concurrency": draw(st.integers(1, 40) | st.just(Adaptive(min=2, max=16))),
        "ordered": draw(st.booleans()),
        "lazy": draw(st.sampled_from(["list", "iterator", "async"])),
        "slow": draw(st.integers(0, 3)),
    }


def run_alone(kind: Any, main: Callable[[], Awaitable[None]]) -> None:
    factory = None
    if kind[1].get("use_uvloop"):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())  # type: ignore[arg-type]


def test_one_outcome_for_each_key_whatever_the_load(anyio_backend: Any) -> None:
    @given(workloads())
    def check(load: dict[str, Any]) -> None:
        in_flight = most = 0
        limit = load["concurrency"]

        async def call(key: int) -> int:
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            try:
                for _ in range(load["turns"][key]):
                    await asyncio.sleep(0)
                if key in load["bad"]:
                    raise GroupUnavailable(f"no {key}")
                return key * 2
            finally:
                in_flight -= 1

        async def later(keys: list[int]) -> AsyncIterator[int]:
            for key in keys:
                await asyncio.sleep(0)
                yield key

        async def main() -> None:
            keys = load["keys"]
            given_keys: Any = {"list": keys, "iterator": iter(keys)}.get(load["lazy"])
            if given_keys is None:
                given_keys = later(keys)
            seen = []
            async with fan_out(
                call, given_keys, concurrency=limit, ordered=load["ordered"]
            ) as outcomes:
                async for outcome in outcomes:
                    seen.append(outcome)
                    for _ in range(load["slow"]):
                        await asyncio.sleep(0)
            found = [outcome.key for outcome in seen]
            assert found == keys if load["ordered"] else Counter(found) == Counter(keys)
            for outcome in seen:
                if outcome.key in load["bad"]:
                    assert isinstance(outcome, Failed)
                    assert str(outcome.error) == f"no {outcome.key}"
                else:
                    assert outcome == Ok(outcome.key, outcome.key * 2)
            assert most <= (limit.max if isinstance(limit, Adaptive) else limit)

        run_alone(anyio_backend, main)

    check()


@both_orders
async def test_duplicates_each_get_their_outcome(ordered: bool) -> None:
    outcomes = await everything(fan_out(double, [3, 3, 5, 3], concurrency=2, ordered=ordered))
    assert Counter(outcome.key for outcome in outcomes) == {3: 3, 5: 1}


@both_orders
@pytest.mark.parametrize("call", [double, at_once])
async def test_no_keys_give_no_outcomes(call: Call, ordered: bool) -> None:
    async def none() -> AsyncIterator[int]:
        return
        yield

    for keys in ([], iter(()), none()):
        assert await everything(fan_out(call, keys, ordered=ordered)) == []


async def test_unhashable_keys_are_welcome() -> None:
    async def total(key: list[int]) -> int:
        return sum(key)

    outcomes = await everything(fan_out(total, [[1, 2], [3]], ordered=True))
    assert outcomes == [Ok([1, 2], 3), Ok([3], 3)]


async def test_a_failing_key_is_one_failure_and_no_group_of_them() -> None:
    outcomes = await everything(fan_out(refusing(3, 4), range(6), ordered=True))
    assert [type(outcome) for outcome in outcomes] == [Ok, Ok, Ok, Failed, Failed, Ok]
    match outcomes[3]:
        case Failed(key=3, error=GroupUnavailable() as why):
            assert str(why) == "no group 3"
        case _:
            pytest.fail("not the failure of key 3")


# Lazy and bounded.


@both_orders
@pytest.mark.parametrize("concurrency", [1, 8, Adaptive(min=1, max=8)])
async def test_ten_million_keys_are_pulled_only_as_they_are_consumed(
    concurrency: int | Adaptive, ordered: bool
) -> None:
    source, workers = Source(), 1 if concurrency == 1 else 8
    tasks = len(asyncio.all_tasks())
    taken = 0
    async with fan_out(at_once, source, concurrency=concurrency, ordered=ordered) as outcomes:
        async for _ in outcomes:
            taken += 1
            # A slow consumer: the workers may go as far as they can.
            for _ in range(30):
                await asyncio.sleep(0)
            assert source.pulled - taken <= 2 * workers
            assert len(asyncio.all_tasks()) - tasks <= workers
            if taken == 200:
                break
    assert source.pulled <= 200 + 2 * workers


@both_orders
async def test_async_keys_are_pulled_only_as_they_are_consumed(ordered: bool) -> None:
    source = AsyncSource()
    async with fan_out(at_once, source, concurrency=4, ordered=ordered) as outcomes:
        taken = 0
        async for _ in outcomes:
            taken += 1
            for _ in range(40):
                await asyncio.sleep(0)
            assert source.pulled - taken <= 8
            if taken == 50:
                break


async def test_a_slow_first_key_holds_an_ordered_run_at_its_window() -> None:
    release, source = asyncio.Event(), Source()

    async def call(key: int) -> int:
        if key == 0:
            await release.wait()
        return key

    async with fan_out(call, source, concurrency=4, ordered=True) as outcomes:
        for _ in range(100):
            await asyncio.sleep(0)
        assert source.pulled == 8
        release.set()
        first = [(await anext(outcomes)).key for _ in range(20)]
        assert first == list(range(20))


async def test_values_are_let_go_once_taken() -> None:
    class Value:
        alive = 0

        def __init__(self) -> None:
            Value.alive += 1

        def __del__(self) -> None:
            Value.alive -= 1

    async def call(key: int) -> Value:
        return Value()

    async with fan_out(call, range(2000), concurrency=4) as outcomes:
        async for outcome in outcomes:
            assert isinstance(outcome, Ok)
            assert Value.alive <= 2 * 4 + 2
    del outcome
    gc.collect()
    assert Value.alive == 0


async def test_lookups_run_at_the_concurrency_asked_for() -> None:
    in_flight = most = 0
    barrier = asyncio.Barrier(16)

    async def call(key: int) -> int:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        async with asyncio.timeout(2):
            await barrier.wait()
        in_flight -= 1
        return key

    await everything(fan_out(call, range(64), concurrency=16))
    assert most == 16


# Async iterables.


@both_orders
@pytest.mark.parametrize("way", ["early", "to the end", "consumer fails", "bug", "fatal"])
@pytest.mark.parametrize("through", ["fan_out", "collect"])
async def test_an_async_generator_is_closed_on_leaving(
    way: str, ordered: bool, through: str
) -> None:
    closed = False

    async def keys() -> AsyncIterator[int]:
        nonlocal closed
        try:
            for key in range(20 if way == "to the end" else 10**6):
                await asyncio.sleep(0)
                yield key
        finally:
            await asyncio.sleep(0)
            closed = True

    async def call(key: int) -> int:
        if way == "bug" and key == 7:
            raise LookupError("mine")
        if way == "fatal" and key == 7:
            raise AuthenticationFailed("no")
        return key

    source = keys()
    if through == "collect":
        if way in ("early", "consumer fails"):
            return
        with contextlib.suppress(LookupError, AuthenticationFailed):
            await collect(call, source, concurrency=3)
    else:
        with contextlib.suppress(LookupError, AuthenticationFailed):
            async with fan_out(call, source, concurrency=3, ordered=ordered) as outcomes:
                async for outcome in outcomes:
                    if way == "early" and outcome.key == 3:
                        break
                    if way == "consumer fails" and outcome.key == 3:
                        raise LookupError("mine")
    assert closed


async def test_slow_async_keys_do_not_hold_up_what_is_there() -> None:
    release = asyncio.Event()

    async def keys() -> AsyncIterator[int]:
        yield 1
        yield 2
        await release.wait()
        yield 3

    async with fan_out(double, keys()) as outcomes:
        async with asyncio.timeout(2):
            assert {(await anext(outcomes)).key, (await anext(outcomes)).key} == {1, 2}
        release.set()
        assert [outcome.key async for outcome in outcomes] == [3]


# Failures.


@both_orders
async def test_on_error_raise_raises_the_error_itself(ordered: bool) -> None:
    source = Source()
    run = fan_out(refusing(5), source, concurrency=2, ordered=ordered, on_error="raise")
    with pytest.raises(GroupUnavailable, match="no group 5"):
        await everything(run)
    assert source.pulled <= 12


@both_orders
async def test_max_failures_gives_what_is_finished_first(ordered: bool) -> None:
    source, seen = Source(), []
    call = refusing(*range(10, 10_000, 2))
    with pytest.raises(TooManyFailures, match="4 keys failed") as many:
        async with fan_out(
            call, source, concurrency=3, ordered=ordered, max_failures=3
        ) as outcomes:
            async for outcome in outcomes:
                seen.append(outcome)
    assert isinstance(many.value, DeepCallError)
    assert isinstance(many.value.__cause__, GroupUnavailable)
    failed = [outcome.key for outcome in seen if isinstance(outcome, Failed)]
    assert len(failed) >= 4
    assert set(failed) >= {10, 12, 14, 16}
    assert {outcome.key for outcome in seen} >= set(range(17))
    assert source.pulled <= 17 + 6


@pytest.mark.parametrize(("allowed", "bad", "raises"), [(0, 0, False), (0, 1, True), (2, 2, False)])
async def test_max_failures_counts_exactly(allowed: int, bad: int, raises: bool) -> None:
    run = fan_out(refusing(*range(bad)), range(20), max_failures=allowed)
    with pytest.raises(TooManyFailures) if raises else contextlib.nullcontext():
        assert len(await everything(run)) == 20


@both_orders
async def test_a_fatal_error_ends_the_run_whatever_on_error_says(ordered: bool) -> None:
    source = Source()

    async def call(key: int) -> int:
        await asyncio.sleep(0)
        if key == 6:
            raise AuthenticationFailed("expired")
        return key

    with pytest.raises(AuthenticationFailed, match="expired"):
        await everything(fan_out(call, source, concurrency=4, ordered=ordered))
    assert source.pulled <= 20


async def test_what_is_fatal_can_be_chosen() -> None:
    async def call(key: int) -> int:
        raise AuthenticationFailed("expired") if key % 2 else RequestTimeout("late")

    outcomes = await everything(fan_out(call, range(4), fatal=()))
    assert len(outcomes) == 4
    with pytest.raises(RequestTimeout):
        await everything(fan_out(call, range(4), concurrency=1, fatal=(RequestTimeout,)))
    with pytest.raises(AuthenticationFailed):
        await collect(call, [1])
    batch = await collect(call, [1, 2], fatal=())
    assert set(batch.failed) == {1, 2}


@both_orders
@pytest.mark.parametrize("kind", [ValueError, AssertionError, TimeoutError, StopAsyncIteration])
async def test_a_bug_in_the_call_is_raised_as_it_is(ordered: bool, kind: type[Exception]) -> None:
    bug = kind("mine")

    async def call(key: int) -> int:
        await asyncio.sleep(0)
        if key == 9:
            raise bug
        return key

    source = Source()
    with pytest.raises((kind, RuntimeError)) as caught:
        await everything(fan_out(call, source, concurrency=4, ordered=ordered))
    # Python itself turns the end of an iteration that escapes from a coroutine into RuntimeError.
    assert caught.value is bug or caught.value.__cause__ is bug
    assert source.pulled < 40


async def test_a_bug_is_raised_even_when_the_outcomes_are_not_asked_for() -> None:
    async def call(key: int) -> int:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        async with fan_out(call, range(5)):
            await asyncio.sleep(0.01)


@both_orders
async def test_a_call_that_is_no_coroutine_function_is_an_error(ordered: bool) -> None:
    run = fan_out(lambda key: key, [1, 2], ordered=ordered)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="await"):
        await everything(run)


async def test_a_call_that_cancels_itself_does_not_lose_its_key_in_silence() -> None:
    async def call(key: int) -> int:
        if key == 3:
            raise asyncio.CancelledError
        return key

    with pytest.raises(RuntimeError, match="cancelled"):
        await everything(fan_out(call, range(10), concurrency=2))


@both_orders
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_keys_that_fail_are_raised_after_what_is_in_flight(
    ordered: bool, asynchronous: bool
) -> None:
    def broken() -> Iterator[int]:
        yield from range(10)
        raise LookupError("no more keys")

    async def broken_too() -> AsyncIterator[int]:
        for key in range(10):
            yield key
        raise LookupError("no more keys")

    async def call(key: int) -> int:
        for _ in range(key % 4):
            await asyncio.sleep(0)
        return key

    seen = []
    with pytest.raises(LookupError, match="no more keys"):
        async with fan_out(
            call, broken_too() if asynchronous else broken(), concurrency=4, ordered=ordered
        ) as outcomes:
            async for outcome in outcomes:
                seen.append(outcome.key)
    assert sorted(seen) == list(range(10))


@pytest.mark.parametrize("through", [fan_out, collect])
async def test_keys_that_cannot_be_iterated_leave_nothing_behind(through: Any) -> None:
    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise LookupError("cannot begin")

    with pytest.raises(LookupError, match="cannot begin"):
        if through is fan_out:
            await everything(fan_out(double, Broken()))
        else:
            await collect(double, Broken())


# Leaving.


@both_orders
async def test_leaving_early_stops_the_workers(ordered: bool) -> None:
    cancelled: list[int] = []
    hanging = asyncio.Event()

    async def call(key: int) -> int:
        try:
            if key >= 5:
                hanging.set()
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(key)
            raise
        return key

    async with fan_out(call, range(100), concurrency=4, ordered=ordered) as outcomes:
        seen = []
        async for outcome in outcomes:
            seen.append(outcome.key)
            if len(seen) == 5:
                await hanging.wait()
                break
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert cancelled
    assert set(cancelled) <= {5, 6, 7, 8}


@both_orders
@pytest.mark.parametrize("kind", [LookupError, GroupUnavailable, KeyboardInterrupt])
async def test_the_consumers_exception_is_not_wrapped(
    ordered: bool, kind: type[BaseException]
) -> None:
    mine = kind("mine")
    with pytest.raises(kind) as caught:
        async with fan_out(double, range(100), concurrency=4, ordered=ordered) as outcomes:
            async for outcome in outcomes:
                if outcome.key == 10:
                    raise mine
    assert caught.value is mine
    assert caught.value.__cause__ is None


async def test_the_consumers_exception_wins_over_a_bug_of_the_call() -> None:
    async def call(key: int) -> int:
        if key:
            raise ValueError("the call's")
        return key

    with pytest.raises(LookupError, match="the consumer's"):
        async with fan_out(call, range(9), concurrency=1) as outcomes:
            await anext(outcomes)
            await asyncio.sleep(0)
            raise LookupError("the consumer's")


@both_orders
async def test_cancelling_from_outside_cancels_and_leaves_nothing(ordered: bool) -> None:
    entered = asyncio.Event()
    ended = 0

    async def call(key: int) -> int:
        nonlocal ended
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1
        return key

    async def main() -> None:
        await everything(fan_out(call, Source(), concurrency=5, ordered=ordered))

    task = asyncio.create_task(main())
    await entered.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == 5
    assert task.cancelled()


@both_orders
@pytest.mark.parametrize("concurrency", [3, Adaptive(min=1, max=3)])
async def test_a_timeout_around_it_is_a_timeout(ordered: bool, concurrency: int | Adaptive) -> None:
    async def call(key: int) -> int:
        if key > 3:
            await asyncio.Event().wait()
        return key

    seen = []
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            async with fan_out(
                call, range(100), concurrency=concurrency, ordered=ordered
            ) as outcomes:
                async for outcome in outcomes:
                    seen.append(outcome.key)
    assert sorted(seen) == [0, 1, 2, 3]
    # The timeout took its own cancellation back.
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_timeout_inside_it_leaves_the_rest_to_be_taken() -> None:
    release = asyncio.Event()

    async def call(key: int) -> int:
        await release.wait()
        return key

    async with fan_out(call, range(5), concurrency=2) as outcomes:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(outcomes)
        release.set()
        assert sorted([outcome.key async for outcome in outcomes]) == [0, 1, 2, 3, 4]


async def test_a_fan_out_within_a_task_group_ends_with_it() -> None:
    class Stop(Exception):
        pass

    async def stop() -> None:
        await asyncio.sleep(0.01)
        raise Stop

    async def hang(key: int) -> int:
        await asyncio.Event().wait()
        return key

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(everything(fan_out(hang, range(9))))
            group.create_task(stop())
    assert [type(each) for each in caught.value.exceptions] == [Stop]


@both_orders
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_a_lookup_that_swallows_its_cancellation_holds_nobody(
    ordered: bool, asynchronous: bool
) -> None:
    """Once is enough to be waited for, and to be cancelled again."""
    swallowed = hanging = 0

    async def keys() -> AsyncIterator[int]:
        for key in range(100):
            yield key

    async def call(key: int) -> int:
        nonlocal swallowed, hanging
        if key < 5:
            return key
        hanging += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed += 1
            await asyncio.Event().wait()
        return key

    async with fan_out(
        call, keys() if asynchronous else range(100), concurrency=4, ordered=ordered
    ) as outcomes:
        async for _ in outcomes:
            # Wait until the window is full, so that nobody waits for a key.
            while hanging < 4 or outcomes._window.room > 0:
                await asyncio.sleep(0)
            break
        left = asyncio.get_running_loop().time()
    assert swallowed == 4
    assert asyncio.get_running_loop().time() - left >= 0.8
    assert not outcomes._calls


async def test_what_ignores_two_cancellations_is_left_running_and_named() -> None:
    released = asyncio.Event()

    async def stubborn(key: str) -> str:
        if key == "quick":
            return key
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()
        return key

    before = asyncio.all_tasks()
    outcomes = fan_out(stubborn, ["quick", "slow"])

    async def leave() -> None:
        async with outcomes:
            await anext(outcomes)
            for _ in range(3):
                await asyncio.sleep(0)

    with pytest.warns(RuntimeWarning, match="stubborn for 'slow'") as caught:
        await leave()
    assert caught[0].filename == __file__
    assert len(asyncio.all_tasks() - before) == 1
    with pytest.raises(StopAsyncIteration):
        await anext(outcomes)
    released.set()
    # It ends without harm, and without a word.
    while asyncio.all_tasks() - before:
        await asyncio.sleep(0)
    assert repr(outcomes) == "<FanOut 0 in flight, 1 done>"


async def test_a_key_generator_that_cannot_be_closed_is_left_too() -> None:
    released = asyncio.Event()

    async def keys() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            while not released.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await released.wait()

    before = asyncio.all_tasks()
    with pytest.warns(RuntimeWarning, match="iteration over the keys"):
        async with fan_out(at_once, keys()) as outcomes:
            await anext(outcomes)
    released.set()
    while asyncio.all_tasks() - before:
        await asyncio.sleep(0)


async def test_leaving_can_be_cancelled() -> None:
    cancelled = asyncio.Event()
    cancellations: Counter[int] = Counter()

    async def call(key: int) -> int:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancellations[key] += 1
                cancelled.set()
                if cancellations[key] == 2:
                    raise

    async def main() -> None:
        async with fan_out(call, range(3), concurrency=3):
            await asyncio.sleep(0.01)

    task = asyncio.create_task(main())
    await cancelled.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    # Its cancellation was not swallowed and was passed on at once, before the 0.8 s were over.
    assert cancellations == {0: 2, 1: 2, 2: 2}


class Mine(BaseException):
    pass


@both_orders
@pytest.mark.parametrize("kind", [Mine, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["call", "keys", "async keys", "progress"])
async def test_a_base_exception_is_raised_as_it_is(
    ordered: bool, kind: type[BaseException], where: str
) -> None:
    mine = kind("mine")

    def keys() -> Iterator[int]:
        yield from range(5)
        if where == "keys":
            raise mine

    async def async_keys() -> AsyncIterator[int]:
        for key in range(5):
            yield key
        raise mine

    async def call(key: int) -> int:
        await asyncio.sleep(0)
        if where == "call" and key == 4:
            raise mine
        return key

    def progress(so_far: Progress) -> None:
        if where == "progress" and so_far.done == 4:
            raise mine

    source: Any = async_keys() if where == "async keys" else keys()
    with pytest.raises(kind) as caught:
        await everything(fan_out(call, source, concurrency=3, ordered=ordered, progress=progress))
    assert caught.value is mine


async def test_an_error_of_a_closing_key_generator_is_raised_on_leaving() -> None:
    def broken() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            raise LookupError("cannot close")

    async def broken_too() -> AsyncIterator[int]:
        try:
            for key in range(100):
                yield key
        finally:
            raise LookupError("cannot close")

    for keys in (broken(), broken_too()):
        with pytest.raises(LookupError, match="cannot close"):
            async with fan_out(at_once, keys, concurrency=2) as outcomes:
                await anext(outcomes)


# Contexts.


tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@both_orders
@pytest.mark.parametrize("concurrency", [1, 4, Adaptive(min=1, max=4)])
async def test_each_call_has_a_copy_of_the_callers_context(
    ordered: bool, concurrency: int | Adaptive
) -> None:
    async def call(key: int) -> str:
        found = tenant.get()
        tenant.set(f"of key {key}")
        await asyncio.sleep(0)
        assert tenant.get() == f"of key {key}"
        return found

    token = tenant.set("caller")
    try:
        outcomes = await everything(
            fan_out(call, range(20), concurrency=concurrency, ordered=ordered)
        )
    finally:
        tenant.reset(token)
    assert [outcome.value for outcome in outcomes] == ["caller"] * 20


@pytest.mark.parametrize("through", ["to the end", "early", "collect"])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_key_generators_run_in_one_context_of_their_own(
    asynchronous: bool, through: str
) -> None:
    events: list[str] = []

    def keys() -> Iterator[int]:
        assert tenant.get() == "caller"
        token = tenant.set("keys")
        try:
            for key in range(10):
                assert tenant.get() == "keys"
                yield key
        finally:
            tenant.reset(token)
            events.append("closed")

    async def async_keys() -> AsyncIterator[int]:
        assert tenant.get() == "caller"
        token = tenant.set("keys")
        try:
            with anyio.CancelScope():
                async with asyncio.timeout(60):
                    for key in range(10):
                        await asyncio.sleep(0)
                        assert tenant.get() == "keys"
                        yield key
        finally:
            tenant.reset(token)
            events.append("closed")

    async def call(key: int) -> str:
        await asyncio.sleep(0)
        return tenant.get()

    source: Any = async_keys() if asynchronous else keys()
    token = tenant.set("caller")
    try:
        if through == "collect":
            assert set((await collect(call, source, concurrency=3)).ok.values()) == {"caller"}
        else:
            async with fan_out(call, source, concurrency=3) as outcomes:
                async for outcome in outcomes:
                    assert outcome == Ok(outcome.key, "caller")
                    if through == "early":
                        break
        assert tenant.get() == "caller"
    finally:
        tenant.reset(token)
    assert events == ["closed"]


async def test_a_timeout_within_a_key_generator_is_its_own() -> None:
    async def keys() -> AsyncIterator[int]:
        yield 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()
        yield 2

    outcomes = await everything(fan_out(at_once, keys(), concurrency=2, ordered=True))
    assert [outcome.key for outcome in outcomes] == [1, 2]


async def test_an_inner_fan_out_inherits_neither_observer_nor_patience() -> None:
    seen: list[tuple[object, object]] = []

    async def inner(key: int) -> int:
        seen.append((attempt_observer.get(), current_patience.get()))
        return key

    async def outer(key: int) -> int:
        assert attempt_observer.get() is not None
        patience = current_patience.get()
        assert patience is not None
        await collect(inner, [1], patience=0)
        await collect(inner, [1], concurrency=Adaptive(), patience=7)
        assert current_patience.get() is patience
        return key

    outcomes = await everything(fan_out(outer, [1], concurrency=Adaptive()))
    assert outcomes == [Ok(1, 1)]
    assert seen[0] == (None, None)
    assert seen[1][0] is not None
    assert isinstance(seen[1][1], Patience)
    assert seen[1][1].seconds == 7


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of Python 3.12")
@both_orders
def test_eager_tasks_neither_nest_nor_lose_a_key(ordered: bool, anyio_backend: Any) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        outcomes = await everything(
            fan_out(at_once, range(5000), concurrency=1000, ordered=ordered)
        )
        assert sorted(outcome.key for outcome in outcomes) == list(range(5000))
        outcomes = await everything(fan_out(double, range(50), concurrency=4, ordered=ordered))
        assert sorted(outcome.key for outcome in outcomes) == list(range(50))

    # asyncio's own loop: uvloop does not begin tasks eagerly.
    with asyncio.Runner() as runner:
        runner.run(main())


# Patience: calls that wait at the gate, played by a call that holds and releases.


@both_orders
@pytest.mark.parametrize("concurrency", [4, Adaptive(min=4, max=8)])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_no_new_key_is_pulled_while_calls_wait(
    ordered: bool, concurrency: int | Adaptive, asynchronous: bool
) -> None:
    gate, source = Gate(), AsyncSource(100) if asynchronous else Source(stop=100)
    told: list[Progress] = []
    waiting = asyncio.Event()
    seen = []

    def progress(so_far: Progress) -> None:
        told.append(so_far)
        gate.closed = 10 <= so_far.done < 90 and not gate.opened.is_set()
        if so_far.waiting_for is not None:
            waiting.set()

    async def consume() -> None:
        async with fan_out(
            gate.call, source, concurrency=concurrency, ordered=ordered, progress=progress
        ) as outcomes:
            async for outcome in outcomes:
                seen.append(outcome.key)

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(consume())
        await waiting.wait()
        pulled = source.pulled
        for _ in range(50):
            await asyncio.sleep(0)
        # An async source may have been asked for a key before the gate was closed.
        assert source.pulled <= pulled + asynchronous
        assert source.pulled < 30
        assert told[-1].waiting_for == "no answer from brand.invalid:443"
        gate.opened.set()
    assert sorted(seen) == list(range(100))
    assert told[-1].waiting_for is None
    assert told[-1].done == 100


async def test_without_patience_nothing_is_held() -> None:
    gate = Gate()
    gate.closed = True
    outcomes = await everything(fan_out(gate.call, range(20), patience=0))
    assert len(outcomes) == 20
    assert len((await collect(gate.call, range(20), patience=0.0)).ok) == 20


# Keys beyond counting.


class Huge:
    """So many keys that `len` fails."""

    def __len__(self) -> int:
        return 10**30

    def __iter__(self) -> Iterator[int]:
        return iter(range(10**30))


@pytest.mark.parametrize("keys", [range(10**20), Huge()])
async def test_more_keys_than_python_counts(keys: Any) -> None:
    told: list[Progress] = []
    async with fan_out(at_once, keys, ordered=True, progress=told.append) as outcomes:
        assert [(await anext(outcomes)).key for _ in range(100)] == list(range(100))
    assert told[-1].total is told[-1].eta is None
    with pytest.raises(TooManyFailures):
        await collect(refusing(*range(100)), keys, max_failures=3)


async def test_a_large_range_is_not_listed_to_find_its_distinct_keys() -> None:
    told: list[Progress] = []
    with pytest.raises(TooManyFailures):
        await collect(refusing(3), range(10**12), max_failures=0, progress=told.append)
    assert told[0].total == 10**12


async def test_it_can_be_entered_only_once() -> None:
    run = fan_out(double, range(3))
    assert len(await everything(run)) == 3
    with pytest.raises(RuntimeError, match="once"):
        await everything(run)
    again = fan_out(double, range(3))
    async with again:
        with pytest.raises(RuntimeError, match="once"):
            async with again:
                pass


async def test_it_must_be_entered_before_it_is_iterated() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        async for _ in fan_out(double, range(3)):
            pass


async def test_after_its_end_there_is_nothing_more() -> None:
    async with fan_out(double, range(3)) as outcomes:
        assert len([outcome async for outcome in outcomes]) == 3
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)
    with pytest.raises(StopAsyncIteration):
        await anext(outcomes)


async def tell_later(_: Progress) -> None: ...


class TellsLater:
    async def __call__(self, _: Progress) -> None: ...


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"concurrency": 0}, ValueError, "concurrency"),
        ({"concurrency": -3}, ValueError, "concurrency"),
        ({"concurrency": True}, TypeError, "concurrency"),
        ({"concurrency": 2.5}, TypeError, "concurrency"),
        ({"concurrency": "8"}, TypeError, "concurrency"),
        ({"max_failures": -1}, ValueError, "max_failures"),
        ({"on_error": "ignore"}, ValueError, "on_error"),
        ({"patience": -1}, ValueError, "patience"),
        ({"patience": float("nan")}, ValueError, "patience"),
        ({"patience": True}, TypeError, "patience"),
        ({"patience": None}, TypeError, "patience"),
        ({"patience": "60"}, TypeError, "patience"),
        ({"progress": 7}, TypeError, "progress"),
        ({"progress": tell_later}, TypeError, "plain function"),
        ({"progress": partial(tell_later)}, TypeError, "plain function"),
        ({"progress": TellsLater()}, TypeError, "plain function"),
        ({"keys": "123"}, TypeError, "keys"),
        ({"keys": b"123"}, TypeError, "keys"),
        ({"keys": 7}, TypeError, "keys"),
        ({"keys": None}, TypeError, "keys"),
    ],
)
async def test_bad_arguments_are_refused_before_anything_runs(
    options: dict[str, Any], kind: type[Exception], match: str
) -> None:
    options = {"keys": [1]} | options
    called = False

    async def call(key: int) -> int:
        nonlocal called
        called = True
        return key

    with pytest.raises(kind, match=match):
        fan_out(call, **options)
    if "on_error" not in options:
        with pytest.raises(kind, match=match):
            await collect(call, **options)
    assert not called


@pytest.mark.parametrize("bounds", [{"min": 0}, {"min": 9, "max": 8}, {"max": 0}])
async def test_adaptive_bounds_are_checked(bounds: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="min"):
        Adaptive(**bounds)
    for other in ({"min": 2.5}, {"max": "8"}, {"min": True}):
        with pytest.raises(TypeError, match="ints"):
            Adaptive(**other)  # type: ignore[arg-type]


# Progress.


@both_orders
@pytest.mark.parametrize("sized", [True, False])
async def test_progress_counts_every_lookup(ordered: bool, sized: bool) -> None:
    told: list[Progress] = []
    keys: Any = range(40) if sized else iter(range(40))
    run = fan_out(refusing(3, 5), keys, concurrency=4, ordered=ordered, progress=told.append)
    await everything(run)
    assert [each.done for each in told] == list(range(1, 41))
    assert [each.failed for each in told] == sorted(each.failed for each in told)
    assert told[-1].failed == 2
    assert {each.total for each in told} == ({40} if sized else {None})
    assert [each.seconds for each in told] == sorted(each.seconds for each in told)
    for each in told:
        if each.seconds:
            assert each.rate == pytest.approx(each.done / each.seconds)
        if not sized:
            assert each.eta is None
        elif each.rate:
            assert each.eta == pytest.approx((40 - each.done) / each.rate)
    assert told[-1].eta in (0, None) if sized else told[-1].eta is None


async def test_a_bug_in_the_progress_callback_is_raised() -> None:
    def broken(_: Progress) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await everything(fan_out(double, range(5), progress=broken))


async def test_a_progress_callback_that_gives_a_coroutine_is_refused() -> None:
    with pytest.raises(TypeError, match="plain function"):
        await everything(fan_out(double, range(5), progress=lambda each: tell_later(each)))


# Collecting.


async def test_a_generator_around_it_may_be_left_unfinished() -> None:
    async def stream() -> AsyncIterator[int]:
        async with fan_out(double, range(100), concurrency=4) as outcomes:
            async for outcome in outcomes:
                yield outcome.key

    before = asyncio.all_tasks()
    async for _ in stream():
        break
    gc.collect()
    async with asyncio.timeout(2):
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0)


async def test_it_may_be_left_in_any_order_and_in_another_task() -> None:
    before = asyncio.all_tasks()
    one, two, three = (fan_out(double, range(100)) for _ in range(3))
    for each in (one, two, three):
        await each.__aenter__()
        await anext(each)
    await one.__aexit__(None, None, None)
    await asyncio.create_task(three.__aexit__(None, None, None))
    await two.__aexit__(None, None, None)
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("concurrency", [1, 2, 8])
async def test_lookups_and_keys_finish_their_clean_up_on_leaving(concurrency: int) -> None:
    begun: set[int] = set()
    cleaned: set[int | str] = set()

    async def keys() -> AsyncIterator[int]:
        try:
            for key in range(1000):
                await asyncio.sleep(0)
                yield key
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            cleaned.add("keys")

    async def call(key: int) -> int:
        begun.add(key)
        try:
            if key:
                await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            cleaned.add(key)
        return key

    async with fan_out(call, keys(), concurrency=concurrency) as outcomes:
        async for _ in outcomes:
            break
    assert cleaned == begun | {"keys"}


async def test_after_an_error_it_still_comes_to_its_end() -> None:
    released = asyncio.Event()

    async def call(key: int) -> int:
        if key == 0:
            # When the others have begun.
            for _ in range(5):
                await asyncio.sleep(0)
            raise GroupUnavailable("no group 0")
        await released.wait()
        return key

    async with fan_out(call, range(10), concurrency=3, on_error="raise") as outcomes:
        with pytest.raises(GroupUnavailable):
            await anext(outcomes)
        # Two are in flight still, and end when the error has been raised.
        released.set()
        for _ in range(5):
            await asyncio.sleep(0)
        async with asyncio.timeout(2):
            assert {outcome.key async for outcome in outcomes} <= {1, 2}


async def test_stopped_in_order_it_never_goes_back() -> None:
    released = asyncio.Event()

    async def call(key: int) -> int:
        if key == 0:
            await released.wait()
        if key == 1:
            raise GroupUnavailable("no group 1")
        return key

    seen = []
    with pytest.raises(TooManyFailures):
        async with fan_out(call, range(9), concurrency=3, ordered=True, max_failures=0) as outcomes:
            async for outcome in outcomes:
                seen.append(outcome.key)
                released.set()
                for _ in range(5):
                    await asyncio.sleep(0)
    assert seen == sorted(seen)
    assert 1 in seen


async def test_an_adaptive_pace_sends_no_throttled_change_again() -> None:
    async with FaultServer([Send(reply(b"", 429))]) as server, connect(server) as dc:
        batch = await collect(dc.groups.add, ["Sales"], concurrency=Adaptive())
        assert [type(each) for each in batch.failed.values()] == [RateLimited]
        assert len(server.ledger) == 1


async def test_an_adaptive_pace_waits_no_longer_than_a_minute() -> None:
    told = [Send(reply(b"", 429, [("Retry-After", "61")]))]
    async with FaultServer(told) as server, connect(server) as dc:
        async with asyncio.timeout(5):
            batch = await collect(dc.groups.agent_relation, [28], concurrency=Adaptive())
        assert [type(each) for each in batch.failed.values()] == [RateLimited]
        assert len(server.ledger) == 1


async def test_collect_looks_each_distinct_key_up_once() -> None:
    asked: Counter[int] = Counter()

    async def call(key: int) -> int:
        asked[key] += 1
        await asyncio.sleep(0)
        if key == 4:
            raise GroupUnavailable("no group 4")
        return key * 2

    async def later() -> AsyncIterator[int]:
        for key in [1, 4, 1, 2, 2, 4]:
            yield key

    class Plain:
        def __iter__(self) -> Iterator[int]:
            yield from [1, 4, 1, 2, 2, 4]

    told: list[Progress] = []
    forms: list[Any] = [[1, 4, 1, 2, 2, 4], iter([1, 4, 1, 2, 2, 4]), Plain(), later()]
    for keys in forms:
        asked.clear()
        batch = await collect(call, keys, concurrency=2, progress=told.append)
        assert asked == {1: 1, 4: 1, 2: 1}
        assert batch.ok == {1: 2, 2: 4}
        assert set(batch.failed) == {4}
    assert told[2].total == 3


async def test_a_batch_is_shown_in_few_words() -> None:
    """A task shows its result, and before Python 3.13 `asyncio.run` shows its task every time."""
    batch = Batch(dict.fromkeys(range(100_000), "value"), {7: ServerFault("busy")})
    assert repr(batch) == "Batch(100000 ok, 1 failed)"


async def test_raise_if_failed_raises_the_first_with_a_note() -> None:
    Batch({1: 2}, {}).raise_if_failed()
    batch = await collect(refusing(2, 3), range(5))
    with pytest.raises(GroupUnavailable, match="no group 2") as caught:
        batch.raise_if_failed()
    (note,) = caught.value.__notes__
    assert "2 of 5" in note


async def test_raise_if_failed_twice_says_it_once() -> None:
    batch = await collect(refusing(2), range(5))
    for _ in range(2):
        with pytest.raises(GroupUnavailable) as caught:
            batch.raise_if_failed()
    assert len(caught.value.__notes__) == 1


async def test_collect_stops_at_max_failures() -> None:
    with pytest.raises(TooManyFailures):
        await collect(refusing(*range(100)), range(1000), max_failures=5)


async def test_collect_pulls_iterators_lazily() -> None:
    source = Source(stop=50_000)
    with pytest.raises(TooManyFailures):
        await collect(refusing(*range(100)), source, concurrency=2, max_failures=5)
    assert source.pulled < 50


# With a client and a server.


def connect(server: Any, **options: Any) -> DeepCall:
    options = {"retry": RetryPolicy(attempts=1)} | options
    return DeepCall(UserToken("7", "t0ken"), base_url=server.base_url, **options)


@both_orders
async def test_over_a_real_server_none_is_lost_and_none_swapped(ordered: bool) -> None:
    chance = random.Random(7)

    def faulty(request: Received) -> Sequence[Step]:
        match chance.randrange(20):
            case 0:
                return (Send(error(1009)),)
            case 1:
                return Send(serve(request)[1].data[:40]), *()  # type: ignore[attr-defined]
            case 2:
                return (Send(reply(b"", 503)),)
            case _:
                return serve(request)

    policy = RetryPolicy(attempts=6, base_delay=0.001, max_delay=0.002)
    async with FaultServer(faulty) as server, connect(server, retry=policy, timeout=0.3) as dc:
        outcomes = await everything(
            fan_out(dc.groups.agent_relation, range(1, 301), concurrency=64, ordered=ordered)
        )
    keys = [outcome.key for outcome in outcomes]
    assert sorted(keys) == list(range(1, 301))
    assert not ordered or keys == sorted(keys)
    for outcome in outcomes:
        if isinstance(outcome, Ok):
            assert outcome.value.group.unique_id == outcome.key
    # The retry budget may leave a few failures; they are of the kinds that were sown.
    kinds = {type(outcome.error) for outcome in outcomes if isinstance(outcome, Failed)}
    assert kinds <= {ServerFault, RequestTimeout, ConnectionLost, ConnectFailed}


async def test_concurrency_above_the_pool_makes_no_timeouts() -> None:
    async with Sandbox(groups=60, latency=0.02) as server:
        credentials = SessionId(server.ssid)
        async with DeepCall(
            credentials, base_url=server.base_url, max_connections=2, timeout=0.4
        ) as dc:
            ids = [group.unique_id for group in await dc.groups.list()]
            batch = await collect(dc.groups.agent_relation, ids, concurrency=60)
    assert len(batch.ok) == 60
    assert not batch.failed


@pytest.mark.parametrize("outage", ["503", "1009", "reset", "refused"])
async def test_the_retry_budget_bounds_the_load_of_a_total_outage(outage: str) -> None:
    keys = 400
    steps: dict[str, Sequence[Step]] = {
        "503": [Send(reply(b"", 503))],
        "1009": [Send(error(1009))],
        "reset": [Reset()],
        "refused": [Stall()],
    }
    policy = RetryPolicy(attempts=5, base_delay=0.0, max_delay=0.0)
    async with FaultServer(steps[outage]) as server:
        with refused_port() as port:
            options: dict[str, Any] = {"retry": policy}
            address = f"http://127.0.0.1:{port}" if outage == "refused" else server.base_url
            async with DeepCall(SessionId("s3ssion"), base_url=address, **options) as dc:
                batch = await collect(
                    dc.groups.agent_relation, range(keys), concurrency=64, patience=0
                )
                assert len(batch.failed) == keys
                assert dc.stats.requests <= 1.1 * keys + 10
                if outage != "refused":
                    assert server.begun <= 1.1 * keys + 10


async def test_a_server_that_drops_every_second_request_of_a_connection_is_bounded_too() -> None:
    """Each connection answers once and dies under the next request: repeats that look free."""

    def react(request: Received) -> Sequence[Step]:
        return (Send(reply(b"", 503)),) if request.number_on_connection == 1 else (Reset(),)

    keys = 300
    policy = RetryPolicy(attempts=5, base_delay=0.0, max_delay=0.0)
    async with FaultServer(react) as server, connect(server, retry=policy) as dc:
        batch = await collect(dc.groups.agent_relation, range(keys), concurrency=16, patience=0)
        assert len(batch.failed) == keys
        assert dc.stats.requests <= 1.1 * keys + 10


async def test_max_failures_stops_a_run_into_an_outage() -> None:
    async with FaultServer([Send(error(1009))]) as server, connect(server) as dc:
        with pytest.raises(TooManyFailures) as many:
            await collect(
                dc.groups.agent_relation, range(1, 10_000), concurrency=8, max_failures=20
            )
        assert isinstance(many.value.__cause__, ServerFault)
        assert len(server.ledger) <= 21 + 16


# Adaptive concurrency.


async def test_adaptive_concurrency_gets_through_a_rate_limit() -> None:
    async with Sandbox(groups=150, rate_limit=400.0) as server:
        async with DeepCall(SessionId(server.ssid), base_url=server.base_url) as dc:
            ids = [group.unique_id for group in await dc.groups.list()]
            batch = await collect(dc.groups.agent_relation, ids, concurrency=Adaptive())
    assert len(batch.ok) == 150
    assert server.requests["getGroupAgentRelation"] <= 1.5 * 150 + 10


@pytest.mark.parametrize("concurrency", [3, Adaptive(min=1, max=4)])
async def test_a_call_is_never_made_twice_for_a_key(concurrency: int | Adaptive) -> None:
    """What is repeated is a request, by the client: a call may hold a change beside it."""
    tried: Counter[int] = Counter()

    async def call(key: int) -> int:
        tried[key] += 1
        raise RateLimited("slow down")

    outcomes = await everything(fan_out(call, range(5), concurrency=concurrency))
    assert [type(outcome) for outcome in outcomes] == [Failed] * 5
    assert tried == dict.fromkeys(range(5), 1)


async def test_adaptive_concurrency_grows_while_the_service_keeps_up() -> None:
    in_flight = most = 0

    def slow(request: Received) -> Sequence[Step]:
        nonlocal in_flight, most
        most = max(most, server.begun - len(done))
        return Delay(0.02), *serve(request)

    done: list[Any] = []
    async with FaultServer(slow) as server, connect(server) as dc:
        bounds: Literal[64] = 64
        async with fan_out(
            dc.groups.agent_relation, range(1, 301), concurrency=Adaptive(min=2, max=bounds)
        ) as outcomes:
            async for outcome in outcomes:
                done.append(outcome)
    assert len(done) == 300
    assert most > 4


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are of Python 3.12")
def test_an_eager_task_that_ends_the_fan_out_is_the_last(anyio_backend: Any) -> None:
    begun: list[int] = []

    async def call(key: int) -> None:
        begun.append(key)
        raise BadRequest("no")

    async def run() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        with pytest.raises(BadRequest):
            async with fan_out(call, range(100), on_error="raise") as outcomes:
                async for _ in outcomes:
                    pass

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(run())
    assert begun == [0]
