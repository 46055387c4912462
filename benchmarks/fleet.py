"""What a fleet's audit loses and doubles when it is killed: 200 accounts x 100 groups.

Each way to run (in one process, ``--processes 2``, two ``--shard``s, ``--dask local``) audits the
same accounts on a server that counts every lookup, in a process of its own. At a third of them a
child or a worker is killed with SIGKILL, where there is one; at half, the command. Then the same
command runs again. Nothing may be lost, every account is told once, no account is asked faster than
its limit in any second, and all ways give the same report but for timings. Then: CPU time a lookup
against a plain fan-out over the same audits without files, and the memory of the coordinator.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from _measure import peak_memory, table, verdict
from aiohttp import web

from deepcall_async import DeepCall, UserToken, fan_out
from deepcall_async.audit import Report, run_audit
from deepcall_async.audit.fleet import AccountReport
from deepcall_async.fleet import Account, AuditPlan, audit_fleet
from deepcall_async.sandbox import SandboxFleet

PER_SECOND = 100
"""The limit of each account, as many requests as it takes to read it in a second."""

MOST_OVERHEAD = 1.15
MOST_MIB = 5.0
LONGEST = 600
TIMINGS = ("seconds", "requests", "retries", "started")


class Counting(SandboxFleet):
    """Notes each request: whose, about which group, when."""

    def __init__(self, accounts: int, groups: int) -> None:
        super().__init__(accounts, groups=groups)
        self.seen: list[tuple[int, int | None, float]] = []
        self._number = {each: i for i, each in enumerate(self.accounts)}
        for each in self.accounts:
            each.latency = 0.005

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = json.loads(await request.read())
        account = self._number[self._by_secret[body["token"]]]
        group = int(body["groupId"]) if request.path.endswith("Relation") else None
        self.seen.append((account, group, time.monotonic()))
        return await super()._handle(request)


def serve(accounts: int, groups: int, pipe: Connection) -> None:
    """Serve, and answer "count", "seen" and "reset" over the pipe, until killed."""

    async def work() -> None:
        async with Counting(accounts, groups) as server:
            planted = [each.planted.get("R004", ()) for each in server.accounts]
            tokens = [(each.user_id, each.token) for each in server.accounts]
            pipe.send((server.base_url, tokens, planted))
            threading.Thread(target=answer, args=(server, pipe), daemon=True).start()
            await asyncio.Event().wait()

    asyncio.run(work())


def answer(server: Counting, pipe: Connection) -> None:
    """Answer one question after the other."""
    while True:
        match pipe.recv():
            case "count":
                pipe.send(len(server.seen))
            case "seen":
                pipe.send(server.seen)
            case "reset":
                server.seen = []
                pipe.send(None)


class Service:
    """The server's process, and what it has counted."""

    def __init__(self, accounts: int, groups: int) -> None:
        self.accounts, self.groups = accounts, groups
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=serve, args=(accounts, groups, theirs))
        self._process.start()
        self.base_url, self.tokens, self.planted = self._pipe.recv()

    def ask(self, question: str) -> Any:
        """Ask the server."""
        self._pipe.send(question)
        return self._pipe.recv()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.join()

    def environment(self) -> dict[str, str]:
        """The environment with every account's credentials."""
        found = {**os.environ, "DEEPCALL_BASE_URL": self.base_url}
        for number, (user_id, token) in enumerate(self.tokens):
            found |= {f"A{number}_USER_ID": user_id, f"A{number}_TOKEN": token}
        return found

    def judged(self) -> tuple[int, int, int]:
        """Distinct lookups, doubled ones, and the most requests of an account in a second.

        Groups whose labels differ from their relations are looked at once more by each audit.
        """
        asked: Counter[tuple[int, int]] = Counter()
        times: defaultdict[int, list[float]] = defaultdict(list)
        for account, group, when in self.ask("seen"):
            times[account].append(when)
            if group is not None:
                asked[account, group] += 1
        doubled = sum(
            number - 1 - (group in self.planted[account])
            for (account, group), number in asked.items()
            if number > 1
        )
        return len(asked), max(doubled, 0), max(map(worst_second, times.values()))


def worst_second(times: list[float]) -> int:
    """The most of these times that are within one second."""
    times.sort()
    most = first = 0
    for last, when in enumerate(times):
        while when - times[first] >= 1:
            first += 1
        most = max(most, last - first + 1)
    return most


def command(*words: object, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the command; what it says goes nowhere."""
    return subprocess.Popen(
        [sys.executable, "-m", "deepcall_async", *map(str, words)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def children(parent: int) -> list[int]:
    """The processes below a process that run an audit: not Dask's own helpers."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    below = {parent}
    found = []
    for line in listed.splitlines():
        pid, ppid, words = line.split(None, 2)
        if int(ppid) in below:
            below.add(int(pid))
            if re.search(r"shards import child|spawn_main|forkserver", words):
                found.append(int(pid))
    return found


def wait_for(service: Service, lookups: int, running: Iterable[subprocess.Popen[bytes]]) -> None:
    """Wait until the server has seen so many requests, or all processes have ended."""
    end = time.monotonic() + LONGEST
    while service.ask("count") < lookups and any(each.poll() is None for each in running):
        if time.monotonic() > end:
            raise TimeoutError(f"it took more than {LONGEST} s")
        time.sleep(0.02)


def killed_and_again(
    service: Service, toml: Path, folder: Path, ways: list[list[str]]
) -> dict[str, Any]:
    """Run a way, kill at a third and at half, run it again, and give the report."""
    env = service.environment()
    half = service.accounts * service.groups // 2
    base = ["fleet", "audit", toml, "--folder", folder, "--quiet", "--rate", PER_SECOND]
    begin = [command(*base, *way, env=env) for way in ways]
    try:
        wait_for(service, half * 2 // 3, begin)
        below = children(begin[0].pid)
        if below:
            os.kill(below[-1], signal.SIGKILL)
        wait_for(service, half, begin)
        begin[0].kill()
        for each in begin[:1] if len(begin) == 1 else begin:
            each.wait(LONGEST)
    finally:
        for each in begin:
            each.kill()
            each.wait()
    before = time.monotonic()
    for way in ways:
        code = command(*base, *way, env=env).wait(LONGEST)
        if code not in (0, 1):
            raise RuntimeError(f"{way}: exit code {code}")
    took = time.monotonic() - before
    print(f"{' and '.join(map(' '.join, ways)) or 'one process'}: again in {took:.1f} s")
    told = subprocess.run(
        [sys.executable, "-m", "deepcall_async", "fleet", "report", folder, "-o", "json:-"],
        capture_output=True,
        check=False,
        timeout=LONGEST,
    ).stdout
    report: dict[str, Any] = json.loads(told)
    return report


def without_timings(report: dict[str, Any]) -> dict[str, Any]:
    """The report without what differs from run to run."""
    for each in report["accounts"]:
        for field in TIMINGS:
            del each[field]
    return report


async def overhead(service: Service) -> float:
    """CPU time of a fleet's audit over that of a plain fan-out over the same audits."""
    os.environ.update(service.environment())
    accounts = [Account(f"a{i}", f"env:A{i}", service.base_url) for i in range(service.accounts)]

    async def plain() -> None:
        user_id, token = service.tokens[0]
        async with DeepCall(
            UserToken(user_id, token), base_url=service.base_url, max_connections=256
        ) as dc:

            async def one(number: int) -> Report:
                credentials = UserToken(*service.tokens[number])
                # The lines of the record are made here too, and thrown away.
                return await run_audit(dc.with_options(credentials=credentials), on_line=len)

            numbers = range(service.accounts)
            async with fan_out(one, numbers, concurrency=64, patience=0) as outcomes:
                async for _ in outcomes:
                    pass

    async def fleet() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async for report in audit_fleet(accounts, folder=folder):
                if not report.complete:
                    raise RuntimeError(report.verdict)

    spent: dict[str, list[float]] = {"plain": [], "fleet": []}
    for _ in range(3):
        for name, work in (("plain", plain), ("fleet", fleet)):
            began = time.process_time()
            await work()
            spent[name].append(time.process_time() - began)
    a_lookup = {name: min(each) / service.accounts / service.groups for name, each in spent.items()}
    print(f"CPU a lookup: {a_lookup['plain'] * 1e6:.0f} us plain, {a_lookup['fleet'] * 1e6:.0f} us")
    return a_lookup["fleet"] / a_lookup["plain"]


def coordinate(number: int, pipe: Connection) -> None:
    """Send how much memory the coordinating process gains, the audits being elsewhere."""

    async def work() -> float:
        accounts = [Account(f"account-{i:05}", f"env:A{i}") for i in range(number)]

        async def elsewhere(account: Account) -> AccountReport:
            await asyncio.sleep(0)
            verdict = "Callers to 2 groups reach nobody. 33 findings: 1 critical, 32 high."
            return AccountReport(name=account.name, complete=True, verdict=verdict, groups=100)

        def engine(call: object, keys: Iterable[Account], **options: Any) -> Any:
            return fan_out(elsewhere, keys, **options)

        plan = AuditPlan(base_url="https://brand.example")
        with tempfile.TemporaryDirectory() as folder:
            async for _ in audit_fleet(accounts, folder=folder, plan=plan, fan_out=engine):
                pass
        return peak_memory()

    pipe.send(asyncio.run(work()))


def peak(number: int) -> float:
    """The peak memory in MiB of a process that coordinates so many accounts."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=coordinate, args=(number, theirs))
    process.start()
    found: float = ours.recv()
    process.join()
    return found


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--accounts", type=int, default=200)
    parser.add_argument("--groups", type=int, default=100)
    options = parser.parse_args()
    ways: list[list[list[str]]] = [
        [[]],
        [["--processes", "2"]],
        [["--shard", "0/2"], ["--shard", "1/2"]],
    ]
    if find_spec("distributed") is None:
        print("without Dask: pip install 'deepcall-async[dask]'")
    else:
        ways.append([["--dask", "local"]])
    total = options.accounts * options.groups
    service = Service(options.accounts, options.groups)
    held, rows, reports = True, [], []
    try:
        with tempfile.TemporaryDirectory() as root:
            toml = Path(root, "fleet.toml")
            tables = (
                f'[[account]]\nname = "a{i}"\ncredentials = "env:A{i}"\n'
                for i in range(options.accounts)
            )
            toml.write_text("".join(tables))
            for number, way in enumerate(ways):
                service.ask("reset")
                report = killed_and_again(service, toml, Path(root, str(number)), way)
                distinct, doubled, fastest = service.judged()
                name = " and ".join(" ".join(words) for words in way) or "one process"
                rows.append((name, *map(str, (distinct, total - distinct, doubled, fastest))))
                held &= distinct == total and fastest <= PER_SECOND
                held &= report["summary"]["unread"] == 0
                held &= len({each["name"] for each in report["accounts"]}) == options.accounts
                reports.append(without_timings(report))
        print(
            table(
                ("killed at half, then again", "distinct", "lost", "doubled", "worst second"), rows
            )
        )
        held &= verdict(
            "reports that differ from the first", sum(r != reports[0] for r in reports), 0
        )
        for each in rows:
            held &= verdict(f"lost, {each[0]}", int(each[2]), 0)
            held &= verdict(f"worst second of an account, {each[0]}", int(each[4]), PER_SECOND)
        held &= verdict("CPU of a plain fan-out", asyncio.run(overhead(service)), MOST_OVERHEAD)
    finally:
        service.close()
    gained = peak(10_000) - peak(1_000)
    held &= verdict("MiB the coordinator gains from 1,000 to 10,000 accounts", gained, MOST_MIB)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
