"""CPU time, speed and memory of a relation lookup: this package against others, and the limit.

Measures user and system time of the client's process for each call, calls a second and peak
memory, for the vendor's sample reply (1,084 bytes) and one with a roster of 1,000 agents (68 KB),
plain and over TLS, on asyncio and on uvloop, 32 calls at once; for replies in chunks, compressed,
and with another roster each; with 1,000 tasks on 100 connections; and, with a server that takes
50 ms for each reply and 100 calls at once, how much of the possible rate is reached. Every client
runs in a process of its own, in turn, for some rounds; imports and connecting are left out by a
warm-up.
Client and server share one core, so that neither the number of cores nor which of them are free
changes what is measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec
from _measure import Spread, table, verdict
from _rivals import CLIENTS, Figures, Settings, versions_of
from _servers import canned, delayed, has_nginx, make_certificate, version_of_nginx

RIVALS_SCRIPT = Path(__file__).with_name("_rivals.py")
SMOKE = ("limit", "us", "aiohttp")
LATENCY = ("limit", "us")


CODED = ("chunked", "gzip", "gzip-large", "changing")
"""Replies that only the bare protocol serves; ``changing`` has another large roster each time."""


class Scenario(NamedTuple):
    """One column of the comparison; ``tasks`` are how many call at once, if not as many as ever."""

    size: str
    tls: bool = False
    uvloop: bool = False
    tasks: int | None = None

    @property
    def title(self) -> str:
        """For people."""
        if self.tasks:
            return f"{self.size} reply, {self.tasks:,} tasks"
        return f"{self.size} reply, {'TLS' if self.tls else 'plain'}, {self.loop}"

    @property
    def loop(self) -> str:
        """Which event loop."""
        return "uvloop" if self.uvloop else "asyncio"


class Result(msgspec.Struct, frozen=True):
    """One client in one scenario: microseconds of CPU a call, calls a second, MiB."""

    scenario: str
    client: str
    title: str
    cpu_low: float
    cpu_median: float
    calls_per_second: float
    peak_memory: float
    of_limit: float | None = None


class Report(msgspec.Struct, frozen=True):
    """What a whole run found, and with what."""

    date: str
    python: str
    machine: str
    server: str
    rounds: int
    versions: dict[str, str]
    results: list[Result]
    latency_share: float | None = None


def main() -> int:
    """Run what the command line asks for."""
    options = _options()
    # So that the servers are ended when this is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    names, versions = _available(options.only)
    nginx = has_nginx() and not options.smoke
    scenarios = _scenarios(plain_only=options.plain, smoke=options.smoke)
    figures = _all_rounds(names, scenarios, options, nginx=nginx)
    results = [result for scenario in scenarios for result in _results(scenario, figures)]
    for scenario in scenarios:
        print(f"\n{scenario.title}, {options.concurrency} at once")
        print(_as_table(each for each in results if each.scenario == scenario.title))
    share = None
    if set(LATENCY) <= set(names):
        share = _latency_share(options)
    report = Report(
        datetime.now(UTC).date().isoformat(),
        platform.python_version(),
        f"{platform.system()} {platform.machine()}",
        version_of_nginx() if nginx else "a bare asyncio protocol",
        options.rounds,
        versions,
        results,
        share,
    )
    if options.json:
        text = msgspec.json.format(msgspec.json.encode(report), indent=1)
        Path(options.json).write_bytes(text + b"\n")
    print()
    held = _verdicts(results, share)
    return 0 if held or options.smoke else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, help="interleaved rounds (5)")
    parser.add_argument("--calls", type=int, help="small lookups a round of the fastest (20000)")
    parser.add_argument("--concurrency", type=int, default=32, help="calls at once (32)")
    parser.add_argument("--only", nargs="+", choices=CLIENTS, metavar="CLIENT", help="only these")
    parser.add_argument("--plain", action="store_true", help="leave TLS and uvloop out")
    parser.add_argument("--smoke", action="store_true", help="a short run that proves it works")
    parser.add_argument("--json", metavar="FILE", help="write the results to FILE")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.smoke else 5)
    options.calls = options.calls or (2000 if options.smoke else 20_000)
    options.only = options.only or (SMOKE if options.smoke else tuple(CLIENTS))
    return options


def _available(wanted: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    names = []
    versions = {name: version(name) for name in ("deepcall-async", "aiohttp", "msgspec")}
    if find_spec("uvloop"):
        versions["uvloop"] = version("uvloop")
    for name in wanted:
        found = versions_of(CLIENTS[name])
        if found is None:
            packages = " and ".join(CLIENTS[name].packages)
            print(f"skipped: {CLIENTS[name].title}: {packages} not installed")
        else:
            names.append(name)
            versions |= found
    return names, versions


def _scenarios(*, plain_only: bool, smoke: bool) -> list[Scenario]:
    sizes = ("small", "large")
    found = [Scenario(size) for size in sizes]
    found += [Scenario("gzip")] if smoke else [Scenario(size) for size in CODED]
    if not smoke:
        found += [Scenario("small", tasks=tasks) for tasks in (100, 1000)]
    if plain_only:
        return found
    uvloop = find_spec("uvloop") is not None
    if find_spec("trustme") is None:
        print("skipped: TLS: trustme not installed")
    elif smoke:
        found.append(Scenario("small", tls=True))
    else:
        found += [Scenario(size, tls=True) for size in sizes]
        found += [Scenario(size, tls=True, uvloop=True) for size in sizes if uvloop]
    if uvloop:
        found += [Scenario("small", uvloop=True)] if smoke else [
            Scenario(size, uvloop=True) for size in sizes
        ]  # fmt: skip
    else:
        print("skipped: uvloop: not installed")
    return found


Key = tuple[Scenario, str]


def _all_rounds(
    names: list[str], scenarios: list[Scenario], options: argparse.Namespace, *, nginx: bool
) -> dict[Key, list[Figures]]:
    found: dict[Key, list[Figures]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain = stack.enter_context(canned(nginx=nginx))
        bare = stack.enter_context(canned(nginx=False)) if nginx else plain
        secure, authority = "", None
        if any(scenario.tls for scenario in scenarios):
            certificate = make_certificate(folder)
            authority = str(certificate.authority)
            secure = stack.enter_context(canned(certificate, nginx=nginx))
        for number in range(1, options.rounds + 1):
            for scenario in scenarios:
                print(f"round {number} of {options.rounds}: {scenario.title}", file=sys.stderr)
                for name in names:
                    calls = options.calls // CLIENTS[name].cost
                    if scenario.size in ("large", "gzip-large", "changing"):
                        calls = calls // 5
                    if name == "limit" and (scenario.size.startswith(CODED) or scenario.tasks):
                        continue  # it reads nothing of the kind, and has a task a connection
                    base = bare if scenario.size in CODED else secure if scenario.tls else plain
                    settings = Settings(
                        client=name,
                        base_url=f"{base}/{scenario.size}",
                        calls=max(200, calls),
                        warm_up=max(200, calls // 10),
                        concurrency=scenario.tasks or options.concurrency,
                        uvloop=scenario.uvloop,
                        authority=authority if scenario.tls else None,
                    )
                    figures = _run(settings)
                    if figures is not None:
                        found[scenario, name].append(figures)
    return found


def _run(settings: Settings) -> Figures | None:
    environment = dict(os.environ)
    if settings.authority:
        environment["SSL_CERT_FILE"] = settings.authority
    done = subprocess.run(
        [sys.executable, str(RIVALS_SCRIPT), msgspec.json.encode(settings).decode()],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
        check=False,
    )
    if done.returncode:
        print(f"failed: {CLIENTS[settings.client].title}\n{done.stderr}", file=sys.stderr)
        return None
    return msgspec.json.decode(done.stdout, type=Figures)


def _results(scenario: Scenario, figures: dict[Key, list[Figures]]) -> list[Result]:
    found = []
    floor = None
    for name in CLIENTS:
        rounds = figures.get((scenario, name))
        if not rounds:
            continue
        cpu = Spread.of(seconds * 1e6 for each in rounds for seconds in each.cpu)
        if name == "limit":
            floor = cpu.low
        found.append(
            Result(
                scenario.title,
                name,
                CLIENTS[name].title,
                cpu.low,
                cpu.median,
                1 / Spread.of(seconds for each in rounds for seconds in each.wall).low,
                Spread.of(each.peak_memory for each in rounds).median,
                cpu.low / floor if floor else None,
            )
        )
    return found


def _as_table(results: Iterable[Result]) -> str:
    header = ("client", "µs CPU a call", "median", "of the limit", "calls/s", "peak MiB")
    rows = [
        (
            each.title,
            f"{each.cpu_low:,.1f}",
            f"{each.cpu_median:,.1f}",
            "-" if each.of_limit is None else f"{each.of_limit:.2f}",
            f"{each.calls_per_second:,.0f}",
            f"{each.peak_memory:.0f}",
        )
        for each in sorted(results, key=lambda each: each.cpu_low)
    ]
    return table(header, rows)


def _latency_share(options: argparse.Namespace) -> float:
    """Calls a second of ours over those of the bare protocol, when each reply takes 50 ms."""
    rates: dict[str, list[float]] = defaultdict(list)
    calls = 1000 if options.smoke else 5000
    with delayed(0.05) as base:
        for _ in range(1 if options.smoke else 3):
            for name in LATENCY:
                settings = Settings(
                    client=name,
                    base_url=f"{base}/small",
                    calls=calls,
                    warm_up=500,
                    concurrency=100,
                )
                figures = _run(settings)
                if figures is not None:
                    rates[name].append(1 / Spread.of(figures.wall).median)
    ours, bare = max(rates["us"]), max(rates["limit"])
    print(f"\n50 ms a reply, 100 at once: {ours:,.0f} calls/s of the bare protocol's {bare:,.0f}")
    return ours / bare


def _verdicts(results: list[Result], share: float | None) -> bool:
    best = {(each.scenario, each.client): each.cpu_low for each in results}
    held = True
    for size, targets in (
        ("small", {"aiohttp": 0.35, "pyreqwest": 0.75, "ry": 0.8, "limit": 1.5}),
        ("large", {"aiohttp": 0.20, "pyreqwest": 0.45, "limit": 0.65}),
    ):
        title = Scenario(size).title
        for rival, target in targets.items():
            if (title, rival) in best and (title, "us") in best:
                ratio = best[title, "us"] / best[title, rival]
                held &= verdict(f"{size} reply, CPU of {CLIENTS[rival].title}", ratio, target)
        if (title, "us-observed") in best and (title, "us") in best:
            ratio = best[title, "us-observed"] / best[title, "us"]
            held &= verdict(f"{size} reply, CPU with an observer that counts", ratio, 1.03)
    if share is not None:
        held &= verdict("50 ms a reply, rate of the bare protocol", share, 0.98, at_least=True)
    return held


if __name__ == "__main__":
    sys.exit(main())
