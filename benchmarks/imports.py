"""Import time: this package against the three libraries it is built on.

Measures CPU time of importing ``deepcall_async.DeepCall`` and of ``import aiohttp, msgspec,
anyio``, each in fresh interpreters, in turn, with all modules compiled beforehand, and compares the
medians. Also shows that the import brings in neither the command's libraries nor any server part of
aiohttp that ``import aiohttp`` does not bring itself. Exits with 1 when it takes more than 1.10
times as long, or brings in too much.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile

from _measure import Spread, table, verdict

OURS = "deepcall_async; deepcall_async.DeepCall"  # its names are loaded on first use
THEIRS = "aiohttp, msgspec, anyio"
UNWANTED = ("rich", "cyclopts", "jinja2", "pytest", "uvloop", "aiohttp.web", "aiohttp.test_utils")

_CHILD = """
import json, sys, time
start = time.process_time()
import {modules}
print(json.dumps([time.process_time() - start, list(sys.modules)]))
"""


def main() -> int:
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {OURS: [], THEIRS: []}
    with tempfile.TemporaryDirectory() as folder:
        # The first measurement of each compiles.
        loaded = {modules: set(_measure(modules, folder)[1]) for modules in times}
        for _ in range(rounds):
            for modules, found in times.items():
                found.append(_measure(modules, folder)[0] * 1000)
    spreads = {modules: Spread.of(found) for modules, found in times.items()}
    rows = [
        (f"import {modules}", f"{spread.low:.1f}", f"{spread.median:.1f}")
        for modules, spread in spreads.items()
    ]
    print(table(("", "ms CPU, best", "median"), rows))
    extra = sorted(
        name
        for name in loaded[OURS] - loaded[THEIRS]
        if any(name == each or name.startswith((each + ".", each + "_")) for each in UNWANTED)
    )
    print(f"\nbrought in though not wanted: {', '.join(extra) or 'nothing'}")
    ratio = spreads[OURS].median / spreads[THEIRS].median
    held = verdict("import time of the three libraries'", ratio, 1.10)
    return 0 if held and not extra else 1


def _measure(modules: str, compiled: str) -> tuple[float, list[str]]:
    # An empty PYTHONDONTWRITEBYTECODE is none.
    settings = {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD.format(modules=modules)],
        capture_output=True,
        check=True,
        text=True,
        env=os.environ | settings,
    )
    seconds, names = json.loads(done.stdout)
    return seconds, names


if __name__ == "__main__":
    sys.exit(main())
