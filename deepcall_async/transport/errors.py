"""What aiohttp, asyncio and the system raise, as errors of ours; and bodies read with a limit.

Law: foreign exceptions are mapped here and nowhere else, by name: what is not named is a bug and
stays one. Nothing of the answer gets into an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import aiohttp
from aiohttp.http_exceptions import (
    ContentLengthError,
    HttpProcessingError,
    TransferEncodingError,
)

from deepcall_async.errors import (
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    DeepCallError,
    RequestTimeout,
    ResponseTooLarge,
    UnexpectedReply,
)

__all__ = ["FOREIGN", "closed_in_flight", "end_now", "mapped", "read_capped", "too_large"]

# Named one by one: a blanket `except Exception` would turn our own bugs into retries.
FOREIGN = (aiohttp.ClientError, HttpProcessingError, OSError, TimeoutError)


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
        error.__context__ = error.__cause__ = None
        result.__cause__ = error.with_traceback(None)
    return result


def closed_in_flight(*, sent: bool = True) -> ClientClosed:
    """The error of a request that closing the client ended."""
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


def end_now(scopes: Iterable[asyncio.Timeout]) -> None:
    """Let what waits under these scopes end with a TimeoutError at once."""
    for scope in scopes:
        # One whose time came in this very turn of the loop can no longer be moved.
        if not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())


async def read_capped(
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
