"""How each server and proxy is set up, and what a client needs to get through it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import trustme

from deepcall_async import DeepCall, UserToken
from deepcall_async.sandbox import Sandbox
from tests.interop.programs import Program, find, running, unprivileged
from tests.support.hazards import Certificates

__all__ = ["GROUPS", "PEERS", "Peer", "client_certificate", "haproxy", "nginx", "node", "squid"]

GROUPS = 1000
"""Groups in the account behind each peer."""


class Peer:
    """A peer that stands between the client and a sandbox.

    Args:
        program: the running program.
        urls: base URLs; those for "http" and "https" every peer has.
        sandboxes: the sandbox behind each of the two.
        proxy: what the client takes as ``proxy=``, if the peer is one.
    """

    def __init__(
        self,
        program: Program,
        urls: dict[str, str],
        sandboxes: dict[str, Sandbox],
        proxy: str | None = None,
    ) -> None:
        self.program = program
        self.urls = urls
        self.sandboxes = sandboxes
        self.proxy = proxy

    def client(self, scheme: str, **options: Any) -> DeepCall:
        """A client that goes through this peer, over plain TCP or TLS."""
        sandbox = self.sandboxes[scheme]
        if self.urls[scheme].startswith("https:"):
            secure = sandbox.base_url.startswith("https:")
            trusted = sandbox.ssl_context() if secure else Certificates().client()
            options.setdefault("ssl", trusted)
        options = {"base_url": self.urls[scheme], "proxy": self.proxy, **options}
        return DeepCall(UserToken(sandbox.user_id, sandbox.token), **options)


def _pem(folder: Path, *names: str) -> Path:
    """A server's certificate and key, of the tests' authority, in a file."""
    path = folder / "server.pem"
    leaf = Certificates().authority.issue_cert(*(names or ("127.0.0.1", "localhost")))
    leaf.private_key_and_cert_chain_pem.write_to_path(str(path))
    # A worker of another user reads it; the folder is gone with the test.
    path.chmod(0o644)
    return path


def _urls(http: int, https: int) -> dict[str, str]:
    return {"http": f"http://127.0.0.1:{http}", "https": f"https://127.0.0.1:{https}"}


# A connection serves ten requests and is kept for a second, so that the client meets both ends many
# times. The log tells connections apart and says how an answer was packed.
NGINX = """
daemon off;
{user}
worker_processes 2;
worker_shutdown_timeout 5s;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
    log_format counted '$http_x_test $connection $connection_requests'
                       ' $sent_http_content_encoding $ssl_protocol $ssl_client_verify $status';
    access_log {folder}/access.log counted;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    keepalive_timeout 1s;
    keepalive_requests 10;
    client_max_body_size 64k;
    gzip on;
    gzip_proxied any;
    gzip_min_length 200;
    gzip_types application/json;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {pem};
    ssl_certificate_key {pem};
    limit_req_zone $server_port zone=few:1m rate=20r/s;
    upstream sandbox {{
        server {backend};
        keepalive 32;
    }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    server {{
        listen 127.0.0.1:{ports[0]};
        listen 127.0.0.1:{ports[1]} ssl;
        location / {{ proxy_pass http://sandbox; }}
        location /few/ {{
            limit_req zone=few burst=5 nodelay;
            limit_req_status 429;
            proxy_pass http://sandbox/;
        }}
        location /dead/ {{ proxy_pass http://127.0.0.1:{dead}/; }}
    }}
    server {{
        listen 127.0.0.1:{ports[2]} ssl;
        ssl_verify_client on;
        ssl_client_certificate {folder}/clients.pem;
        location / {{ proxy_pass http://sandbox; }}
    }}
}}
"""


@contextmanager
def nginx(sandbox: Sandbox, dead_port: int = 9) -> Iterator[Peer]:
    """nginx: gzip, short keep-alive, a third port that wants a certificate of the client."""
    program = find("nginx")
    # Run as root its workers would be someone who must not write into the folder.
    user = "user root root;" if unprivileged("nginx") else ""

    def command(folder: Path, ports: list[int]) -> list[str | Path]:
        Certificates().authority.cert_pem.write_to_path(str(folder / "clients.pem"))
        config = NGINX.format(
            folder=folder,
            user=user,
            ports=ports,
            pem=_pem(folder),
            backend=sandbox.base_url.removeprefix("http://"),
            dead=dead_port,
        )
        (folder / "nginx.conf").write_text(config)
        return [program, "-p", folder, "-c", folder / "nginx.conf"]

    with running(command, ports=3) as started:
        urls = _urls(*started.ports[:2])
        urls["mtls"] = f"https://127.0.0.1:{started.ports[2]}"
        yield Peer(started, urls, dict.fromkeys(["http", "https", "mtls"], sandbox))


HAPROXY = """
global
    maxconn 500
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout queue 30s
    timeout http-keep-alive 1s
frontend plain
    bind 127.0.0.1:{ports[0]}
    default_backend sandbox
frontend secure
    bind 127.0.0.1:{ports[1]} ssl crt {pem}
    default_backend sandbox
frontend down
    bind 127.0.0.1:{ports[2]}
    default_backend nobody
backend sandbox
    http-reuse always
    server one {backend} maxconn 64
backend nobody
"""


@contextmanager
def haproxy(sandbox: Sandbox) -> Iterator[Peer]:
    """HAProxy: keep-alive of a second, and a third port without a server behind it.

    What is started is its master, which starts new workers when it is told to.
    """
    program = find("haproxy")

    def command(folder: Path, ports: list[int]) -> list[str | Path]:
        config = HAPROXY.format(
            ports=ports, pem=_pem(folder), backend=sandbox.base_url.removeprefix("http://")
        )
        (folder / "haproxy.cfg").write_text(config)
        return [program, "-W", "-db", "-f", folder / "haproxy.cfg"]

    with running(command, ports=3) as started:
        urls = _urls(*started.ports[:2])
        urls["down"] = f"http://127.0.0.1:{started.ports[2]}"
        yield Peer(started, urls, dict.fromkeys(["http", "https", "down"], sandbox))


SQUID = """
http_port 127.0.0.1:{ports[0]}
pid_filename {folder}/squid.pid
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
cache deny all
coredump_dir {folder}
netdb_filename none
pinger_enable off
shutdown_lifetime 0 seconds
{user}
acl secure port {secure}
acl CONNECT method CONNECT
http_access deny CONNECT !secure
{access}
http_access deny all
"""

SQUID_WITH_PASSWORD = """
auth_param basic program {folder}/helper
auth_param basic children 1
auth_param basic realm tests
acl known proxy_auth REQUIRED
http_access allow known
"""

# Squid asks on a line, with spaces and a few other characters percent-encoded.
SQUID_HELPER = """#!/bin/sh
while read -r user password; do
    if [ "$user $password" = "asha p@ss%20word" ]; then echo OK; else echo ERR; fi
done
"""


@contextmanager
def squid(sandbox: Sandbox, secure: Sandbox, *, password: bool = False) -> Iterator[Peer]:
    """Squid, a forward proxy: it passes plain requests on, and CONNECT to the secure sandbox."""
    program = find("squid")
    user = unprivileged("proxy")

    def command(folder: Path, ports: list[int]) -> list[str | Path]:
        helper = folder / "helper"
        helper.write_text(SQUID_HELPER)
        helper.chmod(0o755)
        config = SQUID.format(
            ports=ports,
            folder=folder,
            user=f"cache_effective_user {user}" if user else "",
            secure=secure.base_url.rpartition(":")[2],
            access=SQUID_WITH_PASSWORD.format(folder=folder)
            if password
            else "http_access allow all",
        )
        (folder / "squid.conf").write_text(config)
        return [program, "-N", "-f", folder / "squid.conf"]

    with running(command, ports=1) as started:
        login = "asha:p%40ss%20word@" if password else ""
        yield Peer(
            started,
            {"http": sandbox.base_url, "https": secure.base_url},
            {"http": sandbox, "https": secure},
            proxy=f"http://{login}127.0.0.1:{started.ports[0]}",
        )


NODE = """
const http = require("node:http"), https = require("node:https"), fs = require("node:fs");
const { backend, ports, pem } = JSON.parse(process.argv[2]);
const [host, port] = backend.split(":");
const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
const handle = (request, response) => {
  const { method, url, headers } = request;
  const onward = http.request({ host, port, method, path: url, headers, agent }, (reply) => {
    const { "content-length": _, connection, ...rest } = reply.headers;
    response.writeHead(reply.statusCode, rest);   // no length, so the body goes in chunks
    reply.pipe(response);
  });
  onward.on("error", () => response.destroy());
  request.pipe(onward);
};
const key = fs.readFileSync(pem);
const servers = [http.createServer(handle), https.createServer({ key, cert: key }, handle)];
servers.forEach((server, i) => {
  server.keepAliveTimeout = 1000;
  server.listen(ports[i], "127.0.0.1");
});
"""


@contextmanager
def node(sandbox: Sandbox) -> Iterator[Peer]:
    """Node's own HTTP server: chunked answers, keep-alive of a second, ``Keep-Alive: timeout``."""
    program = find("node")

    def command(folder: Path, ports: list[int]) -> list[str | Path]:
        (folder / "server.cjs").write_text(NODE)
        backend = sandbox.base_url.removeprefix("http://")
        settings = {"backend": backend, "ports": ports, "pem": str(_pem(folder))}
        return [program, folder / "server.cjs", json.dumps(settings)]

    with running(command, ports=2) as started:
        yield Peer(started, _urls(*started.ports), dict.fromkeys(["http", "https"], sandbox))


PEERS: dict[str, Callable[[Sandbox, Sandbox], AbstractContextManager[Peer]]] = {
    "nginx": lambda sandbox, _: nginx(sandbox),
    "haproxy": lambda sandbox, _: haproxy(sandbox),
    "squid": squid,
    "squid-password": lambda sandbox, secure: squid(sandbox, secure, password=True),
    "node": lambda sandbox, _: node(sandbox),
}


def client_certificate(authority: trustme.CA | None = None) -> ssl.SSLContext:
    """What a client uses that trusts the tests' servers and shows a certificate of its own."""
    context = Certificates().client()
    (authority or Certificates().authority).issue_cert("client@example.org").configure_cert(context)
    return context
