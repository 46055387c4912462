"""aiohttp's parser at work on one answer, and how much it was given.

Connections and their states are not known here.
"""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
from aiohttp.client_proto import ResponseHandler

from deepcall_async.transport.base import READ_BUFFER_SIZE

__all__ = ["AnswerReader"]

_LONGEST_PREFIX = 2**15
"""Bytes kept of an answer that aiohttp's parser reads, to find where its head ends."""

_LAST_CHUNK = b"0\r\n\r\n"


class AnswerReader:
    """aiohttp's parser at work on one answer, with a count of what it was fed.

    The parser keeps to itself what came behind an answer. The count tells whether anything did.
    """

    def __init__(self, handler: ResponseHandler) -> None:
        self.payload: aiohttp.StreamReader | None = None
        self.heads: int = 1
        self._handler = handler
        self._received = 0
        self._prefix = bytearray()
        self._last = b""

    def start(self, data: bytes) -> None:
        """Begin an answer."""
        self._received, self.heads = 0, 1
        self._last = b""
        self._prefix.clear()
        # A parser for this answer alone: it could keep half a head that came behind another.
        self._handler.set_response_params(
            read_until_eof=True, auto_decompress=True, read_bufsize=READ_BUFFER_SIZE
        )
        self.feed(data)

    def feed(self, data: bytes) -> None:
        """Go on with it."""
        self._received += len(data)
        # The end of a chunked body may arrive in several portions.
        self._last = (self._last + data)[-len(_LAST_CHUNK) :]
        if len(self._prefix) < _LONGEST_PREFIX:
            self._prefix += data
        self._handler.data_received(data)

    def fully_consumed(self, headers: Mapping[str, str]) -> bool:
        """Whether the answer ended exactly where the received bytes end.

        False where that cannot be told, such as behind trailers.
        """
        self.payload = None
        received, last, self._last = self._received, self._last, b""
        declared = headers.get("Content-Length")
        if declared is None:
            return last == _LAST_CHUNK
        start = 0
        # The interim answers' heads (1xx), which have no bodies, and the answer's own.
        for _ in range(self.heads):
            end = self._prefix.find(b"\r\n\r\n", start)
            if end < 0:
                return False
            start = end + 4
        return received == start + int(declared)

    def wake(self) -> None:
        """Wake whoever reads the body of a connection that ended.

        aiohttp's handler forgets a body whose parser failed, and its reader would sleep for ever.
        """
        payload, self.payload = self.payload, None
        if payload is not None and not payload.is_eof() and payload.exception() is None:
            error = self._handler.exception()
            payload.set_exception(error or aiohttp.ServerDisconnectedError())
