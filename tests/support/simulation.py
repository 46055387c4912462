"""A service that exists only in a simulation: a gate where calls wait, as while it is away."""

from __future__ import annotations

import asyncio

from deepcall_async.pacing import current_patience

__all__ = ["Gate"]


class Gate:
    """Calls wait here as they wait for a service that is away."""

    def __init__(self) -> None:
        self.closed = False
        self.opened = asyncio.Event()
        self.begun: list[int] = []

    async def call(self, key: int) -> int:
        self.begun.append(key)
        patience = current_patience.get()
        if self.closed and patience is not None:
            patience.hold("no answer from brand.invalid:443")
            try:
                await self.opened.wait()
            finally:
                patience.release()
        await asyncio.sleep(0)
        return key
