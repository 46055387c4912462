"""A long run against a failing server: nothing lost, swapped or doubled, nothing left behind.

Measures, over some lookups (a million unless told otherwise), 200 at once with five attempts each,
while one request in twenty meets a fault: outcomes lost, doubled, or belonging to another key (the
server echoes the group asked for); the share that succeeds; requests sent for each lookup; growth
of the process's memory after a warm-up; file descriptors and tasks left after the client is closed.
The server is a process of its own. Exits with 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import msgspec
from _measure import resident_memory, verdict
from _servers import Requests, Server, http_reply, own_process, serve

from deepcall_async import DeepCall, Failed, GroupAgentRelation, RetryPolicy, UserToken, fan_out

AT_ONCE = 200
FAULTY = 0.05
WARM_UP = 0.1
"""The share of the lookups after which memory is expected to stay flat."""
SAMPLES = 200

_BUSY = b'{"status":"error","message":"try again","code":%d}'
_NO_CODE = b'{"message":"try again"}'
_REFUSALS = {
    "500": http_reply(_NO_CODE, 500),
    "502": http_reply(b"<html>bad gateway</html>", 502),
    "503": http_reply(_NO_CODE, 503, "Retry-After: 0\r\n"),
    "429": http_reply(_NO_CODE, 429, "Retry-After: 0\r\n"),
    "code 1009": http_reply(_BUSY % 1009),
    "code 1032": http_reply(_BUSY % 1032, 500),
}
_FAULTS = (*_REFUSALS, "drop", "drop silently", "reset in the body", "cut short", "close when idle")
_GROUP = b'"groupData":{"name":"group %d","unique_id":%d,"user_id":"7","status":1}'
_ROSTER = b'"agentData":[{"name":"Asha","unique_id":3},{"name":"Ben","unique_id":8}]'
_ROWS = b'"relationData":[{"group_id":%d,"agent_id":3,"receive_call":"Y","user_id":"7"}]'
_RELATION = b'{"status":"success","response":{' + _GROUP + b"," + _ROSTER + b"," + _ROWS + b"}}"


class _Asked(msgspec.Struct):
    groupId: int  # noqa: N815  (the wire's own name)


_asked = msgspec.json.Decoder(_Asked)
_ledger: Counter[str] = Counter()
_chance = random.Random(7)


class Unreliable(Requests):
    """Echoes the group asked for, unless it is this request's turn to fail."""

    def answer(self, request: bytes, body: bytes) -> None:
        """Answer, or not."""
        _ledger["requests"] += 1
        group = _asked.decode(body).groupId
        reply = http_reply(_RELATION % (group, group, group))
        if _chance.random() >= FAULTY:
            self.transport.write(reply)
            return
        fault = _chance.choice(_FAULTS)
        _ledger[fault] += 1
        if fault in _REFUSALS:
            self.transport.write(_REFUSALS[fault])
            return
        loop = asyncio.get_running_loop()
        if fault == "drop":
            self.transport.close()
        elif fault == "drop silently":
            self._reset()
        elif fault == "close when idle":
            # Just after a good reply, as the client is about to use the connection again.
            self.transport.write(reply)
            loop.call_later(_chance.random() / 500, self.transport.close)
        else:
            self.transport.write(reply[: -_chance.randrange(1, 200)])
            end = self._reset if fault == "reset in the body" else self.transport.close
            loop.call_later(0.002, end)

    def _reset(self) -> None:
        connection = self.transport.get_extra_info("socket")
        if connection.fileno() >= 0:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()


class Tally:
    """What came out of a run, outcome by outcome."""

    def __init__(self, lookups: int) -> None:
        self.seen = bytearray(lookups)
        self.swapped = 0
        self.failed: Counter[str] = Counter()
        self.memory: list[tuple[float, float]] = []
        self._every = max(1, lookups // SAMPLES)
        self._done = 0

    def add(self, key: int, relation: GroupAgentRelation | None, error: str) -> None:
        """Count one outcome."""
        self.seen[key] = min(255, self.seen[key] + 1)
        if relation is None:
            self.failed[error] += 1
        elif {relation.group.unique_id, *(row.group_id for row in relation.relations)} != {key}:
            self.swapped += 1
        self._done += 1
        if self._done % self._every == 0:
            self.memory.append((self._done / len(self.seen), resident_memory()))

    @property
    def lost(self) -> int:
        """Keys without an outcome."""
        return self.seen.count(0)

    @property
    def doubled(self) -> int:
        """Keys with more than one."""
        return len(self.seen) - self.lost - self.seen.count(1)

    def growth(self) -> tuple[float, float]:
        """MiB gained since the warm-up at most, and MiB gained for each million lookups."""
        steady = [(share * len(self.seen), held) for share, held in self.memory if share > WARM_UP]
        mean_at = sum(at for at, _ in steady) / len(steady)
        mean_held = sum(held for _, held in steady) / len(steady)
        spread = sum((at - mean_at) ** 2 for at, _ in steady)
        slope = sum((at - mean_at) * (held - mean_held) for at, held in steady) / spread
        return max(held for _, held in steady) - steady[0][1], slope * 1e6


class Left(NamedTuple):
    """Open file descriptors (-1 where they cannot be counted) and tasks."""

    descriptors: int
    tasks: int

    @classmethod
    def now(cls) -> Left:
        """As of now."""
        folder = Path("/proc/self/fd")
        descriptors = len(os.listdir(folder)) if folder.exists() else -1  # noqa: PTH208  (fast)
        return cls(descriptors, len(asyncio.all_tasks()))


async def soak(port: int, lookups: int) -> tuple[Tally, Left]:
    """Look up every key once; give what came out, and what is left over after the close."""
    tally = Tally(lookups)
    # With its first connection a loop may open a descriptor that it keeps.
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()
    before = Left.now()
    client = DeepCall(
        UserToken("29791451", "soak"),
        base_url=f"http://127.0.0.1:{port}",
        retry=RetryPolicy(attempts=5, base_delay=0.01, max_delay=0.1),
        max_connections=AT_ONCE,
    )
    async with client:
        lookup = client.groups.agent_relation
        async with fan_out(lookup, range(lookups), concurrency=AT_ONCE) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Failed):
                    tally.add(outcome.key, None, repr(outcome.error))
                else:
                    tally.add(outcome.key, outcome.value, "")
    left = Left.now()
    closed_at = time.monotonic()
    while left != before and time.monotonic() < closed_at + 1:
        await asyncio.sleep(0.05)
        left = Left.now()
    return tally, Left(left.descriptors - before.descriptors, left.tasks - before.tasks)


def main() -> int:
    """Run the soak and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lookups", type=int, default=1_000_000)
    parser.add_argument("--uvloop", action="store_true", help="run the client on uvloop")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(Unreliable))
        print(msgspec.json.encode(_ledger).decode())
        return 0
    run = import_module("uvloop").run if options.uvloop else asyncio.run
    with own_process(__file__, "--serve") as server:
        start = time.monotonic()
        gc.collect()
        tally, left = run(soak(server.port, options.lookups))
        seconds = time.monotonic() - start
        ledger = _stop(server)
    return 0 if _report(options.lookups, seconds, tally, left, ledger) else 1


def _stop(server: Server) -> Counter[str]:
    return Counter(msgspec.json.decode(server.stop(), type=dict[str, int]))


def _report(lookups: int, seconds: float, tally: Tally, left: Left, ledger: Counter[str]) -> bool:
    requests = ledger.pop("requests")
    print(f"{lookups:,} lookups in {seconds:.1f} s ({lookups / seconds:,.0f}/s), {AT_ONCE} at once")
    print(f"{requests:,} requests, {sum(ledger.values()):,} of them met a fault:")
    print("  " + ", ".join(f"{name} {count:,}" for name, count in sorted(ledger.items())))
    for error, count in tally.failed.most_common(5):
        print(f"  failed {count}: {error}")
    growth, slope = tally.growth()
    succeeded = 100 * (1 - tally.failed.total() / lookups)
    print(f"memory: {slope:+.2f} MiB for each million lookups after the first tenth\n")
    held = [
        verdict("outcomes lost", tally.lost, 0),
        verdict("outcomes swapped", tally.swapped, 0),
        verdict("outcomes doubled", tally.doubled, 0),
        verdict("per cent that succeed", succeeded, 99.999, at_least=True),
        verdict("requests for each lookup", requests / lookups, 1.06),
        verdict("MiB gained after the warm-up", growth, 10),
        verdict("file descriptors left after the close", left.descriptors, 0),
        verdict("tasks left after the close", left.tasks, 0),
    ]
    return all(held)


if __name__ == "__main__":
    sys.exit(main())
