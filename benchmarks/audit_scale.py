"""What an audit of a large account costs: 20,000 groups x 2,000 agents on the sandbox's data.

It prints the CPU time of a whole `run_audit`, its JSONL included, beside that of the bare lookups,
and the peak memory of the process; each in a process of its own. The sandbox runs in a third one
and answers at once: against a real service the share outside the lookups is smaller. CPU time and
not wall time is judged, so that a busy machine changes little. At 200,000 groups the goal is 16 s
and 500 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection

from deepcall_async import DeepCall, Ok, UserToken, fan_out
from deepcall_async.audit import run_audit

MOST_SHARE = 1.45
"""CPU time of the audit, as a multiple of the bare lookups': 16 s where these are 11 s."""

MOST_BYTES_PER_GROUP = 2_500
"""500 MB at 200,000 groups."""

BASE_MB = 60
"""What the process holds before it reads anything."""

Account = tuple[str, str, str]
Result = tuple[float, float, float, int, int]


def serve(groups: int, agents: int, address: Connection) -> None:
    """Serve the sandbox until killed."""
    from deepcall_async.sandbox import Sandbox

    async def work() -> None:
        async with Sandbox(groups=groups, agents=agents) as server:
            address.send((server.base_url, server.user_id, server.token))
            await asyncio.Event().wait()

    asyncio.run(work())


def connect(account: Account) -> DeepCall:
    """A client that takes a list of 200,000 groups."""
    base_url, user_id, token = account
    return DeepCall(
        UserToken(user_id, token), base_url=base_url, max_response_bytes=256 * 2**20, timeout=120
    )


async def look_up(account: Account) -> tuple[int, int]:
    """Read every group and keep nothing."""
    read = 0
    async with connect(account) as dc:
        ids = [group.unique_id for group in await dc.groups.list()]
        async with fan_out(dc.groups.agent_relation, ids) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Ok)
                read += 1
    return read, 0


async def audit(account: Account) -> tuple[int, int]:
    """Audit the account, and count the bytes of its record."""
    written = 0

    def count(line: bytes) -> None:
        nonlocal written
        written += len(line)

    async with connect(account) as dc:
        report = await run_audit(dc, on_line=count, concurrency=32)
        assert report.complete
        return report.read_count, written


def measure(
    work: Callable[[Account], Coroutine[None, None, tuple[int, int]]],
    account: Account,
    out: Connection,
) -> None:
    """Send the CPU and wall seconds and the peak megabytes of some work, and what it gave."""
    cpu, wall = time.process_time(), time.perf_counter()
    read, written = asyncio.run(work(account))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    out.send((cpu, wall, peak, read, written))


def apart(
    work: Callable[[Account], Coroutine[None, None, tuple[int, int]]], account: Account
) -> Result:
    """Measure some work in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=measure, args=(work, account, theirs))
    process.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    try:
        if not ours.poll(900):
            raise TimeoutError("it took more than 15 minutes")
        result: Result = ours.recv()
        return result
    finally:
        process.kill()
        process.join()


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
        account = ours.recv()
        bare = apart(look_up, account)
        whole = apart(audit, account)
    finally:
        server.kill()
        server.join()
    print(f"{whole[3]:,} groups, {options.agents:,} agents, {whole[4] / 1e6:.1f} MB of JSONL")
    for name, (cpu, wall, peak, _, _) in (("bare lookups", bare), ("whole audit", whole)):
        print(f"{name}: {cpu:.1f} s of CPU, {wall:.1f} s, peak {peak:.0f} MB")
    most_mb = BASE_MB + whole[3] * MOST_BYTES_PER_GROUP / 1e6
    judged = (
        ("CPU time against the bare lookups", whole[0] / bare[0], MOST_SHARE),
        ("peak memory in MB", whole[2], most_mb),
    )
    for name, value, most in judged:
        print(f"{name}: {value:.2f} (at most {most:.2f}) {'ok' if value <= most else 'MISSED'}")
    return 0 if all(value <= most for _, value, most in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
