"""Running a command's coroutine, on uvloop where it is installed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from importlib.util import find_spec
from typing import Any, TypeVar

__all__ = ["run_async"]

T = TypeVar("T")


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end and give its result."""
    if find_spec("uvloop") is not None:
        import uvloop

        return uvloop.run(work)
    return asyncio.run(work)
