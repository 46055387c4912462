"""Whether a request may be sent now, by how the service has been answering.

State and arithmetic only. Nothing here knows what a request asks, and nothing is sent.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from itertools import count
from typing import TypeAlias

from deepcall_async.errors import (
    ApiError,
    ConnectFailed,
    DeepCallError,
    RequestTimeout,
    UnexpectedReply,
)
from deepcall_async.pacing import Patience
from deepcall_async.retry import is_refusal, is_unanswered
from deepcall_async.trouble import Outage, Throttle

__all__ = ["Gate", "Ticket"]

log: logging.Logger = logging.getLogger("deepcall_async")

_UNANSWERED_IN_A_ROW = 3
_SHARE_WEIGHT = 0.1
_THROTTLED_SHARE = 0.15
"""The share of refusals among the latest answers from which the service counts as throttling."""

_MAX_THROTTLED_RETRIES = 50
"""How often one call is held for a throttle, so that one that is always refused comes to an end."""


class Ticket:
    """One call's way through the gate.

    Args:
        start: when the call began, in monotonic seconds; the oldest goes first.
        patience: how long it may be held.
    """

    __slots__ = (
        "counted",
        "error",
        "failed_probes",
        "passed",
        "patience",
        "probing",
        "start",
        "throttled",
    )

    def __init__(self, start: float, patience: Patience) -> None:
        self.start: float = start
        self.patience: Patience = patience
        self.error: DeepCallError | None = None
        self.counted: bool = False
        self.passed: bool = False
        self.probing: bool = False
        self.failed_probes: int = 0
        self.throttled: int = 0


_Held: TypeAlias = tuple[int, float, int, Ticket, "asyncio.Future[DeepCallError | None]"]


class Gate:
    """What is known of how the service answers one identity, and who waits for it to get better.

    Every attempt is reported. Only calls with patience, those of a fan-out, are held.

    After three attempts in a row without an answer the service counts as away: then one held call
    at a time is let through as a probe, until anything that was sent since is answered. A refusal
    sets a time before which nobody is let through, and a rate that follows what the service admits.

    Args:
        address: the service's host and port, for messages.

    Attributes:
        is_calm: a success would tell it nothing that it does not know.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._waiting: list[_Held] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None
        self._unanswered = 0
        self._refused_share = 0.0
        self._last_error: DeepCallError | None = None
        self._outage: Outage | None = None
        self._throttle: Throttle | None = None
        # Asked after each call, so it is reckoned when something changes.
        self.is_calm: bool = True

    def __repr__(self) -> str:
        state = "open" if self.is_open else self._reason()
        return f"<Gate {state}, {len(self._waiting)} held>"

    @property
    def is_open(self) -> bool:
        """Whether calls pass without waiting."""
        return self._outage is None and self._throttle is None

    def holds(self, ticket: Ticket) -> bool:
        """Whether a call has to wait; one whose patience is spent does not wait any more."""
        if self.is_open or ticket.passed:
            return False
        return ticket.patience.remaining(time.monotonic()) > 0

    async def wait(self, ticket: Ticket) -> DeepCallError | None:
        """Hold a call until it may be sent; an error when its patience ends first."""
        patience = ticket.patience
        patience.trouble(time.monotonic())
        future: asyncio.Future[DeepCallError | None] = asyncio.get_running_loop().create_future()
        entry = (ticket.failed_probes, ticket.start, next(self._order), ticket, future)
        heapq.heappush(self._waiting, entry)
        patience.hold(self._reason())
        try:
            self._serve()
            return await future
        except asyncio.CancelledError:
            self.probe_ended(ticket)
            raise
        finally:
            patience.release()

    def probe_ended(self, ticket: Ticket) -> None:
        """Let another call probe, when this one ended without an attempt."""
        ticket.passed = False
        if ticket.probing:
            ticket.probing = False
            if self._outage is not None:
                self._outage.probing = False
                self._serve()

    def report(self, error: DeepCallError | None, sent: float, ticket: Ticket | None) -> bool:
        """Learn from an attempt.

        Args:
            error: how it failed, or None.
            sent: when it was sent, in monotonic seconds.
            ticket: the call's, if it has patience.

        Returns:
            Whether the call is held, so that its next attempt is free.
        """
        held = self._learn(error, sent, ticket)
        self.is_calm = self._unanswered == 0 and self.is_open
        return held

    def _learn(self, error: DeepCallError | None, sent: float, ticket: Ticket | None) -> bool:
        now = time.monotonic()
        if ticket is not None:
            ticket.passed = False
        if error is not None and is_unanswered(error):
            return self._report_unanswered(error, now, ticket)
        if error is not None and not isinstance(error, (ApiError, UnexpectedReply)):
            # Such as a connection that had died idle: it tells nothing of the service.
            if ticket is not None:
                self.probe_ended(ticket)
            return False
        self._unanswered = 0
        if self._outage is not None and sent >= self._outage.since:
            log.warning("%s answers again after %.1f s", self._address, now - self._outage.since)
            self._outage = None
        if ticket is not None:
            ticket.probing = False
        held = False
        refused = error is not None and is_refusal(error)
        self._refused_share += _SHARE_WEIGHT * (refused - self._refused_share)
        if error is not None and refused:
            held = self._report_refusal(error, now, sent, ticket)
        else:
            # An answer that the call cannot use was let through all the same.
            if ticket is not None:
                ticket.patience.succeeded()
            if self._throttle is not None and self._throttle.succeeded(
                now, held=bool(self._waiting)
            ):
                self._throttle = None
        self._serve()
        return held

    def _report_unanswered(self, error: DeepCallError, now: float, ticket: Ticket | None) -> bool:
        # A call that is lost again and again may be at fault itself, so only its first loss counts.
        # That no connection could be made is never the call's fault.
        if isinstance(error, ConnectFailed) or ticket is None or not ticket.counted:
            self._unanswered += 1
        self._last_error = error
        if self._outage is None and self._unanswered >= _UNANSWERED_IN_A_ROW:
            log.warning("no answer from %s (%s)", self._address, type(error).__name__)
            self._outage = Outage(now)
        held = False
        if ticket is not None:
            ticket.counted, ticket.error = True, error
            if ticket.probing:
                ticket.probing = False
                ticket.failed_probes += 1
                if self._outage is not None:
                    self._outage.probe_failed(now)
            held = self._outage is not None or isinstance(error, ConnectFailed)
            if held:
                ticket.patience.trouble(now)
                held = ticket.patience.remaining(now) > 0
        self._serve()
        return held

    def _report_refusal(
        self, error: DeepCallError, now: float, sent: float, ticket: Ticket | None
    ) -> bool:
        self._last_error = error
        asked = getattr(error, "retry_after", None) or 0.0
        if asked == 0 and self._refused_share < _THROTTLED_SHARE:
            # One in many is chance, and slowing down would not help against it.
            return False
        if self._throttle is None:
            self._throttle = Throttle(now)
        else:
            self._throttle.refused(now, sent)
        self._throttle.not_before = max(self._throttle.not_before, now + asked)
        if ticket is None:
            return False
        ticket.error = error
        ticket.throttled += 1
        ticket.patience.trouble(now)
        return (
            ticket.throttled <= _MAX_THROTTLED_RETRIES
            and asked <= ticket.patience.remaining(now)
            and ticket.patience.remaining(now) > 0
        )

    def _serve(self) -> None:
        """Let through whoever may go now, end whoever waited too long, and set the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        now = time.monotonic()
        self._end_the_impatient(now)
        while self._waiting and self._next_at(now) <= now:
            ticket, future = heapq.heappop(self._waiting)[3:]
            if future.done():
                continue
            ticket.passed = True
            if self._outage is not None:
                self._outage.probing = ticket.probing = True
            elif self._throttle is not None:
                self._throttle.admitted(now)
            future.set_result(None)
        if self._waiting:
            patience_ends = min(now + entry[3].patience.remaining(now) for entry in self._waiting)
            wait = max(0.001, min(self._next_at(now), patience_ends) - now)
            self._timer = asyncio.get_running_loop().call_later(wait, self._serve)

    def _end_the_impatient(self, now: float) -> None:
        wait = 0.0 if self._throttle is None else self._throttle.not_before - now
        kept = []
        for entry in self._waiting:
            ticket, future = entry[3:]
            if future.done():
                continue
            left = ticket.patience.remaining(now)
            if left > 0 and wait <= left:
                kept.append(entry)
            else:
                future.set_result(_given_up(ticket.error, self._last_error))
        if len(kept) < len(self._waiting):
            heapq.heapify(kept)
            self._waiting = kept

    def _next_at(self, now: float) -> float:
        if self._outage is not None:
            return float("inf") if self._outage.probing else self._outage.next_probe
        return now if self._throttle is None else self._throttle.next_at

    def _reason(self) -> str:
        if self._outage is not None:
            return f"no answer from {self._address}"
        return f"{self._address} throttles"


def _given_up(own: DeepCallError | None, latest: DeepCallError | None) -> DeepCallError:
    """An error for a call that is not held any longer.

    Args:
        own: what its own last attempt met; None if it made none.
        latest: what the latest attempt of any call met.
    """
    error = own or latest
    if error is None:
        return RequestTimeout("the service did not answer in time")
    why = str(error).removeprefix(f"{error.endpoint}: ")
    found = type(error)(why if own is not None else f"not sent, as others met this: {why}")
    found.__dict__.update(error.__dict__)
    found.__cause__ = error.__cause__
    # Whose call it is is said where it is known.
    found.endpoint = ""
    if own is None and isinstance(found, RequestTimeout):
        found.sent = False
    return found
