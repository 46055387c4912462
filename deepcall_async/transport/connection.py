"""A connection between two requests and during one.

Law: bytes in, one answer out, and nothing that was not asked for. Plain answers are read here,
all others by aiohttp's parser; who waits for them, and for how long, is not known here.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import ContentLengthError

from deepcall_async.errors import DeepCallError, RequestTimeout
from deepcall_async.transport.errors import closed_in_flight
from deepcall_async.transport.plain import PlainHeaders, plain_head

__all__ = ["READ_AHEAD", "Answer", "Link"]

Answer: TypeAlias = tuple[int, Mapping[str, str], bytes | bytearray]
"""HTTP status, headers, decompressed body."""

READ_AHEAD = 2**16
"""What a parser may decompress ahead of the reader: a few times this is held beside the body."""

_MADE_ROOM_FOR = 2**20
"""The largest body for which room is made because the answer's head announces it."""


class Link(asyncio.BufferedProtocol):
    """A connection, and the protocol between its transport and whoever reads the answer.

    A plain answer, as almost all are, is read here; any other is handed to aiohttp's parser.
    What arrives on an idle connection was not asked for: it ends the connection, so it can never
    be taken for the answer to the next request. And bytes are received into one buffer for all
    connections: asyncio would map and unmap a quarter of a MiB for each receipt.
    """

    def __init__(self, connection: Connection, buffer: memoryview, largest: int) -> None:
        handler, transport = connection.protocol, connection.transport
        descriptor = -1 if transport is None else transport.get_extra_info("socket").fileno()
        if handler is None or transport is None or descriptor < 0:
            connection.close()
            raise ConnectionResetError("the connection was lost as soon as it was made")
        self.connection = connection
        self.handler: ResponseHandler = handler
        self.transport: asyncio.Transport = transport
        self.used: bool = False
        self.idle: bool = False
        self.idle_since: float = 0.0
        self.lost: bool = False
        self.spent: bool = False
        self.deadline: float = 0.0
        self.has_bytes: Callable[[], bool] = _readability(descriptor)
        # The answer's head stands here and not in a local variable: it may echo the request, and
        # a traceback of a cancelled call shows locals.
        self.head: Any = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[Answer | None] | None = None
        self._buffer = self._room = buffer
        self._largest = min(largest, _MADE_ROOM_FOR)
        self._body: bytearray | None = None
        self._payload: aiohttp.StreamReader | None = None
        self._received = 0
        self._length_of_head = 0
        self._last = b""
        self._ended: Literal["timeout", "closed"] | None = None
        transport.set_protocol(self)

    def answer(self) -> asyncio.Future[Answer | None]:
        """The answer to the request, or None as soon as aiohttp's parser has begun to read it."""
        self._waiter = self._loop.create_future()
        return self._waiter

    def end(self, why: Literal["timeout", "closed"]) -> None:
        """End the request in flight."""
        self._ended, self.lost = why, True
        self.transport.abort()

    def reason(self) -> DeepCallError | None:
        """Why we ended the request ourselves, if we did."""
        if self._ended is None:
            return None
        if self._ended == "timeout":
            return RequestTimeout("no whole answer within the timeout")
        return closed_in_flight()

    def give_out(self, payload: aiohttp.StreamReader) -> None:
        """Take note of who reads the body, to wake them if the connection ends."""
        self._payload = payload
        if self.lost:
            self._wake_reader()

    def _wake_reader(self) -> None:
        # aiohttp's protocol forgets a body whose parser failed; its reader would sleep for ever.
        payload, self._payload = self._payload, None
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            error = self.handler.exception()
            payload.set_exception(error or aiohttp.ServerDisconnectedError())

    def pass_over_head(self) -> None:
        """Count anew behind a 1xx answer, which has no body."""
        if self._received == self._length_of_head:
            self._received = 0
        else:
            self._length_of_head = self._last.find(b"\r\n\r\n", self._length_of_head) + 4

    def in_step(self, headers: Mapping[str, str]) -> bool:
        """Whether an answer ended exactly where what was received ends.

        The parser keeps to itself what came behind the answer, if it is not yet a whole head; such
        a connection, or one where it cannot be told, is not used again.
        """
        self._payload = None
        received, self._received = self._received, 0
        last, self._last = self._last, b""
        declared = headers.get("Content-Length")
        if declared is None:
            return last.endswith(b"0\r\n\r\n")
        return received == self._length_of_head + int(declared)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        if self._body is not None:
            self._room = self._room[nbytes:]
            if not self._room:
                body, self._body, self._room = self._body, None, self._buffer
                self._give((200, PlainHeaders(self.head), body))
        elif self._waiter is not None:
            self._begin(bytes(self._buffer[:nbytes]))
        elif not self.idle:
            self._received += nbytes
            self._last = bytes(self._buffer[:nbytes])
            self.handler.data_received(self._last)
        else:
            self.lost = True
            self.transport.abort()

    def _begin(self, data: bytes) -> None:
        start, length = plain_head(data) or (0, 0)
        missing = start + length - len(data)
        if start and missing == 0 and length <= self._largest:
            self._give((200, PlainHeaders(data[:start]), data[start:]))
        elif start and missing > 0 and length <= self._largest:
            # The rest is received to where it belongs.
            self.head, self._body = data[:start], bytearray(length)
            self._body[: length - missing] = data[start:]
            self._room = memoryview(self._body)[length - missing :]
        else:
            self._received, self._last = len(data), data
            self._length_of_head = data.find(b"\r\n\r\n") + 4
            # A parser for this answer alone: it could keep half a head that came behind another.
            self.handler.set_response_params(
                read_until_eof=True, auto_decompress=True, read_bufsize=READ_AHEAD
            )
            self.handler.data_received(data)
            self._give(None)

    def _give(self, answer: Answer | None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

    def eof_received(self) -> None:
        self.handler.eof_received()

    def pause_writing(self) -> None:
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        self.handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.handler.connection_lost(exc)
        if self._body is not None and self._waiter is not None and not self._waiter.done():
            cut = aiohttp.ClientPayloadError("the body was cut short")
            cut.__cause__ = ContentLengthError("the body was cut short")
            self._waiter.set_exception(cut)
        self._wake_reader()
        # In all other cases it is aiohttp's protocol that raises what happened.
        self._give(None)


def _readability(descriptor: int) -> Callable[[], bool]:
    """A check, without waiting, whether anything has arrived on a socket."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return lambda: bool(poll.poll(0))
    return lambda: bool(select.select([descriptor], [], [], 0)[0])
