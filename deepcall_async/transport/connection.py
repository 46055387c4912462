"""One connection: the protocol between a socket and whoever waits for an answer.

Plain answers are read here, all others by aiohttp's parser. Who waits, and for how long, is not
known here. Every change of state goes through `Connection._become`.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, Literal

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection as PooledConnection
from aiohttp.http_exceptions import ContentLengthError

from deepcall_async.errors import DeepCallError, RequestTimeout
from deepcall_async.transport.base import KEEPALIVE, Answer
from deepcall_async.transport.bodies import read_limited
from deepcall_async.transport.errors import closed_in_flight, response_too_large
from deepcall_async.transport.parsed import AnswerReader
from deepcall_async.transport.plain import (
    Framing,
    keepalive_seconds,
    may_become_plain,
    plain_head,
    whole_body,
)

__all__ = ["CLOSED", "IDLE", "Connection", "State", "UnsupportedLoop"]

_LARGEST_PLAIN = 2**20
"""The largest body, in bytes, that is not left to aiohttp's parser, which takes it bit by bit."""

_SETTLING_TURNS = 5

_SMALL_REQUEST = 2**12
"""Bytes of a request that any connection takes at once, so that nobody need ask whether it did."""

_LARGEST_TLS_REQUEST = 2**14
"""Bytes of a request over TLS up to which a written request counts as sent.

A TLS transport tells the size of its own buffer and hides that of the socket's transport below it,
so of a larger request nobody can say whether the server has taken all of it.
"""


class State(IntEnum):
    """What a connection is doing.

    Numbers, since two are compared for each request and the hash of another enumeration's member is
    a Python function.
    """

    CONNECTING = 0
    """Open, but not yet used; the server has nothing to say."""
    IDLE = 1
    """Ready for a request; the server has nothing to say."""
    WAITING = 2
    """A request was sent, and nothing of its answer has arrived."""
    BODY = 3
    """The body of a plain answer is arriving."""
    PARSING = 4
    """aiohttp's parser reads the answer."""
    CLOSED = 5
    """Of no further use."""


class UnsupportedLoop(Exception):
    """The event loop's transports cannot do what a `Connection` needs of them."""


# An attribute of an enumeration is looked up anew each time; these names are not.
CONNECTING, IDLE, WAITING, BODY, PARSING, CLOSED = State

_NEXT: Mapping[State, frozenset[State]] = {
    CONNECTING: frozenset({IDLE, CLOSED}),
    IDLE: frozenset({WAITING, CLOSED}),
    WAITING: frozenset({IDLE, BODY, PARSING, CLOSED}),
    BODY: frozenset({IDLE, CLOSED}),
    PARSING: frozenset({IDLE, CLOSED}),
    CLOSED: frozenset({CLOSED}),
}


class Connection(asyncio.BufferedProtocol):
    """A connection that carries one request at a time.

    It becomes idle in the very call in which the last byte of an answer arrives. So bytes behind an
    answer, or on a connection that waits for nothing, always find it idle and end it, in whatever
    portions and turns the event loop delivers them. They can never be the next answer.

    All connections receive into one buffer: asyncio's own receive call would map and unmap a
    quarter of a MiB for each portion.

    Args:
        pooled: the connection that aiohttp's connector made.
        buffer: the shared receive buffer.
        max_response_bytes: the largest body accepted.
    """

    def __init__(
        self, pooled: PooledConnection, buffer: memoryview, max_response_bytes: int
    ) -> None:
        handler, transport = pooled.protocol, pooled.transport
        socket = None if transport is None else transport.get_extra_info("socket")
        if transport is not None and (socket is None or not hasattr(transport, "set_protocol")):
            pooled.close()
            raise UnsupportedLoop
        descriptor = -1 if socket is None else socket.fileno()
        # The handler closes a connection on which the server spoke before it was asked.
        if handler is None or transport is None or descriptor < 0 or handler.should_close:
            pooled.close()
            raise ConnectionResetError("the connection was lost as soon as it was made")
        self.state: State = CONNECTING
        self.transport: asyncio.Transport = transport
        self.used: bool = False
        self.lost: bool = False
        self.idle_since: float = 0.0
        self.keepalive: float = KEEPALIVE
        self.deadline: float = float("inf")
        # Set when the answer's head stands in an attribute and not in a local variable: it may echo
        # the request, and a traceback of a cancelled call shows locals.
        self.head: Any = None
        self._pooled = pooled
        self._handler: ResponseHandler = handler
        self._loop = asyncio.get_running_loop()
        self.poll: Callable[[int], object] = _poll_of(descriptor)
        self._tls = transport.get_extra_info("ssl_object") is not None
        self._waiter: asyncio.Future[Answer | None] | None = None
        self._reader = AnswerReader(handler)
        self._buffer = self._room = buffer
        self._largest_plain = min(max_response_bytes, _LARGEST_PLAIN)
        self._body: bytearray | None = None
        self._sent = 0
        self._first = b""
        self._ended: Literal["timeout", "closed"] | None = None
        self._tls_error: ssl.SSLError | None = None
        try:
            transport.set_protocol(self)
        except (NotImplementedError, AttributeError) as error:
            pooled.close()
            raise UnsupportedLoop from error

    def __repr__(self) -> str:
        return f"<Connection {self.state.name.lower()}>"

    def _become(self, state: State) -> None:
        if state not in _NEXT[self.state]:
            raise AssertionError(f"a connection cannot go from {self.state.name} to {state.name}")
        self.state = state

    # What the transport asks of it.

    async def settle(self) -> bool:
        """Make a new connection ready for its first request; False when it is of no use.

        Raises:
            ssl.SSLError: the server ended it, and said why.
        """
        # A few turns of the loop deliver what the server sent when it accepted the connection. What
        # is still on its way by then cannot be told from an answer.
        for _ in range(_SETTLING_TURNS):
            await asyncio.sleep(0)
        if self._tls_error is not None:
            raise self._tls_error
        # Over TLS there may be bytes that are no answer: tickets to resume the session with.
        if self.state is CONNECTING and (self._tls or not self.poll(0)):
            self._become(IDLE)
        return self.state is IDLE

    @property
    def is_busy(self) -> bool:
        """Whether it carries a request."""
        return self.state in (WAITING, BODY, PARSING)

    def send(self, request: bytes) -> asyncio.Future[Answer | None]:
        """Send a request.

        Returns:
            A future of its answer, or of None as soon as aiohttp's parser has begun to read it.
        """
        self._become(WAITING)
        self._sent = len(request)
        waiter = self._waiter = self._loop.create_future()
        self.transport.write(request)
        return waiter

    async def parsed_answer(self, limit: int) -> Answer | DeepCallError:
        """The answer that aiohttp's parser reads, or an error for a body over `limit` bytes."""
        self.head, payload = await self._handler.read()
        while 100 <= self.head.code < 200 and self.head.code != 101:
            self._reader.heads += 1
            self.head, payload = await self._handler.read()
        self._reader.payload = payload
        if self.state is CLOSED:
            self._reader.wake()
        declared = self.head.headers.get("Content-Length")
        content = await read_limited(payload, declared, limit)
        message, self.head = self.head, None
        if content is None:
            self.close()
            return response_too_large(message.code, limit)
        said = _latin1(message.headers.get("Keep-Alive"))
        seconds = keepalive_seconds(b"\r\nkeep-alive: %b" % said)
        if seconds is not None:
            self._keep_for(seconds)
        whole = self._reader.fully_consumed(message.headers) and not self._handler.should_close
        self._answered(whole)
        return message.code, message.headers, content

    def abort(self, why: Literal["timeout", "closed"]) -> None:
        """End the request in flight."""
        self._ended = why
        self.close()

    def abort_error(self) -> DeepCallError | None:
        """The error of a request that `abort` ended."""
        if self._ended is None:
            return None
        if self._ended == "timeout":
            return RequestTimeout("no complete answer within the timeout")
        return closed_in_flight()

    def close(self) -> None:
        """End the connection at once."""
        self._become(CLOSED)
        self.transport.abort()

    def release(self) -> None:
        """Give a closed connection back to aiohttp's connector, which forgets it."""
        self._pooled.close()

    # What happens when an answer is complete.

    def _answered(self, reusable: bool) -> None:
        # A server may answer before it has read the whole request. It would take the rest for the
        # beginning of the next one.
        if (
            reusable
            and self.state is not CLOSED
            and (self._sent <= _SMALL_REQUEST or self._request_is_sent())
        ):
            self._become(IDLE)
            self.used = True
        else:
            self.close()

    def _request_is_sent(self) -> bool:
        if self._tls and self._sent > _LARGEST_TLS_REQUEST:
            return False
        return not self.transport.get_write_buffer_size()

    def _keep_for(self, seconds: int) -> None:
        # Half a second earlier than the server says: it starts to count before we do.
        self.keepalive = min(KEEPALIVE, max(0.0, seconds - 0.5))

    # What the event loop tells it.

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        state = self.state
        if state is WAITING:
            self._begin(bytes(self._buffer[:nbytes]))
        elif state is BODY:
            self._room = self._room[nbytes:]
            if not self._room:
                body, self._body, self._room = self._body, None, self._buffer
                framing, self.head = self.head, None
                self._plain_answer(framing, body or b"")
        elif state is PARSING:
            self._reader.feed(bytes(self._buffer[:nbytes]))
        elif state is not CLOSED:
            self.close()

    def _begin(self, data: bytes) -> None:
        """Take the first bytes of an answer, and mostly all of them."""
        if self._first:
            data, self._first = self._first + data, b""
        framing = plain_head(data)
        if framing is None:
            if may_become_plain(data):
                self._first = data
            else:
                self._parse(data)
            return
        start, length, limit = framing.start, framing.length, self._largest_plain
        if length is None or framing.zipped or length > limit:
            body = whole_body(data, framing, limit)
            if body is None:
                self._parse(data)
            else:
                self._plain_answer(framing, body)
            return
        missing = start + length - len(data)
        if missing <= 0:
            self._plain_answer(framing, data[start : start + length], not missing)
        else:
            self._become(BODY)
            # The rest is received to where it belongs.
            self.head, self._body = framing, bytearray(length)
            self._body[: length - missing] = data[start:]
            self._room = memoryview(self._body)[length - missing :]

    def _parse(self, data: bytes) -> None:
        self._become(PARSING)
        self._reader.start(data)
        self._leave_to_reader()

    def _leave_to_reader(self) -> None:
        """Let whoever waits ask aiohttp's handler for the answer, or for what happened."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _plain_answer(
        self, framing: Framing, body: bytes | bytearray, reusable: bool = True
    ) -> None:
        if framing.keepalive is not None:
            self._keep_for(framing.keepalive)
        self._answered(reusable)
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result((200, framing.headers, body))

    def eof_received(self) -> None:
        if self.state in (CONNECTING, IDLE):
            self.close()
        else:
            self._handler.eof_received()

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._become(CLOSED)
        self._handler.connection_lost(exc)
        if isinstance(exc, ssl.SSLError):
            self._tls_error = exc
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            if isinstance(exc, ssl.SSLError):
                # aiohttp would put an exception of its own in its place, without the reason.
                waiter.set_exception(exc)
            elif self._body is not None:
                cut = aiohttp.ClientPayloadError("the body was cut short")
                cut.__cause__ = ContentLengthError("the body was cut short")
                waiter.set_exception(cut)
        self._reader.wake()
        # In all other cases it is aiohttp's handler that raises what happened.
        self._leave_to_reader()


def _latin1(value: str | None) -> bytes:
    return (value or "").encode("latin-1", "replace")


def _poll_of(descriptor: int) -> Callable[[int], object]:
    """What tells, waiting for so many milliseconds, whether anything has arrived on a socket."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return poll.poll
    return lambda wait: select.select([descriptor], [], [], wait / 1000)[0]
