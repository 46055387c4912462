"""What ``deepcall watch --listen`` serves: a page, metrics for Prometheus, a health check.

It reads what the watch knows and changes nothing. The page works without JavaScript, by reloading.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web

from deepcall_async.audit.labels import clean
from deepcall_async.cli.exits import UsageError, usage_errors

if TYPE_CHECKING:
    from jinja2 import Template
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

    from deepcall_async.watch import GroupState, Watch

__all__ = ["address_of", "serve"]

_STALE = 3
"""Intervals without a finished look after which the watch is not healthy."""

_SHUTDOWN = 0.5  # seconds that open requests have when the watch ends
_MOST_ROWS = 500
_RECENT = 20


class _Address(NamedTuple):
    host: str
    port: int


def address_of(listen: str, *, allow_remote: bool) -> _Address:
    """Take HOST:PORT apart.

    Args:
        listen: such as ``127.0.0.1:9109`` or ``[::1]:9109``.
        allow_remote: whether others may reach it.

    Raises:
        UsageError: it is no address, or others could reach it and may not.
    """
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > 65_535:
        raise UsageError(f"--listen {listen}: give HOST:PORT, such as 127.0.0.1:9109")
    if not (allow_remote or _is_loopback(host)):
        raise UsageError(
            f"--listen {listen}: others could reach it, and whoever does sees the account's groups:"
            " name 127.0.0.1, or add --allow-remote"
        )
    return _Address(host, int(port))


@asynccontextmanager
async def serve(
    listen: str, watch: Watch, failures: Counter[str], *, account: str, allow_remote: bool
) -> AsyncIterator[str]:
    """Serve page, metrics and health check as long as the block lasts.

    Args:
        listen: HOST:PORT; port 0 takes a free one.
        watch: what to show.
        failures: how often a message could not be delivered, by where to.
        account: which account it is, as the page says.
        allow_remote: whether others may reach it.

    Returns:
        The page's URL.

    Raises:
        UsageError: it cannot listen there, or a package is missing.
    """
    host, port = address_of(listen, allow_remote=allow_remote)
    pages = _Pages(watch, failures, account)
    app = web.Application(middlewares=[] if allow_remote else [_only_by_local_names])
    app.add_routes(
        [
            web.get("/", pages.page),
            web.get("/metrics", pages.metrics),
            web.get("/healthz", pages.health),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN)
    await runner.setup()
    try:
        with usage_errors(f"--listen {listen}"):
            await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        yield f"http://{shown}:{bound[1]}/"
    finally:
        await runner.cleanup()


@web.middleware
async def _only_by_local_names(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse what a browser asks for by another name than this machine's own.

    By DNS rebinding a page on the Internet could read ours in the operator's browser, under a name
    that suddenly means 127.0.0.1. What sends no Host, which is mandatory, is no browser.
    """
    host: str | None = ""
    with suppress(ValueError):
        host = urlsplit(f"//{request.headers.get('Host', 'localhost')}").hostname
    if not _is_loopback(host or ""):
        raise web.HTTPMisdirectedRequest(
            text="Ask for 127.0.0.1 or localhost; with --allow-remote any name will do.\n"
        )
    return await handler(request)


class _Pages:
    def __init__(self, watch: Watch, failures: Counter[str], account: str) -> None:
        self._watch = watch
        self._failures = failures
        self._account = account
        self._metrics = _metrics(watch, failures)

    async def page(self, _: web.Request) -> web.Response:
        state, last = self._watch.state, self._watch.last
        present = state.present
        dark = sorted(
            ((group_id, group) for group_id, group in present.items() if group.dark),
            key=lambda item: (item[1].since, item[0]),
        )
        source = _template()
        text = source.template.render(
            account=self._account,
            now=datetime.now(UTC),
            state=state,
            last=last,
            error="" if last is None else clean(last.error, 300),
            every=self._watch.every,
            groups=len(present),
            whole=state.last_whole is not None and state.last_whole == state.last_look,
            unread=sum(not group.reads for group in present.values()),
            thin=sum(group.thin for group in present.values()),
            off=sum(group.off for group in present.values()),
            dark=[_Row.of(group_id, group) for group_id, group in dark[:_MOST_ROWS]],
            dark_count=len(dark),
            changes=await self._watch.recent(_RECENT),
            stale=self._stale(),
        )
        return _answer(text, "text/html", {"Content-Security-Policy": source.policy})

    async def metrics(self, _: web.Request) -> web.Response:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        self._metrics.waiting = await self._watch.waiting()
        body = generate_latest(self._metrics.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def health(self, _: web.Request) -> web.Response:
        state, stale = self._watch.state, self._stale()
        shown = {
            "healthy": not stale,
            "last_look": None if state.last_look is None else state.last_look.isoformat(),
            "blind_looks": state.blind_looks,
        }
        return web.json_response(
            shown, status=503 if stale else 200, headers={"Cache-Control": "no-store"}
        )

    def _stale(self) -> bool:
        return self._watch.seconds_since_look > _STALE * self._watch.every


class _Row(NamedTuple):
    """A dark group on the page."""

    id: int
    name: str
    since: datetime
    members: int
    told: bool

    @classmethod
    def of(cls, group_id: int, group: GroupState) -> _Row:
        name = clean(group.name).strip() or "(no name)"
        return cls(group_id, name, group.since, group.members, group.confirmed)


class _Source(NamedTuple):
    template: Template
    policy: str


@cache
def _template() -> _Source:
    from jinja2 import Environment

    text = files("deepcall_async.cli").joinpath("watch.html.jinja").read_text("utf-8")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)};"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return _Source(environment.from_string(text), policy)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _answer(text: str, content_type: str, headers: dict[str, str]) -> web.Response:
    common = {
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return web.Response(text=text, content_type=content_type, headers=common | headers)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Metrics:
    """Reads the numbers of a watch when they are asked for; they are the account's, no group's."""

    def __init__(self, watch: Watch, failures: Counter[str], registry: CollectorRegistry) -> None:
        self.registry = registry
        self.waiting = 0
        self._watch = watch
        self._failures = failures

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        state, last = self._watch.state, self._watch.last
        present = state.present.values()
        gauges = {
            "groups": ("Groups of the account.", len(present)),
            "dark_groups": (
                "Active groups that nobody answers for.",
                sum(group.dark for group in present),
            ),
            "thin_groups": (
                "Active groups that few answer for.",
                sum(group.thin for group in present),
            ),
            "off_groups": ("Inactive groups.", sum(group.off for group in present)),
            "blind_looks": ("Looks in a row that could read nothing.", state.blind_looks),
            "changes_waiting": ("Changes that somebody was not told yet.", self.waiting),
            "interval_seconds": ("Seconds between two looks.", self._watch.every),
        }
        if last is not None:
            gauges["look_seconds"] = ("Seconds that the last look took.", last.seconds)
            gauges["look_late_seconds"] = ("Seconds that the last look began late.", last.late)
            gauges["unread_groups"] = (
                "Groups that the last look could not read.",
                last.groups - last.read,
            )
        for name, says, moment in (
            ("last_look", "When the last look ended.", state.last_look),
            ("last_sight", "When a look last read anything.", state.last_sight),
            ("last_whole_look", "When a look last read every group.", state.last_whole),
        ):
            if moment is not None:
                gauges[f"{name}_timestamp_seconds"] = (says, moment.timestamp())
        for name, (says, value) in gauges.items():
            yield GaugeMetricFamily(f"deepcall_watch_{name}", says, value=value)
        yield CounterMetricFamily("deepcall_watch_looks", "Looks.", value=state.looks)
        yield CounterMetricFamily("deepcall_watch_changes", "Changes told.", value=state.numbers)
        failed = CounterMetricFamily(
            "deepcall_watch_delivery_failures",
            "Messages that could not be delivered at once, by where to.",
            labels=["channel"],
        )
        for label, number in self._failures.items():
            failed.add_metric([label], number)
        yield failed


def _metrics(watch: Watch, failures: Counter[str]) -> _Metrics:
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector
    except ImportError:
        raise UsageError("--listen needs the extra: pip install 'deepcall-async[watch]'") from None
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = _Metrics(watch, failures, registry)
    registry.register(metrics)
    return metrics
