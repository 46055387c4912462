"""One request, one answer, through aiohttp's documented `ClientSession`.

Law: as `exchange`, for sessions that are borrowed, and for proxies from the environment.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from aiohttp import ClientResponse, ClientSession, DummyCookieJar, TCPConnector
from aiohttp.payload import BytesPayload
from yarl import URL

from deepcall_async.errors import ClientClosed, DeepCallError
from deepcall_async.transport.connection import READ_AHEAD, Answer
from deepcall_async.transport.direct import CONTENT_TYPE, ENCODINGS, NO_TIMEOUT
from deepcall_async.transport.errors import (
    FOREIGN,
    closed_in_flight,
    end_now,
    mapped,
    read_capped,
    too_large,
)

__all__ = ["PublicExchange"]


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
        self._headers = {"Accept": CONTENT_TYPE, "Accept-Encoding": ENCODINGS}
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
        if self._session.closed:
            error = ClientClosed("the borrowed session is closed")
            error.sent = False
            return error
        payload = _body(body())
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
                    timeout=NO_TIMEOUT,
                    read_bufsize=READ_AHEAD,
                ) as payload.response:
                    content = await read_capped(
                        payload.response.content,
                        payload.response.headers.get("Content-Length"),
                        self._max_response_bytes,
                    )
                    if content is None:
                        payload.response.close()
                        return too_large(payload.response.status, self._max_response_bytes)
                    return payload.response.status, payload.response.headers, content
        except FOREIGN as error:
            if self._closed:
                return closed_in_flight(sent=payload.started)
            return mapped(error, connecting=not payload.started, reused=payload.reused)
        except BaseException as error:
            # Without aiohttp's frames, whose locals hold the answer's head.
            raise error.with_traceback(None) from None
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
    seen: WeakSet[object]
    response: ClientResponse

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        self.started = True
        connection = getattr(writer, "protocol", None)
        if connection is not None:
            self.reused = connection in self.seen
            self.seen.add(connection)
        await super().write_with_length(writer, content_length)
