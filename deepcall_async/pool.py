"""The connections and slots that a client and its siblings share, and what belongs to an identity.

Every request passes `Pool.admit`, the one gate before sending. What is asked, how often and with
which result is not known here.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from urllib.parse import urlsplit
from weakref import WeakSet

from aiohttp import ClientSession

from deepcall_async.admission import Gate, Ticket
from deepcall_async.errors import ClientClosed, DeepCallError, RequestTimeout
from deepcall_async.events import Stats
from deepcall_async.pacing import Limiter, RateLimiter
from deepcall_async.renewal import IdentitySource
from deepcall_async.replies import Rosters
from deepcall_async.retry import RetryBudget
from deepcall_async.transport.base import Transport, TransportOptions
from deepcall_async.transport.errors import expire
from deepcall_async.transport.open import open_transport
from deepcall_async.wire import Identity

__all__ = ["Account", "Pool"]


class Account:
    """What belongs to one identity and is never shared with another.

    Args:
        source: whom calls go out as.
        per_second: the most requests sent a second; None for no limit.
        address: the service's host and port, for messages.
    """

    def __init__(self, source: IdentitySource, per_second: float | None, address: str) -> None:
        self.source = source
        self.per_second = per_second
        self.address = address
        self.budget: RetryBudget = RetryBudget()
        self.rosters: Rosters = Rosters()
        self.requests: int = 0
        self.retries: int = 0
        self.forget_loop()

    def forget_loop(self) -> None:
        """Begin anew on another event loop."""
        self.source.forget_loop()
        self.gate: Gate = Gate(self.address)
        self.rate: RateLimiter | None = (
            None if self.per_second is None else RateLimiter(self.per_second)
        )


class Pool:
    """Connections and slots, made on the event loop of the first call.

    A client whose event loop has ended may be used on the next one, and a forked child makes its
    own connections.

    Args:
        options: the service's address and the limits.
        session: a session to borrow, if any.
    """

    def __init__(self, options: TransportOptions, session: ClientSession | None) -> None:
        self.options = options
        self.closed: bool = False
        # Weakly: a backend may make a sibling for every request it serves.
        self.accounts: WeakSet[Account] = WeakSet()
        self._session = session
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._transport: Transport | None = None
        self._closer: AsyncGenerator[None] | None = None
        self._abandoned: list[object] = []
        self.slots: Limiter = Limiter(options.max_connections)
        self._waiting: set[asyncio.Timeout] = set()

    def __repr__(self) -> str:
        state = "closed" if self.closed else repr(self._transport) if self._transport else "unused"
        return f"<Pool {self.options.base_url}: {state}>"

    @property
    def address(self) -> str:
        """The service's host and port."""
        parts = urlsplit(self.options.base_url)
        return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"

    def stats(self, account: Account) -> Stats:
        """The present numbers."""
        now = self.connections()
        return Stats(account.requests, account.retries, now.active, now.idle, now.waiting)

    def connections(self) -> Stats:
        """The present numbers of the connections, whoever uses them; nothing is counted."""
        idle = 0 if self._transport is None else self._transport.idle
        return Stats(active=self.slots.active, idle=idle, waiting=self.slots.waiting)

    def transport(self) -> Transport:
        """The way out, made on first use.

        Raises:
            RuntimeError: the pool belongs to another event loop that has not ended.
        """
        loop = asyncio.get_running_loop()
        if loop is self._loop and self._transport is not None:
            return self._transport
        if self._loop is not None:
            self._leave_loop()
        self._loop, self._pid = loop, os.getpid()
        slots = self.options.max_connections
        if self._session is not None:
            slots = min(slots, _slots_of(self._session))
        self.slots = Limiter(slots)
        self._transport = open_transport(self.options, self._session)
        # An event loop closes its asynchronous generators before it ends, and this one closes the
        # connections: a client that was not closed must not leave its sockets to the collector.
        self._closer = _close_at_end(self._transport)
        with suppress(StopIteration):
            self._closer.asend(None).send(None)
        return self._transport

    def _leave_loop(self) -> None:
        assert self._loop is not None  # noqa: S101  (asked for only then)
        if self._pid != os.getpid():
            # Kept, so that nothing is ever finalised that would write to the parent's sockets.
            self._abandoned.append((self._loop, self._transport, self._closer))
        elif not self._loop.is_closed():
            raise RuntimeError(
                "this client belongs to another event loop: make one client per loop, or close it"
                " with `await client.aclose()` and make a new one"
            )
        elif self._transport is not None:
            self._transport.abandon()
        self._loop = self._transport = self._closer = None
        self._waiting.clear()
        for account in self.accounts:
            account.forget_loop()

    def try_admit(self, account: Account, ticket: Ticket | None) -> Identity | None:
        """As `admit`, if nothing has to be waited for; otherwise None."""
        identity = account.source.identity
        if identity is None or (ticket is not None and account.gate.holds(ticket)):
            return None
        if not self.slots.try_acquire():
            return None
        if account.rate is not None and not account.rate.try_acquire():
            self.slots.release()
            return None
        return identity

    async def admit(
        self, account: Account, deadline: float | None, ticket: Ticket | None
    ) -> Identity | DeepCallError:
        """Wait for everything that a request needs, and take it: the one gate before sending.

        None of the waiting counts against an attempt's timeout: the server was not asked yet.

        Args:
            account: under whose credentials.
            deadline: the monotonic time in seconds by which the whole call must end.
            ticket: the call's, if it has patience with a service that is away.

        Returns:
            The identity to send under, with a slot taken; or an error, and no slot.
        """
        known, unlimited = account.source.identity, deadline is None and account.rate is None
        if known is not None and unlimited and not self._is_held(account, ticket):
            # A slot alone is waited for without a timeout, which would cost more than the wait:
            # closing the pool lets in all who wait for one.
            await self.slots.acquire()
            identity = account.source.identity
            if identity is not None and not self._is_held(account, ticket):
                return identity
            self.slots.release()
        scope = asyncio.timeout(None if deadline is None else deadline - time.monotonic())
        self._waiting.add(scope)
        held = False
        try:
            async with scope:
                while True:
                    if ticket is not None and self._is_held(account, ticket):
                        given_up = await account.gate.wait(ticket)
                        if given_up is not None:
                            return given_up
                    # Before the slot: a provider may be slow, or call through this very pool.
                    found = await account.source.get()
                    if isinstance(found, DeepCallError):
                        return found
                    await self.slots.acquire()
                    held = True
                    # After the slot: a turn taken while waiting for one would add up to a burst.
                    if account.rate is not None:
                        await account.rate.acquire()
                    # The credentials may have been rejected, and the service gone, meanwhile.
                    identity = account.source.identity
                    if identity is not None and not self._is_held(account, ticket):
                        held = False
                        return identity
                    self.slots.release()
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
                self.slots.release()

    @staticmethod
    def _is_held(account: Account, ticket: Ticket | None) -> bool:
        """Whether a call waits for the service itself to come back."""
        return ticket is not None and account.gate.holds(ticket)

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
            self._leave_loop()
        if not self.closed:
            self.closed = True
            for account in self.accounts:
                account.source.close()
            expire(self._waiting)
            # Who waits for a slot is let in, and then finds the pool closed.
            self.slots.move_to(2**31)
        # Also when closed before: that may have been cancelled midway.
        if self._transport is not None:
            await self._transport.close()
        if self._closer is not None:
            await self._closer.aclose()


async def _close_at_end(transport: Transport) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await transport.close()


def _slots_of(session: ClientSession) -> int:
    connector = session.connector
    limits = (connector.limit, connector.limit_per_host) if connector is not None else ()
    return min((limit for limit in limits if limit), default=2**31)
