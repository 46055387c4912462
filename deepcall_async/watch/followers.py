"""Those who are told by a watch, each at its own pace.

It is noted here what somebody has been given; that it was told is kept by the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self, TypeAlias

from deepcall_async.audit.change import Change
from deepcall_async.watch.store import Store, Told

__all__ = ["Follower", "Pulse", "Take"]

Take: TypeAlias = Callable[[str, int, bool], Awaitable[list[Told]]]
"""Acknowledges up to a number for a follower, and gives what is next: one change, or a look's."""


class Follower:
    """Gives what changed, look by look; each was told when the next is asked for.

    Args:
        take: gives what is next, of the watch.
        name: under which it is kept what was told.
        one: a change at a time.
    """

    def __init__(self, take: Take, name: str, *, one: bool = False) -> None:
        self._take = take
        self._name = name
        self._one = one
        self._told = 0

    def __aiter__(self) -> Self:
        """Give changes."""
        return self

    async def __anext__(self) -> tuple[Change, ...]:
        """Acknowledge what was given before, and wait for the next changes."""
        found = await self._take(self._name, self._told, self._one)
        self._told = found[-1].change.number
        return tuple([each.change for each in found])

    def finish(self, store: Store) -> None:
        """Acknowledge what was given last, at the end."""
        if self._told:
            store.take(self._name, self._told)


class Pulse:
    """Wakes all who wait, once at a time."""

    def __init__(self) -> None:
        self._ended = False
        self._beat: asyncio.Future[None] | None = None

    def next(self) -> asyncio.Future[None]:
        """Give what will be done at the next beat, or is done when there will be none."""
        if self._beat is None or self._beat.done():
            self._beat = asyncio.get_running_loop().create_future()
            if self._ended:
                self._beat.set_result(None)
        return self._beat

    def beat(self) -> None:
        """Wake who waits now."""
        if self._beat is not None and not self._beat.done():
            self._beat.set_result(None)

    def end(self) -> None:
        """Wake who waits, now and later."""
        self._ended = True
        self.beat()
