"""What an audit of a large account costs: 20,000 groups x 2,000 agents on the sandbox's data.

It prints the wall time of a whole `run_audit`, its JSONL included, beside that of the bare lookups,
the share of the audit's time that is not lookups, and the process's peak memory. The sandbox runs
in a process of its own and answers at once: against a real service the share is smaller.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import sys
import time
from multiprocessing.connection import Connection

from deepcall_async import DeepCall, Ok, UserToken, fan_out
from deepcall_async.audit import run_audit

MOST_MIB = 600
MOST_SHARE = 0.20


def serve(groups: int, agents: int, address: Connection) -> None:
    """Serve the sandbox until killed."""
    from deepcall_async.sandbox import Sandbox

    async def work() -> None:
        async with Sandbox(groups=groups, agents=agents) as server:
            address.send((server.base_url, server.user_id, server.token))
            await asyncio.Event().wait()

    asyncio.run(work())


async def measure(base_url: str, user_id: str, token: str) -> tuple[float, float, int, int]:
    """Seconds of the bare lookups and of the audit, groups read, bytes of JSONL."""
    written = 0

    def count(line: bytes) -> None:
        nonlocal written
        written += len(line)

    async with DeepCall(UserToken(user_id, token), base_url=base_url) as dc:
        start = time.perf_counter()
        ids = [group.unique_id for group in await dc.groups.list()]
        async with fan_out(dc.groups.agent_relation, ids) as outcomes:
            assert all([isinstance(outcome, Ok) async for outcome in outcomes])
        bare = time.perf_counter() - start
        start = time.perf_counter()
        report = await run_audit(dc, on_line=count)
        whole = time.perf_counter() - start
        assert report.complete
        return bare, whole, report.read_count, written


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=20_000)
    parser.add_argument("--agents", type=int, default=2_000)
    options = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=serve, args=(options.groups, options.agents, theirs))
    server.start()
    try:
        bare, whole, read, written = asyncio.run(measure(*ours.recv()))
    finally:
        server.kill()
        server.join()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    share = max(0.0, 1 - bare / whole)
    print(f"{read:,} groups, {options.agents:,} agents, {written / 2**20:.1f} MiB of JSONL")
    print(f"bare lookups {bare:.1f} s, whole audit {whole:.1f} s")
    for name, value, most in (
        ("share outside the lookups", share, MOST_SHARE),
        ("peak memory in MiB", peak, MOST_MIB),
    ):
        print(f"{name}: {value:.2f} (at most {most}) {'ok' if value <= most else 'MISSED'}")
    return 0 if share <= MOST_SHARE and peak <= MOST_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
