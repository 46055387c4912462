"""Plain replies, told apart from all others by their heads.

A pure function of bytes. It accepts only what it is sure of. All else that HTTP allows is left to
aiohttp's parser, so a reply means the same whichever of the two reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

from multidict import CIMultiDict

__all__ = ["PlainHeaders", "may_become_plain", "plain_head"]

D = TypeVar("D")

LONGEST_HEAD = 8190
"""The most that aiohttp accepts for one line of a head; here it bounds the head as a whole."""

# HTTP/1.1 200 with exactly one length, nothing that changes what the bytes after the head mean or
# whether the connection stays open, printable ASCII, and complete line ends throughout. The
# lookahead refuses the fields that decide those things, and one that aiohttp's parser refuses. The
# possessive repeats keep it linear. Field names are caseless, the protocol's name is not (RFC 9112,
# 2.3).
_FIELDS = (
    rb"(?:(?!content-length|content-encoding|transfer-encoding|connection|upgrade|trailer"
    rb"|sec-websocket)"
    rb"[\w-]++:[\t -~]*+\r\n|connection:[\t ]*+keep-alive[\t ]*+\r\n){0,60}+"
)
_PLAIN = re.compile(
    rb"HTTP/1\.1 200 [\t -~]*+\r\n"
    rb"(?i:%b(content-length:[\t ]*+(\d{1,9})[\t ]*+\r\n)%b\r\n)" % (_FIELDS, _FIELDS)
)


_STATUS_LINE = b"HTTP/1.1 200 "


def plain_head(data: bytes) -> tuple[int, int] | None:
    """Where a plain reply's body begins, and its length; None for a reply that is not plain."""
    found = _PLAIN.match(data, 0, LONGEST_HEAD)
    return None if found is None else (found.end(), int(found[2]))


def may_become_plain(data: bytes) -> bool:
    """Whether this is the beginning of a head that may turn out to be plain."""
    return (
        len(data) < LONGEST_HEAD
        and data.startswith(_STATUS_LINE[: len(data)])
        and b"\r\n\r\n" not in data
        # A head whose lines end in bare LF ends otherwise, if aiohttp's parser takes it at all.
        and data.count(b"\n") == data.count(b"\r\n")
    )


class PlainHeaders(Mapping[str, str]):
    """A plain reply's headers, taken apart when they are first asked for, which is seldom."""

    __slots__ = ("_fields", "_head")

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._fields: CIMultiDict[str] | None = None

    def __repr__(self) -> str:
        return "<PlainHeaders>"

    def __getitem__(self, name: str) -> str:
        return self._parsed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

    def getall(self, name: str, default: D) -> list[str] | D:
        """All values of a field."""
        return self._parsed().getall(name, default)

    def _parsed(self) -> CIMultiDict[str]:
        if self._fields is None:
            lines = self._head.decode("ascii").split("\r\n")[1:-2]
            fields = (line.partition(":") for line in lines)
            self._fields = CIMultiDict((name, value.strip("\t ")) for name, _, value in fields)
        return self._fields
