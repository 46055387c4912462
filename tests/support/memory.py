"""Whether a program's memory grows, without what the test itself keeps.

Nothing from the package.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from pathlib import Path
from statistics import median
from typing import Self

_TESTS = Path(__file__).parents[1]
if sys.version_info >= (3, 13):
    _clear_caches = sys._clear_internal_caches
else:
    _clear_caches = sys._clear_type_cache


class Growth:
    """Counts the blocks of memory in use, over the second half of a loop.

    Blocks count which were allocated in that half by any code but the tests'. Half-way, because
    tracing makes everything slower.

    Args:
        turns: how often the loop turns.
        leave_out: patterns of files, such as ``"*/sandbox/*"``, which do not count either.
    """

    def __init__(self, turns: int, *leave_out: str) -> None:
        self._turns = turns
        patterns = f"{_TESTS}/*", tracemalloc.__file__, *leave_out
        self._filters = [tracemalloc.Filter(False, pattern) for pattern in patterns]
        self._samples: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        tracemalloc.stop()

    def turn(self, number: int) -> None:
        """Begin to trace when it is time; called at the beginning of each turn."""
        if number == self._turns // 2:
            tracemalloc.start()

    def sample(self, number: int) -> None:
        """Count what is in use; called now and then, always at the same point of a turn."""
        # What replaces older memory, traced from then on, looks like growth at first.
        if number < self._turns * 6 // 10:
            return
        gc.collect()
        # The interpreter keeps names of attributes that it looked up.
        _clear_caches()
        found = tracemalloc.take_snapshot().filter_traces(self._filters)
        self._samples.append(len(found.traces))

    @property
    def blocks(self) -> float:
        """By how many blocks the later samples are above the earlier."""
        middle = len(self._samples) // 2
        return median(self._samples[middle:]) - median(self._samples[:middle])
