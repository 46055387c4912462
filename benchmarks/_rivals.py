"""One client's share of a run, in a process of its own: ``python _rivals.py SETTINGS``.

Measures CPU and wall time and peak memory of looking up a group's relation many times over, some
at once, after a warm-up. Every client gets the same replies; each is used as its own documentation
recommends, and those that say so decode into the same structs as ours.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import aiohttp
import msgspec
from _measure import Meter, peak_memory
from _servers import PATH

from deepcall_async import (
    Agent,
    AgentRelation,
    CallEnded,
    DeepCall,
    Group,
    Observer,
    UserToken,
)
from deepcall_async.replies import Rosters

SEGMENTS = 20
"""In so many parts each process measures its calls."""

USER, TOKEN = "29791451", "0123456789abcdef0123456789abcdef"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is to do."""

    client: str
    base_url: str
    calls: int
    warm_up: int
    concurrency: int
    uvloop: bool = False
    authority: str | None = None

    @property
    def url(self) -> str:
        """The endpoint's."""
        return self.base_url + PATH


class Figures(msgspec.Struct, frozen=True):
    """What it found: seconds of CPU and of the clock for each call, by segments, and MiB."""

    cpu: list[float]
    wall: list[float]
    peak_memory: float


class _Relation(msgspec.Struct):
    groupData: Group  # noqa: N815  (the wire's own name)
    agentData: tuple[Agent, ...]  # noqa: N815  (the wire's own name)
    relationData: tuple[AgentRelation, ...]  # noqa: N815  (the wire's own name)


class _Reply(msgspec.Struct):
    status: str
    response: _Relation


_decode = msgspec.json.Decoder(_Reply, strict=False).decode
_encode = msgspec.json.Encoder().encode

_BODY = _encode({"userId": USER, "token": TOKEN, "quick": True, "groupId": 0})[:-2]

Run: TypeAlias = Callable[[int], Awaitable[object]]
"""Makes so many calls."""
Client: TypeAlias = Callable[[Settings], AbstractAsyncContextManager[Run]]


def _body(key: int) -> dict[str, object]:
    return {"userId": USER, "token": TOKEN, "quick": True, "groupId": key + 1}


def _workers(call: Callable[[int], Awaitable[object]], concurrency: int) -> Run:
    async def work(keys: Iterator[int]) -> None:
        for key in keys:
            await call(key)

    async def run(calls: int) -> None:
        keys = iter(range(calls))
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work(keys))

    return run


def _context(settings: Settings) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=settings.authority)


@asynccontextmanager
async def us(settings: Settings) -> AsyncIterator[Run]:
    """This package."""
    credentials = UserToken(USER, TOKEN)
    async with DeepCall(credentials, base_url=settings.base_url) as client:
        relation = client.groups.agent_relation
        # Every reply of these servers is about this group, and one about another is refused.
        yield _workers(lambda _: relation(28), settings.concurrency)


class _Count(Observer):
    """Counts calls by their endpoint."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def call_ended(self, event: CallEnded, /) -> None:
        """One more."""
        self.calls[event.endpoint] += 1


@asynccontextmanager
async def us_observed(settings: Settings) -> AsyncIterator[Run]:
    """This package, with an observer that counts calls."""
    async with DeepCall(
        UserToken(USER, TOKEN), base_url=settings.base_url, observers=[_Count()]
    ) as client:
        relation = client.groups.agent_relation
        yield _workers(lambda _: relation(28), settings.concurrency)


@asynccontextmanager
async def us_new_rosters(settings: Settings) -> AsyncIterator[Run]:
    """This package, as if every reply brought a roster that was never seen before."""
    Rosters.capacity = 0
    async with us(settings) as run:
        yield run


class _Bare(asyncio.Protocol):
    """Sends a request made of prepared bytes; gives the decoded reply to whoever awaits it."""

    transport: asyncio.Transport
    _reply: asyncio.Future[_Reply]

    def __init__(self, loop: asyncio.AbstractEventLoop, head: bytes) -> None:
        self._loop = loop
        self._head = head
        self._parts: list[bytes] = []
        self._missing = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def send(self, key: int) -> asyncio.Future[_Reply]:
        self._reply = self._loop.create_future()
        body = b"%b%d}" % (_BODY, key + 1)
        self.transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        return self._reply

    def data_received(self, data: bytes) -> None:
        if not self._parts:
            end = data.index(b"\r\n\r\n") + 4
            at = data.index(b"Content-Length:") + 15
            self._missing = int(data[at : data.index(b"\r\n", at)])
            data = data[end:]
        self._parts.append(data)
        self._missing -= len(data)
        if not self._missing:
            reply = _decode(data if len(self._parts) == 1 else b"".join(self._parts))
            self._parts.clear()
            self._reply.set_result(reply)


class _Buffered(_Bare, asyncio.BufferedProtocol):
    """The same with one receive buffer for all: asyncio's own would be made anew each time."""

    _buffer = bytearray(2**18)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(memoryview(self._buffer)[:nbytes]))


@asynccontextmanager
async def limit(settings: Settings) -> AsyncIterator[Run]:
    """The least that a call one can await costs: a bare buffered protocol and msgspec.

    It has one worker a connection and no pool, no deadline, no errors and no request of its own.
    """
    url = urlsplit(settings.url)
    head = (
        f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()
    tls = _context(settings) if url.scheme == "https" else None
    loop = asyncio.get_running_loop()

    def bare() -> _Bare:
        return _Buffered(loop, head)

    made = [
        (await loop.create_connection(bare, url.hostname or "", url.port or 0, ssl=tls))[1]
        for _ in range(settings.concurrency)
    ]

    async def work(protocol: _Bare, keys: Iterator[int]) -> None:
        for key in keys:
            await protocol.send(key)

    async def run(calls: int) -> None:
        keys = iter(range(calls))
        await asyncio.gather(*[work(protocol, keys) for protocol in made])

    yield run
    for protocol in made:
        protocol.transport.close()


@asynccontextmanager
async def aiohttp_as_written(settings: Settings) -> AsyncIterator[Run]:
    """As aiohttp's own pages use it."""
    async with aiohttp.ClientSession() as session:

        async def call(key: int) -> None:
            async with session.post(settings.url, json=_body(key)) as response:
                await response.json()

        yield _workers(call, settings.concurrency)


@asynccontextmanager
async def aiohttp_tuned(settings: Settings) -> AsyncIterator[Run]:
    """The same library with bytes in, bytes out, no cookies, and msgspec."""
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def call(key: int) -> None:
            data = _encode(_body(key))
            async with session.post(settings.url, data=data, headers=headers) as response:
                _decode(await response.read())

        yield _workers(call, settings.concurrency)


@asynccontextmanager
async def pyreqwest(settings: Settings) -> AsyncIterator[Run]:
    """Rust's reqwest behind asyncio, and msgspec."""
    builder = import_module("pyreqwest.client").ClientBuilder()
    builder = builder.default_headers({"Content-Type": "application/json"})
    if settings.authority:
        authority = Path(settings.authority).read_bytes()  # noqa: ASYNC240  (not measured)
        builder = builder.add_root_certificate_pem(authority)
    async with builder.build() as client:

        async def call(key: int) -> None:
            request = client.post(settings.url).body_bytes(_encode(_body(key))).build()
            _decode(await (await request.send()).bytes())

        yield _workers(call, settings.concurrency)


@asynccontextmanager
async def ry(settings: Settings) -> AsyncIterator[Run]:
    """Rust's reqwest behind asyncio in another binding, and msgspec."""
    module = import_module("ry")
    options: dict[str, object] = {}
    if settings.authority:
        authority = Path(settings.authority).read_bytes()  # noqa: ASYNC240  (not measured)
        options["tls_certs_merge"] = [module.Certificate.from_pem(authority)]
    client = module.Client(headers={"Content-Type": "application/json"}, **options)

    async def call(key: int) -> None:
        response = await client.post(settings.url, body=_encode(_body(key)))
        _decode(await response.bytes())

    yield _workers(call, settings.concurrency)


@asynccontextmanager
async def wreq(settings: Settings) -> AsyncIterator[Run]:
    """A fork of reqwest that can look like browsers, and msgspec."""
    module = import_module("wreq")
    verify: object = True
    if settings.authority:
        authority = Path(settings.authority).read_bytes()  # noqa: ASYNC240  (not measured)
        verify = module.CertStore.from_pem_stack(authority)
    client = module.Client(verify=verify)
    headers = {"Content-Type": "application/json"}

    async def call(key: int) -> None:
        response = await client.post(settings.url, body=_encode(_body(key)), headers=headers)
        _decode(await response.bytes())

    yield _workers(call, settings.concurrency)


def _pydantic_reply() -> Any:
    model: Any = import_module("pydantic").create_model
    maybe_text, maybe_number = (str | None, None), (int | None, None)
    group: Any = model(
        "Group", unique_id=(int, ...), name=(str, ...), user_id=maybe_text, create_by=maybe_text,
        status=maybe_number, create_date=maybe_number, agents=(tuple[str, ...], ()),
    )  # fmt: skip
    agent: Any = model("Agent", unique_id=(int, ...), name=(str, ...), user_id=maybe_text)
    row: Any = model(
        "Row", group_id=(int, ...), agent_id=(int, ...), receive_call=(str, ...), user_id=maybe_text
    )
    relation = model(
        "Relation",
        groupData=(group, ...),
        agentData=(list.__class_getitem__(agent), ...),
        relationData=(list.__class_getitem__(row), ...),
    )
    return model("Reply", status=(str, ...), response=(relation, ...))


@asynccontextmanager
async def httpx_pydantic(settings: Settings) -> AsyncIterator[Run]:
    """The pair of most generated clients: httpx and pydantic."""
    reply = _pydantic_reply()
    verify = _context(settings) if settings.authority else True
    async with import_module("httpx").AsyncClient(verify=verify) as client:

        async def call(key: int) -> None:
            response = await client.post(settings.url, json=_body(key))
            reply.model_validate(response.json())

        yield _workers(call, settings.concurrency)


@asynccontextmanager
async def httpx_on_aiohttp(settings: Settings) -> AsyncIterator[Run]:
    """The face of httpx on connections of aiohttp, and msgspec."""
    verify = _context(settings) if settings.authority else True
    async with import_module("httpx_aiohttp").HttpxAiohttpClient(verify=verify) as client:

        async def call(key: int) -> None:
            response = await client.post(settings.url, json=_body(key))
            _decode(response.content)

        yield _workers(call, settings.concurrency)


@asynccontextmanager
async def niquests(settings: Settings) -> AsyncIterator[Run]:
    """The async session of niquests, and msgspec."""
    module = import_module("niquests")
    size = settings.concurrency
    async with module.AsyncSession(pool_connections=size, pool_maxsize=size) as session:
        verify = settings.authority or True

        async def call(key: int) -> None:
            response = await session.post(settings.url, json=_body(key), verify=verify)
            _decode(response.content)

        yield _workers(call, settings.concurrency)


@asynccontextmanager
async def requests_in_threads(settings: Settings) -> AsyncIterator[Run]:
    """The classic, requests, in a pool of threads, and msgspec."""
    module = import_module("requests")
    size = settings.concurrency
    loop = asyncio.get_running_loop()
    with module.Session() as session, ThreadPoolExecutor(size) as threads:
        verify = settings.authority or True
        adapter = module.adapters.HTTPAdapter(pool_connections=size, pool_maxsize=size)
        session.mount("http://", adapter)
        session.mount("https://", adapter)

        def in_thread(key: int) -> None:
            _decode(session.post(settings.url, json=_body(key), verify=verify).content)

        def call(key: int) -> Awaitable[None]:
            return loop.run_in_executor(threads, in_thread, key)

        yield _workers(call, size)


class Entry(msgspec.Struct, frozen=True):
    """A client to compare: what it is called, what makes it, its packages, and how slow it is.

    ``cost`` is about how many times the CPU of the fastest a call takes: it gets as many fewer
    calls, so that a run ends.
    """

    title: str
    client: Client
    packages: tuple[str, ...] = ()
    cost: int = 1


CLIENTS: Mapping[str, Entry] = {
    "limit": Entry("bare buffered protocol + msgspec: the limit", limit),
    "us": Entry("deepcall_async", us),
    "us-observed": Entry("deepcall_async, with an observer that counts", us_observed),
    "us-new-rosters": Entry("deepcall_async, a new roster in every reply", us_new_rosters),
    "ry": Entry("ry (Rust) + msgspec", ry, ("ry",)),
    "wreq": Entry("wreq (Rust) + msgspec", wreq, ("wreq",)),
    "pyreqwest": Entry("pyreqwest (Rust) + msgspec", pyreqwest, ("pyreqwest",)),
    "aiohttp-tuned": Entry("aiohttp, tuned + msgspec", aiohttp_tuned, ("aiohttp",), 2),
    "aiohttp": Entry("aiohttp as people write it", aiohttp_as_written, ("aiohttp",), 2),
    "httpx-aiohttp": Entry(
        "httpx on aiohttp's transport", httpx_on_aiohttp, ("httpx-aiohttp", "httpx"), 8
    ),
    "niquests": Entry("niquests", niquests, ("niquests",), 16),
    "requests": Entry("requests in threads", requests_in_threads, ("requests",), 16),
    "httpx": Entry("httpx + pydantic", httpx_pydantic, ("httpx", "pydantic"), 24),
}


def versions_of(entry: Entry) -> dict[str, str] | None:
    """The versions of the packages an entry needs, or None when one is missing."""
    try:
        return {name: version(name) for name in entry.packages}
    except PackageNotFoundError:
        return None


async def _measure(settings: Settings) -> Figures:
    async with CLIENTS[settings.client].client(settings) as run:
        await run(settings.warm_up)
        found = Figures([], [], 0.0)
        calls = max(settings.concurrency, settings.calls // SEGMENTS)
        for _ in range(SEGMENTS):
            meter = Meter()
            await run(calls)
            cpu, wall = meter.read()
            found.cpu.append(cpu / calls)
            found.wall.append(wall / calls)
    return msgspec.structs.replace(found, peak_memory=peak_memory())


def _main(settings: Settings) -> None:
    if settings.uvloop:
        figures = import_module("uvloop").run(_measure(settings))
    else:
        figures = asyncio.run(_measure(settings))
    print(msgspec.json.encode(figures).decode(), flush=True)
    # Some clients' threads do not survive the interpreter's end; the figures are out by now.
    os._exit(0)


if __name__ == "__main__":
    _main(msgspec.json.decode(sys.argv[1], type=Settings))
