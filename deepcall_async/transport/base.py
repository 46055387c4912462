"""What every transport shares: the protocol that it follows, its settings, and its constants.

Nothing here opens a connection.
"""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Protocol, TypeAlias

from aiohttp import ClientTimeout
from aiohttp.abc import AbstractResolver
from msgspec import Struct
from yarl import URL

from deepcall_async.errors import DeepCallError
from deepcall_async.events import Trace

__all__ = [
    "CHANGE_MAX_IDLE",
    "CONTENT_TYPE",
    "KEEPALIVE",
    "NO_TIMEOUT",
    "READ_BUFFER_SIZE",
    "Answer",
    "Transport",
    "TransportOptions",
    "abandon_resolver",
    "proxy_authorization",
    "speaks_tls",
]


class Headers(Protocol):
    """An answer's headers; names are caseless."""

    def get(self, name: str, default: str, /) -> str:
        """The first value of a field."""
        ...


Answer: TypeAlias = tuple[int, Headers, bytes | bytearray]
"""HTTP status, headers, decompressed body."""

KEEPALIVE = 15.0
"""Seconds for which an idle connection is kept: as long as aiohttp keeps its own."""

CHANGE_MAX_IDLE = 0.3
"""Seconds for which a connection may have been idle before it carries a change.

A change that meets a connection which the server is just closing has an unknown outcome, and
servers close idle connections after a second or more.
"""

CONTENT_TYPE = "application/json"

NO_TIMEOUT = ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
"""Switches aiohttp's own timeouts off: a transport keeps one deadline for the whole request."""

READ_BUFFER_SIZE = 2**16
"""What aiohttp's parser may decompress ahead of the reader: up to a few times as much is held."""


class TransportOptions(Struct, frozen=True, kw_only=True):
    """What a transport is made with.

    Args:
        base_url: scheme, host and port, and a path prefix if any.
        headers: sent with every request, beside the transport's own.
        max_connections: the most connections open at once, idle ones included.
        max_response_bytes: the largest body accepted, decompressed.
        ssl: how to verify the server and which certificate to show; None for the default.
        proxy: the URL of an HTTP proxy, with its user name and password if it wants them.
    """

    base_url: str
    headers: dict[str, str]
    max_connections: int
    max_response_bytes: int
    ssl: ssl.SSLContext | None = None
    proxy: str | None = None

    def __repr__(self) -> str:
        # The proxy's URL and the headers can hold passwords.
        return f"TransportOptions(base_url={self.base_url!r})"


class Transport(Protocol):
    """Sends one request and gives its answer."""

    @property
    def idle(self) -> int:
        """Connections that are open and not in use."""
        ...

    async def send(
        self,
        path: str,
        body: Callable[[], bytes],
        started: float,
        timeout: float,
        max_idle: float,
        trace: Trace | None = None,
    ) -> Answer | DeepCallError:
        """Send one request and give its answer, or the error that stood in its place.

        Args:
            path: the path below the host.
            body: makes the request's body.
            started: monotonic seconds from which the timeout counts.
            timeout: seconds for connecting, sending and receiving together.
            max_idle: seconds for which the connection may have been idle; 0 for a new one.
            trace: headers to add, and where to note what was sent and how; None when nobody asks.
        """
        ...

    async def close(self) -> None:
        """End what is in flight and close the connections that this transport opened."""
        ...

    def abandon(self) -> None:
        """Let go of what would outlive an event loop that was closed before this transport."""
        ...


def abandon_resolver(resolver: AbstractResolver) -> None:
    """Close a resolver whose event loop is closed; with aiodns each has a thread of its own."""
    closing: Coroutine[object, object, None] = resolver.close()
    with suppress(StopIteration):
        closing.send(None)


def proxy_authorization(proxy: URL) -> dict[str, str]:
    """The header with a proxy's user name and password, if its URL holds them (RFC 7617).

    aiohttp's own `BasicAuth` is deprecated, and what replaces it came with aiohttp 3.14.5.
    """
    if proxy.user is None:
        return {}
    login = f"{proxy.user}:{proxy.password or ''}".encode()
    return {"Proxy-Authorization": f"Basic {b64encode(login).decode('ascii')}"}


def speaks_tls(url: URL, proxy: URL | None) -> bool:
    """Whether the service or the proxy is spoken to over TLS."""
    return url.scheme == "https" or (proxy is not None and proxy.scheme == "https")
