"""Plain replies: whatever is read as one means the same to aiohttp's own parser."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deepcall_async.transport.plain import (
    Framing,
    PlainHeaders,
    may_become_plain,
    plain_head,
    whole_body,
)

BODY = b'{"status":"success"}'
NAMES = st.sampled_from(
    [
        b"Content-Type",
        b"Content-Length",
        b"content-length",
        b"Content-Encoding",
        b"Connection",
        b"Transfer-Encoding",
        b"Upgrade",
        b"Trailer",
        b"Retry-After",
        b"Set-Cookie",
        b"X-Y",
        b"X Y",
    ]
)
VALUES = st.one_of(
    st.sampled_from([b"20", b"020", b"+20", b"20, 20", b"19", b"21", b"", b"chunked", b"gzip"]),
    st.sampled_from([b"keep-alive", b"close", b"application/json", b"a\tb", b"a\x00b", b"\xe9"]),
    st.text(st.characters(max_codepoint=0x7E), max_size=8).map(str.encode),
)
FIELDS = st.lists(
    st.tuples(NAMES, st.sampled_from([b":", b": ", b" : ", b":\t"]), VALUES), max_size=4
)
STATUS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 ",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 500 No",
        b"HTTP/1.1 204 No",
    ]
)
ENDS = st.sampled_from([b"\r\n", b"\n", b"\r\n ", b"\r\n\t"])


def theirs(data: bytes) -> tuple[int, dict[str, list[str]], bytes]:
    """Status, headers and decompressed body, as aiohttp reads them."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpResponseParser(BaseProtocol(loop), loop, 2**16, read_until_eof=True)
        messages, upgraded, tail = parser.feed_data(data)
        (message, payload), *more = messages
        assert not more
        assert not upgraded
        assert not tail
        assert payload.is_eof()
        assert payload.exception() is None
        assert not message.should_close
        headers: dict[str, list[str]] = {}
        for name, value in message.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        return message.code, headers, b"".join(payload._buffer)
    finally:
        loop.close()


def same_as_theirs(data: bytes) -> bool:
    """Whether it is read here; if so, it means the same as to aiohttp."""
    framing = plain_head(data)
    body = None if framing is None else whole_body(data, framing, 2**20)
    if framing is None or body is None:
        return False
    code, headers, content = theirs(data)
    assert (code, content) == (200, body)
    ours: dict[str, list[str]] = {}
    for name, value in PlainHeaders(data[: framing.start]).items():
        ours.setdefault(name.lower(), []).append(value)
    assert ours == headers
    return True


@given(STATUS, FIELDS, ENDS, st.sampled_from([b"", b"x"]))
@example(b"HTTP/1.1 200 OK", [(b"Content-Length", b": ", b"20")], b"\r\n", b"")
@example(b"HTTP/1.1 200 OK", [(b"Connection", b": ", b"keep-alive")], b"\r\n", b"")
def test_a_plain_reply_means_the_same_to_aiohttp(status, fields, end, behind):
    lines = [name + colon + value for name, colon, value in fields]
    length = b"Content-Length: %d" % len(BODY)
    same_as_theirs(end.join([status, *lines, length]) + b"\r\n\r\n" + BODY + behind)


def spelled(draw: st.DrawFn, text: bytes) -> bytes:
    """Sometimes in another case, or with a letter lost."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return bytes(draw(st.sampled_from([each, each ^ 0x20])) for each in text)
    if kind == 1:
        return text.replace(text[-1:], b"")
    return text.lower() if kind == 2 else text


@st.composite
def coded_replies(draw: st.DrawFn) -> tuple[bytes, bytes, bool]:
    """A reply in chunks or compressed or both, mostly right; its content; and that it is right."""
    content = draw(st.binary(max_size=300))
    zipped, chunked = draw(st.sampled_from([(True, False), (False, True), (True, True)]))
    body = gzip.compress(content, draw(st.integers(0, 9))) if zipped else content
    fields = [(b"Content-Encoding", b"gzip")] if zipped else []
    if chunked:
        size = draw(st.integers(1, 200))
        form = draw(st.sampled_from([b"%x\r\n%b\r\n", b"%X\r\n%b\r\n", b"0%x\r\n%b\r\n"]))
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        body = b"".join(form % (len(each), each) for each in pieces) + b"0\r\n\r\n"
        fields.append((b"Transfer-Encoding", b"chunked"))
    else:
        fields.append((b"Content-Length", b"%d" % len(body)))
    fields += [(b"Server", b"nginx"), (b"Vary", b"Accept-Encoding"), (b"Content-Type", b"a/b")]
    lines = [name + b": " + value for name, value in draw(st.permutations(fields))]
    head = b"\r\n".join([b"HTTP/1.1 200 OK", *lines])
    if draw(st.booleans()):
        return head + b"\r\n\r\n" + body, content, True
    lines = [spelled(draw, line) for line in lines]
    more = draw(
        st.lists(st.sampled_from([*fields, (b"Trailer", b"X"), (b"Upgrade", b"h2c")]), max_size=1)
    )
    lines += [name + b": " + value for name, value in more]
    data = b"\r\n".join([b"HTTP/1.1 200 OK", *lines]) + b"\r\n\r\n" + body
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data) - 1))
        put = draw(st.sampled_from([b"", b"\0", b"\r", b"\n", b"0", b";a=b", b" ", b"\xff"]))
        data = data[:at] + put + data[at + draw(st.integers(0, 1)) :]
    return data, content, False


@settings(max_examples=max(100, settings().max_examples))
@given(coded_replies())
def test_chunks_and_gzip_mean_the_same_to_aiohttp(reply):
    data, content, right = reply
    assert same_as_theirs(data) or not right
    if right:
        framing = plain_head(data)
        assert framing is not None
        assert whole_body(data, framing, 2**20) == content
        assert whole_body(data + b"x", framing, 2**20) is None
        assert all(
            whole_body(data[:end], framing, 2**20) is None
            for end in range(framing.start, len(data))
        )


@pytest.mark.parametrize("chunked", [False, True])
def test_a_bomb_is_left_to_aiohttp_before_it_grows(chunked):
    bomb = gzip.compress(bytes(2**24))
    framing = Framing(0, None if chunked else len(bomb), zipped=True)
    data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(bomb), bomb) if chunked else bomb
    tracemalloc.start()
    assert whole_body(data, framing, 2**20) is None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_an_error_of_zlib_or_a_second_member_is_left_to_aiohttp():
    good = gzip.compress(BODY)
    for body in (good[:-1], good + good, good[:-8] + bytes(8), b"", b"{}"):
        assert whole_body(body, Framing(0, len(body), zipped=True), 2**20) is None


@pytest.mark.parametrize(
    ("fields", "plain"),
    [
        (b"Server: nginx/1.26.1\r\nDate: Tue, 24 Nov 2026 12:10:14 GMT\r\nContent-Type: application/json\r\nConnection: keep-alive\r\nVary: Accept-Encoding\r\nETag: W/1\r\n", True),
        (b"Content-Security-Policy: default-src\r\nStrict-Transport-Security: max-age=1\r\nX-Powered-By: PHP\r\nSet-Cookie: a=b\r\nCache-Control: no-store\r\n", True),
        (b"date: x\r\nserver: uvicorn\r\ncontent-type: application/json\r\nKeep-Alive: timeout=5\r\n", True),
        (b"CONTENT-LENGTH: 5\r\n", False),
        (b"Content-LENGTH: 5\r\n", False),
        (b"Content-EnCoding: gzip\r\n", False),
        (b"TRAILER: x\r\n", False),
        (b"UPGRADE: x\r\n", False),
        (b"Connection: close\r\n", False),
        (b"SEC-WebSocket-Key1: x\r\n", False),
    ],
)  # fmt: skip
def test_the_first_letter_of_a_name_decides_what_is_looked_at(fields, plain):
    for data in (
        b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + fields + b"\r\n",
    ):
        assert (plain_head(data) is not None) is plain
        assert may_become_plain(data[:-2]) is plain
        if plain:
            assert all(may_become_plain(data[:end]) for end in range(len(data)))


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 201 OK\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: br\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\nX: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: " + b"y" * 9000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
    ],
)
def test_what_is_not_plain_is_left_to_aiohttp(head):
    assert plain_head(head + b"{}") is None


def test_a_repeated_field_is_kept_apart():
    headers = PlainHeaders(b"HTTP/1.1 200 OK\r\nRetry-After: 1\r\nretry-after: 2\r\n\r\n")
    assert headers.getall("Retry-After", []) == ["1", "2"]
    assert headers.getall("Date", []) == []
    assert "Retry" not in repr(headers)


def test_their_parser_refuses_what_it_should():
    with pytest.raises(HttpProcessingError):
        theirs(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}")
