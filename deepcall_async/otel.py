"""OpenTelemetry for a client's calls: spans, the trace context, and metrics.

An observer that needs only OpenTelemetry's API (the extra ``otel``); what is done with it is the
SDK's matter. No span or metric holds a body, an id, a name or a message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import urlsplit
from weakref import WeakMethod

from opentelemetry import propagate, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from deepcall_async.events import AttemptEnded, AttemptStarted, CallEnded, Observer, Stats
from deepcall_async.version import __version__

__all__ = ["OpenTelemetry"]

_SCOPE = "deepcall_async"
_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
# As https://opentelemetry.io/docs/specs/semconv/http/http-metrics/ advises.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

_Attributes: TypeAlias = dict[str, str | int]


class OpenTelemetry(Observer):
    """Tells OpenTelemetry of a client's calls: ``DeepCall(observers=[OpenTelemetry()])``.

    Each call is an INTERNAL span under the caller's, named after its endpoint, such as
    ``groups.agent_relation``; each attempt is a CLIENT span below it, whose context goes out with
    the request as the global propagator says (``traceparent``). A refusal by DeepCall is an error
    also when HTTP says 200, and ``error.type`` is then DeepCall's code.

    Metrics: the histogram ``http.client.request.duration`` of attempts, and what connections are
    doing: ``http.client.open_connections`` (``http.connection.state`` is ``active`` or ``idle``)
    and ``deepcall.client.waiting_calls``.

    The names are those of https://opentelemetry.io/docs/specs/semconv/http/. One object may observe
    several clients.

    Args:
        tracer_provider: makes the spans; None for the global one.
        meter_provider: makes the metrics; None for the global one.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider, _SCHEMA)
        meter = get_meter(_SCOPE, __version__, meter_provider, _SCHEMA)
        self._duration = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        meter.create_observable_up_down_counter(
            "http.client.open_connections",
            [self._connections],
            unit="{connection}",
            description="Number of outbound HTTP connections that are currently active or idle.",
        )
        meter.create_observable_up_down_counter(
            "deepcall.client.waiting_calls",
            [self._waiting],
            unit="{call}",
            description="Number of calls that wait for a connection.",
        )
        self._calls: dict[int, Span] = {}
        self._attempts: dict[int, tuple[Span, _Attributes]] = {}
        # Weakly: a client that is gone has no connections. Siblings share one entry.
        self._pools: dict[WeakMethod[Callable[[], Stats]], str] = {}

    def __repr__(self) -> str:
        return f"<OpenTelemetry {len(self._calls)} calls in flight>"

    def attempt_started(self, event: AttemptStarted, /) -> dict[str, str]:
        """Begin a span, below one for the call; see `Observer`."""
        call = self._calls.get(event.id)
        if call is None:
            call = self._calls[event.id] = self._call_span(event.endpoint, event.call_started)
            self._pools.setdefault(WeakMethod(event.stats, self._forget), event.url)
        below = trace.set_span_in_context(call)
        attributes = _where(event.url) | {"http.request.method": "POST"}
        resend = {"http.request.resend_count": event.attempt - 1} if event.attempt > 1 else {}
        span = self._tracer.start_span(
            "POST",
            below,
            SpanKind.CLIENT,
            {**attributes, **resend, "url.full": event.url},
        )
        self._attempts[event.id] = span, attributes
        headers: dict[str, str] = {}
        propagate.inject(headers, trace.set_span_in_context(span, below))
        return headers

    def attempt_ended(self, event: AttemptEnded, /) -> None:
        """End the attempt's span and record its duration; see `Observer`."""
        span, attributes = self._attempts.pop(event.id, (None, {}))
        if span is None:
            return
        result = _result(event)
        for name, value in result.items():
            span.set_attribute(name, value)
        _end(span, event)
        below = trace.set_span_in_context(span)
        self._duration.record(event.ended - event.started, {**attributes, **result}, below)

    def call_ended(self, event: CallEnded, /) -> None:
        """End the call's span; see `Observer`."""
        span = self._calls.pop(event.id, None)
        if span is None:
            span = self._call_span(event.endpoint, event.started)
        if event.error is not None:
            span.set_attribute("error.type", _error_type(event))
        _end(span, event)

    def _call_span(self, endpoint: str, started: float) -> Span:
        since = time.time_ns() - int((time.monotonic() - started) * 1e9)
        return self._tracer.start_span(endpoint, kind=SpanKind.INTERNAL, start_time=since)

    def _forget(self, pool: WeakMethod[Callable[[], Stats]]) -> None:
        self._pools.pop(pool, None)

    def _connections(self, _: CallbackOptions) -> Iterable[Observation]:
        for where, (active, idle, _waiting) in self._present().items():
            yield Observation(active, dict(where) | {"http.connection.state": "active"})
            yield Observation(idle, dict(where) | {"http.connection.state": "idle"})

    def _waiting(self, _: CallbackOptions) -> Iterable[Observation]:
        for where, (_active, _idle, waiting) in self._present().items():
            yield Observation(waiting, dict(where))

    def _present(self) -> dict[tuple[tuple[str, str | int], ...], tuple[int, int, int]]:
        """Active, idle and waiting, summed over the clients of each service."""
        found: dict[tuple[tuple[str, str | int], ...], tuple[int, int, int]] = {}
        # A copy: a metric's reader asks from a thread of its own.
        for pool, url in list(self._pools.items()):
            stats = pool()
            if stats is not None:
                where, now = tuple(_where(url).items()), stats()
                active, idle, waiting = found.get(where, (0, 0, 0))
                found[where] = active + now.active, idle + now.idle, waiting + now.waiting
        return found


@lru_cache(maxsize=64)
def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _where(url: str) -> _Attributes:
    host, port = _address(url)
    return {"server.address": host, "server.port": port}


def _result(event: AttemptEnded) -> _Attributes:
    found: _Attributes = {}
    if event.http_status is not None:
        found["http.response.status_code"] = event.http_status
    if event.error is not None:
        found["error.type"] = _error_type(event)
    return found


def _error_type(event: AttemptEnded | CallEnded) -> str:
    if event.code is not None:
        return str(event.code)
    if event.http_status is not None and event.http_status >= 400:
        return str(event.http_status)
    return type(event.error).__name__


def _end(span: Span, event: AttemptEnded | CallEnded) -> None:
    if event.error is not None:
        # Not its message, which may hold a name.
        span.set_status(Status(StatusCode.ERROR, type(event.error).__name__))
    span.end()
