"""Prometheus: calls by outcome and their duration, and what the connections are doing."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from deepcall_async import CallEnded, DeepCall, Observer


class Metrics(Observer):
    """Use it as ``metrics = Metrics(); dc = DeepCall(observers=[metrics]); metrics.watch(dc)``."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.calls = Counter(
            "deepcall_calls", "Calls ended", ["endpoint", "outcome"], registry=registry
        )
        self.seconds = Histogram(
            "deepcall_call_seconds", "Duration of calls", ["endpoint"], registry=registry
        )

    def call_ended(self, event: CallEnded) -> None:
        outcome = type(event.error).__name__ if event.error else "ok"
        self.calls.labels(event.endpoint, outcome).inc()
        self.seconds.labels(event.endpoint).observe(event.ended - event.started)

    def watch(self, dc: DeepCall) -> None:
        for name in ("requests", "retries", "active", "idle", "waiting"):
            gauge = Gauge(f"deepcall_{name}", f"`DeepCall.stats.{name}`", registry=self.registry)
            gauge.set_function(lambda name=name: getattr(dc.stats, name))
