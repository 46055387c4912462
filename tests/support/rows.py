"""Rows of parametrized tests that are slow, and much alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

__all__ = ["mostly_thorough"]


def mostly_thorough(rows: Iterable[Any], *, but: int = 1) -> list[Any]:
    """The rows, of which only the first few are run by default; all are with ``--ways all``.

    Args:
        rows: as for ``parametrize``.
        but: how many are run by default.
    """
    found = list(rows)
    thorough = [
        pytest.param(*(row if isinstance(row, tuple) else (row,)), marks=pytest.mark.thorough)
        for row in found[but:]
    ]
    return found[:but] + thorough
