"""One request, one answer: bytes over aiohttp's connections.

Law: everything this package takes from aiohttp's client stands here, and its exceptions are mapped
here and nowhere else. Nothing is decoded or repeated. The request's bytes hold credentials, so
they are never bound to a name that lives across an ``await``: a traceback shows such names.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any, Literal, Protocol, TypeAlias
from weakref import WeakSet

import aiohttp
from aiohttp import ClientRequest, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import (
    ContentLengthError,
    HttpProcessingError,
    TransferEncodingError,
)
from aiohttp.payload import BytesPayload
from yarl import URL

from deepcall_async.errors import (
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    DeepCallError,
    RequestTimeout,
    ResponseTooLarge,
    UnexpectedReply,
)

__all__ = [
    "Answer",
    "DirectExchange",
    "Exchange",
    "PublicExchange",
    "direct_is_possible",
    "end_now",
]

Answer: TypeAlias = tuple[int, Mapping[str, str], bytes | bytearray]
"""HTTP status, headers, decompressed body."""

KEEPALIVE = 15.0
"""Seconds an idle connection is kept: as aiohttp keeps its own."""
FRESH = 1.0
"""Seconds of idleness up to which a connection may carry a request that cannot be repeated."""

_RECEIVED_AT_ONCE = 2**18
# What a parser may decompress ahead of the reader: a few times this is held beside the body.
_READ_AHEAD = 2**16
_CONTENT_TYPE = "application/json"
_ENCODINGS = "gzip, deflate"
_NO_TIMEOUT = ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
# Named one by one: a blanket `except Exception` would turn our own bugs into retries.
_FOREIGN = (aiohttp.ClientError, HttpProcessingError, OSError, TimeoutError)


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
        self._connector = TCPConnector(limit=0)
        self._request = ClientRequest("POST", url, loop=self._loop)
        self._prefix = url.raw_path.rstrip("/")
        self._tail_of_head = (
            f" HTTP/1.1\r\nHost: {self._request.headers['Host']}\r\nUser-Agent: {user_agent}\r\n"
            f"Accept: {_CONTENT_TYPE}\r\nAccept-Encoding: {_ENCODINGS}\r\n"
            f"Content-Type: {_CONTENT_TYPE}\r\nContent-Length: "
        ).encode("latin-1")
        self._heads: dict[str, bytes] = {}
        self._idle: deque[_Link] = deque()
        self._busy: set[_Link] = set()
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
            if not isinstance(made, _Link):
                return made
            link = made
        # The time for connecting is the attempt's too.
        link.deadline = now + timeout
        self._busy.add(link)
        if link.deadline < self._alarm_at:
            self._set_alarm(link.deadline)
        handler = link.handler
        try:
            link.transport.write(self._frame(path, body()))
            link.head, payload = await handler.read()
            while 100 <= link.head.code < 200 and link.head.code != 101:
                link.pass_over_head()
                link.head, payload = await handler.read()
            if payload.is_eof() and payload.total_bytes <= self._max_response_bytes:
                # Not through read_nowait(), which runs the parser once more for nothing.
                chunks = payload._buffer if payload.total_bytes else ()  # noqa: SLF001
                content: bytes | bytearray | None = b"".join(chunks)
            else:
                declared = link.head.headers.get("Content-Length")
                content = await _read_capped(payload, declared, self._max_response_bytes)
        except _FOREIGN as error:
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
        message, link.head = link.head, None
        if content is None or handler.should_close or not link.in_step(message.headers):
            self._discard(link)
        else:
            self._park(link)
        reason = link.reason()
        if reason is not None:
            return reason
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

    def _take(self, now: float, *, fresh: bool) -> _Link | None:
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

    async def _connect(self, timeout: float) -> _Link | DeepCallError:
        scope = asyncio.timeout(timeout)
        try:
            async with scope:
                self._connecting.add(scope)
                connection = await self._connector.connect(self._request, [], _NO_TIMEOUT)
                if not self._closed:
                    return _Link(connection, self._buffer)
                connection.close()
        except _FOREIGN as error:
            if self._closed:
                return ClientClosed("the client was closed while it connected")
            return mapped(error, connecting=True)
        finally:
            self._connecting.discard(scope)
        return ClientClosed("the client was closed while it connected")

    def _park(self, link: _Link) -> None:
        # A server may answer before it has read everything; such a connection is out of step.
        if self._closed or link.lost or link.transport.get_write_buffer_size():
            self._discard(link)
            return
        link.idle = link.used = True
        link.idle_since = self._loop.time()
        self._idle.append(link)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(KEEPALIVE, self._sweep)

    def _discard(self, link: _Link) -> None:
        link.transport.abort()
        link.connection.close()

    def _sweep(self) -> None:
        oldest = self._loop.time() - KEEPALIVE
        kept: deque[_Link] = deque()
        for link in self._idle:
            if link.lost or link.idle_since <= oldest:
                self._discard(link)
            else:
                kept.append(link)
        self._idle = kept
        self._sweeper = self._loop.call_later(KEEPALIVE / 2, self._sweep) if kept else None


class _Link(asyncio.BufferedProtocol):
    """A connection, and the protocol between its transport and aiohttp's parser.

    What arrives on an idle connection was not asked for: it ends the connection, so it can never
    be taken for the answer to the next request. And bytes are received into one buffer for all
    connections: asyncio would map and unmap a quarter of a MiB for each receipt.
    """

    def __init__(self, connection: Connection, buffer: memoryview) -> None:
        handler, transport = connection.protocol, connection.transport
        descriptor = -1 if transport is None else transport.get_extra_info("socket").fileno()
        if handler is None or transport is None or descriptor < 0:
            connection.close()
            raise ConnectionResetError("the connection was lost as soon as it was made")
        self.connection = connection
        self.handler: ResponseHandler = handler
        self.transport: asyncio.Transport = transport
        self.used = False
        self.idle = False
        self.idle_since = 0.0
        self.lost = False
        self.deadline = 0.0
        # The answer's head stands here and not in a local variable: it may echo the request, and
        # a traceback of a cancelled call shows locals.
        self.head: Any = None
        self._buffer = buffer
        self._received = 0
        self._length_of_head = 0
        self._last = b""
        self._ended: Literal["timeout", "closed"] | None = None
        self.has_bytes = _readability(descriptor)
        transport.set_protocol(self)
        # Once for the connection: the parser takes one answer after another.
        handler.set_response_params(
            read_until_eof=True, auto_decompress=True, read_bufsize=_READ_AHEAD
        )

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
        return _closed_in_flight()

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
        received, self._received = self._received, 0
        last, self._last = self._last, b""
        declared = headers.get("Content-Length")
        if declared is None:
            return last.endswith(b"0\r\n\r\n")
        return received == self._length_of_head + int(declared)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self.idle:
            self.lost = True
            self.transport.abort()
            return
        data = bytes(self._buffer[:nbytes])
        if self._received == 0:
            self._length_of_head = data.find(b"\r\n\r\n") + 4
        self._received += nbytes
        self._last = data
        self.handler.data_received(data)

    def eof_received(self) -> None:
        self.handler.eof_received()

    def pause_writing(self) -> None:
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        self.handler.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.handler.connection_lost(exc)


class PublicExchange:
    """Requests through ``ClientSession.post``, with all that the session's owner set on it.

    Unlike `DirectExchange` it cannot see what a server sends unasked on an idle connection of the
    session's pool, nor prove a connection fresh.

    Args:
        session: a session to borrow; None for one of its own.
        base_url: scheme, host and port, and a path prefix if any.
        user_agent: the User-Agent header, unless the session has its own.
        max_response_bytes: the largest body taken, decompressed.
        trust_env: whether a session of its own takes its proxy from the environment.
    """

    def __init__(
        self,
        session: ClientSession | None,
        base_url: str,
        *,
        user_agent: str,
        max_response_bytes: int,
        trust_env: bool,
    ) -> None:
        self._owned = session is None
        if session is None:
            # Cookies would tie the accounts that share a pool to one another.
            session = ClientSession(
                connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar(), trust_env=trust_env
            )
        self._session = session
        self._url = URL(base_url)
        self._prefix = self._url.raw_path.rstrip("/")
        self._max_response_bytes = max_response_bytes
        self._headers = {"Accept": _CONTENT_TYPE, "Accept-Encoding": _ENCODINGS}
        if "User-Agent" not in session.headers:
            self._headers["User-Agent"] = user_agent
        self._in_flight: set[asyncio.Timeout] = set()
        self._closed = False
        # The connections that have carried a request of ours, so that a stale one can be told.
        self._seen: WeakSet[object] = WeakSet()

    def __repr__(self) -> str:
        return f"<PublicExchange {len(self._in_flight)} active>"

    async def send(
        self, path: str, body: Callable[[], bytes], *, timeout: float, fresh: bool
    ) -> Answer | DeepCallError:
        """See `Exchange.send`; ``fresh`` has no meaning here."""
        payload = _Body(body(), content_type=_CONTENT_TYPE)
        payload.seen = self._seen
        scope = asyncio.timeout(timeout)
        try:
            async with scope:
                self._in_flight.add(scope)
                async with self._session.post(
                    self._url.with_path(self._prefix + path, encoded=True),
                    data=payload,
                    headers=self._headers,
                    allow_redirects=False,
                    raise_for_status=False,
                    timeout=_NO_TIMEOUT,
                    read_bufsize=_READ_AHEAD,
                ) as payload.response:
                    content = await _read_capped(
                        payload.response.content,
                        payload.response.headers.get("Content-Length"),
                        self._max_response_bytes,
                    )
                    if content is None:
                        payload.response.close()
                        return too_large(payload.response.status, self._max_response_bytes)
                    return payload.response.status, payload.response.headers, content
        except _FOREIGN as error:
            if self._closed:
                return _closed_in_flight(sent=payload.started)
            return mapped(error, connecting=not payload.started, reused=payload.reused)
        finally:
            self._in_flight.discard(scope)

    async def close(self) -> None:
        """See `Exchange.close`."""
        self._closed = True
        end_now(self._in_flight)
        while self._in_flight:
            await asyncio.sleep(0)
        if self._owned:
            await self._session.close()


class _Body(BytesPayload):
    """A body that knows whether any of it was handed to a connection, and the answer to it.

    The answer's head may echo the request, so it too stands where no traceback shows it.
    """

    started = False
    reused = False
    seen: WeakSet[object]
    response: aiohttp.ClientResponse

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        self.started = True
        connection = getattr(writer, "protocol", None)
        if connection is not None:
            self.reused = connection in self.seen
            self.seen.add(connection)
        await super().write_with_length(writer, content_length)


async def _read_capped(
    stream: aiohttp.StreamReader, declared: str | None, limit: int
) -> bytearray | None:
    """Read a body, or give None as soon as it proves to be larger than `limit` bytes.

    Chunk by chunk: only then does aiohttp's own guard hold a decompressing parser back.
    """
    if declared is not None and declared.isdigit() and int(declared) > limit:
        return None
    content = _Content(limit)
    while content.take(await stream.readany()):
        pass
    return content.data


class _Content:
    """A body as it grows: in an object, since a traceback would show a local variable."""

    __slots__ = ("_limit", "data")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.data: bytearray | None = bytearray()

    def take(self, chunk: bytes) -> bool:
        """Append a chunk; False at the end, or when it is too much."""
        if self.data is None or len(self.data) + len(chunk) > self._limit:
            self.data = None
            return False
        self.data += chunk
        return bool(chunk)


def end_now(scopes: Iterable[asyncio.Timeout]) -> None:
    """Let what waits under these scopes end with a TimeoutError at once."""
    for scope in scopes:
        # One whose time came in this very turn of the loop can no longer be moved.
        if not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())


def _closed_in_flight(*, sent: bool = True) -> ClientClosed:
    error = ClientClosed("the client was closed while the request was in flight")
    error.sent = sent
    return error


def too_large(status: int, limit: int) -> ResponseTooLarge:
    """The error for a body over the limit, in bytes."""
    error = ResponseTooLarge(
        f"the answer is larger than {limit} bytes (HTTP {status}); raise max_response_bytes"
    )
    error.http_status = status
    return error


def mapped(
    error: BaseException, *, connecting: bool = False, reused: bool = False
) -> DeepCallError:
    """Turn an exception of aiohttp, asyncio or the system into one of ours.

    Args:
        error: what was raised.
        connecting: nothing had been sent yet.
        reused: the connection had been idle, so the server may have closed it before we sent.
    """
    result: DeepCallError
    kind = type(error).__name__
    if connecting and not isinstance(error, HttpProcessingError):
        untrusted = isinstance(error, aiohttp.ClientConnectorCertificateError)
        if untrusted:
            text = "the server's certificate cannot be trusted, so nothing was sent"
        elif isinstance(error, TimeoutError):
            text = "no connection within the timeout, so nothing was sent"
        else:
            text = f"no connection could be made ({kind}), so nothing was sent"
        failed = ConnectFailed(text)
        failed.untrusted = untrusted
        result = failed
    elif isinstance(error, TimeoutError):
        result = RequestTimeout("no whole answer within the timeout")
    elif isinstance(error, aiohttp.ClientPayloadError):
        # Only what was cut short is a lost connection: what is garbled would be so again.
        if isinstance(error.__cause__, (ContentLengthError, TransferEncodingError, OSError)):
            result = ConnectionLost("the connection ended in the middle of the answer")
        else:
            result = UnexpectedReply("the answer's body is not what its headers say")
    elif isinstance(error, (HttpProcessingError, aiohttp.ClientResponseError)):
        result = UnexpectedReply(f"the answer is not valid HTTP ({kind})")
    elif isinstance(error, aiohttp.InvalidURL):
        result = ConnectFailed("base_url is not a URL that can be connected to")
    else:
        lost = ConnectionLost(f"the connection ended before the whole answer had arrived ({kind})")
        lost.stale = reused
        result = lost
    if isinstance(error, OSError):
        # Without its traceback, whose frames are not ours to vouch for. Other exceptions are not
        # kept: their text can quote the answer.
        error.__context__ = None
        result.__cause__ = error.with_traceback(None)
    return result


def _readability(descriptor: int) -> Callable[[], bool]:
    """A check, without waiting, whether anything has arrived on a socket."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return lambda: bool(poll.poll(0))
    return lambda: bool(select.select([descriptor], [], [], 0)[0])
