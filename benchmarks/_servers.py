"""Servers for the benchmarks, each in a process of its own, on a loopback port.

Measures nothing. ``canned`` answers every request with a fixed reply, by nginx when it is
installed, else by a bare asyncio protocol; ``python _servers.py`` is that protocol.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

PATH = "/api/v2/Group/getGroupAgentRelation"
SAMPLE = Path(__file__).parent.parent / "tests" / "data" / "agent_relation.json"

_NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    fastcgi_temp_path {folder}/fastcgi;
    proxy_temp_path {folder}/proxy;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    default_type application/json;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    open_file_cache max=10;
    server {{
        listen 127.0.0.1:{port} {ssl};
        root {folder};
        # A file answers only a GET; the file is what a POST gets here, too.
        error_page 405 =200 $uri;
    }}
}}
"""


def small_reply() -> bytes:
    """The vendor's sample: 11 agents, 1,084 bytes."""
    return SAMPLE.read_bytes()


def large_reply(agents: int = 1000) -> bytes:
    """The vendor's sample with a longer roster; about 68 KB for 1,000 agents."""
    reply = json.loads(small_reply())
    reply["response"]["agentData"] = [
        {"name": f"Agent number {n:04}", "unique_id": n, "user_id": "29791451"}
        for n in range(1, agents + 1)
    ]
    return json.dumps(reply, separators=(",", ":")).encode()


def http_reply(body: bytes, status: int = 200, extra: str = "") -> bytes:
    """A whole HTTP reply; ``extra`` is further header lines, each with its line end."""
    head = f"HTTP/1.1 {status} Reason\r\nContent-Type: application/json\r\n{extra}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def chunked_reply(body: bytes, extra: str = "") -> bytes:
    """A whole HTTP reply in one chunk, as nginx sends what it compresses."""
    head = f"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/json\r\n{extra}"
    head += "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
    return head.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def zipped_reply(body: bytes) -> bytes:
    """A whole HTTP reply, compressed and in a chunk."""
    return chunked_reply(gzip.compress(body, 1), "Content-Encoding: gzip\r\n")


def changing_replies(count: int = 64) -> list[bytes]:
    """Large replies of which each has another roster, more than any client remembers."""
    found = []
    for number in range(count):
        reply = json.loads(large_reply())
        for agent in reply["response"]["agentData"]:
            agent["name"] += f" of {number}"
        found.append(http_reply(json.dumps(reply, separators=(",", ":")).encode()))
    return found


class Certificate(NamedTuple):
    """A throw-away authority's files: what clients trust, and the server's key and chain."""

    authority: Path
    chain: Path

    def context(self) -> ssl.SSLContext:
        """The server's side."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain)
        return context


def make_certificate(folder: Path) -> Certificate:
    """Make an authority and a certificate for the loopback address."""
    import trustme

    authority = trustme.CA()
    found = Certificate(folder / "authority.pem", folder / "server.pem")
    authority.cert_pem.write_to_path(str(found.authority))
    server = authority.issue_cert("127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(str(found.chain))
    return found


class Server(NamedTuple):
    """A running server: what it printed first, and its process."""

    first_line: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        """Where it listens, when that is what it printed."""
        return int(self.first_line)

    def stop(self) -> str:
        """End it and give what it printed last."""
        return self.process.communicate(timeout=30)[0]


@contextmanager
def own_process(script: str | Path, *arguments: str) -> Iterator[Server]:
    """Run a script that ends in `serve_forever` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Server(process.stdout.readline(), process)
    finally:
        if process.poll() is None:
            Server("", process).stop()


async def serve(
    factory: Callable[[], asyncio.Protocol], certificate: Certificate | None = None
) -> None:
    """Listen on a free port, print it, and serve until standard input ends."""
    loop = asyncio.get_running_loop()
    tls = certificate.context() if certificate else None
    server = await loop.create_server(factory, "127.0.0.1", 0, backlog=1024, ssl=tls)
    await serve_forever(str(server.sockets[0].getsockname()[1]))
    server.close()


async def serve_forever(first_line: str) -> None:
    """Print a line for whoever started this process, and wait for standard input to end."""
    print(first_line, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


class Requests(asyncio.Protocol):
    """One connection's requests, split apart; `answer` is given each one's path and body."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to write."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Take the whole requests out of what has arrived."""
        data = self._rest + data
        while (end := data.find(b"\r\n\r\n") + 4) > 3:
            head = data[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            length = int(head[at + 17 : head.find(b"\r\n", at + 17)]) if at >= 0 else 0
            if len(data) < end + length:
                break
            self.answer(data[: data.find(b" HTTP/")], data[end : end + length])
            data = data[end + length :]
        self._rest = data

    def answer(self, request: bytes, body: bytes) -> None:
        """Answer one request, of which method and path are given, and the body."""
        raise NotImplementedError


class Canned(Requests):
    """Answers with fixed replies by the first part of the path, after a delay if asked."""

    def __init__(self, replies: Mapping[bytes, Iterator[bytes]], delay: float = 0.0) -> None:
        super().__init__()
        self._replies = replies
        self._delay = delay

    def answer(self, request: bytes, body: bytes) -> None:
        """Answer."""
        reply = next(self._replies[request.split(b"/", 2)[1]])
        if self._delay:
            loop = asyncio.get_running_loop()
            loop.call_later(self._delay, self.transport.write, reply)
        else:
            self.transport.write(reply)


@contextmanager
def canned(certificate: Certificate | None = None, *, nginx: bool = True) -> Iterator[str]:
    """Serve the replies; give the address below which they stand.

    nginx serves only the small and the large one.
    """
    scheme = "https" if certificate else "http"
    if nginx and has_nginx():
        with tempfile.TemporaryDirectory() as folder:
            port = _free_port()
            with _nginx(Path(folder), port, certificate):
                yield f"{scheme}://127.0.0.1:{port}"
        return
    arguments = map(str, certificate) if certificate else ()
    with own_process(__file__, "0", *arguments) as server:
        yield f"{scheme}://127.0.0.1:{server.port}"


@contextmanager
def delayed(seconds: float) -> Iterator[str]:
    """Serve the replies after a delay; always by the bare protocol."""
    with own_process(__file__, str(seconds)) as server:
        yield f"http://127.0.0.1:{server.port}"


def has_nginx() -> bool:
    """Whether nginx is installed."""
    return shutil.which("nginx") is not None


def version_of_nginx() -> str:
    """Such as nginx/1.22.1."""
    words = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    return words.split()[-1]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _nginx(folder: Path, port: int, certificate: Certificate | None) -> Iterator[None]:
    for name, body in (("small", small_reply()), ("large", large_reply())):
        file = folder / (name + PATH)
        file.parent.mkdir(parents=True)
        file.write_bytes(body)
    tls = "ssl"
    if certificate:
        chain = certificate.chain
        tls += f"; ssl_certificate {chain}; ssl_certificate_key {chain}"
    settings = _NGINX.format(folder=folder, port=port, ssl=tls if certificate else "")
    (folder / "conf").write_text(settings)
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "conf")])
    try:
        _wait_for(port)
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the server did not start")


def _main(delay: str, *certificate: str) -> None:
    small, large = small_reply(), large_reply()
    replies = {
        b"small": cycle([http_reply(small)]),
        b"large": cycle([http_reply(large)]),
        b"chunked": cycle([chunked_reply(small)]),
        b"gzip": cycle([zipped_reply(small)]),
        b"gzip-large": cycle([zipped_reply(large)]),
        b"changing": cycle(changing_replies()),
    }
    found = Certificate(*map(Path, certificate)) if certificate else None
    asyncio.run(serve(lambda: Canned(replies, float(delay)), found))


if __name__ == "__main__":
    _main(*sys.argv[1:])
