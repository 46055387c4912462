"""A small HTTP proxy: tunnels by CONNECT, forwards plain requests, asks for a password, or refuses.

The standard library only, and nothing from the package.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

__all__ = ["Asked", "Proxy"]

WANTS_A_PASSWORD = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    b'Proxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'
)


@dataclass(frozen=True)
class Asked:
    """One request that the proxy read: its first line's parts, and its fields."""

    method: str
    target: str
    fields: dict[str, str]


class Proxy:
    """Listens on a port of its own.

    Args:
        login: ``user:password`` that it wants; None for no authentication.
        refusal: what it answers to everything, whereupon it closes; None to do its work.
        tls: to speak TLS itself.

    Attributes:
        asked: every request that it read, in order; of a tunnel only the CONNECT.
        connections: how many were accepted.
    """

    def __init__(
        self,
        login: str | None = None,
        *,
        refusal: bytes | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self._login, self._refusal, self._tls = login, refusal, tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # The transports that were aborted are gone a few turns of the loop later.
        for _ in range(5):
            await asyncio.sleep(0)

    def url(self, login: str | None = None) -> str:
        """Its address, with a percent-encoded login if one is given."""
        return f"{'https' if self._tls else 'http'}://{login + '@' if login else ''}127.0.0.1:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, EOFError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        forwarding: Forwarding | None = None
        try:
            while True:
                asked = await self._read_head(reader)
                self.asked.append(asked)
                body = await reader.readexactly(int(asked.fields.get("content-length", 0)))
                if self._refusal is not None or not self._may(asked):
                    writer.write(WANTS_A_PASSWORD if self._refusal is None else self._refusal)
                    await self._finish(reader, writer)
                    return
                if asked.method == "CONNECT":
                    host, _, port = asked.target.rpartition(":")
                    async with Forwarding.to(host, int(port)) as tunnel:
                        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                        await tunnel.both_ways(reader, writer)
                    return
                url = urlsplit(asked.target)
                if forwarding is None:
                    forwarding = await Forwarding.to(url.hostname or "", url.port or 80).open()
                    forwarding.answers(writer)
                lines = [f"{asked.method} {url.path} HTTP/1.1"]
                lines += [
                    f"{name}: {value}"
                    for name, value in asked.fields.items()
                    if name != "proxy-authorization"
                ]
                forwarding.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        finally:
            if forwarding is not None:
                await forwarding.close()

    @staticmethod
    async def _finish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say that nothing more comes, and let the peer read it and leave."""
        await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
            await reader.read()

    def _may(self, asked: Asked) -> bool:
        if self._login is None:
            return True
        kind, _, word = asked.fields.get("proxy-authorization", "").partition(" ")
        return kind == "Basic" and base64.b64decode(word).decode() == self._login

    @staticmethod
    async def _read_head(reader: asyncio.StreamReader) -> Asked:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        return Asked(method, target, {name.lower(): value.strip() for name, _, value in pairs})


class Forwarding:
    """A connection to where the proxy passes things on."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def to(cls, host: str, port: int) -> Self:
        return cls(host, port)

    async def open(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def close(self) -> None:
        # First, since this may be cancelled while it waits.
        self.writer.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def answers(self, writer: asyncio.StreamWriter) -> None:
        """Pass back what comes from there."""
        self._tasks.append(asyncio.create_task(_copy(self.reader, writer)))

    async def both_ways(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on and back until either side ends."""
        self.answers(writer)
        self._tasks.append(asyncio.create_task(_copy(reader, self.writer)))
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        # What is still to be sent goes out before the connection ends.
        writer.close()
