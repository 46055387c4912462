"""Requests through aiohttp's documented `ClientSession`.

For sessions that are borrowed, and for versions of aiohttp or event loops that `direct` cannot
work with.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from aiohttp import (
    BytesPayload,
    ClientResponse,
    ClientSession,
    DefaultResolver,
    DummyCookieJar,
    ServerDisconnectedError,
    TCPConnector,
)
from aiohttp.abc import AbstractResolver
from yarl import URL

from deepcall_async.errors import ClientClosed, DeepCallError
from deepcall_async.events import Trace
from deepcall_async.transport.base import (
    CONTENT_TYPE,
    NO_TIMEOUT,
    READ_BUFFER_SIZE,
    Answer,
    TransportOptions,
    abandon_resolver,
    proxy_authorization,
    speaks_tls,
)
from deepcall_async.transport.bodies import read_limited
from deepcall_async.transport.errors import (
    MAPPED_EXCEPTIONS,
    address_of,
    closed_in_flight,
    expire,
    map_connect_exception,
    map_exception,
    response_too_large,
)

__all__ = ["ClientSessionTransport"]


class ClientSessionTransport:
    """Sends requests through ``ClientSession.post``, with all that the session's owner set on it.

    Unlike `DirectTransport` it cannot see what a server sends unasked on an idle connection of the
    session's pool, nor choose a connection by the time it has been idle.

    Args:
        options: the service's address, limits, TLS and proxy.
        session: a session to borrow; None for one of its own.
    """

    def __init__(self, options: TransportOptions, session: ClientSession | None) -> None:
        self._resolver: AbstractResolver | None = None
        if session is None:
            self._resolver = DefaultResolver()
            # Cookies would tie the accounts that share a pool to one another.
            session = ClientSession(
                connector=TCPConnector(limit=0, resolver=self._resolver),
                cookie_jar=DummyCookieJar(),
                trust_env=False,
            )
        self._session = session
        self._options = options
        self._url = URL(options.base_url)
        self._path_prefix = self._url.raw_path.rstrip("/")
        self._address = address_of(self._url)
        # What the owner of a borrowed session set on it stands, such as a User-Agent of his own.
        headers = {
            name: value
            for name, value in options.headers.items()
            if name != "User-Agent" or name not in session.headers
        }
        self._request: dict[str, Any] = _route(self._url, options, headers)
        proxy = self._request.get("proxy")
        self._proxy_address = None if proxy is None else address_of(proxy)
        self._in_flight: set[asyncio.Timeout] = set()
        self._closed = False
        # The connections that have carried a request of ours, so that a stale one can be told.
        self._seen: WeakSet[object] = WeakSet()

    def __repr__(self) -> str:
        return f"<ClientSessionTransport {len(self._in_flight)} active>"

    @property
    def idle(self) -> int:
        """See `Transport.idle`; aiohttp does not tell, so this is 0."""
        return 0

    async def send(
        self,
        path: str,
        body: Callable[[], bytes],
        started: float,
        timeout: float,
        max_idle: float,
        trace: Trace | None = None,
    ) -> Answer | DeepCallError:
        """See `Transport.send`; ``max_idle`` has no meaning here."""
        if self._session.closed:
            error = ClientClosed("the borrowed session is closed")
            error.sent = False
            return error
        payload = _body(body())
        payload.seen = self._seen
        payload.trace = trace
        request = self._request
        if trace is not None and trace.headers:
            request = request | {"headers": _more_headers(trace.headers, request["headers"])}
        scope = asyncio.timeout(started + timeout - time.monotonic())
        try:
            async with scope:
                self._in_flight.add(scope)
                async with self._session.post(
                    self._url.with_path(self._path_prefix + path, encoded=True),
                    data=payload,
                    allow_redirects=False,
                    raise_for_status=False,
                    timeout=NO_TIMEOUT,
                    read_bufsize=READ_BUFFER_SIZE,
                    **request,
                ) as payload.response:
                    payload.wake_reader_at_end()
                    content = await read_limited(
                        payload.response.content,
                        payload.response.headers.get("Content-Length"),
                        self._options.max_response_bytes,
                    )
                    if content is None:
                        payload.abort()
                        return response_too_large(
                            payload.response.status, self._options.max_response_bytes
                        )
                    return payload.response.status, payload.response.headers, content
        except MAPPED_EXCEPTIONS as error:
            payload.abort()
            if self._closed:
                return closed_in_flight(sent=payload.started)
            if not payload.started:
                return map_connect_exception(error, self._address, self._proxy_address)
            return map_exception(error, self._address, reused=payload.reused)
        except BaseException as error:
            payload.abort()
            # Without aiohttp's frames, whose locals hold the answer's head.
            raise error.with_traceback(None) from None
        finally:
            self._in_flight.discard(scope)

    async def close(self) -> None:
        """See `Transport.close`."""
        self._closed = True
        expire(self._in_flight)
        while self._in_flight:
            await asyncio.sleep(0)
        if self._resolver is not None:
            await self._session.close()
            await self._resolver.close()

    def abandon(self) -> None:
        """See `Transport.abandon`; a borrowed session is its owner's."""
        if self._resolver is not None:
            abandon_resolver(self._resolver)
            # What is left cannot be closed any more, so nobody is to be warned of it.
            self._session.detach()


def _route(url: URL, options: TransportOptions, headers: dict[str, str]) -> dict[str, Any]:
    """The keyword arguments of a request that say how to connect, and with which headers."""
    found: dict[str, Any] = {"headers": headers}
    proxy = None if options.proxy is None else URL(options.proxy)
    if options.ssl is not None and speaks_tls(url, proxy):
        found["ssl"] = options.ssl
    if proxy is not None:
        found["proxy"] = proxy.with_user(None)
        # A tunnel's CONNECT has headers of its own; a proxy that is none reads the request's.
        if url.scheme == "https":
            found["proxy_headers"] = proxy_authorization(proxy)
        else:
            headers |= proxy_authorization(proxy)
    return found


def _more_headers(more: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """A request's headers with some added; those that it has stay as they are."""
    names = {name.lower() for name in own}
    return own | {name: value for name, value in more.items() if name.lower() not in names}


def _body(content: bytes) -> _Body:
    if len(content) < 2**20:
        return _Body(content, content_type=CONTENT_TYPE)
    with warnings.catch_warnings():
        # aiohttp would rather have a file for what is over a MiB, such as 100,000 agents' ids.
        warnings.simplefilter("ignore", ResourceWarning)
        return _Body(content, content_type=CONTENT_TYPE)


class _Body(BytesPayload):
    """A body that knows whether any of it was handed to a connection, and the answer to it.

    The answer's head may echo the request, so it too stands where no traceback shows it.
    """

    started = False
    reused = False
    transport: asyncio.Transport | None = None
    seen: WeakSet[object]
    trace: Trace | None = None
    response: ClientResponse

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        self.started = True
        connection = getattr(writer, "protocol", None)
        if connection is not None:
            self.reused = connection in self.seen
            self.seen.add(connection)
        if self.trace is not None:
            self.trace.reused, self.trace.sent = self.reused, self.size or 0
        self.transport = getattr(writer, "transport", None)
        await super().write_with_length(writer, content_length)

    def wake_reader_at_end(self) -> None:
        """Wake whoever reads the answer's body when the connection ends.

        aiohttp's protocol forgets a body whose parser failed, and its reader would sleep until the
        attempt's timeout.
        """
        connection, stream = self.response.connection, self.response.content
        protocol = None if connection is None else connection.protocol
        closed = None if protocol is None else protocol.closed
        if protocol is None or closed is None:
            return

        def wake(ended: asyncio.Future[None]) -> None:
            lost = None if ended.cancelled() else ended.exception()
            if not stream.is_eof() and stream.exception() is None:
                stream.set_exception(protocol.exception() or lost or ServerDisconnectedError())

        closed.add_done_callback(wake)

    def abort(self) -> None:
        """End the connection at once.

        aiohttp closes it in order, which over TLS on uvloop waits for a server that goes on
        sending.
        """
        if self.transport is not None:
            self.transport.abort()
