"""A raw TCP server that misbehaves on cue and keeps the books on what it received.

Bare sockets and the standard library only. No HTTP library and nothing from the package, so that
what is wrong in a client cannot be wrong here as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NoReturn, Self, TypeAlias, TypeVar

from tests.support.ways import server_context

T = TypeVar("T")


class Step:
    """Something the server does on a connection."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Send(Step):
    """Write bytes; ``chunk`` cuts them into segments of that size, ``pause`` seconds apart.

    ``repeat`` writes them that many times over, and None until the connection ends.
    """

    data: bytes
    chunk: int | None = None
    pause: float = 0.0
    repeat: int | None = 1


@dataclass(frozen=True, slots=True)
class Delay(Step):
    """Wait so many seconds, or less when the peer leaves."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Wait(Step):
    """Wait until the test sets the event."""

    event: asyncio.Event


@dataclass(frozen=True, slots=True)
class Stall(Step):
    """Say nothing until the peer leaves or the server closes."""


@dataclass(frozen=True, slots=True)
class Reset(Step):
    """End the connection with an RST; what was sent and not yet read may be lost with it."""


@dataclass(frozen=True, slots=True)
class Fin(Step):
    """Close the connection in order."""


@dataclass(frozen=True, slots=True)
class HalfClose(Step):
    """Send a FIN and keep reading."""


@dataclass(frozen=True, slots=True)
class Commit(Step):
    """Note in the ledger that the request took effect."""


@dataclass(frozen=True, slots=True)
class Early:
    """Run the steps once ``after`` bytes of the request are there, not waiting for its end.

    ``Early(1, [Reset()])`` is a server that dropped the connection as the request was on its way.
    """

    after: int
    steps: Sequence[Step]


@dataclass(slots=True)
class Received:
    """One request that arrived whole. ``connection`` and both numbers count from 1."""

    number: int
    connection: int
    number_on_connection: int
    method: str
    target: str
    headers: dict[str, str]
    body: Any
    committed: bool = False

    @property
    def verb(self) -> str:
        return self.target.partition("?")[0].rstrip("/").rpartition("/")[2]


Reaction: TypeAlias = Early | Sequence[Step] | Callable[[Received], Sequence[Step]]


class _Gone(Exception):
    """The connection ended, by either side."""


class _Connection:
    """A bare socket: no transport stands between a step and the system call it asks for."""

    def __init__(self, number: int, accepted: socket.socket) -> None:
        self.number, self.socket = number, accepted
        self.buffer = bytearray()
        self.requests = 0
        self.idle = False
        self._loop = asyncio.get_running_loop()
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()

    async def secure(self, context: ssl.SSLContext) -> None:
        tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        await self._through(tls.do_handshake)
        self._tls = tls

    async def fill(self) -> None:
        if self._tls:
            data = await self._through(partial(self._tls.read, 65536))
        else:
            data = await self._loop.sock_recv(self.socket, 65536)
        if not data:
            raise _Gone
        self.buffer += data

    def readable(self) -> bool:
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    async def linger(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    await self.fill()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self.socket, self.encrypted(data))

    def encrypted(self, data: bytes) -> bytes:
        if not self._tls:
            return data
        self._tls.write(data)
        return self._outgoing.read()

    async def finish(self) -> NoReturn:
        if self._tls:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            await self._loop.sock_sendall(self.socket, self._outgoing.read())
        raise _Gone

    def half_close(self) -> None:
        """Say that nothing more will be sent, over TLS by a close_notify alone."""
        if self._tls:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self.socket.send(self._outgoing.read())
        else:
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> NoReturn:
        # Without time to linger, the kernel answers a close with an RST.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Gone

    async def _through(self, action: Callable[[], T]) -> T:
        while True:
            wanting = False
            try:
                result = action()
            except ssl.SSLWantReadError:
                wanting = True
            finally:
                # Also what an error has to say: the peer is told by an alert.
                await self._loop.sock_sendall(self.socket, self._outgoing.read())
            if not wanting:
                return result
            if not (data := await self._loop.sock_recv(self.socket, 65536)):
                raise _Gone
            self._incoming.write(data)


class FaultServer:
    """Answers the nth request it begins to see with the nth reaction; the last one repeats.

    ``on_connect`` runs before anything is read, ``close_idle_after`` limits how long a connection
    may wait for its second request and those that follow. With ``ssl`` the same happens inside
    TLS; when it is None, the way on which the test runs decides. Connections whose numbers are in
    ``drop`` are reset at their first byte, before any TLS.

    Attributes:
        ledger: every request that arrived whole, in order.
        connections: how many were accepted, failed TLS handshakes included.
        begun: how many requests sent at least their first byte.
        sent: how many bytes the system took.
    """

    def __init__(
        self,
        *script: Reaction,
        ssl: ssl.SSLContext | Literal[False] | None = None,
        on_connect: Sequence[Step] | Callable[[int], Sequence[Step]] = (),
        close_idle_after: float | None = None,
        drop: Container[int] = (),
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.ledger: list[Received] = []
        self.connections = self.begun = self.sent = 0
        self._script, self._on_connect = script, on_connect
        self._ssl = server_context() if ssl is None else ssl or None
        self._close_idle_after, self._drop = close_idle_after, drop
        self._host, self._port = host, port
        self._broken: list[BaseException] = []
        self._live: dict[asyncio.Task[None], _Connection] = {}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._listener = socket.create_server((self._host, self._port), backlog=1024)
        self._listener.setblocking(False)
        self._port = self._listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        for task in self._live:
            task.cancel()
        await asyncio.gather(*self._live, return_exceptions=True)
        if self._broken:
            raise self._broken[0]

    @property
    def port(self) -> int:
        return self._port

    @property
    def scheme(self) -> str:
        return "https" if self._ssl else "http"

    @property
    def base_url(self) -> str:
        return self.url(self.scheme)

    @property
    def open_connections(self) -> int:
        return len(self._live)

    @property
    def idle_connections(self) -> int:
        """How many are open with nothing left to do but wait for a request."""
        return sum(each.idle for each in self._live.values())

    @property
    def committed(self) -> list[Received]:
        return [request for request in self.ledger if request.committed]

    def received(self, verb: str) -> list[Received]:
        return [request for request in self.ledger if request.verb == verb]

    def url(self, scheme: str, host: str | None = None) -> str:
        return f"{scheme}://{host or self._host}:{self._port}"

    def push(self, data: bytes, connection: int | None = None) -> None:
        """Write bytes that nobody asked for to one connection, or to all that are open."""
        for each in self._live.values():
            if connection in (None, each.number):
                each.socket.send(each.encrypted(data))

    def close_idle(self, most: int | None = None) -> int:
        """Shut idle connections at once, before the loop can tell anyone; gives how many."""
        idle = [each for each in self._live.values() if each.idle][:most]
        for each in idle:
            with contextlib.suppress(OSError):
                each.socket.shutdown(socket.SHUT_RDWR)
        return len(idle)

    def half_close_idle(self) -> None:
        """Tell the peers of idle connections that nothing more will be sent."""
        for each in self._live.values():
            if each.idle:
                each.half_close()

    async def until(self, condition: Callable[[Self], bool], seconds: float = 5.0) -> None:
        """Wait until the condition holds, or fail with TimeoutError."""
        async with asyncio.timeout(seconds):
            while not condition(self):
                await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted, _ = self._listener.accept()
                accepted.setblocking(False)
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.connections += 1
                connection = _Connection(self.connections, accepted)
                task = asyncio.create_task(self._serve(connection))
                self._live[task] = connection
                task.add_done_callback(self._ended)

    async def _serve(self, connection: _Connection) -> None:
        # How a connection ends is the script's business or the client's, never an error here.
        # It is closed in the same turn that decides so: what comes after finds it closed.
        with connection.socket, contextlib.suppress(_Gone, OSError):
            if connection.number in self._drop:
                await asyncio.get_running_loop().sock_recv(connection.socket, 1)
                connection.reset()
            if self._ssl:
                await connection.secure(self._ssl)
            steps = self._on_connect
            await self._run(steps(connection.number) if callable(steps) else steps, connection)
            while True:
                await self._exchange(connection)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # Here too, for a task that was cancelled before it began.
        self._live.pop(task).socket.close()
        if not task.cancelled() and (broken := task.exception()):
            self._broken.append(broken)
        self._notify()

    async def _exchange(self, connection: _Connection) -> None:
        try:
            connection.idle = True
            self._notify()
            async with asyncio.timeout(self._close_idle_after if connection.requests else None):
                while not connection.buffer:
                    await connection.fill()
        except TimeoutError:
            # What has arrived meanwhile is served: patience ends only with nothing to read.
            if not connection.readable():
                raise _Gone from None
            await connection.fill()
        finally:
            connection.idle = False
        reaction = self._script[min(self.begun, len(self._script) - 1)]
        self.begun += 1
        self._notify()
        if isinstance(reaction, Early):
            while len(connection.buffer) < reaction.after:
                await connection.fill()
            await self._run(reaction.steps, connection)
        request = await self._receive(connection)
        self.ledger.append(request)
        self._notify()
        if not isinstance(reaction, Early):
            steps = reaction(request) if callable(reaction) else reaction
            await self._run(steps, connection, request)

    async def _receive(self, connection: _Connection) -> Received:
        buffer = connection.buffer
        while b"\r\n\r\n" not in buffer:
            await connection.fill()
        head, _, _ = bytes(buffer).partition(b"\r\n\r\n")
        method, target, *_ = (lines := head.decode("latin-1").split("\r\n"))[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in
                   (line.partition(":") for line in lines[1:])}  # fmt: skip
        size = len(head) + 4 + int(headers.get("content-length", 0))
        while len(buffer) < size:
            await connection.fill()
        body = bytes(buffer[len(head) + 4 : size])
        del buffer[:size]
        connection.requests += 1
        place = len(self.ledger) + 1, connection.number, connection.requests
        return Received(*place, method, target, headers, json.loads(body) if body else None)

    async def _run(
        self, steps: Iterable[Step], connection: _Connection, request: Received | None = None
    ) -> None:
        for step in steps:
            match step:
                case Send():
                    await self._send(step, connection)
                case Delay(seconds):
                    await connection.linger(seconds)
                case Wait(event):
                    await event.wait()
                case Stall():
                    await connection.linger(None)
                case Reset():
                    connection.reset()
                case Fin():
                    await connection.finish()
                case HalfClose():
                    connection.socket.shutdown(socket.SHUT_WR)
                case Commit():
                    assert request is not None, "only a whole request can be committed"
                    request.committed = True
                    self._notify()
                case _:
                    raise AssertionError(step)

    async def _send(self, step: Send, connection: _Connection) -> None:
        size = step.chunk or len(step.data) or 1
        pieces = [step.data[start : start + size] for start in range(0, len(step.data), size)]
        rounds = 0
        while step.repeat is None or rounds < step.repeat:
            rounds += 1
            for piece in pieces:
                await connection.send(piece)
                self.sent += len(piece)
                # Two turns of the loop: one to send this segment, and one for a client on the same
                # loop to read it before the next one joins it.
                await asyncio.sleep(0)
                await asyncio.sleep(step.pause)
