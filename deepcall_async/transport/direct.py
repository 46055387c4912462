"""Requests written straight to connections that aiohttp's connector made.

What this package uses of aiohttp beyond its documented names stands here and in `connection`.
Nothing is decoded or repeated. The request's bytes hold credentials, so they are never bound to a
name that lives across an ``await``: a traceback shows such names.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from inspect import signature

from aiohttp import AddrInfoType, ClientRequest, DefaultResolver, TCPConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection as PooledConnection
from yarl import URL

from deepcall_async.errors import ClientClosed, ConnectFailed, DeepCallError
from deepcall_async.events import Trace
from deepcall_async.transport.base import (
    KEEPALIVE,
    NO_TIMEOUT,
    Answer,
    TransportOptions,
    abandon_resolver,
    proxy_authorization,
    speaks_tls,
)
from deepcall_async.transport.client_session import ClientSessionTransport
from deepcall_async.transport.connection import CLOSED, IDLE, Connection, UnsupportedLoop
from deepcall_async.transport.errors import (
    MAPPED_EXCEPTIONS,
    address_of,
    expire,
    map_connect_exception,
    map_exception,
)
from deepcall_async.transport.head import RequestHead

__all__ = ["DirectTransport", "is_possible"]

_RECEIVE_BUFFER_SIZE = 2**18

# The sockets made for the attempt to connect that is being made in this context.
_sockets_made: ContextVar[list[socket.socket]] = ContextVar("sockets_made")


def _new_socket(address: AddrInfoType) -> socket.socket:
    made = socket.socket(*address[:3])
    _sockets_made.get([]).append(made)
    return made


def is_possible() -> bool:
    """Whether this aiohttp has all that `DirectTransport` relies on.

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
        and {"method", "url", "loop", "proxy", "proxy_headers", "ssl"} <= set(request)
        and all(hasattr(ResponseHandler, name) for name in ("read", "should_close", "is_connected"))
        and all(hasattr(PooledConnection, name) for name in ("protocol", "transport", "close"))
    )


class DirectTransport:
    """Sends requests over connections of aiohttp's connector, without ``ClientSession``.

    The connector resolves names, connects, speaks TLS and CONNECT, and parses. Idle connections are
    kept here and not in the connector's pool, which neither notices what a server sends unasked
    nor tells how long a connection has been idle.

    Args:
        options: the service's address, limits, TLS and proxy.
    """

    def __init__(self, options: TransportOptions) -> None:
        url = URL(options.base_url)
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._resolver = DefaultResolver()
        self._connector = TCPConnector(limit=0, resolver=self._resolver, socket_factory=_new_socket)
        self._address = address_of(url)
        proxy = None if options.proxy is None else URL(options.proxy)
        self._proxy_address = None if proxy is None else address_of(proxy)
        self._request = _connect_request(url, proxy, options.ssl, self._loop)
        self._head = RequestHead(url, proxy, self._request, options.headers)
        self._idle: deque[Connection] = deque()
        # All that are open, those in use included.
        self._connections: set[Connection] = set()
        self._connecting: set[asyncio.Timeout] = set()
        # One timer for all that is in flight: one for each request would cost more than all else
        # that is done for it here.
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._next_deadline = float("inf")
        self._fallback: ClientSessionTransport | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._buffer = memoryview(bytearray(_RECEIVE_BUFFER_SIZE))

    def __repr__(self) -> str:
        active = len(self._connections) - len(self._idle)
        return f"<DirectTransport {active} active, {self.idle} idle>"

    @property
    def idle(self) -> int:
        """See `Transport.idle`."""
        # One that the server has ended stays among them until somebody looks for one.
        return sum(connection.state is IDLE for connection in self._idle)

    async def send(
        self,
        path: str,
        body: Callable[[], bytes],
        started: float,
        timeout: float,
        max_idle: float,
        trace: Trace | None = None,
    ) -> Answer | DeepCallError:
        """See `Transport.send`."""
        connection = self._take_idle(started, max_idle)
        if connection is None:
            made = await self._connect(timeout)
            if made is None:
                return await self._slower().send(
                    path, body, started=started, timeout=timeout, max_idle=max_idle, trace=trace
                )
            if not isinstance(made, Connection):
                return made
            connection = made
        # The time for connecting is the attempt's too.
        connection.deadline = deadline = started + timeout
        if deadline < self._next_deadline:
            self._set_deadline_timer(deadline)
        answer: Answer | DeepCallError | None
        try:
            if trace is not None:
                trace.reused = connection.used
            answer = await connection.send(self._head.request(path, body(), trace))
            if answer is None:
                answer = await connection.parsed_answer(self._options.max_response_bytes)
        except MAPPED_EXCEPTIONS as error:
            connection.close()
            answer = map_exception(error, self._address, reused=connection.used)
        except RuntimeError:
            # aiohttp's reader raises it for a connection that was ended under it.
            self._discard(connection)
            answer = connection.abort_error()
            if answer is None:
                raise
        except BaseException:
            self._discard(connection)
            raise
        if connection.state is IDLE:
            self._park(connection)
            return answer
        return self._ended(connection, answer, started)

    def _ended(
        self, connection: Connection, answer: Answer | DeepCallError, started: float
    ) -> Answer | DeepCallError:
        """What came of a request whose connection is of no further use."""
        self._discard(connection)
        # A body that ends with its connection looks complete when we ended the connection.
        aborted = connection.abort_error()
        if aborted is not None and not self._closed:
            # What was idle before this attempt began may be as dead as its connection.
            self._close_idle_since(started)
        return aborted or answer

    async def close(self) -> None:
        """See `Transport.close`."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        expire(self._connecting)
        while self._idle:
            self._discard(self._idle.pop())
        for connection in self._connections:
            connection.abort("closed")
        # Closing the connector first would leave those who read a body asleep for ever.
        while self._connections or self._connecting:
            await asyncio.sleep(0)
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        await self._connector.close()
        await self._resolver.close()
        if self._fallback is not None:
            await self._fallback.close()

    def abandon(self) -> None:
        """See `Transport.abandon`."""
        abandon_resolver(self._resolver)
        if self._fallback is not None:
            self._fallback.abandon()

    def _set_deadline_timer(self, when: float) -> None:
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._next_deadline = when
        wait = max(0.0, when - time.monotonic())
        self._deadline_timer = self._loop.call_later(wait, self._on_deadline)

    def _on_deadline(self) -> None:
        self._deadline_timer, self._next_deadline = None, float("inf")
        # A loop may call early by the resolution of its clock.
        now = time.monotonic() + 0.001
        later = float("inf")
        for connection in self._connections:
            if not connection.is_busy:
                continue
            if connection.deadline <= now:
                connection.abort("timeout")
            else:
                later = min(later, connection.deadline)
        if later < float("inf"):
            self._set_deadline_timer(later)

    def _take_idle(self, now: float, max_idle: float) -> Connection | None:
        while self._idle and max_idle > 0.0:
            connection = self._idle[-1]
            idle_for = now - connection.idle_since
            if idle_for >= connection.keepalive:
                # It is the newest only of those that remain; the sweeper sees to the others.
                self._discard(self._idle.pop())
            elif idle_for > max_idle:
                # The others have been idle for longer still.
                return None
            elif connection.state is IDLE and not connection.poll(0):
                return self._idle.pop()
            else:
                self._discard(self._idle.pop())
        return None

    def _slower(self) -> ClientSessionTransport:
        """What is used instead where the event loop cannot do what a `Connection` needs."""
        if self._fallback is None:
            self._fallback = ClientSessionTransport(self._options, None)
            warnings.warn(
                "this event loop is not one that deepcall_async knows: calls work, but slower",
                RuntimeWarning,
                stacklevel=2,
            )
        return self._fallback

    async def _connect(self, timeout: float) -> Connection | DeepCallError | None:
        """A new connection or an error; None where the event loop cannot do what one needs."""
        if self._fallback is not None:
            return None
        scope = asyncio.timeout(timeout)
        made: list[socket.socket] = []
        _sockets_made.set(made)
        self._connecting.add(scope)
        try:
            async with scope:
                await self._make_room()
                pooled = await self._connector.connect(self._request, [], NO_TIMEOUT)
                connection = Connection(pooled, self._buffer, self._options.max_response_bytes)
                try:
                    settled = await connection.settle()
                except BaseException:
                    self._discard(connection)
                    raise
                if settled and not self._closed:
                    self._connections.add(connection)
                    return connection
                self._discard(connection)
        except UnsupportedLoop:
            return None
        except MAPPED_EXCEPTIONS as error:
            # What asyncio made it closes itself, some turns of the loop later.
            connects = getattr(self._loop.create_connection, "func", None)
            if getattr(connects, "__module__", "").startswith("aiofastnet"):
                # aiofastnet 1.2 leaves it open when the connection ends before the handshake.
                for each in made:
                    each.close()
            elif type(self._loop).__module__.startswith("uvloop"):
                # After a failed handshake uvloop 0.22 and 0.23 may have closed the descriptor but
                # not the socket, which when collected would close whatever has that number then.
                for each in made:
                    each.detach()
            if not self._closed:
                return map_connect_exception(error, self._address, self._proxy_address)
        finally:
            self._connecting.discard(scope)
        if self._closed:
            return ClientClosed("the client was closed while it connected")
        return ConnectFailed(
            f"no connection to {self._address}: the server ended it, or spoke before it was asked;"
            " nothing was sent"
        )

    async def _make_room(self) -> None:
        """Close the oldest idle connections when one more would be too many."""
        while self._idle and self._open >= self._options.max_connections:
            oldest = self._idle.popleft()
            self._discard(oldest)
            while not oldest.lost:
                await asyncio.sleep(0)

    @property
    def _open(self) -> int:
        # Those being made include the one that room is made for.
        return len(self._connections) + len(self._connecting) - 1

    def _park(self, connection: Connection) -> None:
        if self._closed:
            self._discard(connection)
            return
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(KEEPALIVE, self._sweep)

    def _discard(self, connection: Connection) -> None:
        connection.close()
        connection.release()
        self._connections.discard(connection)

    def _close_idle_since(self, started: float) -> None:
        while self._idle and self._idle[0].idle_since <= started:
            self._discard(self._idle.popleft())

    def _sweep(self) -> None:
        now = time.monotonic()
        kept: deque[Connection] = deque()
        for connection in self._idle:
            if connection.state is CLOSED or now - connection.idle_since >= (connection.keepalive):
                self._discard(connection)
            else:
                kept.append(connection)
        self._idle = kept
        self._sweeper = self._loop.call_later(KEEPALIVE / 2, self._sweep) if kept else None


def _connect_request(
    url: URL, proxy: URL | None, context: ssl.SSLContext | None, loop: asyncio.AbstractEventLoop
) -> ClientRequest:
    """What tells aiohttp's connector where to connect and how."""
    return ClientRequest(
        "POST",
        url,
        loop=loop,
        proxy=None if proxy is None else proxy.with_user(None),
        proxy_headers=None if proxy is None else proxy_authorization(proxy),
        ssl=(context or default_ssl_context()) if speaks_tls(url, proxy) else True,
    )


def default_ssl_context() -> ssl.SSLContext:
    """The system's certificate authorities, as the environment names them now.

    aiohttp reads the environment's ``SSL_CERT_FILE`` when it is imported, which can be too early.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
