"""One request, one answer, straight over connections that aiohttp's connector made.

Law: what this package takes from aiohttp beyond its documented names stands here and in `link`.
Nothing is decoded or repeated. The request's bytes hold credentials, so they are never bound to a
name that lives across an ``await``: a traceback shows such names.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from inspect import signature
from typing import Protocol

from aiohttp import AddrInfoType, ClientRequest, ClientTimeout, TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from deepcall_async.errors import ClientClosed, DeepCallError
from deepcall_async.transport.connection import Answer, Link
from deepcall_async.transport.errors import FOREIGN, end_now, mapped, read_capped, too_large

__all__ = ["DirectExchange", "Exchange", "direct_is_possible"]

KEEPALIVE = 15.0
"""Seconds an idle connection is kept: as aiohttp keeps its own."""
FRESH = 1.0
"""Seconds of idleness up to which a connection may carry a request that cannot be repeated."""
CONTENT_TYPE = "application/json"
ENCODINGS = "gzip, deflate"
NO_TIMEOUT = ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)

_RECEIVED_AT_ONCE = 2**18


# The sockets made for the attempt to connect that is being made in this context.
_sockets_made: ContextVar[list[socket.socket]] = ContextVar("sockets_made")


def _new_socket(address: AddrInfoType) -> socket.socket:
    made = socket.socket(*address[:3])
    _sockets_made.get([]).append(made)
    return made


class Exchange(Protocol):
    """A way of getting an answer."""

    async def send(
        self, path: str, body: Callable[[], bytes], *, timeout: float, fresh: bool
    ) -> Answer | DeepCallError:
        """Send one request and give its answer, or the error that stood in its place.

        Args:
            path: the path below the host.
            body: makes the request's body.
            timeout: seconds for connecting, sending and receiving together.
            fresh: the request cannot be repeated, so an old idle connection is not good enough.
        """
        ...

    async def close(self) -> None:
        """End what is in flight and give the connections back."""
        ...


def direct_is_possible() -> bool:
    """Whether this aiohttp has all that `DirectExchange` relies on.

    Tested with aiohttp 3.14.3 to 3.14.5. Relied on beyond the documented names: that
    ``TCPConnector.connect`` gives a ``Connection`` with ``protocol`` and ``transport``, and that
    the protocol's ``set_response_params``, ``read`` and ``should_close`` work as
    ``ClientSession`` uses them.
    """
    try:
        connect = signature(TCPConnector.connect).parameters
        params = signature(ResponseHandler.set_response_params).parameters
        request = signature(ClientRequest).parameters
    except (TypeError, ValueError, AttributeError):
        return False
    return (
        list(connect) == ["self", "req", "traces", "timeout"]
        and {"read_until_eof", "auto_decompress", "read_bufsize"} <= set(params)
        and {"method", "url", "loop"} <= set(request)
        and all(hasattr(ResponseHandler, name) for name in ("read", "should_close", "is_connected"))
        and all(hasattr(Connection, name) for name in ("protocol", "transport", "close"))
    )


class DirectExchange:
    """Requests written straight to connections that aiohttp's connector made.

    The connector resolves names, connects, secures and parses; ``ClientSession``'s request and
    response objects are left out. Idle connections are parked here, not in the connector's pool,
    which neither notices what a server sends unasked nor tells how long a connection was idle.

    Args:
        base_url: scheme, host and port, and a path prefix if any.
        user_agent: the User-Agent header.
        max_response_bytes: the largest body taken, decompressed.
    """

    def __init__(self, base_url: str, *, user_agent: str, max_response_bytes: int) -> None:
        url = URL(base_url)
        self._loop = asyncio.get_running_loop()
        self._max_response_bytes = max_response_bytes
        self._connector = TCPConnector(limit=0, socket_factory=_new_socket)
        self._request = ClientRequest("POST", url, loop=self._loop)
        self._prefix = url.raw_path.rstrip("/")
        self._tail_of_head = (
            f" HTTP/1.1\r\nHost: {self._request.headers['Host']}\r\nUser-Agent: {user_agent}\r\n"
            f"Accept: {CONTENT_TYPE}\r\nAccept-Encoding: {ENCODINGS}\r\n"
            f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: "
        ).encode("latin-1")
        self._heads: dict[str, bytes] = {}
        self._idle: deque[Link] = deque()
        self._busy: set[Link] = set()
        # One timer for all that is in flight: one for each request would cost more than all else
        # that is done for it here.
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = float("inf")
        self._connecting: set[asyncio.Timeout] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._buffer = memoryview(bytearray(_RECEIVED_AT_ONCE))

    def __repr__(self) -> str:
        return f"<DirectExchange {len(self._busy)} active, {len(self._idle)} idle>"

    async def send(
        self, path: str, body: Callable[[], bytes], *, timeout: float, fresh: bool
    ) -> Answer | DeepCallError:
        """See `Exchange.send`."""
        now = self._loop.time()
        link = self._take(now, fresh=fresh)
        if link is None:
            made = await self._connect(timeout)
            if not isinstance(made, Link):
                return made
            link = made
        # The time for connecting is the attempt's too.
        link.deadline = now + timeout
        self._busy.add(link)
        if link.deadline < self._alarm_at:
            self._set_alarm(link.deadline)
        try:
            link.transport.write(self._frame(path, body()))
            answer: Answer | DeepCallError | None = await link.answer()
            if answer is None:
                answer = await self._parsed(link)
        except FOREIGN as error:
            self._discard(link)
            return link.reason() or mapped(error, reused=link.used)
        except RuntimeError:
            # aiohttp's reader raises it for a connection that was ended under it.
            self._discard(link)
            reason = link.reason()
            if reason is None:
                raise
            return reason
        except BaseException:
            self._discard(link)
            raise
        finally:
            self._busy.discard(link)
        # A body that ends with its connection looks whole when we ended the connection.
        reason = link.reason()
        if reason is not None or link.spent:
            self._discard(link)
        else:
            self._park(link)
        return reason or answer

    async def _parsed(self, link: Link) -> Answer | DeepCallError:
        """The answer that aiohttp's parser reads."""
        handler = link.handler
        link.head, payload = await handler.read()
        while 100 <= link.head.code < 200 and link.head.code != 101:
            link.pass_over_head()
            link.head, payload = await handler.read()
        link.give_out(payload)
        content = await read_capped(
            payload, link.head.headers.get("Content-Length"), self._max_response_bytes
        )
        message, link.head = link.head, None
        link.spent = content is None or handler.should_close or not link.in_step(message.headers)
        if content is None:
            return too_large(message.code, self._max_response_bytes)
        return message.code, message.headers, content

    async def close(self) -> None:
        """See `Exchange.close`."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        end_now(self._connecting)
        for link in self._busy:
            link.end("closed")
        while self._idle:
            self._discard(self._idle.pop())
        # Closing the connector first would leave those who read a body asleep for ever.
        while self._busy or self._connecting:
            await asyncio.sleep(0)
        if self._alarm is not None:
            self._alarm.cancel()
        await self._connector.close()

    def _set_alarm(self, when: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = when
        self._alarm = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, float("inf")
        # A loop may call early by the resolution of its clock.
        now = self._loop.time() + 0.001
        for link in self._busy:
            if link.deadline <= now:
                link.end("timeout")
        later = [link.deadline for link in self._busy if link.deadline > now]
        if later:
            self._set_alarm(min(later))

    def _frame(self, path: str, body: bytes) -> bytes:
        head = self._heads.get(path)
        if head is None:
            head = b"POST " + (self._prefix + path).encode("ascii") + self._tail_of_head
            self._heads[path] = head
        return b"%b%d\r\n\r\n%b" % (head, len(body), body)

    def _take(self, now: float, *, fresh: bool) -> Link | None:
        oldest = now - (FRESH if fresh else KEEPALIVE)
        while self._idle:
            link = self._idle.pop()
            if link.idle_since < oldest:
                # The rest have been idle for longer still; a repeatable request may want them.
                if fresh:
                    self._idle.append(link)
                    return None
            elif not link.lost and not link.has_bytes():
                link.idle = False
                return link
            self._discard(link)
        return None

    async def _connect(self, timeout: float) -> Link | DeepCallError:
        scope = asyncio.timeout(timeout)
        made: list[socket.socket] = []
        _sockets_made.set(made)
        try:
            async with scope:
                self._connecting.add(scope)
                connection = await self._connector.connect(self._request, [], NO_TIMEOUT)
                if not self._closed:
                    return Link(connection, self._buffer, self._max_response_bytes)
                connection.close()
        except FOREIGN as error:
            if type(self._loop).__module__.startswith("uvloop"):
                # After a failed handshake uvloop 0.22 and 0.23 may have closed the descriptor but
                # not the socket, which when collected would close whatever has that number then.
                for each in made:
                    each.detach()
            if self._closed:
                return ClientClosed("the client was closed while it connected")
            return mapped(error, connecting=True)
        finally:
            self._connecting.discard(scope)
        return ClientClosed("the client was closed while it connected")

    def _park(self, link: Link) -> None:
        # A server may answer before it has read everything; such a connection is out of step.
        if self._closed or link.lost or link.transport.get_write_buffer_size():
            self._discard(link)
            return
        link.idle = link.used = True
        link.idle_since = self._loop.time()
        self._idle.append(link)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(KEEPALIVE, self._sweep)

    def _discard(self, link: Link) -> None:
        link.transport.abort()
        link.connection.close()

    def _sweep(self) -> None:
        oldest = self._loop.time() - KEEPALIVE
        kept: deque[Link] = deque()
        for link in self._idle:
            if link.lost or link.idle_since <= oldest:
                self._discard(link)
            else:
                kept.append(link)
        self._idle = kept
        self._sweeper = self._loop.call_later(KEEPALIVE / 2, self._sweep) if kept else None
