"""Where a fan-out's keys come from: pulled one at a time, in a context of their own.

An iterator is pulled where there is room for a key; an async iterator by a task. Nothing here knows
what is done with a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sized,
)
from collections.abc import Set as AbstractSet
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from deepcall_async.fanout.window import Window
from deepcall_async.pacing import Limiter, Patience

__all__ = ["AsyncKeys", "Keys", "SyncKeys", "check_keys", "distinct", "how_many"]

K = TypeVar("K")
H = TypeVar("H", bound=Hashable)


class Keys(Generic[K]):
    """Keys that are pulled where there is room for them.

    Args:
        keys: where they come from.
        limiter: a place is taken for each key; who begins it gives the place back.
        window: no key is pulled while it has no room.
        patience: no key is pulled while calls wait.
        begin: given each key.
        on_end: called with None when there are no more, and with an error of the closing.
    """

    def __init__(
        self,
        keys: Iterable[K] | AsyncIterable[K],
        limiter: Limiter,
        window: Window[K, Any],
        patience: Patience,
        begin: Callable[[K], object],
        on_end: Callable[[BaseException | None], object],
    ) -> None:
        self.exhausted: bool = False
        self.error: BaseException | None = None
        self._keys = keys
        self._limiter = limiter
        self._window = window
        self._patience = patience
        self._begin = begin
        self._on_end = on_end

    def start(self) -> None:
        """Ask for keys; what asking for the iterator raises is raised."""
        raise NotImplementedError

    def pull(self) -> None:
        """Pull what is wanted by now."""
        raise NotImplementedError

    def close(self) -> asyncio.Task[None] | None:
        """Close a generator; the task that does so, if that takes one."""
        raise NotImplementedError

    def _end(self, error: BaseException | None) -> None:
        if self.exhausted:
            self._on_end(error)
        else:
            self.exhausted, self.error = True, error
            self._on_end(None)


class SyncKeys(Keys[K]):
    """The keys of an iterable."""

    _pulling = False

    def start(self) -> None:
        """Ask for the first keys."""
        assert isinstance(self._keys, Iterable)  # noqa: S101  (for the type checker)
        # One for all keys: a generator may set a context variable before a key and reset it after.
        run = copy_context().run
        self._source: Iterator[K] = run(iter, self._keys)
        self._run, self._next = run, self._source.__next__
        self.pull()

    def pull(self) -> None:
        """Pull what is wanted by now."""
        # A call may begin, and even end, in the midst of this; the loop goes on for it.
        if self._pulling or self.exhausted:
            return
        self._pulling = True
        window, limiter = self._window, self._limiter
        try:
            while window.room > 0 and limiter.active < limiter.limit and not self._patience.waiting:
                try:
                    key = self._run(self._next)
                except BaseException as error:
                    self._end(None if isinstance(error, StopIteration) else error)
                    return
                limiter.active += 1
                self._begin(key)
        finally:
            self._pulling = False

    def close(self) -> asyncio.Task[None] | None:
        """Close a generator."""
        self.exhausted = True
        if isinstance(self._source, Generator):
            try:
                self._run(self._source.close)
            except BaseException as error:
                self._end(error)
        return None


class AsyncKeys(Keys[K]):
    """The keys of an async iterable, pulled by a task."""

    _closing = False

    def start(self) -> None:
        """Begin the task."""
        assert isinstance(self._keys, AsyncIterable)  # noqa: S101  (for the type checker)
        context = copy_context()
        source = context.run(aiter, self._keys)
        self._wanted = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] = loop.create_task(self._feed(source), context=context)

    def pull(self) -> None:
        """Let the task look again whether a key is wanted."""
        self._wanted.set()

    def close(self) -> asyncio.Task[None] | None:
        """End the task, which closes a generator."""
        self.exhausted = True
        if not self._closing:
            self._task.cancel()
        return None if self._task.done() else self._task

    async def _feed(self, source: AsyncIterator[K]) -> None:
        # All in one task, the closing too: what a generator enters it can only leave there.
        try:
            await self._feed_all(source)
        except asyncio.CancelledError:
            # On leaving it is no error; otherwise the rest would be lost in silence.
            self._end(None if self.exhausted else RuntimeError("the keys were cancelled"))
        except BaseException as error:
            self._end(None if isinstance(error, StopAsyncIteration) else error)

    async def _feed_all(self, source: AsyncIterator[K]) -> None:
        try:
            while True:
                await self._limiter.acquire()
                while self._window.room <= 0 or self._patience.waiting:
                    self._wanted.clear()
                    await self._wanted.wait()
                if self.exhausted:
                    return
                key = await anext(source)
                if self.exhausted:
                    return
                self._begin(key)
        finally:
            self._closing = True
            if isinstance(source, AsyncGenerator):
                await source.aclose()


def check_keys(keys: object) -> None:
    """Refuse what is no iterable of keys, and text, which is one by accident."""
    if isinstance(keys, (str, bytes)) or not isinstance(keys, (Iterable, AsyncIterable)):
        raise TypeError("keys must be an iterable or async iterable of keys")


def how_many(keys: object) -> int | None:
    """The number of keys; None when it is not known, or is more than Python counts."""
    try:
        return len(keys) if isinstance(keys, Sized) else None
    except OverflowError:
        return None


def distinct(keys: Iterable[H] | AsyncIterable[H]) -> Iterable[H] | AsyncIterable[H]:
    """Each key once, in the order of its first coming; sized where the keys are in memory."""
    if isinstance(keys, AsyncIterable):
        return _distinct_async(keys)
    if isinstance(keys, (range, AbstractSet, Mapping)):
        return keys
    if how_many(keys) is not None:
        return dict.fromkeys(keys)
    return _distinct(keys)


def _distinct(keys: Iterable[H]) -> Iterator[H]:
    seen: set[H] = set()
    source = iter(keys)
    try:
        for key in source:
            if key not in seen:
                seen.add(key)
                yield key
    finally:
        if isinstance(source, Generator):
            source.close()


async def _distinct_async(keys: AsyncIterable[H]) -> AsyncIterator[H]:
    seen: set[H] = set()
    source = aiter(keys)
    try:
        async for key in source:
            if key not in seen:
                seen.add(key)
                yield key
    finally:
        if isinstance(source, AsyncGenerator):
            await source.aclose()
