"""What a fan-out loses when the service is away, throttles, or stands still, and what it sends.

Runs ``fan_out`` with its usual patience against a server in a process of its own: restarted for 1,
5 and 20 s in the midst of 2,000 keys (its socket closed, its connections reset); one that admits 2,
5 or 20 requests a second, with and without ``Retry-After``, for 300 keys at 32 at once and with
``Adaptive``; one that refuses everything; one of whose backends every tenth is dead for a minute;
and one that is suspended for 40 s. Prints the keys lost, the requests a key that the server
counted, and the time against the best possible. Exits with 1 when a figure is missed. Rows that
mostly wait run side by side. ``--smoke`` takes seconds, with smaller numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack

import msgspec
from _measure import table
from _servers import Requests, Server, http_reply, own_process, small_reply

from deepcall_async import Adaptive, DeepCall, Failed, RetryPolicy, UserToken, fan_out

AT_ONCE = 32
GROUP = re.compile(rb'"groupId":"?(\d+)')


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is to do.

    Attributes:
        latency: seconds for each answer.
        restart_after: requests after which it goes away; None for never.
        away: seconds for which it does.
        admits: requests admitted a second, and at once after a pause; None for all.
        windows: count by the seconds of the clock instead, so that all are refused until the next.
        retry_after: whether a refusal says when to come back.
        dead: the share of requests that a dead backend gets.
        dead_for: seconds, from the first request, for which it is dead.
    """

    latency: float = 0.02
    restart_after: int | None = None
    away: float = 0.0
    admits: int | None = None
    windows: bool = False
    retry_after: bool = False
    dead: float = 0.0
    dead_for: float = 0.0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One fan-out and what is asked of it.

    Attributes:
        best: seconds of the best possible run; those of an undisturbed one are added.
        slower: how many times the best it may take; None where time says nothing.
        most: requests at most.
        alone: whether it is run before the others, as it keeps this machine busy.
    """

    name: str
    keys: int
    plan: Plan
    best: float
    slower: float | None
    most: float
    adaptive: bool = False
    patience: float = 60.0
    timeout: float = 30.0
    attempts: int = 4
    suspended: float = 0.0
    all_lost: bool = False
    alone: bool = False


class Found(msgspec.Struct, frozen=True):
    """What came of it."""

    lost: int
    errors: dict[str, int]
    requests: int
    most_for_one: int
    seconds: float


class Service:
    """A server that fails as planned and counts what it is asked."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.asked: Counter[int] = Counter()
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._restarted = False
        self._bucket, self._filled = float(plan.admits or 0), time.monotonic()
        self._first = 0.0
        self._reply = json.loads(small_reply())

    async def listen(self, port: int = 0) -> int:
        """Listen, and give the port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), "127.0.0.1", port, backlog=1024
        )
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    def ask(self, connection: Connection, group: int) -> None:
        """Answer a request, or not."""
        plan, now = self.plan, time.monotonic()
        self._first = self._first or now
        self.asked[group] += 1
        number = self.asked.total()
        if plan.restart_after is not None and number > plan.restart_after and not self._restarted:
            self._restarted = True
            self._restart = asyncio.create_task(self._go_away())
        elif plan.dead and number % round(1 / plan.dead) == 0 and now < self._first + plan.dead_for:
            # A proxy tells in two ways that a backend is dead.
            if number % 2:
                connection.transport.abort()
            else:
                connection.transport.write(http_reply(b"", 502))
        elif plan.admits is not None and not self._admits(now):
            again = "Retry-After: 1\r\n" if plan.retry_after else ""
            connection.transport.write(http_reply(b"{}", 429, again))
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(plan.latency, connection.give, self._about(group))

    def _admits(self, now: float) -> bool:
        assert self.plan.admits is not None
        # A bucket of tokens, as nginx, Envoy and most gateways have it; or a counter a second.
        seconds = now - self._filled
        if self.plan.windows:
            seconds = int(now) - int(self._filled)
        filled = self._bucket + seconds * self.plan.admits
        self._bucket, self._filled = min(float(self.plan.admits), filled), now
        if self._bucket < 1:
            return False
        self._bucket -= 1
        return True

    def _about(self, group: int) -> bytes:
        self._reply["response"]["groupData"]["unique_id"] = group
        for relation in self._reply["response"]["relationData"]:
            relation["group_id"] = group
        return http_reply(json.dumps(self._reply).encode())

    async def _go_away(self) -> None:
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        self._server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        await asyncio.sleep(self.plan.away)
        await self.listen(port)


class Connection(Requests):
    """A connection to the service."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember it."""
        super().connection_made(transport)
        self._service.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._service.connections.discard(self)

    def answer(self, request: bytes, body: bytes) -> None:
        """Ask the service."""
        found = GROUP.search(body)
        assert found is not None
        self._service.ask(self, int(found[1]))

    def give(self, reply: bytes) -> None:
        """Write a reply, unless the connection is gone."""
        if not self.transport.is_closing():
            self.transport.write(reply)


async def serve(plan: Plan) -> None:
    """Serve until standard input ends, then print what was counted."""
    service = Service(plan)
    print(await service.listen(), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(service.asked.total(), max(service.asked.values(), default=0))


def server_of(row: Row) -> AbstractContextManager[Server]:
    """A row's server, in a process of its own."""
    return own_process(__file__, "--serve", msgspec.json.encode(row.plan).decode())


async def run(row: Row, server: Server) -> Found:
    """Fan out over the row's server, and end it."""
    started = time.monotonic()
    suspender = asyncio.create_task(suspend(server, row.suspended))
    errors: Counter[str] = Counter()
    given = 0
    async with (
        DeepCall(
            UserToken("29791451", "outage"),
            base_url=f"http://127.0.0.1:{server.port}",
            timeout=row.timeout,
            retry=RetryPolicy(attempts=row.attempts),
        ) as client,
        fan_out(
            client.groups.agent_relation,
            range(1, row.keys + 1),
            concurrency=Adaptive() if row.adaptive else AT_ONCE,
            patience=row.patience,
        ) as outcomes,
    ):
        async for outcome in outcomes:
            given += 1
            if isinstance(outcome, Failed):
                errors[type(outcome.error).__name__] += 1
    assert given == row.keys
    seconds = time.monotonic() - started
    await suspender
    requests, most = map(int, (await asyncio.to_thread(server.stop)).split())
    return Found(errors.total(), dict(errors), requests, most, seconds)


async def suspend(server: Server, seconds: float) -> None:
    """Stop the server's process a moment after the start, for so long."""
    if seconds:
        await asyncio.sleep(0.3)
        os.kill(server.process.pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.kill(server.process.pid, signal.SIGCONT)


def rows(*, smoke: bool) -> list[Row]:
    """What to run; the first is undisturbed."""
    many, few = (300, 60) if smoke else (2000, 300)
    found = [
        Row(
            name="undisturbed",
            keys=many,
            plan=Plan(),
            best=0.0,
            slower=None,
            most=1.0 * many,
            alone=True,
        )
    ]
    found += [
        Row(
            name=f"restarted for {away:g} s",
            keys=many,
            plan=Plan(restart_after=many // 2, away=away),
            best=away,
            slower=1.3,
            most=1.1 * many + 10 + AT_ONCE,
            alone=True,
        )
        for away in ((1.0,) if smoke else (1.0, 5.0, 20.0))
    ]
    found += [
        throttled(admits, few, retry_after=retry_after, adaptive=adaptive)
        for admits in ((20,) if smoke else (2, 5, 20))
        for retry_after in (False, True)
        for adaptive in (False, True)
    ]
    found += [throttled(20, few, adaptive=adaptive, windows=True) for adaptive in (False, True)]
    patience, slow = (2.0, 0.1) if smoke else (60.0, 0.48)
    found += [
        Row(
            name=f"refuses everything, {patience:g} s of patience",
            keys=few,
            plan=Plan(admits=0),
            best=patience,
            slower=1.3,
            most=1.1 * few + 10 + AT_ONCE,
            patience=patience,
            all_lost=True,
        ),
        Row(
            name="every tenth dead" + ("" if smoke else " for a minute"),
            keys=many if smoke else 2 * many,
            plan=Plan(latency=slow, dead=0.1, dead_for=60.0),
            best=(1 if smoke else 2) * many * slow / AT_ONCE,
            # In a run as short as this, the waits between attempts are most of the time.
            slower=None if smoke else 1.3,
            most=1.2 * (1 if smoke else 2) * many + 10,
            attempts=6,
        ),
        Row(
            name=f"suspended for {3 if smoke else 40} s",
            keys=many,
            plan=Plan(),
            best=3.3 if smoke else 40.3,
            slower=1.3,
            most=1.1 * many + 10 + AT_ONCE,
            timeout=1.0 if smoke else 30.0,
            suspended=3.0 if smoke else 40.0,
        ),
    ]
    return found


def throttled(
    admits: int, keys: int, *, retry_after: bool = False, adaptive: bool, windows: bool = False
) -> Row:
    """A row of a service that admits so many a second."""
    told = ", Retry-After" if retry_after else ", in windows" if windows else ""
    return Row(
        name=f"admits {admits} a second{told}, {'Adaptive' if adaptive else AT_ONCE}",
        keys=keys,
        plan=Plan(admits=admits, retry_after=retry_after, windows=windows),
        # What the bucket holds at first goes at once.
        best=keys / admits - 1,
        slower=1.8 if retry_after or windows else 1.3,
        most=1.5 * keys + 10 if adaptive else 2 * keys + AT_ONCE,
        adaptive=adaptive,
    )


def judge(row: Row, found: Found, undisturbed: float) -> tuple[Sequence[str], list[str]]:
    """A line of the table, and what was missed."""
    best = row.best + (undisturbed if not row.plan.admits and not row.plan.dead else 0.0)
    missed = []
    if found.lost and not row.all_lost:
        missed.append(f"{row.name}: lost {found.lost} ({found.errors})")
    if found.requests > row.most:
        missed.append(f"{row.name}: {found.requests} requests, at most {row.most:.0f}")
    if row.slower is not None and found.seconds > row.slower * best + 0.5:
        missed.append(f"{row.name}: {found.seconds:.1f} s, the best possible is {best:.1f} s")
    line = (
        row.name,
        f"{found.lost} of {row.keys}",
        f"{found.requests / row.keys:.2f}",
        f"{row.most / row.keys:.2f}",
        str(found.most_for_one),
        f"{found.seconds:.1f}",
        f"{best:.1f}",
        "-" if row.slower is None else f"{found.seconds / best:.2f}",
    )
    return line, missed


async def measure(chosen: list[Row]) -> bool:
    """Run the first alone, then the others side by side, and print."""
    with ExitStack() as stack:
        # All begun first: to wait for a process to start would hold up the others' clocks.
        servers = [stack.enter_context(server_of(row)) for row in chosen]
        found = [
            await run(row, server) for row, server in zip(chosen, servers, strict=True) if row.alone
        ]
        others = [
            run(row, server) for row, server in zip(chosen, servers, strict=True) if not row.alone
        ]
        found += await asyncio.gather(*others)
    chosen = sorted(chosen, key=lambda row: not row.alone)
    judged = [judge(row, each, found[0].seconds) for row, each in zip(chosen, found, strict=True)]
    header = ("", "lost", "requests a key", "at most", "for one key", "s", "best s", "of the best")
    print(table(header, [line for line, _ in judged]))
    print()
    missed = [each for _, misses in judged for each in misses]
    for each in missed:
        print("MISSED", each)
    print("MISSED" if missed else "ok", f"{len(chosen)} rows")
    return not missed


def main() -> int:
    """Run all rows, or those whose name holds a word."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--smoke", action="store_true", help="seconds, with smaller numbers")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--serve", metavar="PLAN", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(msgspec.json.decode(options.serve, type=Plan)))
        return 0
    logging.getLogger("deepcall_async").setLevel(logging.ERROR)
    first, *others = rows(smoke=options.smoke)
    chosen = [first, *(row for row in others if options.only in row.name)]
    return 0 if asyncio.run(measure(chosen)) else 1


if __name__ == "__main__":
    sys.exit(main())
