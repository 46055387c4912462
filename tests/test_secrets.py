"""A canary in place of the secret: over many faults, nothing that can be shown shows it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import pickle
import socket
import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import product
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from rich.console import Console
from rich.traceback import Traceback

from deepcall_async import (
    AuthenticationFailed,
    DeepCall,
    DeepCallError,
    Failed,
    Progress,
    RetryPolicy,
    SessionId,
    TooManyFailures,
    UserToken,
    collect,
    fan_out,
)
from tests.support import clients
from tests.support.clients import both_paths
from tests.support.faultserver import FaultServer, Fin, Received, Reset, Send, Stall, Step
from tests.support.hazards import refused_port
from tests.support.replies import answer, as_json, chunk, error, reply, serve, zipped

pytestmark = pytest.mark.anyio

# The canary stands here and in no frame: a traceback with locals shows the test's frames as well.
# Whatever is escaped around it, its core is spelled the same in every encoding of text.
CORE = "Qw7XkPzR9vTn2LmB4yHs"
CANARY = f'ab"/é{CORE}\\+ 9'
KINDS: dict[str, Callable[[], SessionId | UserToken]] = {
    "ssid": lambda: SessionId(CANARY),
    "token": lambda: UserToken("29791451", CANARY),
}


connect = partial(
    clients.connect,
    credentials=KINDS["token"](),
    retry=RetryPolicy(attempts=2, base_delay=0.0),
    timeout=0.15,
)


def is_shown(text: str) -> bool:
    """Whether even a part of the canary is in the text, line breaks or not."""
    joined = "".join(text.split())
    return any(CORE[start : start + 7] in joined for start in range(len(CORE) - 6))


def chain(failure: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    waiting = [failure]
    while waiting:
        each = waiting.pop()
        if each is not None and each not in found:
            found.append(each)
            waiting += [each.__cause__, each.__context__]
            if isinstance(each, BaseExceptionGroup):
                waiting += each.exceptions
    return found


def shown(failure: BaseException) -> dict[str, str]:
    """Every way in which programs show an exception."""
    captured = traceback.TracebackException.from_exception(failure, capture_locals=True)
    extracted = Traceback.extract(
        type(failure),
        failure,
        failure.__traceback__,
        show_locals=True,
        locals_max_length=None,  # type: ignore[arg-type]
        locals_max_string=None,  # type: ignore[arg-type]
    )
    links = chain(failure)
    ways = {
        "traceback with locals": "".join(captured.format()),
        "rich with locals": repr(extracted),
        "str": " ".join(map(str, links)),
        "repr": " ".join(map(repr, links)),
        "arguments": " ".join(repr(each.args) for each in links),
        "attributes": " ".join(repr(vars(each)) for each in links),
        "notes": " ".join(repr(getattr(each, "__notes__", [])) for each in links),
    }
    for each in links:
        if isinstance(each, DeepCallError):
            packed = pickle.dumps(each)
            ways["pickle"] = ways.get("pickle", "") + packed.decode("latin-1")
            again = pickle.loads(packed)
            assert type(again) is type(each)
            assert (str(again), vars(again)) == (str(each), vars(each))
    return ways


def check(failure: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    leaks = [way for way, text in shown(failure).items() if is_shown(text)]
    records = " ".join(
        f"{record.getMessage()} {record.exc_text} {record.args!r}" for record in caplog.records
    )
    assert not is_shown(records), "the canary is in the log"
    assert not is_shown(caplog.text), "the canary is in the log"
    assert not leaks, f"the canary is in: {', '.join(leaks)} of {type(failure).__name__}"


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "asyncio", "aiohttp.client", "aiohttp.internal", "deepcall_async", "anyio"):
        caplog.set_level(logging.DEBUG, logger=name or None)


def test_the_check_itself_notices(caplog: pytest.LogCaptureFixture) -> None:
    def raises(secret: str) -> None:
        raise LookupError("nothing here")

    for spelled in (
        CANARY,
        quote(CANARY),
        json.dumps(json.dumps(CANARY)),
        CORE[3:12],
        ascii(CANARY),
    ):
        assert is_shown(spelled)
    with pytest.raises(LookupError) as caught:
        raises(CANARY)
    ways = shown(caught.value)
    assert [way for way, text in ways.items() if is_shown(text)] == [
        "traceback with locals",
        "rich with locals",
    ]
    logging.getLogger("aiohttp.client").debug("sent %s", CANARY)
    with pytest.raises(AssertionError, match="in the log"):
        check(LookupError("harmless"), caplog)


# Servers that repeat what they were told.


def raw(request: Received) -> str:
    return json.dumps(request.body, ensure_ascii=False)


def html(request: Received, status: int) -> list[Step]:
    page = f"<html><pre>{raw(request)}</pre></html>".encode()
    kind = f"text/html; echo={quote(raw(request))}"
    return [Send(reply(page, status, [("Content-Type", kind)]))]


def line(head: str) -> list[Step]:
    return [Send(head.encode("utf-8"))]


def echo(where: str, request: Received) -> list[Step]:
    body, plain = raw(request), CANARY
    match where:
        case "message":
            return [Send(error(1000, body))]
        case "message, escaped":
            return [Send(error(1501, f"{quote(plain)} {json.dumps(plain)} {plain!a}"))]
        case "message, at every length":
            return [Send(error(1000, "x" * (request.number * 9 % 230) + plain))]
        case "message, many times":
            return [Send(error(1009, body * 200))]
        case "message, an object":
            return [Send(error(1503, {"you": {"sent": request.body}, plain: [plain]}))]
        case "code":
            return [Send(error(plain, body))]
        case "unknown code":
            return [Send(error(4711, body))]
        case "status of the reply":
            return [Send(reply({"status": plain, "message": body, "code": 1}))]
        case "wrong shape":
            return [Send(reply({"status": "success", "response": body, "groupId": plain}))]
        case "wrong shape, deep":
            group = {"unique_id": plain, "name": [plain], plain: plain}
            data = {"groupData": group, "agentData": plain, "relationData": plain}
            return [Send(reply({"status": "success", "response": data, "groupId": {plain: 1}}))]
        case "not JSON":
            return [Send(reply(body.encode() + b"}}"))]
        case "not UTF-8":
            return [Send(reply(b'{"status":"\xff' + plain.encode() + b'"}'))]
        case "half a reply, then the end":
            return [Send(reply(as_json(answer(request)) + body.encode())[:-5]), Fin()]
        case "half a reply, then a reset":
            return [Send(reply(body.encode() * 3)[:-5]), Reset()]
        case "an HTML page":
            return html(request, 200)
        case "an HTML page of 403":
            return html(request, 403)
        case "an HTML page of 404":
            return html(request, 404)
        case "an HTML page of 500":
            return html(request, 500)
        case "an HTML page of 413":
            return html(request, 413)
        case "redirect":
            where_to = [("Location", f"https://x.example/?{quote(body)}"), ("X", quote(plain))]
            return [Send(reply(body.encode(), 307, where_to))]
        case "content type":
            return [
                Send(reply(b"", headers=[("Content-Type", quote(plain) + "; " + ascii(plain))]))
            ]
        case "reason":
            return line(f"HTTP/1.1 500 {plain!a}\r\nContent-Length: 0\r\n\r\n")
        case "reason of no success":
            return line(f"HTTP/1.1 418 {plain!a}\r\nContent-Length: 0\r\n\r\n")
        case "retry-after":
            return [Send(reply(b"", 503, [("Retry-After", quote(plain))]))]
        case "cookie":
            return [Send(error(1000)[:-2].replace(b"\r\n", f"\r\nSet-Cookie: a={quote(plain)}\r\n".encode(), 1)), Fin()]  # fmt: skip
        case "status line":
            return line(f"{body}\r\n\r\n")
        case "bad header":
            return line(f"HTTP/1.1 200 OK\r\n{plain!a}\x00 x\r\n\r\n")
        case "long header":
            return line(f"HTTP/1.1 200 OK\r\nX-Echo: {quote(plain) * 900}\r\n\r\n")
        case "bad chunk size":
            head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            return line(f"{head}{plain!a}\r\n{body}\r\n0\r\n\r\n")
        case "bad compression":
            return [Send(reply(body.encode(), headers=[("Content-Encoding", "gzip")]))]
        case "unknown compression":
            return [Send(reply(body.encode(), headers=[("Content-Encoding", quote(plain))]))]
        case "compressed":
            return [Send(zipped(body.encode()))]
        case "content length":
            return line(f"HTTP/1.1 200 OK\r\nContent-Length: {quote(plain)}\r\n\r\n")
        case "too large":
            return [Send(reply(body.encode() * 4000))]
        case "too large, chunked":
            return [Send(reply(body.encode() * 4000, framing="chunked"))]
        case "interim":
            return [*line(f"HTTP/1.1 103 {plain!a}\r\nX: {quote(plain)}\r\n\r\n"), Reset()]
        case "upgrade":
            return line(
                f"HTTP/1.1 101 Go\r\nUpgrade: {quote(plain)}\r\nConnection: upgrade\r\n\r\n"
            )
        case _:
            raise AssertionError(where)


WHERE = [
    "message",
    "message, escaped",
    "message, at every length",
    "message, many times",
    "message, an object",
    "code",
    "unknown code",
    "status of the reply",
    "wrong shape",
    "wrong shape, deep",
    "not JSON",
    "not UTF-8",
    "half a reply, then the end",
    "half a reply, then a reset",
    "an HTML page",
    "an HTML page of 403",
    "an HTML page of 404",
    "an HTML page of 500",
    "an HTML page of 413",
    "redirect",
    "content type",
    "reason",
    "reason of no success",
    "retry-after",
    "cookie",
    "status line",
    "bad header",
    "long header",
    "bad chunk size",
    "bad compression",
    "unknown compression",
    "compressed",
    "content length",
    "too large",
    "too large, chunked",
    "interim",
    "upgrade",
]


async def every_call(dc: DeepCall) -> list[BaseException]:
    failures: list[BaseException] = []
    for make in (
        lambda: dc.groups.list(),
        lambda: dc.groups.agent_relation(28),
        lambda: dc.groups.add("Sales"),
        lambda: dc.groups.delete(28),
    ):
        # Not gathered: a task's failure would lack the frames of whoever awaits it.
        try:
            await make()
        except DeepCallError as failure:
            failures.append(failure)
    return failures


@both_paths
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", WHERE)
async def test_a_server_that_echoes_the_request(
    where: str, kind: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    limit = 100_000 if where.startswith("too large") else 10**7
    async with connect(
        lambda r: echo(where, r), path, credentials=KINDS[kind](), max_response_bytes=limit
    ) as (_, dc):
        failures = await every_call(dc)
        if where == "message, at every length":
            for _ in range(6):
                failures += await every_call(dc)
    assert len(failures) >= 3
    for failure in failures:
        check(failure, caplog)
    assert not is_shown(repr(dc))


@both_paths
@pytest.mark.parametrize("where", ["message", "not JSON", "an HTML page of 500", "bad header"])
async def test_a_loop_in_debug_mode_that_finds_every_callback_slow(
    where: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_debug(), loop.slow_callback_duration
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    try:
        async with connect(lambda r: echo(where, r), path) as (_, dc):
            failures = await every_call(dc)
    finally:
        loop.set_debug(before[0])
        loop.slow_callback_duration = before[1]
    assert any("took" in record.getMessage() for record in caplog.records)
    for failure in failures:
        check(failure, caplog)


# Whoever gives up waiting sees a traceback of everything below.


def half(head: str, request: Received, **framing: Any) -> list[Step]:
    headers = [("X-Echo", quote(CANARY)), ("Content-Type", quote(CANARY)), ("Set-Cookie", "a=b")]
    data = reply(raw(request).encode() * 20, headers=headers, **framing)
    return [Send(data.replace(b"Reason", head.encode(), 1)[:-9]), Stall()]


STALLS: dict[str, Callable[[Received], list[Step]]] = {
    "before the head": lambda request: [Stall()],
    "amid the head": lambda request: [
        *line(f"HTTP/1.1 200 {CANARY!a}\r\nX: {quote(CANARY)}\r\nY"),
        Stall(),
    ],
    "after an interim head": lambda request: [
        *line(f"HTTP/1.1 103 {CANARY!a}\r\nX: {quote(CANARY)}\r\n\r\n"),
        Stall(),
    ],
    "amid a sized body": lambda request: half(ascii(CANARY), request),
    "amid a chunked body": lambda request: [
        *half(ascii(CANARY), request, framing="chunked")[:1],
        Send(chunk(raw(request).encode())),
        Stall(),
    ],
    "amid an open-ended body": lambda request: half(ascii(CANARY), request, framing="close"),
    "amid a compressed body": lambda request: [
        Send(zipped((raw(request) * 300).encode())[:-9]),
        Stall(),
    ],
    "amid the wait before a repeat": lambda request: [
        Send(reply(raw(request).encode(), 503, [("Retry-After", "30"), ("X", quote(CANARY))]))
    ],
}


async def abandon(how: str, server: FaultServer, dc: DeepCall, call: Awaitable[Any]) -> Any:
    """Wait until the server has said its part, then give up in one of the ways there are."""
    if how == "timeout around it":
        async with asyncio.timeout(0.05):
            return await call
    if how == "its own timeout":
        return await call
    task = asyncio.ensure_future(call)
    await server.until(lambda s: len(s.ledger) == 1)
    for _ in range(30):
        await asyncio.sleep(0)
    if how == "cancelled":
        task.cancel()
    elif how == "closed":
        await dc.aclose()
    return await task


@both_paths
@pytest.mark.parametrize(
    ("stage", "how"),
    # How long the wait before a repeat lasts is not the server's to say.
    [
        case
        for case in product(STALLS, ["timeout around it", "cancelled", "closed", "its own timeout"])
        if case != ("amid the wait before a repeat", "its own timeout")
    ],
)
async def test_a_call_that_is_given_up(
    stage: str, how: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    patience = 0.12 if how == "its own timeout" else 10.0

    async def give_up(verb: str) -> None:
        failure: BaseException | None = None
        async with connect(STALLS[stage], path, timeout=patience) as (server, dc):
            if how == "its own timeout":
                dc = dc.with_options(retry=RetryPolicy(attempts=1))
            call = dc.groups.list() if verb == "list" else dc.groups.add("Sales")
            try:
                await abandon(how, server, dc, call)
            except (Exception, asyncio.CancelledError) as error:
                failure = error
            assert failure is not None
            check(failure, caplog)

    await asyncio.gather(give_up("list"), give_up("add"))


@both_paths
async def test_a_large_request_that_the_server_does_not_read(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await done.wait()
        writer.transport.abort()

    done = asyncio.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    # What the system takes in for a deaf server is small, and less than is sent.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf = await asyncio.start_server(ignore, sock=listener, limit=1024)
    ids = range(10**9, 10**9 + 60_000)
    async with deaf, contextlib.AsyncExitStack() as stack:
        port = listener.getsockname()[1]
        options: dict[str, Any] = {}
        if path == "borrowed":
            options["session"] = await stack.enter_async_context(aiohttp.ClientSession())
        dc = DeepCall(KINDS["token"](), base_url=f"http://127.0.0.1:{port}", **options)
        await stack.enter_async_context(dc)
        failure: BaseException | None = None
        try:
            async with asyncio.timeout(0.3):
                await dc.groups.assign_agents(1, ids)
        except TimeoutError as error:
            failure = error
        done.set()
        assert failure is not None
        check(failure, caplog)


# Connections that end, and those that cannot be made.


@both_paths
@pytest.mark.parametrize("how", ["reset", "fin", "refused"])
async def test_a_connection_that_fails(
    how: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    steps: dict[str, Sequence[Step]] = {"reset": [Reset()], "fin": [Fin()], "refused": [Stall()]}
    with refused_port() as port:
        options = {"base_url": f"http://127.0.0.1:{port}"} if how == "refused" else {}
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(FaultServer(steps[how]))
            if path == "borrowed":
                session = await stack.enter_async_context(aiohttp.ClientSession())
                options["session"] = session  # type: ignore[assignment]
            options.setdefault("base_url", server.base_url)
            credentials = KINDS["ssid"]()
            policy = RetryPolicy(attempts=2, base_delay=0.0)
            dc = DeepCall(credentials, retry=policy, **options)  # type: ignore[arg-type]
            await stack.enter_async_context(dc)
            failures = await every_call(dc)
    assert len(failures) == 4
    for failure in failures:
        check(failure, caplog)


# Fan-outs.


@both_paths
async def test_a_fan_out_over_echoing_servers(path: str, caplog: pytest.LogCaptureFixture) -> None:
    def react(request: Received) -> list[Step] | Sequence[Step]:
        if request.number % 3:
            return echo(WHERE[request.number % len(WHERE)], request)
        return serve(request)

    told: list[Progress] = []
    async with connect(react, path, timeout=0.3) as (_, dc):
        batch = await collect(
            dc.groups.agent_relation,
            range(1, 100),
            concurrency=8,
            progress=told.append,
            fatal=(),
        )
        assert batch.failed
        for key, failure in batch.failed.items():
            assert not is_shown(repr(Failed(key, failure)))
            check(failure, caplog)
        with pytest.raises(DeepCallError) as first:
            batch.raise_if_failed()
        check(first.value, caplog)
        assert not is_shown(repr(batch))
        assert not is_shown(repr(told))
        with pytest.raises(TooManyFailures) as many:
            await collect(
                dc.groups.agent_relation, range(1, 100), max_failures=3, concurrency=4, fatal=()
            )
        check(many.value, caplog)


@both_paths
async def test_a_fan_out_that_is_given_up(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with connect(STALLS["amid a sized body"], path, timeout=10.0) as (_, dc):
        with pytest.raises(TimeoutError) as late:
            async with asyncio.timeout(0.2):
                async with fan_out(dc.groups.agent_relation, range(1, 50)) as outcomes:
                    async for _ in outcomes:
                        pass
        check(late.value, caplog)


# Credentials that are wrong, missing, or come from somebody else's code.


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: SessionId(CANARY + "\n"), id="ssid with a line break"),
        pytest.param(lambda: UserToken("7", CANARY + "\0"), id="token with a NUL"),
        pytest.param(lambda: UserToken(" ", CANARY), id="token without a user"),
        pytest.param(lambda: UserToken(CANARY, ""), id="token for the user"),
        pytest.param(lambda: SessionId(CANARY.encode()), id="ssid as bytes"),  # type: ignore[arg-type]
        pytest.param(lambda: UserToken(7, CANARY), id="user as a number"),  # type: ignore[arg-type]
        pytest.param(lambda: DeepCall(CANARY), id="a bare secret"),  # type: ignore[arg-type]
        pytest.param(lambda: DeepCall(("7", CANARY)), id="a bare pair"),  # type: ignore[arg-type]
        pytest.param(
            lambda: DeepCall(SessionId("x")).with_options(credentials=CANARY),  # type: ignore[arg-type]
            id="a bare secret for a sibling",
        ),
    ],
)
def test_credentials_that_are_refused(
    make: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        make()
    check(caught.value, caplog)


@pytest.mark.parametrize("names", [("DEEPCALL_SSID",), ("DEEPCALL_USER_ID", "DEEPCALL_TOKEN"),
                                   ("DEEPCALL_SSID", "DEEPCALL_TOKEN"), ("DEEPCALL_TOKEN",)])  # fmt: skip
def test_an_environment_that_is_refused(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("DEEPCALL_SSID", "DEEPCALL_USER_ID", "DEEPCALL_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in names:
        monkeypatch.setenv(name, CANARY + "\n")
    with pytest.raises(ValueError, match=r"DEEPCALL|ssid|token|user_id") as caught:
        DeepCall()
    check(caught.value, caplog)


@both_paths
@pytest.mark.parametrize("how", ["raises", "gives", "hangs", "gives rejected ones"])
async def test_a_provider_that_fails(how: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    class Provider:
        async def credentials(self) -> Any:
            return KINDS["ssid"]()

        async def refresh(self, rejected: Any) -> Any:
            if how == "raises":
                raise LookupError(f"no login with {CANARY}")
            if how == "hangs":
                await asyncio.sleep(60)
            return CANARY if how == "gives" else KINDS["token"]()

    def react(request: Received) -> list[Step]:
        return [Send(error(1014, raw(request)))]

    async with connect(react, path, credentials=Provider()) as (_, dc):
        for _ in range(2):
            failures = await every_call(dc)
            assert {type(failure) for failure in failures} == {AuthenticationFailed}
            for failure in failures:
                check(failure, caplog)


@both_paths
async def test_a_caller_that_gives_up_on_a_renewal(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Provider:
        async def credentials(self) -> Any:
            return KINDS["ssid"]()

        async def refresh(self, rejected: Any) -> Any:
            await asyncio.sleep(60)

    options = {"credentials": Provider(), "timeout": 10.0}
    async with connect(lambda r: [Send(error(1014, raw(r)))], path, **options) as (_, dc):
        with pytest.raises(TimeoutError) as late:
            async with asyncio.timeout(0.1):
                await dc.groups.list()
        check(late.value, caplog)


@both_paths
async def test_bad_arguments_with_a_client(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with connect(serve, path) as (server, dc):
        for call in (
            lambda: dc.groups.add(""),
            lambda: dc.groups.agent_relation(-1),
            lambda: dc.groups.assign_agents(1, [None]),  # type: ignore[list-item]
            lambda: dc.groups.list(quick="yes"),  # type: ignore[arg-type]
        ):
            with pytest.raises((ValueError, TypeError)) as caught:
                await call()
            check(caught.value, caplog)
        assert not server.ledger


async def test_rich_prints_no_secret_on_a_terminal() -> None:
    printed = io.StringIO()
    async with connect(lambda r: echo("message", r), "direct") as (_, dc):
        (failure, *_) = await every_call(dc)
    console = Console(file=printed, width=300, force_terminal=True)
    console.print(
        Traceback.from_exception(
            type(failure), failure, failure.__traceback__, show_locals=True, max_frames=100
        )
    )
    assert "BadRequest" in printed.getvalue()
    assert not is_shown(printed.getvalue())
