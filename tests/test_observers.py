"""Observers: what they are told, in which order, and that nothing they do breaks a call."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from typing import Any

import pytest

from deepcall_async import (
    Adaptive,
    AttemptEnded,
    AttemptStarted,
    BadRequest,
    CallEnded,
    ClientClosed,
    DeepCall,
    GroupUnavailable,
    Observer,
    RateLimited,
    RequestTimeout,
    Stats,
    collect,
)
from tests.support.clients import ME, both_paths, client, connect, quick
from tests.support.faultserver import FaultServer, Reset, Send, Stall
from tests.support.replies import error, reply, serve

pytestmark = pytest.mark.anyio


class Recorder(Observer):
    """Keeps every event, and adds headers."""

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self.headers = headers
        self.events: list[AttemptStarted | AttemptEnded | CallEnded] = []

    def attempt_started(self, event: AttemptStarted) -> Mapping[str, str] | None:
        self.events.append(event)
        return self.headers

    def attempt_ended(self, event: AttemptEnded) -> None:
        self.events.append(event)

    def call_ended(self, event: CallEnded) -> None:
        self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [each for each in self.events if type(each) is kind]


@both_paths
async def test_all_events_of_a_call_in_their_order_and_with_one_id(path: str) -> None:
    seen = Recorder()
    async with FaultServer([Send(error(1009))], [Send(reply(b"<html>", 503))], serve) as server:
        async with client(server, path, observers=[seen]) as dc:
            await dc.groups.list(name="zz-private")
            await dc.groups.list()
    kinds = [type(each).__name__ for each in seen.events]
    assert kinds == [
        *["AttemptStarted", "AttemptEnded"] * 3,
        *["CallEnded", "AttemptStarted", "AttemptEnded", "CallEnded"],
    ]
    first, second = {each.id for each in seen.events[:7]}, {each.id for each in seen.events[7:]}
    assert (len(first), len(second), first & second) == (1, 1, set())
    started, ended = seen.of(AttemptStarted), seen.of(AttemptEnded)
    assert [each.attempt for each in started] == [each.attempt for each in ended] == [1, 2, 3, 1]
    assert {each.endpoint for each in seen.events} == {"groups.list"}
    assert {each.url for each in started} == {f"{server.base_url}/api/v2/Group/list"}
    assert [(each.http_status, each.code) for each in ended] == [
        (200, 1009),
        (503, None),
        (200, None),
        (200, None),
    ]
    assert [type(each.error).__name__ for each in ended[:3]] == ["ServerFault"] * 2 + ["NoneType"]
    assert [each.previous for each in started] == [None, ended[0].error, ended[1].error, None]
    assert [each.last for each in started] == [False, False, True, False]
    assert [each.reused for each in ended] == [False, True, True, True]
    assert ended[2].sent == len(b'{"userId":"7","token":"t0ken","name":"zz-private"}')
    assert ended[2].received > ended[3].sent > 0
    for begun, over in zip(started, ended, strict=True):
        assert begun.call_started <= begun.started == over.started <= over.ended
    call = seen.of(CallEnded)[0]
    assert (call.attempts, call.http_status, call.code, call.error) == (3, 200, None, None)
    assert call.started == started[0].call_started
    assert call.ended >= ended[2].ended
    assert "zz-private" not in repr(seen.events)
    assert "t0ken" not in repr(seen.events)


async def test_a_refusal_is_told_with_its_code_though_http_says_200() -> None:
    seen = Recorder()
    async with connect([Send(error(1503))], observers=[seen]) as (_, dc):
        with pytest.raises(GroupUnavailable) as raised:
            await dc.groups.agent_relation(28)
    (attempt,), (call,) = seen.of(AttemptEnded), seen.of(CallEnded)
    assert (attempt.http_status, attempt.code) == (call.http_status, call.code) == (200, 1503)
    assert call.error is raised.value


@both_paths
@pytest.mark.parametrize("headers", [None, {"X-Team": "groups"}])
async def test_headers_are_added_and_what_the_client_sends_stays(
    path: str, headers: dict[str, str] | None
) -> None:
    one = Recorder({"traceparent": "00-1-2-01", "x-team": "other"})
    two = Recorder({"tracestate": "a=b"})
    async with connect(serve, path, observers=[one, two], headers=headers) as (server, dc):
        await dc.groups.list()
    sent = {name.lower(): value for name, value in server.ledger[0].headers.items()}
    assert (sent["traceparent"], sent["tracestate"]) == ("00-1-2-01", "a=b")
    assert sent["x-team"] == ("other" if headers is None else "groups")
    assert server.ledger[0].body == {"userId": "7", "token": "t0ken"}


@both_paths
@pytest.mark.parametrize(
    "headers", [{"Host": "a"}, {"x": "a\r\nb: c"}, {"a b": "c"}, {"x": 1}, "x", {"x": "\u20ac"}]
)
async def test_headers_that_cannot_be_sent_are_left_out(
    path: str, headers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Recorder(headers)
    async with connect(serve, path, observers=[seen]) as (server, dc):
        await dc.groups.list()
        await dc.groups.list()
    assert not {"x", "b", "a b"} & set(server.ledger[0].headers)
    (line,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert line.getMessage().startswith("the observer Recorder failed, which is not logged again")


async def test_what_an_observer_raises_is_logged_once_and_breaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Observer):
        calls = 0

        def attempt_started(self, event: AttemptStarted) -> Mapping[str, str] | None:
            self.calls += 1
            raise ZeroDivisionError("zz-private")

        attempt_ended = call_ended = attempt_started  # type: ignore[assignment]

    broken, seen = Broken(), Recorder()
    async with connect(serve, observers=[broken, seen]) as (_, dc):
        await dc.groups.list()
        await dc.groups.list()
    assert broken.calls == 6
    assert len(seen.events) == 6
    (line,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert re.search(
        r"the observer Broken failed, .*: ZeroDivisionError in attempt_started \(", line
    )
    assert "zz-private" not in caplog.text


@both_paths
async def test_a_cancelled_call_is_told_of_too(path: str) -> None:
    seen = Recorder()
    async with connect([Stall()], path, observers=[seen]) as (server, dc):
        task = asyncio.create_task(dc.groups.list())
        await server.until(lambda it: it.ledger)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [type(each.error) for each in seen.events[1:]] == [asyncio.CancelledError] * 2  # type: ignore[union-attr]
    assert seen.of(AttemptEnded)[0].sent > 0


async def test_a_call_that_sends_nothing_ends_without_an_attempt() -> None:
    seen = Recorder()
    async with connect(serve, observers=[seen]) as (_, dc):
        await dc.aclose()
        with pytest.raises(ClientClosed):
            await dc.groups.list()
        with pytest.raises(ValueError, match="blank"):
            await dc.groups.add(" ")
    (only,) = seen.events
    assert isinstance(only, CallEnded)
    assert (only.attempts, type(only.error)) == (0, ClientClosed)


async def test_a_sibling_has_observers_of_its_own_when_it_is_given_some() -> None:
    mine, others = Recorder(), Recorder()
    async with connect(serve, observers=[mine]) as (_, dc):
        await dc.with_options(timeout=3).groups.list()
        await dc.with_options(observers=[others]).groups.list()
        await dc.with_options(observers=()).groups.list()
    assert (len(mine.events), len(others.events)) == (3, 3)


async def test_stats_of_an_attempt_are_those_of_the_connections() -> None:
    seen = Recorder()
    async with connect(serve, observers=[seen]) as (_, dc):
        await dc.groups.list()
        await dc.with_options(credentials=ME).groups.list()
        one, two = (each.stats for each in seen.of(AttemptStarted))
        assert one == two
        assert one() == Stats(idle=1)


async def test_an_observer_needs_only_the_methods_it_uses() -> None:
    class Ends(Observer):
        def __init__(self) -> None:
            self.seen: list[CallEnded] = []

        def call_ended(self, event: CallEnded) -> None:
            self.seen.append(event)

    class Duck:
        def attempt_started(self, event: AttemptStarted) -> None: ...
        def attempt_ended(self, event: AttemptEnded) -> None: ...
        def call_ended(self, event: CallEnded) -> None: ...

    ends = Ends()
    async with connect(serve, observers=[ends, Duck()]) as (_, dc):
        told = dc._session.observers
        assert (len(told.started), len(told.ended), len(told.calls)) == (1, 1, 2)
        await dc.groups.list()
    assert [each.endpoint for each in ends.seen] == ["groups.list"]


async def _async_method(self: object, event: CallEnded) -> None: ...


@pytest.mark.parametrize(
    ("observers", "problem"),
    [
        (Recorder(), "must be a list of observers"),
        ("log", "must be a list of observers"),
        ([Recorder], "not the class Recorder"),
        ([object()], "object has no method attempt_started; derive it from Observer"),
        (
            [type("Late", (Recorder,), {"call_ended": _async_method})()],
            "Late.call_ended must be a plain function",
        ),
    ],
)
def test_what_is_no_observer_is_refused(observers: Any, problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        DeepCall(ME, observers=observers)
    with pytest.raises(TypeError, match=problem):
        DeepCall(ME).with_options(observers=observers)


async def test_a_last_attempt_is_a_warning_also_when_nobody_observes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    script = [Send(error(1009))], [Send(error(1009))], [Send(error(1010))]
    async with FaultServer(*script, [Send(error(1000))]) as server:
        async with client(server, retry=quick(3)) as dc:
            with pytest.raises(Exception, match="1010"):
                await dc.groups.list()
            with pytest.raises(BadRequest):
                await dc.groups.list()
    lines = [(each.levelname, each.getMessage()) for each in caplog.records]
    assert lines == [("WARNING", "groups.list attempt=3 is the last, after ServerFault code=1009")]


async def test_a_fan_out_tells_the_clients_observers_and_its_own_pace() -> None:
    seen = Recorder()
    async with connect(serve, observers=[seen]) as (_, dc):
        batch = await collect(
            lambda _: dc.groups.list(), range(50), concurrency=Adaptive(min=1, max=8)
        )
    assert len(batch.ok) == 50
    assert len(seen.of(AttemptEnded)) == 50
    assert len({each.id for each in seen.of(CallEnded)}) == 50


async def test_a_timeout_a_lost_connection_and_a_throttle_are_told_as_what_they_are() -> None:
    seen = Recorder()
    script = [Stall()], [Reset()], [Send(reply(b"{}", 429))]
    async with FaultServer(*script) as server:
        async with client(server, observers=[seen], timeout=0.2, retry=quick(3)) as dc:
            with pytest.raises(RateLimited):
                await dc.groups.list()
    timeout, _, throttled = seen.of(AttemptEnded)
    assert isinstance(timeout.error, RequestTimeout)
    assert (timeout.http_status, timeout.received) == (None, 0)
    assert (throttled.http_status, throttled.code) == (429, None)


class UnknownLoop(asyncio.SelectorEventLoop):
    """Its transports cannot change their protocol, as those of some other event loops."""

    def _make_socket_transport(self, *args: Any, **kwargs: Any) -> Any:
        made = super()._make_socket_transport(*args, **kwargs)
        made.set_protocol = _refuse
        return made


def _refuse(*_: object) -> None:
    raise NotImplementedError


def test_on_a_loop_that_is_not_known_observers_are_told_just_the_same() -> None:
    seen = Recorder({"traceparent": "00-1-2-01"})

    async def look() -> FaultServer:
        async with FaultServer(serve) as server, client(server, observers=[seen]) as dc:
            with pytest.warns(RuntimeWarning, match="this event loop is not one"):
                await dc.groups.list()
            await dc.groups.list()
        return server

    with asyncio.Runner(loop_factory=UnknownLoop) as runner:
        server = runner.run(look())
    assert [each.headers.get("traceparent") for each in server.ledger] == ["00-1-2-01"] * 2
    ended = seen.of(AttemptEnded)
    assert [each.sent > 0 for each in ended] == [True, True]
    assert [each.reused for each in ended] == [False, True]
