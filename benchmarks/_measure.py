"""How the benchmarks measure: CPU time and peak memory of a process, rounds, tables.

Measures nothing by itself. CPU time is user and system time of the measured process alone. A low
percentile of many short segments is what the code costs: slower ones are the machine's, and the one
fastest is luck.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

__all__ = ["Meter", "Spread", "peak_memory", "resident_memory", "table", "verdict"]

_MIB = 2**20


class Meter:
    """CPU and wall seconds since it was made."""

    def __init__(self) -> None:
        gc.collect()
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def read(self) -> tuple[float, float]:
        """CPU seconds and wall seconds."""
        return time.process_time() - self._cpu, time.perf_counter() - self._wall


class Spread(NamedTuple):
    """The tenth percentile and the median of some segments."""

    low: float
    median: float

    @classmethod
    def of(cls, rounds: Iterable[float]) -> Spread:
        """Of these segments."""
        values = sorted(rounds)
        return cls(values[len(values) // 10], median(values))


def peak_memory() -> float:
    """MiB this process has held at most.

    Not `ru_maxrss` where there is better: it starts from what the parent held.
    """
    found = _from_proc("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if found is None else found


def resident_memory() -> float:
    """MiB this process holds now; its peak where the system does not tell."""
    found = _from_proc("VmRSS")
    return peak_memory() if found is None else found


def _from_proc(field: str) -> float | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / _MIB
    return None


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as they need to be; the first to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if n else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def verdict(what: str, measured: float, target: float, *, at_least: bool = False) -> bool:
    """Print one line on whether a figure holds, and tell whether it does."""
    held = measured >= target if at_least else measured <= target
    bound = "at least" if at_least else "at most"
    print(f"{'ok' if held else 'MISSED':7}{what}: {measured:.5g} ({bound} {target:g})")
    return held
