"""What fanning out costs: CPU time a key, and memory.

Measures CPU time a key over that of bare worker coroutines pulling from one iterator, with calls
that do nothing and calls that yield to the event loop once: this package's ``fan_out``, a semaphore
with ``gather``, aiometer and aiostream, each in a process of its own, in turn. Then peak memory of
a process that fans out over 1,000 and 10,000 groups of the sandbox, at 64 at once, and over 10,000
and 1,000,000 keys with a call that does nothing. Exits with 1 when a figure is missed: 5 µs a key,
and a tenth more memory.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

from _measure import Meter, Spread, peak_memory, table, verdict
from _servers import own_process, serve_forever

from deepcall_async import DeepCall, Ok, UserToken, fan_out

AT_ONCE = 32
SANDBOX_AT_ONCE = 64
SANDBOX_USER = "29791451"

Call: TypeAlias = Callable[[int], Awaitable[int]]
Run: TypeAlias = Callable[[Call, Iterable[int]], Awaitable[int]]


async def at_once(key: int) -> int:
    """Do nothing."""
    return key


async def after_a_turn(key: int) -> int:
    """Yield to the event loop once."""
    await asyncio.sleep(0)
    return key


async def bare_workers(call: Call, keys: Iterable[int]) -> int:
    """Workers that pull keys from one iterator and keep nothing: what every fan-out must do."""
    done = 0

    async def work(source: Iterator[int]) -> None:
        nonlocal done
        for key in source:
            await call(key)
            done += 1

    source = iter(keys)
    await asyncio.gather(*[work(source) for _ in range(AT_ONCE)])
    return done


async def ours(call: Call, keys: Iterable[int]) -> int:
    """This package's."""
    done = 0
    async with fan_out(call, keys, concurrency=AT_ONCE) as outcomes:
        async for outcome in outcomes:
            done += isinstance(outcome, Ok)
    return done


async def semaphore_and_gather(call: Call, keys: Iterable[int]) -> int:
    """What is written most often; it holds a task for every key."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(key: int) -> int:
        async with slots:
            return await call(key)

    return len(await asyncio.gather(*[one(key) for key in keys]))


async def aiometer(call: Call, keys: Iterable[int]) -> int:
    """A library for it; it wants all keys in a list."""
    done = 0
    amap: Any = import_module("aiometer").amap
    async with amap(call, list(keys), max_at_once=AT_ONCE) as results:
        async for _ in results:
            done += 1
    return done


async def aiostream(call: Call, keys: Iterable[int]) -> int:
    """Another one, made of stream operators."""
    done = 0
    stream: Any = import_module("aiostream").stream

    async def source() -> AsyncIterator[int]:
        for key in keys:
            yield key

    mapped = stream.map(source(), call, ordered=False, task_limit=AT_ONCE)
    async with mapped.stream() as results:
        async for _ in results:
            done += 1
    return done


CALLS: Mapping[str, Call] = {"at once": at_once, "after a turn": after_a_turn}
RUNS: Mapping[str, Run] = {
    "bare workers": bare_workers,
    "deepcall_async": ours,
    "semaphore + gather": semaphore_and_gather,
    "aiometer": aiometer,
    "aiostream": aiostream,
}


async def ids_in(base_url: str, token: str) -> list[int]:
    """The ids of a sandbox's groups."""
    async with DeepCall(UserToken(SANDBOX_USER, token), base_url=base_url) as client:
        return [group.unique_id for group in await client.groups.list()]


async def over_the_sandbox(base_url: str, token: str) -> int:
    """Look up every group whose id standard input gives, and keep nothing."""
    found = 0
    keys = map(int, sys.stdin)
    async with DeepCall(UserToken(SANDBOX_USER, token), base_url=base_url) as client:
        lookup = client.groups.agent_relation
        async with fan_out(lookup, keys, concurrency=SANDBOX_AT_ONCE) as outcomes:
            async for outcome in outcomes:
                found += isinstance(outcome, Ok)
    return found


async def serve_sandbox(groups: int) -> None:
    """Serve a sandbox until standard input ends."""
    sandbox: Any = import_module("deepcall_async.sandbox").Sandbox
    async with sandbox(groups) as server:
        await serve_forever(f"{server.base_url} {server.token}")


def main() -> int:
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keys", type=int, default=50_000, help="keys a round for the CPU time")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(*options.child)
        return 0
    held = _cpu(options.rounds, options.keys)
    held &= _memory()
    return 0 if held else 1


def _cpu(rounds: int, keys: int) -> bool:
    names = [name for name in RUNS if find_spec(name.split(" ")[0]) or " " in name]
    for name in RUNS.keys() - set(names):
        print(f"skipped: {name}: not installed")
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for _ in range(rounds):
        for call in CALLS:
            for name in names:
                _, cpu, _ = _spawn("cpu", name, call, str(keys))
                times[name, call].append(cpu / keys * 1e6)
    best = {each: Spread.of(found).low for each, found in times.items()}
    rows = [
        (
            name,
            *(f"{best[name, call]:.1f}" for call in CALLS),
            *(f"{best[name, call] - best['bare workers', call]:.1f}" for call in CALLS),
        )
        for name in names
    ]
    header = ("µs CPU a key", *CALLS, *(f"more than bare, {call}" for call in CALLS))
    print(table(header, rows))
    print()
    more = max(best["deepcall_async", call] - best["bare workers", call] for call in CALLS)
    return verdict("µs a key more than bare workers", more, 5)


def _memory() -> bool:
    sandbox = {}
    for groups in (1_000, 10_000):
        with own_process(__file__, "--child", "sandbox", str(groups)) as server:
            base_url, token = server.first_line.split()
            # Listed elsewhere: the list is not the fan-out's memory.
            ids = asyncio.run(ids_in(base_url, token))
            found, _, sandbox[groups] = _spawn("lookups", base_url, token, keys=ids)
            assert found == groups == len(ids)
    print(f"\npeak MiB over the sandbox's groups, {SANDBOX_AT_ONCE} at once:", _listed(sandbox))
    trivial = {
        keys: _spawn("cpu", "deepcall_async", "at once", str(keys))[2]
        for keys in (10_000, 1_000_000)
    }
    print("peak MiB with a call that does nothing:", _listed(trivial))
    gathered = {
        keys: _spawn("cpu", "semaphore + gather", "at once", str(keys))[2]
        for keys in (10_000, 200_000)
    }
    print("the same by a semaphore with gather:", _listed(gathered), "\n")
    held = verdict("peak over 10,000 groups of that over 1,000", _ratio(sandbox), 1.10)
    return verdict("peak over 1,000,000 keys of that over 10,000", _ratio(trivial), 1.10) and held


def _listed(peaks: Mapping[int, float]) -> str:
    return ", ".join(f"{keys:,} keys {peak:.1f}" for keys, peak in peaks.items())


def _ratio(peaks: Mapping[int, float]) -> float:
    return peaks[max(peaks)] / peaks[min(peaks)]


def _spawn(*arguments: str, keys: Iterable[int] = ()) -> tuple[int, float, float]:
    """Keys done, CPU seconds and peak MiB of a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        input="".join(f"{key}\n" for key in keys),
    )
    count, cpu, peak = done.stdout.split()
    return int(count), float(cpu), float(peak)


def _child(kind: str, *arguments: str) -> None:
    if kind == "sandbox":
        asyncio.run(serve_sandbox(int(arguments[0])))
        return
    cpu = 0.0
    if kind == "lookups":
        count = asyncio.run(over_the_sandbox(*arguments))
    else:
        name, call, keys = arguments
        count, cpu = asyncio.run(_timed(RUNS[name], CALLS[call], int(keys)))
    print(count, cpu, peak_memory())


async def _timed(run: Run, call: Call, keys: int) -> tuple[int, float]:
    await run(call, range(1000))
    meter = Meter()
    done = await run(call, range(keys))
    cpu, _ = meter.read()
    return done, cpu


if __name__ == "__main__":
    sys.exit(main())
