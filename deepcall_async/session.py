"""One identity's way through a pool: attempts, their repetition, and who is told of them.

It carries calls to their ends without knowing what they ask: no endpoint and no field of the wire
is named here. Attempts give their errors back instead of raising them, so that what is raised comes
from a frame that holds no request.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from functools import partial
from typing import TypeVar

from deepcall_async.admission import Ticket
from deepcall_async.errors import (
    AuthenticationFailed,
    ClientClosed,
    DeepCallError,
    GroupUnavailable,
    RequestTimeout,
)
from deepcall_async.pacing import current_patience
from deepcall_async.pool import Account, Pool
from deepcall_async.reporting import CallReport, Observers, log_last
from deepcall_async.retry import Recovery, Retry, RetryPolicy, final_error
from deepcall_async.transport.base import CHANGE_MAX_IDLE, KEEPALIVE
from deepcall_async.wire import Call, Identity, decode

__all__ = ["Session"]

T = TypeVar("T")


class _FailedAttempt:
    """How an attempt failed.

    Args:
        error: with what.
        identity: whom it was sent as; None if it was not sent.
        held: the call's next attempt costs nothing.
    """

    # No `Struct`, of which `isinstance` takes as long as the rest of a call's bookkeeping.
    __slots__ = ("error", "held", "identity")

    def __init__(
        self, error: DeepCallError, identity: Identity | None = None, *, held: bool = False
    ) -> None:
        self.error = error
        self.identity = identity
        self.held = held


class Session:
    """Sends calls through a pool under one account.

    Args:
        pool: the shared connections.
        account: whom calls go out as, with its rate and budget.
        timeout: seconds for one attempt.
        retry: when and how often to repeat.
        observers: who is told of it.
    """

    def __init__(
        self,
        pool: Pool,
        account: Account,
        *,
        timeout: float,
        retry: RetryPolicy,
        observers: Observers,
    ) -> None:
        self.pool = pool
        self.account = account
        self.timeout = timeout
        self.retry = retry
        self.observers = observers
        self.closed: bool = False
        pool.accounts.add(account)
        account.source.users.add(self)

    async def call(self, call: Call[T], *, start: float | None = None) -> T:
        """Carry a call to its end.

        Args:
            call: what to ask.
            start: the monotonic time from which the policy's deadline counts; by default now.

        Raises:
            DeepCallError: the call failed, after all attempts that its kind allows.
        """
        if start is None:
            start = time.monotonic()
        endpoint = call.endpoint
        report = self.observers.report(endpoint.name, endpoint.path, start)
        patience = current_patience.get()
        ticket = None if patience is None else Ticket(start, patience)
        max_idle = CHANGE_MAX_IDLE if endpoint.method == "non_idempotent" else KEEPALIVE
        try:
            result = await self._attempt(call, 1, start, max_idle, ticket, report)
            if isinstance(result, _FailedAttempt):
                result = await self._repeat(call, result, start, max_idle, ticket, report)
        except BaseException as error:
            if report is not None:
                report.call_ended(error)
            raise
        if report is not None:
            report.call_ended()
        return result

    async def _repeat(
        self,
        call: Call[T],
        failed: _FailedAttempt,
        start: float,
        max_idle: float,
        ticket: Ticket | None,
        report: CallReport | None,
    ) -> T:
        """Repeat a call whose first attempt failed, as often as its kind allows."""
        account, endpoint = self.account, call.endpoint
        recovery = Recovery(self.retry, endpoint.method, account.budget)
        while True:
            error, identity = failed.error, failed.identity
            attempts = error.attempts
            following = recovery.after(
                error,
                elapsed=time.monotonic() - start,
                chance=random.random(),  # noqa: S311  (jitter, not a secret)
                renewable=identity is not None and account.source.renewable,
                held=failed.held,
                patient=ticket is not None and ticket.patience.remaining(time.monotonic()) > 0,
                expired=identity is not None and identity.accepted,
            )
            stop = await self._before(following, recovery, error, identity, start)
            if stop is not None or following is None:
                error = self._named(stop or error, call, attempts)
                raise final_error(error, endpoint.method, maybe_applied=recovery.maybe_applied)
            account.retries += 1
            # In a fan-out the outcome says it, and a thousand lines would say no more.
            if following.last and ticket is None:
                log_last(endpoint.name, attempts + 1, error)
            if report is not None:
                report.previous, report.last = error, following.last
            oldest = 0.0 if following.require_fresh else max_idle
            result = await self._attempt(call, attempts + 1, start, oldest, ticket, report)
            if not isinstance(result, _FailedAttempt):
                return result
            failed = result
            if (
                recovery.maybe_applied
                and isinstance(failed.error, GroupUnavailable)
                and call.when_gone is not None
            ):
                account.budget.earn()
                return call.when_gone

    async def _before(
        self,
        following: Retry | None,
        recovery: Recovery,
        error: DeepCallError,
        identity: Identity | None,
        start: float,
    ) -> DeepCallError | None:
        """Do what comes before the next attempt; an error when there can be none."""
        if following is None:
            refused = isinstance(error, AuthenticationFailed)
            if refused and recovery.renewals and identity and not identity.accepted:
                self.account.source.give_up(identity)
            return None
        if following.renew and identity is not None:
            found = await self._in_time(self.account.source.renew(identity), start)
            return found if isinstance(found, DeepCallError) else None
        if following.delay > 0 and not await self.pool.sleep(following.delay):
            closed = ClientClosed("the client was closed before another attempt")
            closed.__cause__ = error
            return closed
        return None

    async def _attempt(
        self,
        call: Call[T],
        number: int,
        start: float,
        max_idle: float,
        ticket: Ticket | None,
        report: CallReport | None,
    ) -> T | _FailedAttempt:
        """Send a call once."""
        pool, account, endpoint = self.pool, self.account, call.endpoint
        if self.closed or pool.closed:
            closed = ClientClosed("the client is closed")
            return _FailedAttempt(self._named(closed, call, number - 1))
        transport = pool.transport()
        deadline = None if self.retry.deadline is None else start + self.retry.deadline
        try:
            identity = pool.try_admit(account, ticket)
            if identity is None:
                admitted = await self._admit(deadline, ticket)
                if isinstance(admitted, DeepCallError):
                    return _FailedAttempt(self._named(admitted, call, number - 1))
                identity = admitted
            sent, timeout = time.monotonic(), self.timeout
            if deadline is not None:
                timeout = min(timeout, deadline - sent)
            account.requests += 1
            try:
                answer = await transport.send(
                    endpoint.path,
                    partial(identity.body, call),
                    sent,
                    timeout,
                    max_idle,
                    None if report is None else report.attempt_started(number, sent),
                )
            except BaseException as interruption:
                if report is not None:
                    report.attempt_ended(None, interruption)
                raise
            finally:
                pool.slots.release()
        except BaseException:
            if ticket is not None:
                account.gate.probe_ended(ticket)
            raise
        result: T | DeepCallError
        if isinstance(answer, tuple):
            status, headers, body = answer
            received = len(body)
            result = decode(call, status, headers, body, identity, account.rosters, time.time)
        else:
            status, received, result = None, 0, answer
        if isinstance(result, DeepCallError):
            error = self._named(result, call, number)
            held = account.gate.report(error, sent, ticket)
            if report is not None:
                report.attempt_ended(status, error, received)
            return _FailedAttempt(error, identity, held=held)
        account.budget.earn()
        identity.accepted = True
        if ticket is not None or not account.gate.is_calm:
            account.gate.report(None, sent, ticket)
        if report is not None:
            report.attempt_ended(status, None, received)
        return result

    async def _admit(
        self, deadline: float | None, ticket: Ticket | None
    ) -> Identity | DeepCallError:
        """Wait until a request may be sent: whom it is sent as, with a slot taken, or an error."""
        admitted = await self.pool.admit(self.account, deadline, ticket)
        if isinstance(admitted, Identity) and (self.closed or self.pool.closed):
            self.pool.slots.release()
            admitted = ClientClosed("the client was closed before the request was sent")
        if isinstance(admitted, DeepCallError) and ticket is not None:
            self.account.gate.probe_ended(ticket)
        return admitted

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
