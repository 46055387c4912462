"""Plain replies, told apart from all others by their heads, and their bodies.

Pure functions of bytes. They accept only what they are sure of. All else that HTTP allows is left
to aiohttp's parser, so a reply means the same whichever of the two reads it.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import TypeVar

from msgspec import Struct
from multidict import CIMultiDict

__all__ = ["Framing", "keepalive_seconds", "may_become_plain", "plain_head", "whole_body"]

D = TypeVar("D")

LONGEST_HEAD = 8190
"""The most that aiohttp accepts for one line of a head; here it bounds the head as a whole."""

_GZIP = 31
"""What zlib calls a body with gzip's head and checksum."""

# HTTP/1.1 200, printable ASCII, complete line ends throughout, and no field that changes what the
# bytes after the head mean or whether the connection stays open, except those that are captured.
# Names are caseless, so the first letter decides: those of most fields begin none of the fields to
# look out for. A spelling that is not listed, such as CONTENT-TYPE, is left to aiohttp's parser.
# The possessive repeats keep it linear.
_VALUE = rb" *+[ -~]*+\r\n"
_NAME = rb"[A-Za-z0-9_-]*+:"
_FIELD = (
    rb"(?:[ABD-RV-Zabd-rv-z0-9_-]%b%b"
    rb"|[Cc](?:(?![Oo][Nn])%b%b|ontent-(?:[Tt]ype|[Ll]anguage|[Ss]ecurity-[Pp]olicy):%b"
    rb"|onnection: *+[Kk]eep-[Aa]live *+\r\n)"
    # Not Sec-WebSocket, which aiohttp's parser refuses; not Trailer, Transfer-Encoding, Upgrade.
    rb"|[Ss](?![Ee][Cc])%b%b|[Tt](?![Rr])%b%b|[Uu](?![Pp])%b%b)"
) % (_NAME, _VALUE, _NAME, _VALUE, _VALUE, _NAME, _VALUE, _NAME, _VALUE, _NAME, _VALUE)
_FRAMING = (
    rb"(?:[Cc]ontent-[Ll]ength: *+(\d{1,9}) *+\r\n|([Cc]ontent-[Ee]ncoding: *+gzip *+\r\n)"
    rb"|([Tt]ransfer-[Ee]ncoding: *+chunked *+\r\n))"
)
_STATUS_LINE = b"HTTP/1.1 200 "
_HEAD = re.compile(
    rb"HTTP/1\.1 200 [ -~]*+\r\n(?:%b){0,60}+%b(?:%b){0,60}+(?:%b(?:%b){0,60}+)?+\r\n"
    % (_FIELD, _FRAMING, _FIELD, _FRAMING, _FIELD)
)
_BEGINNING = re.compile(
    rb"HTTP/1\.1 200 (?:[ -~]*+\r?|[ -~]*+\r\n(?:%b|%b)*(?:\r|[A-Za-z0-9_-]*+(?::[ -~]*+\r?)?)?)"
    % (_FIELD, _FRAMING)
)
_KEEPALIVE = re.compile(rb"\r\nkeep-alive:[^\r]*?timeout=(\d{1,4})", re.IGNORECASE)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,7})\r\n")


class PlainHeaders(Struct, frozen=True, gc=False):
    """A plain reply's headers, taken apart when they are asked for, which is seldom."""

    head: bytes

    def __repr__(self) -> str:
        return "<PlainHeaders>"

    def get(self, name: str, default: str) -> str:
        """The first value of a field."""
        return self._parsed().get(name, default)

    def getall(self, name: str, default: D) -> list[str] | D:
        """All values of a field."""
        return self._parsed().getall(name, default)

    def items(self) -> list[tuple[str, str]]:
        """The fields in their order."""
        return list(self._parsed().items())

    def _parsed(self) -> CIMultiDict[str]:
        lines = self.head.decode("ascii").split("\r\n")[1:-2]
        fields = (line.partition(":") for line in lines)
        return CIMultiDict((name, value.strip("\t ")) for name, _, value in fields)


class Framing(Struct, frozen=True, gc=False):
    """Where a reply's body begins, and what its head says.

    ``length`` is None for a body in chunks; ``zipped`` is true for one that gzip compressed.
    ``keepalive`` is for how many seconds the server keeps the connection; None if it does not say.
    """

    start: int
    length: int | None
    zipped: bool = False
    keepalive: int | None = None
    headers: PlainHeaders = PlainHeaders(b"")


def plain_head(data: bytes) -> Framing | None:
    """What the head of a plain reply says; None for a reply that is not plain."""
    end = data.find(b"\r\n\r\n", 0, LONGEST_HEAD)
    return None if end < 0 else _framing(data[: end + 4])


@lru_cache(maxsize=256)
def _framing(head: bytes) -> Framing | None:
    # A server's heads differ in the date and the length alone, so most were read just before.
    found = _HEAD.fullmatch(head)
    if found is None:
        return None
    length, zipped, chunked, length_too, zipped_too, chunked_too = found.groups()
    if (length and length_too) or (zipped and zipped_too):
        return None
    length, chunked = length or length_too, chunked or chunked_too
    # Exactly one of them says where the body ends.
    if (length is None) is (chunked is None):
        return None
    return Framing(
        len(head),
        None if length is None else int(length),
        bool(zipped or zipped_too),
        keepalive_seconds(head),
        PlainHeaders(head),
    )


def keepalive_seconds(head: bytes) -> int | None:
    """For how many seconds the server keeps an idle connection, if a head says so."""
    found = _KEEPALIVE.search(head)
    return None if found is None else int(found[1])


def may_become_plain(data: bytes) -> bool:
    """Whether this is the beginning of a head that may turn out to be plain.

    Not if a line of it is none that a plain head has: aiohttp's parser may refuse it at once.
    """
    if len(data) <= len(_STATUS_LINE):
        return data == _STATUS_LINE[: len(data)]
    return len(data) < LONGEST_HEAD and _BEGINNING.fullmatch(data) is not None


def whole_body(data: bytes, framing: Framing, limit: int) -> bytes | None:
    """The body of a reply that has arrived whole and with nothing behind it.

    Args:
        data: the reply.
        framing: what its head says.
        limit: the most bytes that it may have, decompressed.

    Returns:
        The decompressed body, or None where anything is not exactly as it should be.
    """
    if framing.length is None:
        body = _joined_chunks(data, framing.start)
        if body is None:
            return None
    elif framing.start + framing.length == len(data):
        body = data[framing.start :]
    else:
        return None
    if not framing.zipped:
        return body if len(body) <= limit else None
    unpacker = zlib.decompressobj(_GZIP)
    try:
        body = unpacker.decompress(body, limit)
    except zlib.error:
        return None
    return body if unpacker.eof and not unpacker.unused_data else None


def _joined_chunks(data: bytes, start: int) -> bytes | None:
    """The content of a chunked body without extensions and trailers that ends where data does."""
    parts: list[bytes] = []
    while (found := _CHUNK_SIZE.match(data, start)) is not None:
        size, start = int(found[1], 16), found.end()
        end = start + size
        if data[end : end + 2] != b"\r\n":
            return None
        if not size:
            return b"".join(parts) if end + 2 == len(data) else None
        parts.append(data[start:end])
        start = end + 2
    return None
