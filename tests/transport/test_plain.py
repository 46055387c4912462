"""Plain replies: whatever is read as one means the same to aiohttp's own parser."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import example, given
from hypothesis import strategies as st

from deepcall_async.transport.plain import PlainHeaders, plain_head

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


def theirs(data: bytes) -> tuple[int, dict[str, list[str]], int]:
    """Status, headers and length of the body, as aiohttp reads them."""
    loop = asyncio.new_event_loop()
    try:
        parser = HttpResponseParser(BaseProtocol(loop), loop, 2**16, read_until_eof=True)
        messages, upgraded, tail = parser.feed_data(data)
        (message, payload), *more = messages
        assert not more
        assert not upgraded
        assert not tail
        assert payload.is_eof()
        assert not message.should_close
        headers: dict[str, list[str]] = {}
        for name, value in message.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        return message.code, headers, payload.total_bytes
    finally:
        loop.close()


@given(STATUS, FIELDS, ENDS, st.sampled_from([b"", b"x"]))
@example(b"HTTP/1.1 200 OK", [(b"Content-Length", b": ", b"20")], b"\r\n", b"")
@example(b"HTTP/1.1 200 OK", [(b"Connection", b": ", b"keep-alive")], b"\r\n", b"")
def test_a_plain_reply_means_the_same_to_aiohttp(status, fields, end, behind):
    lines = [name + colon + value for name, colon, value in fields]
    length = b"Content-Length: %d" % len(BODY)
    data = end.join([status, *lines, length]) + b"\r\n\r\n" + BODY + behind
    found = plain_head(data)
    if found is None or sum(found) != len(data):
        return
    start, size = found
    code, headers, total = theirs(data)
    assert (code, total) == (200, size)
    ours: dict[str, list[str]] = {}
    mine = PlainHeaders(data[:start])
    for name in mine:
        ours.setdefault(name.lower(), mine.getall(name, []))
    assert ours == headers


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 201 OK\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Encoding: gzip\r\n\r\n",
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
