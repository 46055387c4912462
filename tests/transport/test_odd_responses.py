"""Odd but real responses: the direct and the borrowed path make the same of them, and the next call is answered rightly."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from deepcall_async import (
    ApiError,
    ConnectionLost,
    DeepCallError,
    NoData,
    RateLimited,
    ResponseTooLarge,
    ServerFault,
    UnexpectedReply,
)
from tests.support.clients import client, quick
from tests.support.endpoints import RELATION
from tests.support.faultserver import Delay, FaultServer, Fin, HalfClose, Received, Send, Step
from tests.support.replies import answer, as_json, serve

pytestmark = pytest.mark.anyio

BODY = as_json(answer(Received(1, 1, 1, "POST", "/getGroupAgentRelation", {}, {"groupId": 27})))
SIZE = b"%d" % len(BODY)
JSON = b"Content-Type: application/json\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
SIZED = b"Content-Length: " + SIZE + b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HALVES = BODY[:100], BODY[100:]


def refused(code: int) -> bytes:
    return b'{"status":"error","message":"no","code":%d}' % code


def length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n" % len(body)


def chunks(*parts: bytes, end: bytes = b"0\r\n\r\n", extension: bytes = b"") -> bytes:
    return b"".join(b"%x%s\r\n%s\r\n" % (len(each), extension, each) for each in parts) + end


def coded(coding: bytes, body: bytes, more: bytes = b"") -> bytes:
    return OK + b"Content-Encoding: " + coding + b"\r\n" + more + length(body) + b"\r\n" + body


def deflated(body: bytes, bits: int) -> bytes:
    packer = zlib.compressobj(wbits=bits)
    return packer.compress(body) + packer.flush()


@dataclass(frozen=True)
class Odd:
    """A response, cut into what arrives apart, and what has to be made of it.

    ``outcomes`` are those that are right, the same on both paths: the class of the error, or None
    for the answer. ``end`` says how the server ends the connection; by default it waits for the
    next request.
    """

    outcomes: tuple[type[DeepCallError] | None, ...]
    parts: tuple[bytes, ...]
    end: Sequence[Step] = ()


def right(*parts: bytes, end: Sequence[Step] = ()) -> Odd:
    return Odd((None,), parts, end)


def wrong(outcome: type[DeepCallError], *parts: bytes, end: Sequence[Step] = ()) -> Odd:
    return Odd((outcome,), parts, end)


def either(*parts: bytes) -> Odd:
    """What aiohttp's parser may accept or refuse, as it does from version to version."""
    return Odd((None, UnexpectedReply), parts)


FIN = (Fin(),)
HALF = (HalfClose(), Delay(0.05))

STATUS_LINES = {
    "plain": right(OK + JSON + SIZED + b"\r\n" + BODY),
    "no reason": right(b"HTTP/1.1 200\r\n" + SIZED + b"\r\n" + BODY),
    "an empty reason": right(b"HTTP/1.1 200 \r\n" + SIZED + b"\r\n" + BODY),
    "a long reason": right(b"HTTP/1.1 200 " + b"very " * 200 + b"\r\n" + SIZED + b"\r\n" + BODY),
    "a reason in latin-1": right(b"HTTP/1.1 200 D\xe9j\xe0\r\n" + SIZED + b"\r\n" + BODY),
    "a reason in UTF-8": right("HTTP/1.1 200 Gut ✓\r\n".encode() + SIZED + b"\r\n" + BODY),
    "a tab in the reason": right(b"HTTP/1.1 200 O\tK\r\n" + SIZED + b"\r\n" + BODY),
    "another protocol in the reason": right(
        b"HTTP/1.1 200 HTTP/1.1 500 No\r\n" + SIZED + b"\r\n" + BODY
    ),
    "two spaces before the reason": right(b"HTTP/1.1 200  OK\r\n" + SIZED + b"\r\n" + BODY),
    "a lower-case protocol": wrong(
        UnexpectedReply, b"http/1.1 200 OK\r\n" + SIZED + b"\r\n" + BODY
    ),
    "a mixed-case protocol": wrong(
        UnexpectedReply, b"Http/1.1 200 OK\r\n" + SIZED + b"\r\n" + BODY
    ),
    "two spaces before the status": wrong(
        UnexpectedReply, b"HTTP/1.1  200 OK\r\n" + SIZED + b"\r\n" + BODY
    ),
    "a tab before the status": wrong(
        UnexpectedReply, b"HTTP/1.1\t200 OK\r\n" + SIZED + b"\r\n" + BODY
    ),
    "a status of two digits": wrong(
        UnexpectedReply, b"HTTP/1.1 20 OK\r\n" + SIZED + b"\r\n" + BODY
    ),
    "a status of four digits": wrong(
        UnexpectedReply, b"HTTP/1.1 2000 OK\r\n" + SIZED + b"\r\n" + BODY
    ),
    "a signed status": wrong(UnexpectedReply, b"HTTP/1.1 +200 OK\r\n" + SIZED + b"\r\n" + BODY),
    "no status": wrong(UnexpectedReply, b"HTTP/1.1 OK\r\n" + SIZED + b"\r\n" + BODY),
    "ICY": wrong(UnexpectedReply, b"ICY 200 OK\r\n" + SIZED + b"\r\n" + BODY),
    "SSH": wrong(UnexpectedReply, b"SSH-2.0-OpenSSH_9.6\r\n"),
    "SMTP": wrong(UnexpectedReply, b"220 mail.example ESMTP\r\n"),
    "HTTP/0.9": wrong(UnexpectedReply, BODY, end=FIN),
    "HTTP/1.2": either(b"HTTP/1.2 200 OK\r\n" + SIZED + b"\r\n" + BODY),
    "HTTP/2": either(b"HTTP/2.0 200 OK\r\n" + SIZED + b"\r\n" + BODY),
    "HTTP/1": wrong(UnexpectedReply, b"HTTP/1 200 OK\r\n" + SIZED + b"\r\n" + BODY),
    "an empty line before": either(b"\r\n" + OK + SIZED + b"\r\n" + BODY),
    "201": right(b"HTTP/1.1 201 Created\r\n" + SIZED + b"\r\n" + BODY),
    "299": right(b"HTTP/1.1 299 Odd\r\n" + SIZED + b"\r\n" + BODY),
    "600": wrong(ServerFault, b"HTTP/1.1 600 Odd\r\n" + SIZED + b"\r\n" + BODY),
    "302": wrong(
        UnexpectedReply, b"HTTP/1.1 302 Found\r\nLocation: /x\r\n" + SIZED + b"\r\n" + BODY
    ),
    "304 without a body": wrong(UnexpectedReply, b"HTTP/1.1 304 Not Modified\r\n\r\n"),
    "304 with the length of a body": wrong(
        UnexpectedReply, b"HTTP/1.1 304 Not Modified\r\n" + SIZED + b"\r\n"
    ),
    "404 with a right body": wrong(
        UnexpectedReply, b"HTTP/1.1 404 No\r\n" + SIZED + b"\r\n" + BODY
    ),
    "429": wrong(RateLimited, b"HTTP/1.1 429 Slow Down\r\nContent-Length: 0\r\n\r\n"),
    "503": wrong(ServerFault, b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n"),
    "404 with an error of DeepCall's": wrong(
        NoData, b"HTTP/1.1 404 No\r\n" + length(refused(1012)) + b"\r\n" + refused(1012)
    ),
    "an unknown code": wrong(ApiError, OK + length(refused(4711)) + b"\r\n" + refused(4711)),
}
LENGTHS = {
    "a padded length": right(OK + b"Content-Length: \t " + SIZE + b" \t\r\n\r\n" + BODY),
    "no space before the length": right(OK + b"Content-Length:" + SIZE + b"\r\n\r\n" + BODY),
    "leading zeros": right(OK + b"Content-Length: 000" + SIZE + b"\r\n\r\n" + BODY),
    "a field name in capitals": right(OK + b"CONTENT-LENGTH: " + SIZE + b"\r\n\r\n" + BODY),
    "a length twice": wrong(UnexpectedReply, OK + SIZED + SIZED + b"\r\n" + BODY),
    "two lengths": wrong(UnexpectedReply, OK + SIZED + b"Content-Length: 3\r\n\r\n" + BODY),
    "a list of equal lengths": wrong(
        UnexpectedReply, OK + b"Content-Length: " + SIZE + b", " + SIZE + b"\r\n\r\n" + BODY
    ),
    "a signed length": wrong(
        UnexpectedReply, OK + b"Content-Length: +" + SIZE + b"\r\n\r\n" + BODY
    ),
    "a negative length": wrong(UnexpectedReply, OK + b"Content-Length: -1\r\n\r\n" + BODY),
    "a length in hex": wrong(UnexpectedReply, OK + b"Content-Length: 0x1f\r\n\r\n" + BODY),
    "an empty length": wrong(UnexpectedReply, OK + b"Content-Length: \r\n\r\n" + BODY),
    "a length with a fraction": wrong(
        UnexpectedReply, OK + b"Content-Length: " + SIZE + b".0\r\n\r\n" + BODY
    ),
    "a length in Arabic digits": wrong(
        UnexpectedReply, OK + "Content-Length: ٣\r\n\r\n".encode() + BODY
    ),
    "a length beyond all bounds": wrong(
        UnexpectedReply, OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n" + BODY
    ),
    "a length above the limit": wrong(
        ResponseTooLarge, OK + b"Content-Length: 999999999\r\n\r\n" + BODY
    ),
    "a length of nothing": wrong(UnexpectedReply, OK + b"Content-Length: 0\r\n\r\n"),
    "a length too short": wrong(UnexpectedReply, OK + b"Content-Length: 9\r\n\r\n" + BODY),
    "a length too long": wrong(ConnectionLost, OK + b"Content-Length: 999\r\n\r\n" + BODY, end=FIN),
    "no length, then the end": right(OK + b"\r\n" + BODY, end=FIN),
    "no length, closing": right(OK + b"Connection: close\r\n\r\n" + BODY, end=FIN),
    "no length, half closed": right(OK + b"\r\n" + BODY, end=HALF),
    "nothing but the end": wrong(ConnectionLost, end=FIN),
    "half a head": wrong(ConnectionLost, OK + b"Content-Le", end=FIN),
    "closing after a length": right(
        OK + b"Connection: close\r\n" + SIZED + b"\r\n" + BODY, end=FIN
    ),
    "closing announced, then open": right(OK + b"Connection: close\r\n" + SIZED + b"\r\n" + BODY),
    "closing among other options": right(
        OK + b"Connection: keep-alive, close\r\n" + SIZED + b"\r\n" + BODY, end=FIN
    ),
}
CHUNKS = {
    "one chunk": right(OK + CHUNKED + b"\r\n" + chunks(BODY)),
    "many chunks": right(
        OK + CHUNKED + b"\r\n" + chunks(*(BODY[at : at + 9] for at in range(0, len(BODY), 9)))
    ),
    "a size in capitals": right(OK + CHUNKED + b"\r\n%X\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "a size with leading zeros": right(
        OK + CHUNKED + b"\r\n0000%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    ),
    "several zeros at the end": right(OK + CHUNKED + b"\r\n" + chunks(BODY, end=b"000\r\n\r\n")),
    "an extension": right(OK + CHUNKED + b"\r\n" + chunks(*HALVES, extension=b";a=b")),
    "a quoted extension": right(OK + CHUNKED + b"\r\n" + chunks(*HALVES, extension=b';a="b;c"')),
    "an extension at the end": right(OK + CHUNKED + b"\r\n" + chunks(BODY, end=b"0;a=b\r\n\r\n")),
    "a trailer": right(OK + CHUNKED + b"\r\n" + chunks(BODY, end=b"0\r\nX-Sum: 1\r\n\r\n")),
    "announced trailers": right(
        OK
        + b"Trailer: X-Sum\r\n"
        + CHUNKED
        + b"\r\n"
        + chunks(BODY, end=b"0\r\nX-Sum: 1\r\nX-B: 2\r\n\r\n")
    ),
    "a trailer that looks like an end": right(
        OK + CHUNKED + b"\r\n" + chunks(BODY, end=b"0\r\nX-Zero: 0\r\n\r\n")
    ),
    "a coding in capitals": right(OK + b"TRANSFER-ENCODING: CHUNKED\r\n\r\n" + chunks(BODY)),
    "the end in a segment of its own": right(
        OK + CHUNKED + b"\r\n" + chunks(BODY, end=b""), b"0\r\n\r\n"
    ),
    "the end in two segments": right(OK + CHUNKED + b"\r\n" + chunks(BODY, end=b"0\r"), b"\n\r\n"),
    "no chunks": wrong(UnexpectedReply, OK + CHUNKED + b"\r\n0\r\n\r\n"),
    "a size that is no number": wrong(UnexpectedReply, OK + CHUNKED + b"\r\nxyz\r\n" + BODY),
    "a negative size": wrong(UnexpectedReply, OK + CHUNKED + b"\r\n-5\r\n" + BODY),
    "a size with 0x": wrong(UnexpectedReply, OK + CHUNKED + b"\r\n0x5\r\nabcde\r\n0\r\n\r\n"),
    "a chunk longer than its size": wrong(
        UnexpectedReply, OK + CHUNKED + b"\r\n5\r\n" + BODY + b"\r\n0\r\n\r\n"
    ),
    "no end": wrong(ConnectionLost, OK + CHUNKED + b"\r\n" + chunks(BODY, end=b""), end=FIN),
    "cut in a chunk": wrong(ConnectionLost, OK + CHUNKED + b"\r\nfff\r\n" + BODY, end=FIN),
    "a length and chunks": wrong(UnexpectedReply, OK + SIZED + CHUNKED + b"\r\n" + chunks(BODY)),
    "chunks and a length": wrong(UnexpectedReply, OK + CHUNKED + SIZED + b"\r\n" + chunks(BODY)),
    "chunks twice": either(OK + CHUNKED + CHUNKED + b"\r\n" + chunks(BODY)),
    "an unknown transfer coding, then the end": wrong(
        UnexpectedReply, OK + b"Transfer-Encoding: odd\r\n\r\n" + b"\x01" + BODY, end=FIN
    ),
    "chunks under HTTP/1.0": right(
        b"HTTP/1.0 200 OK\r\n" + CHUNKED + b"\r\n" + chunks(BODY), end=FIN
    ),
}
INTERIM = {
    "100": right(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + SIZED + b"\r\n" + BODY),
    "100 in a segment of its own": right(
        b"HTTP/1.1 100 Continue\r\n\r\n", OK + SIZED + b"\r\n" + BODY
    ),
    "102 and 103": right(
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        + OK
        + SIZED
        + b"\r\n"
        + BODY
    ),
    "a chain of ten": right(
        b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 10 + OK + SIZED + b"\r\n" + BODY
    ),
    "100, then chunks": right(
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + CHUNKED + b"\r\n", chunks(BODY)
    ),
    "100, then an error": wrong(
        ServerFault, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
    ),
    "100, then the end": wrong(ConnectionLost, b"HTTP/1.1 100 Continue\r\n\r\n", end=FIN),
    "101": wrong(
        UnexpectedReply,
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        end=FIN,
    ),
    "204": wrong(UnexpectedReply, b"HTTP/1.1 204 No Content\r\n\r\n"),
    "204 with a length of nothing": wrong(
        UnexpectedReply, b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
    ),
    "204 with a body": wrong(
        UnexpectedReply, b"HTTP/1.1 204 No Content\r\n" + SIZED + b"\r\n" + BODY
    ),
    "204 with chunks": wrong(
        UnexpectedReply, b"HTTP/1.1 204 No Content\r\n" + CHUNKED + b"\r\n" + chunks(BODY)
    ),
    "205": wrong(UnexpectedReply, b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n"),
}
HEADS = {
    "HTTP/1.0": right(b"HTTP/1.0 200 OK\r\n" + SIZED + b"\r\n" + BODY, end=FIN),
    "HTTP/1.0 that stays": right(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + SIZED + b"\r\n" + BODY
    ),
    "HTTP/1.0 without a length": right(b"HTTP/1.0 200 OK\r\n\r\n" + BODY, end=FIN),
    "bare LF throughout": either(b"HTTP/1.1 200 OK\nContent-Length: " + SIZE + b"\n\n" + BODY),
    "one bare LF": either(OK + b"X: y\nContent-Length: " + SIZE + b"\r\n\r\n" + BODY),
    "a bare CR": wrong(UnexpectedReply, OK + b"X: a\rb\r\n" + SIZED + b"\r\n" + BODY),
    "a NUL": wrong(UnexpectedReply, OK + b"X: a\0b\r\n" + SIZED + b"\r\n" + BODY),
    "a control character": either(OK + b"X: a\x01b\r\n" + SIZED + b"\r\n" + BODY),
    "folding": either(OK + b"X: a\r\n b\r\n" + SIZED + b"\r\n" + BODY),
    "folding with a tab": either(OK + b"X: a\r\n\tb\r\n" + SIZED + b"\r\n" + BODY),
    "a folded length": either(OK + b"Content-Length:\r\n " + SIZE + b"\r\n\r\n" + BODY),
    "a space before the first field": either(OK + b" X: y\r\n" + SIZED + b"\r\n" + BODY),
    "a space before the colon": wrong(UnexpectedReply, OK + b"X : y\r\n" + SIZED + b"\r\n" + BODY),
    "a space in a name": wrong(UnexpectedReply, OK + b"X Y: z\r\n" + SIZED + b"\r\n" + BODY),
    "a field without a colon": wrong(UnexpectedReply, OK + b"X\r\n" + SIZED + b"\r\n" + BODY),
    "a field without a name": wrong(UnexpectedReply, OK + b": y\r\n" + SIZED + b"\r\n" + BODY),
    "a field without a value": right(OK + b"X:\r\n" + SIZED + b"\r\n" + BODY),
    "colons in a value": right(OK + b"X: a:b: c\r\n" + SIZED + b"\r\n" + BODY),
    "all that a name may hold": right(OK + b"!#$%&'*+-.^_`|~9aZ: y\r\n" + SIZED + b"\r\n" + BODY),
    "brackets in a name": wrong(UnexpectedReply, OK + b"X[1]: y\r\n" + SIZED + b"\r\n" + BODY),
    "an underscore for a hyphen": right(OK + b"Content_Length: 3\r\n" + SIZED + b"\r\n" + BODY),
    "a name in latin-1": wrong(UnexpectedReply, OK + b"\xe9: y\r\n" + SIZED + b"\r\n" + BODY),
    "a value in latin-1": right(OK + b"X: \xe9\r\n" + SIZED + b"\r\n" + BODY),
    "a value in UTF-8": right(OK + "X: ✓\r\n".encode() + SIZED + b"\r\n" + BODY),
    "Sec-WebSocket-Key1": wrong(
        UnexpectedReply, OK + b"Sec-WebSocket-Key1: x\r\n" + SIZED + b"\r\n" + BODY
    ),
    "Sec-WebSocket-Key1 behind the length": wrong(
        UnexpectedReply, OK + SIZED + b"sec-websocket-key1: x\r\n\r\n" + BODY
    ),
    "Sec-WebSocket-Accept": right(OK + b"Sec-WebSocket-Accept: x\r\n" + SIZED + b"\r\n" + BODY),
    "Upgrade without a wish": right(OK + b"Upgrade: h2c\r\n" + SIZED + b"\r\n" + BODY),
    "h2c offered": right(
        OK + b"Upgrade: h2,h2c\r\nConnection: Upgrade\r\n" + SIZED + b"\r\n" + BODY
    ),
    "Proxy-Connection": right(OK + b"Proxy-Connection: keep-alive\r\n" + SIZED + b"\r\n" + BODY),
    "Keep-Alive": right(
        OK
        + b"Keep-Alive: timeout=5, max=100\r\nConnection: Keep-Alive\r\n"
        + SIZED
        + b"\r\n"
        + BODY
    ),
    "an odd Keep-Alive": right(OK + b"Keep-Alive: timeout=soon\r\n" + SIZED + b"\r\n" + BODY),
    "cookies": right(OK + b"Set-Cookie: a=b\r\n" * 20 + SIZED + b"\r\n" + BODY),
    "sixty fields": right(OK + b"X: y\r\n" * 60 + SIZED + b"\r\n" + BODY),
    "a hundred fields": right(OK + b"X: y\r\n" * 100 + SIZED + b"\r\n" + BODY),
    "two thousand fields": wrong(UnexpectedReply, OK + b"X: y\r\n" * 2000 + SIZED + b"\r\n" + BODY),
    "a value of 8,000 bytes": right(OK + b"X: " + b"y" * 8000 + b"\r\n" + SIZED + b"\r\n" + BODY),
    "a value of 20,000 bytes": wrong(
        UnexpectedReply, OK + b"X: " + b"y" * 20_000 + b"\r\n" + SIZED + b"\r\n" + BODY
    ),
    "several long values": right(
        OK + (b"X: " + b"y" * 4000 + b"\r\n") * 3 + SIZED + b"\r\n" + BODY
    ),
    "a head in many segments": right(*(bytes([each]) for each in OK + SIZED + b"\r\n"), BODY),
}
CODINGS = {
    "gzip": right(coded(b"gzip", gzip.compress(BODY))),
    "gzip in capitals": right(coded(b"GZip", gzip.compress(BODY))),
    "gzip in chunks": right(
        OK
        + b"Content-Encoding: gzip\r\n"
        + CHUNKED
        + b"\r\n"
        + chunks(gzip.compress(BODY)[:40], gzip.compress(BODY)[40:])
    ),
    "gzip until the end": right(
        OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(BODY), end=FIN
    ),
    "gzip in two segments": right(
        coded(b"gzip", gzip.compress(BODY))[:-20], gzip.compress(BODY)[-20:]
    ),
    "deflate": right(coded(b"deflate", deflated(BODY, 15))),
    "raw deflate": right(coded(b"deflate", deflated(BODY, -15))),
    "identity": right(coded(b"identity", BODY)),
    "an empty coding": right(coded(b"", BODY)),
    "an unknown coding over plain JSON": right(coded(b"odd", BODY)),
    "br that was not asked for": wrong(UnexpectedReply, coded(b"br", b"\x0b\x02\x80{}\x03")),
    "plain JSON said to be gzip": wrong(UnexpectedReply, coded(b"gzip", BODY)),
    "gzip cut short": wrong(UnexpectedReply, coded(b"gzip", gzip.compress(BODY)[:-20])),
    "gzip of nothing": wrong(UnexpectedReply, coded(b"gzip", gzip.compress(b""))),
    "a gzip bomb": wrong(ResponseTooLarge, coded(b"gzip", gzip.compress(bytes(2**22)))),
    "a BOM": wrong(UnexpectedReply, OK + length(b"..." + BODY) + b"\r\n" + b"\xef\xbb\xbf" + BODY),
    "HTML": wrong(
        UnexpectedReply, OK + b"Content-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
    ),
    "JSON said to be HTML": right(OK + b"Content-Type: text/html\r\n" + SIZED + b"\r\n" + BODY),
    "another charset": right(
        OK + b"Content-Type: application/json; charset=utf-16\r\n" + SIZED + b"\r\n" + BODY
    ),
}
TABLE = {
    f"{kind}: {name}": odd
    for kind, rows in [
        ("status line", STATUS_LINES),
        ("length", LENGTHS),
        ("chunks", CHUNKS),
        ("interim or empty", INTERIM),
        ("head", HEADS),
        ("coding", CODINGS),
    ]
    for name, odd in rows.items()
}


async def outcome(path: str, odd: Odd) -> type[DeepCallError] | None:
    """What a path makes of a response; the call that follows must be answered rightly."""
    steps: list[Step] = []
    for part in odd.parts:
        # The pause lets the client read each part apart from the next.
        steps += [Send(part), Delay(0.001)]
    async with FaultServer([*steps[:-1], *odd.end], serve) as server:
        async with client(
            server.base_url, path, retry=quick(1), timeout=4.0, max_response_bytes=2**20
        ) as dc:
            found: type[DeepCallError] | None = None
            try:
                await RELATION(dc, 27)
            except DeepCallError as error:
                found = type(error)
            following = dc.with_options(retry=quick(4))
            await RELATION(following, 28)
            await RELATION(following, 29)
            return found


@pytest.mark.parametrize("odd", TABLE.values(), ids=TABLE.keys())
async def test_both_paths_make_the_same_of_it(odd: Odd) -> None:
    direct = await outcome("direct", odd)
    assert direct in odd.outcomes
    assert await outcome("borrowed", odd) == direct


def test_the_table_is_as_long_as_it_should_be() -> None:
    assert len(TABLE) >= 80
