"""Adaptive concurrency against a service whose capacity changes.

Measures lookups answered a second by a server that serves 40 at once, then 120, then 10, and takes
50 ms for each, in phases of 12 s of which the first 4 s are left for settling: once when what is
too much waits in line, once when it is refused with HTTP 429 at once. ``Adaptive`` is not told of
any of it, and is compared with the best of some fixed settings for each phase. Also measures the
share of requests refused once settled. Exits with 1 when a phase falls 15 per cent short of the
best fixed setting, or when 2 per cent are refused. The server is a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import deque
from itertools import repeat

import msgspec
from _measure import table, verdict
from _servers import Requests, http_reply, own_process, serve, small_reply

from deepcall_async import Adaptive, DeepCall, Ok, UserToken, fan_out

CAPACITIES = (40, 120, 10)
MODES = {"queue": "too much waits", "429": "too much is refused"}
GROUP = 28
"""The group of the sample: an answer about another one than was asked for is refused."""
SERVICE = 0.05
PHASE, SETTLED = 12.0, 4.0
FIXED_PHASE, FIXED_SETTLED = 3.0, 1.0
FIXED = (0.75, 1.0, 1.25, 2.0)
"""Fixed settings to try, as shares of the capacity."""


class Phase(msgspec.Struct):
    """What a server saw while its capacity was the same, once settled."""

    capacity: int
    answered: int = 0
    refused: int = 0
    longest_pause: float = 0.0


class Plan(msgspec.Struct, frozen=True):
    """What a server is to do."""

    mode: str
    capacities: tuple[int, ...]
    phase: float
    settled: float


class Service:
    """A service with some places; the time starts with the first request."""

    def __init__(self, plan: Plan) -> None:
        self.phases = [Phase(capacity) for capacity in plan.capacities]
        self._plan = plan
        self._started = 0.0
        self._answered_at = 0.0
        self._busy = 0
        self._line: deque[Limited] = deque()
        self._reply = http_reply(small_reply())
        self._refusal = http_reply(b"{}", 429)

    def ask(self, connection: Limited) -> None:
        """Serve a request now, later, or not at all."""
        phase, settled = self._now()
        if self._busy < phase.capacity:
            self._serve(connection)
        elif self._plan.mode == "queue":
            self._line.append(connection)
        else:
            phase.refused += settled
            connection.transport.write(self._refusal)

    def _serve(self, connection: Limited) -> None:
        self._busy += 1
        asyncio.get_running_loop().call_later(SERVICE, self._answer, connection)

    def _answer(self, connection: Limited) -> None:
        self._busy -= 1
        connection.transport.write(self._reply)
        phase, settled = self._now()
        now = time.monotonic()
        if settled:
            phase.answered += 1
            phase.longest_pause = max(phase.longest_pause, now - self._answered_at)
        self._answered_at = now
        while self._line and self._busy < phase.capacity:
            self._serve(self._line.popleft())

    def _now(self) -> tuple[Phase, bool]:
        now = time.monotonic()
        self._started = self._started or now
        number, since = divmod(now - self._started, self._plan.phase)
        if number >= len(self.phases):
            return self.phases[-1], False
        return self.phases[int(number)], since >= self._plan.settled


class Limited(Requests):
    """A connection to the service."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def answer(self, request: bytes, body: bytes) -> None:
        """Ask the service."""
        self._service.ask(self)


async def _ask_for(seconds: float, port: int, concurrency: int | Adaptive) -> None:
    client = DeepCall(
        UserToken("29791451", "adaptive"),
        base_url=f"http://127.0.0.1:{port}",
        max_connections=300,
    )
    end = time.monotonic() + seconds
    async with client:
        lookup = client.groups.agent_relation
        async with fan_out(lookup, repeat(GROUP), concurrency=concurrency) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Ok) or concurrency != Adaptive(), outcome
                if time.monotonic() > end:
                    break


def _run(plan: Plan, concurrency: int | Adaptive) -> list[Phase]:
    argument = msgspec.json.encode(plan).decode()
    with own_process(__file__, "--serve", argument) as server:
        asyncio.run(_ask_for(plan.phase * len(plan.capacities), server.port, concurrency))
        return msgspec.json.decode(server.stop(), type=list[Phase])


def _best_fixed(mode: str, capacity: int) -> tuple[float, int]:
    """Answers a second of the best fixed setting, and which it is."""
    plan = Plan(mode, (capacity,), FIXED_PHASE, FIXED_SETTLED)
    tried = {max(1, round(capacity * share)) for share in FIXED}
    seconds = FIXED_PHASE - FIXED_SETTLED
    return max((_run(plan, setting)[0].answered / seconds, setting) for setting in sorted(tried))


def main() -> int:
    """Run both modes and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--serve", metavar="PLAN", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        service = Service(msgspec.json.decode(options.serve, type=Plan))
        asyncio.run(serve(lambda: Limited(service)))
        print(msgspec.json.encode(service.phases).decode())
        return 0
    held = [_compare(mode) for mode in MODES]
    return 0 if all(held) else 1


def _compare(mode: str) -> bool:
    plan = Plan(mode, CAPACITIES, PHASE, SETTLED)
    phases = _run(plan, Adaptive(min=4, max=256))
    rows, shares, refusals = [], [], []
    for phase in phases:
        best, setting = _best_fixed(mode, phase.capacity)
        rate = phase.answered / (PHASE - SETTLED)
        refused = phase.refused / (phase.refused + phase.answered)
        shares.append(rate / best)
        refusals.append(100 * refused)
        rows.append(
            (
                str(phase.capacity),
                f"{best:,.0f} at {setting}",
                f"{rate:,.0f}",
                f"{rate / best:.2f}",
                f"{100 * refused:.2f}",
                f"{1000 * phase.longest_pause:.0f}",
            )
        )
    header = ("capacity", "best fixed/s", "adaptive/s", "share", "% refused", "longest pause, ms")
    print(f"{MODES[mode]}\n{table(header, rows)}\n")
    held = verdict("share of the best fixed setting, worst phase", min(shares), 0.85, at_least=True)
    held &= verdict("per cent refused, worst phase", max(refusals), 2.0)
    print()
    return held


if __name__ == "__main__":
    sys.exit(main())
