"""Instructions of a relation lookup, counted by valgrind's callgrind, against a recorded count.

Counts what the client's process executes for a call, for a small, a large and a compressed reply of
a bare server, 8 calls at once on asyncio. A count repeats within a fraction of a per cent, however
busy the machine, so a growth of over 2 % is the code's. It depends on the interpreter and on the
libraries: where nothing is recorded for them, or valgrind is missing, the check is skipped and says
so. ``--record`` writes the present counts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import version
from pathlib import Path
from zlib import crc32

import msgspec
from _measure import table
from _servers import canned

from deepcall_async import DeepCall, UserToken

RECORDS = Path(__file__).with_suffix(".json")
SIZES = ("small", "large", "gzip")
WORKERS, WARM_UP, CALLS = 8, 25, 100
GROWTH = 0.02
MARK = "getpriority"
"""A function of the C library that nothing else calls: where callgrind begins a new count."""
LONGEST = 240
"""Seconds that counting may take; without other load it is fifteen."""


def main() -> int:
    """Count, and compare or record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--record", action="store_true", help="write the counts as the record")
    parser.add_argument("--calls", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.calls:
        for size in SIZES:
            asyncio.run(_lookups(f"{options.calls}/{size}"))
        return 0
    if shutil.which("valgrind") is None:
        print("skipped: valgrind is not installed")
        return 0
    records: dict[str, dict[str, int]] = {}
    if RECORDS.exists():
        records = msgspec.json.decode(RECORDS.read_bytes(), type=dict[str, dict[str, int]])
    record = records.get(_environment())
    if record is None and not options.record:
        print(f"skipped: no record for {_environment()}; --record makes one")
        return 0
    with canned(nginx=False) as base:
        counts = _count(base)
    if options.record:
        records[_environment()] = counts
        RECORDS.write_bytes(msgspec.json.format(msgspec.json.encode(records), indent=1) + b"\n")
        record = counts
    assert record is not None
    shares = {size: counts[size] / record[size] for size in SIZES}
    rows = [(size, f"{counts[size]:,}", f"{shares[size]:.3f}") for size in SIZES]
    print(table(("reply", "instructions a call", "of the record"), rows))
    grown = [size for size in SIZES if shares[size] > 1 + GROWTH]
    for size in grown:
        print(f"MISSED {size}: over {1 + GROWTH} of the record")
    return 1 if grown else 0


def _environment() -> str:
    libraries = " ".join(f"{name}-{version(name)}" for name in ("aiohttp", "msgspec", "multidict"))
    # Two builds of one version differ by their compiler's settings.
    built = crc32(f"{sys.version}{sysconfig.get_config_var('CONFIG_ARGS')}".encode())
    python = f"{platform.python_implementation()}-{platform.python_version()}-{built:08x}"
    return f"{python} {platform.machine()} {libraries}"


def _count(base: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "counts")
        subprocess.run(
            [
                *("valgrind", "--tool=callgrind", f"--callgrind-out-file={written}"),
                *(f"--dump-before={MARK}", sys.executable, __file__, "--calls", base),
            ],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            timeout=LONGEST,
            check=True,
        )
        # Each size has two marks, and each file holds what came before one: the first of a size is
        # its warming up, and starting Python before that, the second its calls.
        return {
            size: _total(written.with_suffix(f".{2 * number}")) // (CALLS * WORKERS)
            for number, size in enumerate(SIZES, 1)
        }


def _total(counts: Path) -> int:
    lines = counts.read_text().splitlines()
    return int(next(line for line in lines if line.startswith("totals:")).split()[1])


async def _lookups(url: str) -> None:
    credentials = UserToken("29791451", "0123456789abcdef0123456789abcdef")
    async with DeepCall(credentials, base_url=url, timeout=LONGEST) as client:

        async def work(calls: int) -> None:
            for _ in range(calls):
                await client.groups.agent_relation(28)

        for calls in (WARM_UP, CALLS):
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(work(calls))
            os.getpriority(os.PRIO_PROCESS, 0)


if __name__ == "__main__":
    sys.exit(main())
