"""What OpenTelemetry's SDK gets from a client, kept by its in-memory exporters."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from deepcall_async import GroupUnavailable, OutcomeUnknown, ServerFault, collect
from deepcall_async.otel import OpenTelemetry
from tests.support.clients import client, connect, quick
from tests.support.faultserver import FaultServer, Reset, Send, Stall
from tests.support.replies import error, reply, serve

pytestmark = pytest.mark.anyio


class Seen:
    """An observer, and all that it told the SDK."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.observer = OpenTelemetry(self.tracers, self.meters)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def of(self, kind: SpanKind) -> list[ReadableSpan]:
        return [each for each in self.spans if each.kind is kind]

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def seen() -> Iterator[Seen]:
    made = Seen()
    yield made
    made.meters.shutdown()
    made.tracers.shutdown()


async def test_a_call_is_a_span_and_each_attempt_one_below_it(seen: Seen) -> None:
    script = [Send(error(1009))], [Send(reply(b"<html>", 503))]
    async with FaultServer(*script, serve) as server:
        async with client(server, observers=[seen.observer]) as dc:
            await dc.groups.list(name="zz-private")
    (call,), tries = seen.of(SpanKind.INTERNAL), seen.of(SpanKind.CLIENT)
    assert (call.name, call.parent, call.status.status_code) == (
        "groups.list",
        None,
        StatusCode.UNSET,
    )
    assert call.attributes == {}
    host, port = server.base_url.removeprefix("http://").split(":")
    every = {
        "http.request.method": "POST",
        "server.address": host,
        "server.port": int(port),
        "url.full": f"{server.base_url}/api/v2/Group/list",
    }
    assert [dict(each.attributes or {}) for each in tries] == [
        every | {"http.response.status_code": 200, "error.type": "1009"},
        every
        | {"http.response.status_code": 503, "error.type": "503", "http.request.resend_count": 1},
        every | {"http.response.status_code": 200, "http.request.resend_count": 2},
    ]
    for each, received in zip(tries, server.ledger, strict=True):
        assert each.parent is not None
        assert each.context is not None
        assert call.context is not None
        assert each.parent.span_id == call.context.span_id
        trace, span = f"{each.context.trace_id:032x}", f"{each.context.span_id:016x}"
        assert received.headers["traceparent"].startswith(f"00-{trace}-{span}-")
    assert call.start_time is not None
    assert call.end_time is not None
    assert all(
        call.start_time <= (each.start_time or 0) <= (each.end_time or 0) <= call.end_time
        for each in tries
    )
    told = "".join(each.to_json() for each in seen.spans)
    assert "zz-private" not in told
    assert "t0ken" not in told


async def test_a_refusal_is_an_error_though_http_says_200(seen: Seen) -> None:
    async with connect([Send(error(1503, "zz-private"))], observers=[seen.observer]) as (_, dc):
        with pytest.raises(GroupUnavailable):
            await dc.groups.agent_relation(28)
    assert [each.name for each in seen.spans] == ["POST", "groups.agent_relation"]
    for each in seen.spans:
        assert (each.attributes or {})["error.type"] == "1503"
        assert each.status.status_code is StatusCode.ERROR
        assert each.status.description == "GroupUnavailable"
        assert not each.events
    (point,) = seen.points("http.client.request.duration")
    assert point.attributes["error.type"] == "1503"


@pytest.mark.parametrize(
    ("step", "kind", "attempt"),
    [(Reset(), OutcomeUnknown, "ConnectionLost"), (Send(reply(b"", 502)), OutcomeUnknown, "502")],
)
async def test_what_went_wrong_is_told_as_on_each_floor(
    seen: Seen, step: Any, kind: type[Exception], attempt: str
) -> None:
    async with connect([step], observers=[seen.observer], retry=quick(1)) as (_, dc):
        with pytest.raises(kind):
            await dc.groups.add("A")
    (tried,), (call,) = seen.of(SpanKind.CLIENT), seen.of(SpanKind.INTERNAL)
    assert (tried.attributes or {})["error.type"] == attempt
    assert (call.status.status_code, call.status.description) == (
        StatusCode.ERROR,
        "OutcomeUnknown",
    )


async def test_a_cancelled_call_ends_its_spans_and_one_never_sent_has_its_own(seen: Seen) -> None:
    async with connect([Stall()], observers=[seen.observer]) as (server, dc):
        task = asyncio.create_task(dc.groups.list())
        await server.until(lambda it: it.ledger)
        task.cancel()
        await asyncio.wait([task])
        await dc.aclose()
        with pytest.raises(Exception, match="closed"):
            await dc.groups.list()
    assert [each.name for each in seen.spans] == ["POST", "groups.list", "groups.list"]
    assert [(each.attributes or {})["error.type"] for each in seen.spans] == [
        *["CancelledError"] * 2,
        "ClientClosed",
    ]
    assert repr(seen.observer) == "<OpenTelemetry 0 calls in flight>"


async def test_each_key_of_a_fan_out_is_under_the_callers_span(seen: Seen) -> None:
    tracer = seen.tracers.get_tracer("test")
    async with connect(serve, observers=[seen.observer]) as (_, dc):
        with tracer.start_as_current_span("the caller"):
            batch = await collect(dc.groups.agent_relation, range(1, 21))
        assert len(batch.ok) + len(batch.failed) == 20
    (caller,) = (each for each in seen.spans if each.name == "the caller")
    calls = [each for each in seen.of(SpanKind.INTERNAL) if each is not caller]
    assert len(calls) == 20
    assert {each.parent.span_id for each in calls if each.parent} == {caller.context.span_id}  # type: ignore[union-attr]
    own = {each.context.span_id for each in calls if each.context}
    assert {each.parent.span_id for each in seen.of(SpanKind.CLIENT) if each.parent} == own


async def test_metrics_of_attempts_and_of_connections(seen: Seen) -> None:
    script = [Send(error(1009))], serve
    async with FaultServer(*script) as server:
        async with client(server, observers=[seen.observer]) as dc:
            await dc.groups.list()
            await dc.with_options(timeout=3).groups.list()
            where = {
                "server.address": "127.0.0.1",
                "server.port": int(server.base_url[-5:].strip(":")),
            }
            durations = seen.points("http.client.request.duration")
            assert sum(each.count for each in durations) == 3
            assert [each.attributes.get("error.type") for each in durations] == ["1009", None]
            assert all(where.items() <= each.attributes.items() for each in durations)
            assert all(0 < each.sum < 60 for each in durations)
            assert durations[0].explicit_bounds[0] == 0.005
            open_now = seen.points("http.client.open_connections")
            assert {each.attributes["http.connection.state"]: each.value for each in open_now} == {
                "active": 0,
                "idle": 1,
            }
            (waiting,) = seen.points("deepcall.client.waiting_calls")
            assert (waiting.value, dict(waiting.attributes)) == (0, where)
    del dc
    gc.collect()
    assert not seen.observer._pools


async def test_without_an_sdk_nothing_is_sent_along_and_nothing_fails() -> None:
    async with connect([Send(error(1009))], observers=[OpenTelemetry()]) as (server, dc):
        with pytest.raises(ServerFault):
            await dc.groups.list()
    assert "traceparent" not in server.ledger[0].headers


async def test_spans_are_nested_under_that_of_a_fastapi_request(seen: Seen) -> None:
    fastapi = pytest.importorskip("fastapi", reason="not installed: extra `recipes`")
    instrumentation = pytest.importorskip(
        "opentelemetry.instrumentation.fastapi", reason="not installed: extra `recipes`"
    )
    httpx = pytest.importorskip("httpx", reason="not installed: extra `recipes`")
    app = fastapi.FastAPI()
    async with connect(serve, observers=[seen.observer]) as (_, dc):

        @app.get("/groups")
        async def groups() -> int:
            return len(await dc.groups.list())

        instrumentation.FastAPIInstrumentor.instrument_app(app, tracer_provider=seen.tracers)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as browser:
            assert (await browser.get("/groups")).status_code == 200
    (request,) = seen.of(SpanKind.SERVER)
    (call,) = (each for each in seen.of(SpanKind.INTERNAL) if each.name == "groups.list")
    assert request.context is not None
    assert call.parent is not None
    assert call.parent.span_id == request.context.span_id
