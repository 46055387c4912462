"""Bodies that aiohttp's parser gives out, read with a limit."""

from __future__ import annotations

import aiohttp

__all__ = ["read_limited"]


async def read_limited(
    stream: aiohttp.StreamReader, declared: str | None, limit: int
) -> bytearray | None:
    """Read a body, or give None as soon as it proves to be larger than `limit` bytes.

    Chunk by chunk: only then does aiohttp's own guard hold a decompressing parser back.
    """
    if declared is not None and declared.isdigit() and int(declared) > limit:
        return None
    content = _Content(limit)
    while content.append(await stream.readany()):
        pass
    return content.data


class _Content:
    """A body as it grows: in an object, since a traceback would show a local variable."""

    __slots__ = ("_limit", "data")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.data: bytearray | None = bytearray()

    def append(self, chunk: bytes) -> bool:
        """Append a chunk; False at the end, or when the body gets too large."""
        if self.data is None or len(self.data) + len(chunk) > self._limit:
            self.data = None
            return False
        self.data += chunk
        return bool(chunk)
