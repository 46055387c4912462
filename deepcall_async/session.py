"""The session manager: a pool, its slots and rates, deadlines, retries, one log line an attempt.

Law: it carries calls to their ends without knowing what they ask. No endpoint and no field of the
wire is named here. Attempts give their errors back instead of raising them, so that what is raised
comes from a frame that holds no request.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import warnings
from collections import deque
from collections.abc import Coroutine
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from aiohttp import ClientSession
from msgspec import Struct

from deepcall_async.errors import (
    AuthenticationFailed,
    ClientClosed,
    ConnectionLost,
    DeepCallError,
    GroupUnavailable,
    RequestTimeout,
)
from deepcall_async.events import attempt_observer
from deepcall_async.renewal import IdentitySource
from deepcall_async.retry import RetryBudget, RetryPolicy, may_have_applied, settle, worth_repeating
from deepcall_async.transport.client_session import PublicExchange
from deepcall_async.transport.direct import DirectExchange, Exchange, direct_is_possible
from deepcall_async.transport.errors import end_now
from deepcall_async.wire import Call, Identity, Rosters, decode

if TYPE_CHECKING:
    from aiolimiter import AsyncLimiter

__all__ = ["Pool", "PoolSettings", "Session", "Stats"]

T = TypeVar("T")

log: logging.Logger = logging.getLogger("deepcall_async")


class Stats(Struct, frozen=True):
    """What a client has sent since it was made: requests in all, and how many were repeats."""

    requests: int = 0
    retries: int = 0


class PoolSettings(Struct, frozen=True, kw_only=True):
    """What every session of a pool shares."""

    base_url: str
    user_agent: str
    max_connections: int
    max_response_bytes: int
    per_second: float | None
    trust_env: bool
    borrowed: ClientSession | None


class Pool:
    """Connections, slots, rate and retry budget, shared by a client and its siblings.

    It is made outside any event loop and belongs to the loop of the first call.
    """

    def __init__(self, settings: PoolSettings) -> None:
        self.settings = settings
        self.budget: RetryBudget = RetryBudget()
        self.rosters: Rosters = Rosters()
        self.requests: int = 0
        self.retries: int = 0
        self.closed: bool = False
        # Weakly: a backend may make a sibling for every request it serves.
        self.sources: WeakSet[IdentitySource] = WeakSet()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._exchange: Exchange | None = None
        # A counter and a queue: a semaphore's coroutines cost more than a fifth of a whole attempt.
        self._free = settings.max_connections
        self._queue: deque[asyncio.Future[None]] = deque()
        self._limiter: AsyncLimiter | None = None
        self._waiting: set[asyncio.Timeout] = set()

    def __repr__(self) -> str:
        state = "closed" if self.closed else repr(self._exchange) if self._exchange else "unused"
        return f"<Pool {self.settings.base_url}: {state}>"

    def exchange(self) -> Exchange:
        """The way out, made on first use.

        Raises:
            RuntimeError: the running event loop is not the one the pool belongs to.
        """
        # A thread runs one loop at a time. Asking for the running one instead would cost a system
        # call before Python 3.12.
        if (
            self._exchange is not None
            and self._loop is not None
            and self._loop.is_running()
            and get_ident() == self._thread
        ):
            return self._exchange
        loop = asyncio.get_running_loop()
        if self._loop is not None:
            raise RuntimeError(
                "this client belongs to another event loop: make one client per loop, or close it"
                " with `await client.aclose()` and make a new one"
            )
        self._loop, self._thread = loop, get_ident()
        settings = self.settings
        if settings.per_second is not None:
            # Imported where a rate is kept: it reads its package's metadata, which takes longer
            # than the import of this whole package.
            from aiolimiter import AsyncLimiter

            # One at a time, evenly spaced: a full bucket would let twice the rate out at first.
            self._limiter = AsyncLimiter(1, 1 / settings.per_second)
        public = settings.borrowed is not None or settings.trust_env
        if not public and not direct_is_possible():
            warnings.warn(
                "this aiohttp is not one that deepcall_async knows: calls work, but slower",
                RuntimeWarning,
                stacklevel=2,
            )
            public = True
        if public:
            self._exchange = PublicExchange(
                settings.borrowed,
                settings.base_url,
                user_agent=settings.user_agent,
                max_response_bytes=settings.max_response_bytes,
                trust_env=settings.trust_env,
            )
            if settings.borrowed is not None:
                self._free = min(settings.max_connections, _slots_of(settings.borrowed))
        else:
            self._exchange = DirectExchange(
                settings.base_url,
                user_agent=settings.user_agent,
                max_response_bytes=settings.max_response_bytes,
            )
        return self._exchange

    def enter_now(self) -> bool:
        """Take a free slot, if there is one and no rate to keep."""
        if self._free > 0 and self._limiter is None:
            self._free -= 1
            return True
        return False

    async def enter(self, end: float | None) -> DeepCallError | None:
        """Wait for the rate and for a slot; give an error instead of a slot when that failed.

        Neither wait counts against an attempt's timeout: the server has not been asked yet.

        Args:
            end: the monotonic time in seconds by which the whole call must end.
        """
        held = False
        scope = asyncio.timeout(None if end is None else end - time.monotonic())
        self._waiting.add(scope)
        try:
            async with scope:
                await self._slot()
                held = True
                # After the slot: a turn taken while waiting for one would add up to a burst.
                if self._limiter is not None:
                    await self._limiter.acquire()
                held = False
        except TimeoutError:
            if self.closed:
                return ClientClosed("the client was closed before the request was sent")
            late = RequestTimeout("the call's deadline passed before the request could be sent")
            late.sent = False
            return late
        finally:
            self._waiting.discard(scope)
            if held:
                self.leave()
        return None

    def leave(self) -> None:
        """Give the slot back."""
        # To the longest waiting, past those that gave up.
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    async def _slot(self) -> None:
        if self._free > 0:
            self._free -= 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # The slot may have come in the very turn in which the waiting was given up.
            if waiter.done() and not waiter.cancelled():
                self.leave()
            raise

    async def sleep(self, seconds: float) -> bool:
        """Wait; False when the pool was closed meanwhile."""
        scope = asyncio.timeout(None)
        self._waiting.add(scope)
        try:
            async with scope:
                await asyncio.sleep(seconds)
        except TimeoutError:
            if not self.closed:
                raise
        finally:
            self._waiting.discard(scope)
        return not self.closed

    async def aclose(self) -> None:
        """End what is in flight or waiting, and close what this pool opened."""
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("a client is closed on the event loop it was used on")
        if not self.closed:
            self.closed = True
            for source in self.sources:
                source.close()
            end_now(self._waiting)
        # Also when closed before: that may have been cancelled midway.
        if self._exchange is not None:
            await self._exchange.close()


class Session:
    """One identity's way through a pool: its credentials, timeout and retry policy.

    Args:
        pool: the shared connections.
        source: whom calls go out as.
        timeout: seconds for one attempt.
        retry: when and how often to repeat.
    """

    def __init__(
        self, pool: Pool, source: IdentitySource, *, timeout: float, retry: RetryPolicy
    ) -> None:
        self.pool = pool
        self.source = source
        self.timeout = timeout
        self.retry = retry
        self.closed: bool = False
        pool.sources.add(source)

    async def call(self, call: Call[T]) -> T:
        """Carry a call to its end.

        Raises:
            DeepCallError: the call failed, after all attempts that its kind allows.
        """
        start = time.monotonic()
        outcome = await self._attempt(call, 1, start)
        result, identity = outcome
        if isinstance(result, DeepCallError):
            result = await self._recover(call, result, identity, start)
            if isinstance(result, DeepCallError):
                raise result
        else:
            self.pool.budget.earn()
        return result

    async def _attempt(
        self, call: Call[T], number: int, start: float, *, proven: bool = False
    ) -> tuple[T | DeepCallError, Identity | None]:
        pool, endpoint = self.pool, call.endpoint
        if self.closed or pool.closed:
            return self._named(ClientClosed("the client is closed"), call, number - 1), None
        exchange = pool.exchange()
        identity = self.source.identity
        if identity is None or self.source.renewable:
            found = await self._in_time(self.source.get(), start)
            if isinstance(found, DeepCallError):
                return self._named(found, call, number - 1), None
            identity = found
        timeout, end = self.timeout, None
        if self.retry.deadline is not None:
            end = start + self.retry.deadline
        error = None if pool.enter_now() else await pool.enter(end)
        if error is None and (self.closed or pool.closed):
            pool.leave()
            error = ClientClosed("the client was closed before the request was sent")
        if error is not None:
            return self._named(error, call, number - 1), identity
        sent = time.monotonic()
        if end is not None:
            timeout = min(timeout, end - sent)
        try:
            pool.requests += 1
            answer = await exchange.send(
                endpoint.path,
                partial(identity.body, call),
                timeout=timeout,
                fresh=proven or endpoint.repeat == "unsent_only",
            )
        finally:
            pool.leave()
        result: T | DeepCallError
        status: int | None = None
        if isinstance(answer, DeepCallError):
            result = answer
        else:
            status, headers, body = answer
            result = decode(call, status, headers, body, identity, pool.rosters, time.time)
        error = self._named(result, call, number) if isinstance(result, DeepCallError) else None
        observer = attempt_observer.get()
        if observer is not None:
            observer(sent, time.monotonic(), error)
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "%s attempt=%d http=%s %s ms=%.1f",
                endpoint.name,
                number,
                "-" if status is None else status,
                "success" if error is None else _outcome(error),
                (time.monotonic() - sent) * 1000,
            )
        return result, identity

    async def _recover(
        self, call: Call[T], error: DeepCallError, identity: Identity | None, start: float
    ) -> T | DeepCallError:
        pool, repeat = self.pool, call.endpoint.repeat
        attempts, counted = error.attempts, 1
        ambiguous = renewed = freed = False
        while True:
            proven = False
            if isinstance(error, AuthenticationFailed):
                if identity is None or not self.source.renewable:
                    break
                if renewed:
                    self.source.give_up(identity)
                    break
                found = await self._in_time(self.source.renew(identity), start)
                if isinstance(found, DeepCallError):
                    error = self._named(found, call, attempts)
                    break
                renewed = True
            elif (
                not freed
                and isinstance(error, ConnectionLost)
                and error.stale
                and worth_repeating(error, repeat)
                and pool.budget.spend_stale()
            ):
                # The connection had died idle: its repeat costs neither patience nor budget, but
                # it goes out on a connection that is surely alive.
                ambiguous, freed, proven = True, True, True
            else:
                ambiguous = ambiguous or may_have_applied(error)
                if not worth_repeating(error, repeat):
                    break
                delay = self.retry.delay(
                    error,
                    attempt=counted,
                    elapsed=time.monotonic() - start,
                    chance=random.random(),  # noqa: S311  (jitter, not a secret)
                )
                if delay is None or not pool.budget.spend():
                    break
                if not await pool.sleep(delay):
                    closed = ClientClosed("the client was closed before another attempt")
                    closed.__cause__ = error
                    error = self._named(closed, call, attempts)
                    break
                counted += 1
            pool.retries += 1
            outcome = await self._attempt(call, attempts + 1, start, proven=proven)
            result, identity = outcome
            if not isinstance(result, DeepCallError):
                pool.budget.earn()
                return result
            if ambiguous and isinstance(result, GroupUnavailable) and call.when_gone is not None:
                return call.when_gone
            error = result
            attempts = error.attempts
        return settle(error, repeat, ambiguous=ambiguous)

    async def _in_time(
        self, wanted: Coroutine[object, object, Identity | DeepCallError], start: float
    ) -> Identity | DeepCallError:
        """Wait for credentials, but not beyond the call's deadline; others may wait on."""
        if self.retry.deadline is None:
            return await wanted
        try:
            async with asyncio.timeout(start + self.retry.deadline - time.monotonic()):
                return await wanted
        except TimeoutError:
            late = RequestTimeout("the call's deadline passed while it waited for credentials")
            late.sent = False
            return late

    @staticmethod
    def _named(error: DeepCallError, call: Call[T], attempts: int) -> DeepCallError:
        if not error.endpoint:
            error.endpoint = call.endpoint.name
            error.args = (f"{call.endpoint.name}: {error.args[0]}",)
        error.attempts = attempts
        return error


def _outcome(result: object) -> str:
    code = getattr(result, "code", None)
    return type(result).__name__ if code is None else f"{type(result).__name__} code={code}"


def _slots_of(session: ClientSession) -> int:
    connector = session.connector
    limits = (connector.limit, connector.limit_per_host) if connector is not None else ()
    return min((limit for limit in limits if limit), default=2**31)
