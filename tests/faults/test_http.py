"""What the client makes of HTTP statuses, redirects, Retry-After and replies that are not HTTP.

Real sockets and a ledger on the far side: every test says how often a request was sent.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from deepcall_async import (
    ApiError,
    AuthenticationFailed,
    BadRequest,
    DeepCallError,
    GroupUnavailable,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    ServerFault,
    UnexpectedReply,
)
from tests.support.clients import both_paths, client, quick
from tests.support.endpoints import (
    CHANGES,
    DELETE,
    ENDPOINTS,
    LIST,
    READS,
    RELATION,
    Endpoint,
    each_endpoint,
    over,
)
from tests.support.faultserver import FaultServer, Fin, Reaction, Received, Send, Stall, Step
from tests.support.replies import Framing, answer, as_json, error, reply, serve, zipped

pytestmark = pytest.mark.anyio

HTML = b"<html><body>Canary</body></html>"
AS_HTML = [("Content-Type", "text/html; charset=utf-8")]


# Redirects ---------------------------------------------------------------------------------------


@both_paths
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_a_redirect_is_not_followed(path: str, status: int) -> None:
    async with FaultServer(serve) as trap:
        headers = [("Location", trap.url("http") + "/elsewhere")]
        body = b"" if status == 304 else as_json({"status": "error", "code": 1503})
        async with (
            FaultServer([Send(reply(body, status, headers))]) as server,
            client(server.base_url, path) as dc,
        ):
            for endpoint in ENDPOINTS:
                unexpected = await endpoint.fails(dc, UnexpectedReply)
                assert unexpected.http_status == status
                assert len(server.received(endpoint.verb)) == 1
        assert trap.connections == 0


# Statuses that may pass --------------------------------------------------------------------------

BODIES: dict[str, bytes] = {
    "empty": b"",
    "html": HTML,
    "other-json": b'{"error":"overloaded"}',
    "new-code": b'{"status":"error","code":9999,"message":"busy"}',
}
each_body = pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())


@both_paths
@each_body
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_status_that_may_pass(path: str, status: int, body: bytes) -> None:
    kind = RateLimited if status == 429 else ServerFault
    async with (
        FaultServer([Send(reply(body, status, AS_HTML))]) as server,
        client(server.base_url, path) as dc,
    ):
        for endpoint in ENDPOINTS:
            fault = await endpoint.fails_for_good(dc, kind, attempts=3)
            assert isinstance(fault, ApiError)
            assert fault.http_status == status
            assert fault.code == (9999 if b"9999" in body else None)
            sends = 3 if endpoint.repeats(kind) else 1
            assert len(server.received(endpoint.verb)) == sends


@both_paths
@over(*READS, DELETE)
@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_status_that_passed(endpoint: Endpoint, path: str, status: int) -> None:
    async with (
        FaultServer([Send(reply(HTML, status, AS_HTML))], serve) as server,
        client(server.base_url, path) as dc,
    ):
        await endpoint(dc)
        # The connection was in order, so it served again.
        assert (len(server.ledger), server.connections) == (2, 1)


@both_paths
@each_body
@pytest.mark.parametrize("status", [501, 505, 599])
async def test_other_server_errors_are_not_repeated(path: str, status: int, body: bytes) -> None:
    async with (
        FaultServer([Send(reply(body, status))]) as server,
        client(server.base_url, path) as dc,
    ):
        for endpoint in ENDPOINTS:
            fault: object
            if endpoint in READS:
                fault = await endpoint.fails(dc, ServerFault)
            else:
                fault = (await endpoint.fails(dc, OutcomeUnknown)).__cause__
            assert isinstance(fault, ServerFault)
            assert fault.http_status == status
            assert len(server.received(endpoint.verb)) == 1


# Statuses that will not pass ---------------------------------------------------------------------

FINAL: dict[int, type[DeepCallError]] = {
    400: UnexpectedReply,
    401: AuthenticationFailed,
    402: UnexpectedReply,
    403: PermissionDenied,
    404: UnexpectedReply,
    405: UnexpectedReply,
    413: UnexpectedReply,
    418: UnexpectedReply,
}


@both_paths
@pytest.mark.parametrize("body", [b"", HTML, b'{"error":"no"}'], ids=["empty", "html", "json"])
@pytest.mark.parametrize("status", FINAL)
async def test_a_status_that_will_not_pass(path: str, status: int, body: bytes) -> None:
    async with (
        FaultServer([Send(reply(body, status, AS_HTML))]) as server,
        client(server.base_url, path) as dc,
    ):
        for endpoint in ENDPOINTS:
            failure = await endpoint.fails(dc, FINAL[status])
            assert isinstance(failure, (ApiError, UnexpectedReply))
            assert failure.http_status == status
            assert getattr(failure, "code", None) is None
            assert "Canary" not in str(failure)
            assert len(server.received(endpoint.verb)) == 1


SPOKEN: dict[tuple[int, int], type[ApiError]] = {
    (400, 1000): BadRequest,
    (400, 1503): GroupUnavailable,
    (401, 1014): AuthenticationFailed,
    (401, 1015): PermissionDenied,
    (403, 1039): PermissionDenied,
    (403, 1020): AuthenticationFailed,
    (404, 1503): GroupUnavailable,
    (404, 1047): BadRequest,
    (413, 1501): BadRequest,
    (429, 1000): BadRequest,
    (500, 1000): BadRequest,
    (502, 1015): PermissionDenied,
    (503, 1503): GroupUnavailable,
    # New codes: the status says what it can.
    (400, 9999): ApiError,
    (401, 9999): AuthenticationFailed,
    (403, 9999): PermissionDenied,
    (404, 9999): ApiError,
    (413, 9999): ApiError,
    (429, 9999): RateLimited,
}


@both_paths
@pytest.mark.parametrize(("status", "code"), SPOKEN)
async def test_deepcalls_code_speaks_louder_than_the_status(
    path: str, status: int, code: int
) -> None:
    kind = SPOKEN[status, code]
    async with (
        FaultServer([Send(error(code, "because", status))]) as server,
        client(server.base_url, path) as dc,
    ):
        for endpoint in ENDPOINTS:
            sends = 3 if kind is RateLimited and endpoint.repeats(kind) else 1
            failure = await endpoint.fails(dc, kind, attempts=sends)
            assert (failure.code, failure.http_status) == (code, status)
            assert failure.message == "because"
            assert len(server.received(endpoint.verb)) == sends


@both_paths
@pytest.mark.parametrize("status", [400, 401, 404, 429, 503])
async def test_a_transient_code_is_transient_whatever_the_status(path: str, status: int) -> None:
    async with (
        FaultServer([Send(error(1009, "oops", status))]) as server,
        client(server.base_url, path) as dc,
    ):
        for endpoint in ENDPOINTS:
            await endpoint.fails_for_good(dc, ServerFault, attempts=3)
            sends = 3 if endpoint.repeats(ServerFault) else 1
            assert len(server.received(endpoint.verb)) == sends


# Answers that are none ---------------------------------------------------------------------------

NO_ANSWERS: dict[str, tuple[int, bytes, list[tuple[str, str]], str]] = {
    "html": (200, HTML, AS_HTML, "text/html"),
    "text": (200, b"OK", [("Content-Type", "text/plain")], "text/plain"),
    "no-content": (204, b"", [], "no content type"),
    "reset-content": (205, b"", [("Content-Type", "application/json")], "application/json"),
    "empty": (200, b"", [("Content-Type", "application/json")], "application/json"),
    "spaces": (200, b" \r\n ", [("Content-Type", "application/json")], "application/json"),
    "created": (201, HTML, AS_HTML, "text/html"),
}


@both_paths
@pytest.mark.parametrize("case", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
async def test_a_success_without_an_answer(
    path: str, case: tuple[int, bytes, list[tuple[str, str]], str]
) -> None:
    status, body, headers, kind = case
    framing: Framing = "none" if status == 204 else "length"
    async with (
        FaultServer([Send(reply(body, status, headers, framing=framing))]) as server,
        client(server.base_url, path) as dc,
    ):
        for endpoint in ENDPOINTS:
            unexpected = await endpoint.fails(dc, UnexpectedReply)
            assert unexpected.http_status == status
            assert str(status) in str(unexpected)
            assert kind in str(unexpected)
            assert "Canary" not in str(unexpected)
            assert len(server.received(endpoint.verb)) == 1


CONTENT_TYPES = [
    [],
    [("Content-Type", "text/html")],
    [("Content-Type", "application/octet-stream")],
    [("Content-Type", "text/plain; charset=latin-1")],
    [("Content-Type", "application/json; charset=no-such-charset")],
    [("Content-Type", ";;;")],
    [("Content-Type", "image/png"), ("X-Content-Type-Options", "nosniff")],
]


@both_paths
@pytest.mark.parametrize("headers", CONTENT_TYPES, ids=str)
async def test_json_is_taken_under_any_content_type(
    path: str, headers: list[tuple[str, str]]
) -> None:
    def mislabelled(request: Received) -> list[Step]:
        return [Send(reply(answer(request), 200, headers))]

    async with FaultServer(mislabelled) as server, client(server.base_url, path) as dc:
        for endpoint in ENDPOINTS:
            await endpoint(dc)
        assert dc.stats.requests == len(ENDPOINTS)


@both_paths
@pytest.mark.parametrize("status", [201, 202, 206])
async def test_any_2xx_will_do(path: str, status: int) -> None:
    def other(request: Received) -> list[Step]:
        return [Send(reply(answer(request), status))]

    async with FaultServer(other) as server, client(server.base_url, path) as dc:
        for endpoint in ENDPOINTS:
            await endpoint(dc)
        assert dc.stats.requests == len(ENDPOINTS)


# Replies that are not HTTP -----------------------------------------------------------------------

_HEAD = b"HTTP/1.1 200 OK\r\n"
_END = b"\r\n\r\n{}"
GARBLED: dict[str, Send] = {
    "not-http": Send(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "bad-version": Send(b"HTTP/9 200 OK\r\n\r\n"),
    "bad-status": Send(b"HTTP/1.1 two hundred\r\n\r\n"),
    "long-header": Send(_HEAD + b"X: " + b"y" * 100_000 + _END),
    "long-name": Send(_HEAD + b"X" * 100_000 + b": y" + _END),
    "long-reason": Send(b"HTTP/1.1 200 " + b"y" * 100_000 + _END),
    "many-headers": Send(_HEAD + b"X: y\r\n" * 100_000 + b"\r\n{}"),
    "endless-headers": Send(b"HTTP/1.1 200 OK" + b"\r\nX: y" * 5_000, repeat=None),
    "no-colon": Send(_HEAD + b"X y" + _END),
    "control-character": Send(_HEAD + b"X: \x00" + _END),
    "negative-length": Send(_HEAD + b"Content-Length: -1" + _END),
    "wordy-length": Send(_HEAD + b"Content-Length: two" + _END),
    "two-lengths": Send(_HEAD + b"Content-Length: 2\r\nContent-Length: 3" + _END),
    "bad-chunk-size": Send(_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
    "bad-chunk-end": Send(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n"),
    "negative-chunk": Send(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n"),
    "long-chunk-size": Send(_HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000),
    "wrong-encoding": Send(_HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2" + _END),
    "corrupt-gzip": Send(zipped({"status": "success"})[:-12] + b"corrupt data"),
    "switching": Send(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
}


@both_paths
@pytest.mark.parametrize("garbled", GARBLED.values(), ids=GARBLED.keys())
async def test_what_is_not_http_is_not_repeated(path: str, garbled: Send) -> None:
    for endpoint in ENDPOINTS:
        async with (
            FaultServer([garbled, Stall()], serve) as server,
            client(server.base_url, path) as dc,
        ):
            await endpoint.fails(dc, UnexpectedReply)
            # Whatever else it has to say, nobody listens any more.
            await server.until(lambda s: s.open_connections == 0)
            assert server.sent < 8 * 2**20
            await endpoint(dc)
            assert (server.begun, server.connections) == (2, 2)


@both_paths
@each_endpoint
async def test_a_reply_before_the_request_was_read(endpoint: Endpoint, path: str) -> None:
    """Such a server closes: what it did not read must not be taken for the next request."""
    early = reply(HTML, 413, AS_HTML, connection="close")
    async with (
        FaultServer([Send(early), Fin()], serve) as server,
        client(server.base_url, path) as dc,
    ):
        assert (await endpoint.fails(dc, UnexpectedReply)).http_status == 413
        await endpoint(dc)
        assert server.connections == 2


# Retry-After -------------------------------------------------------------------------------------

JUNK = [
    *("nan", "inf", "-inf", "Infinity", "-1", "1e400", "1e3", "0x10", "1.5", "soon", "", " "),
    *("5, 10", "5;10", "\u0665", "+5", "1_0", "Thu, 99 Jan 2099 00:00:00 GMT", "0" * 5000),
]
ABOVE = ["61", "3600", "999999999", "99999999999", "9" * 400]


def _told(*values: str, status: int = 503) -> Reaction:
    headers = [("Content-Type", "application/json"), *(("Retry-After", each) for each in values)]
    head = reply(b"", status, [(name, value) for name, value in headers if value.isascii()])
    for value in values:
        if not value.isascii():
            head = head.replace(b"\r\n", b"\r\nRetry-After: " + value.encode() + b"\r\n", 1)
    return [Send(head)]


def _date(**ahead: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(**ahead), usegmt=True)


def _now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.virtual_time
async def test_retry_after_is_waited_for() -> None:
    async def ask(path: str, status: int, value: str, least: float, most: float) -> None:
        async with (
            FaultServer(_told(value, status=status), serve) as server,
            client(server.base_url, path) as dc,
        ):
            begun = _now()
            await RELATION(dc)
            assert least <= _now() - begun < most
            assert len(server.ledger) == 2

    # A date has no fractions, so the wait for it may be a second shorter.
    forms = ("20", 20.0, 21.1), (_date(seconds=30), 28.0, 31.1)
    paths = ("direct", "borrowed")
    await asyncio.gather(
        *(ask(path, status, *form) for path in paths for status in (429, 503) for form in forms)
    )


@pytest.mark.virtual_time
@both_paths
@over(*READS, DELETE)
@pytest.mark.parametrize("value", ["59", "60", "in-a-minute"])
async def test_a_minute_is_waited_for(endpoint: Endpoint, path: str, value: str) -> None:
    value = _date(seconds=58) if value == "in-a-minute" else value
    async with (
        FaultServer(_told(value), serve) as server,
        client(server.base_url, path) as dc,
    ):
        begun = _now()
        await endpoint(dc)
        assert 56 < _now() - begun < 61.1
        assert len(server.ledger) == 2


@pytest.mark.virtual_time
@both_paths
@over(RELATION, DELETE)
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("value", [*ABOVE, "tomorrow", "the-year-9999"], ids=lambda v: v[:14])
async def test_longer_than_a_minute_ends_the_call_at_once(
    endpoint: Endpoint, path: str, status: int, value: str
) -> None:
    late = {"tomorrow": _date(days=1), "the-year-9999": "Fri, 31 Dec 9999 23:59:59 GMT"}
    kind = RateLimited if status == 429 else ServerFault
    async with (
        FaultServer(_told(late.get(value, value), status=status)) as server,
        client(server.base_url, path) as dc,
    ):
        begun = _now()
        if endpoint is DELETE and kind is ServerFault:
            fault = (await endpoint.fails(dc, OutcomeUnknown)).__cause__
            assert isinstance(fault, ServerFault)
        else:
            fault = await endpoint.fails(dc, kind)
        assert _now() - begun < 0.1
        assert isinstance(fault, ApiError)
        assert fault.retry_after is not None
        assert fault.retry_after > 60
        assert len(server.ledger) == 1


@pytest.mark.virtual_time
@both_paths
@pytest.mark.parametrize("value", [*JUNK, "yesterday"], ids=lambda value: repr(value)[:20])
async def test_junk_is_not_waited_for(path: str, value: str) -> None:
    value = _date(days=-1) if value == "yesterday" else value
    for endpoint in (LIST, DELETE):
        async with (
            FaultServer(_told(value), _told(value), serve) as server,
            client(server.base_url, path) as dc,
        ):
            begun = _now()
            await endpoint(dc)
            assert _now() - begun < 0.1
            assert len(server.ledger) == 3


@pytest.mark.virtual_time
@both_paths
@pytest.mark.parametrize("values", [("30", "40"), ("30", "30"), ("30", "x"), ("3600", "1")])
async def test_repeated_headers_are_junk(path: str, values: tuple[str, ...]) -> None:
    async with (
        FaultServer(_told(*values), serve) as server,
        client(server.base_url, path) as dc,
    ):
        begun = _now()
        await LIST(dc)
        assert _now() - begun < 0.1
        assert len(server.ledger) == 2


@both_paths
@over(*CHANGES, DELETE)
async def test_a_throttled_change_is_told_when_to_come_back(endpoint: Endpoint, path: str) -> None:
    async with (
        FaultServer(_told("7", status=429)) as server,
        client(server.base_url, path) as dc,
    ):
        limited = await endpoint.fails(dc, RateLimited)
        assert (limited.retry_after, limited.http_status, limited.code) == (7.0, 429, None)
        assert len(server.ledger) == 1


@pytest.mark.virtual_time
@both_paths
async def test_a_wait_past_the_deadline_is_not_begun(path: str) -> None:
    async with (
        FaultServer(_told("30")) as server,
        client(server.base_url, path, retry=quick(deadline=5)) as dc,
    ):
        begun = _now()
        await LIST.fails(dc, ServerFault)
        assert _now() - begun < 0.1
        assert len(server.ledger) == 1
