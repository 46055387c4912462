"""The network a company has: private authorities, client certificates, proxies with passwords, headers of its own."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from deepcall_async import ConnectFailed, DeepCall, UnexpectedReply, UserToken
from tests.support.clients import both_paths, client, quick
from tests.support.endpoints import ADD, DELETE, LIST, RELATION, Endpoint, each_endpoint, over
from tests.support.faultserver import Delay, Early, FaultServer, Fin, Received, Send, Step
from tests.support.hazards import Certificates, black_hole, refused_port
from tests.support.proxy import Proxy
from tests.support.replies import reply, serve
from tests.support.ways import server_context

pytestmark = pytest.mark.anyio

one_of_each_kind = over(RELATION, DELETE, ADD)

# Client certificates -----------------------------------------------------------------------------

VERSIONS = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}
each_version = pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS.keys())


def wanting(version: ssl.TLSVersion) -> ssl.SSLContext:
    """A server that wants a certificate of the tests' authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates = Certificates()
    certificates.authority.issue_cert("127.0.0.1").configure_cert(context)
    certificates.authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    return context


def showing(authority: trustme.CA) -> ssl.SSLContext:
    """A client that shows a certificate of this authority."""
    context = Certificates().client()
    authority.issue_cert("client.example").configure_cert(context)
    return context


@one_of_each_kind
@each_version
@both_paths
async def test_a_client_certificate_is_wanted(
    endpoint: Endpoint, version: ssl.TLSVersion, path: str
) -> None:
    async with FaultServer(serve, ssl=wanting(version)) as server:
        for attempt in range(1, 9):
            async with client(server.base_url, path, tls=Certificates().client()) as dc:
                failed = await endpoint.fails(dc, ConnectFailed, attempts=1)
                assert failed.fatal
                assert not failed.untrusted
                assert "client certificate" in str(failed)
                assert "ssl=" in str(failed)
            assert server.connections == attempt
        assert server.begun == 0


@one_of_each_kind
@each_version
async def test_a_client_certificate_is_shown(endpoint: Endpoint, version: ssl.TLSVersion) -> None:
    tls = showing(Certificates().authority)
    async with FaultServer(serve, ssl=wanting(version)) as server:
        async with client(server.base_url, tls=tls) as dc:
            for number in range(1, 6):
                await endpoint(dc, number)
        assert server.connections == 1


@one_of_each_kind
@each_version
async def test_a_client_certificate_of_another_authority(
    endpoint: Endpoint, version: ssl.TLSVersion
) -> None:
    tls = showing(trustme.CA())
    async with FaultServer(serve, ssl=wanting(version)) as server:
        async with client(server.base_url, tls=tls) as dc:
            failed = await endpoint.fails(dc, ConnectFailed, attempts=1)
            assert failed.fatal
            assert "the client certificate" in str(failed)
        assert (server.connections, server.begun) == (1, 0)


@over(LIST, ADD)
async def test_a_client_certificate_is_wanted_by_what_nginx_says(endpoint: Endpoint) -> None:
    """It ends the handshake well and refuses the request."""
    page = b"<html><center>No required SSL certificate was sent</center></html>"
    async with FaultServer([Send(reply(page, 400, [("Content-Type", "text/html")]))]) as server:
        async with client(server.base_url) as dc:
            refused = await endpoint.fails(dc, UnexpectedReply)
            assert "client certificate" in str(refused)


# Server certificates -----------------------------------------------------------------------------

REASONS = {
    "expired": "expired",
    "wrong_host": "another host name",
    "untrusted": "issuer is not known",
}


@one_of_each_kind
@pytest.mark.parametrize("kind", REASONS)
@both_paths
async def test_what_is_wrong_with_a_certificate_is_told(
    endpoint: Endpoint, kind: str, path: str
) -> None:
    certificates = Certificates()
    async with FaultServer(serve, ssl=getattr(certificates, kind)) as server:
        async with client(server.base_url, path, tls=certificates.client()) as dc:
            failed = await endpoint.fails(dc, ConnectFailed, attempts=1)
        assert failed.untrusted
        assert failed.fatal
        assert [word for word in REASONS.values() if word in str(failed)] == [REASONS[kind]]
        assert f"127.0.0.1:{server.port}" in str(failed)
        assert (server.connections, server.begun) == (1, 0)


async def test_an_unknown_authority_is_mended_by_loading_it() -> None:
    certificates = Certificates()
    async with FaultServer(serve, ssl=certificates.good) as server:
        async with client(server.base_url, tls=ssl.create_default_context()) as dc:
            failed = await ADD.fails(dc, ConnectFailed)
            assert "(ssl=, or --ca FILE)" in str(failed)
        async with client(server.base_url, tls=certificates.client()) as dc:
            await ADD(dc)


@one_of_each_kind
@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", b"\0" * 9])
@both_paths
async def test_tls_to_a_port_without_tls(endpoint: Endpoint, says: bytes, path: str) -> None:
    steps: list[Step] = [Send(says), Delay(0.02), Fin()]
    async with FaultServer(Early(50, steps), ssl=False) as server:
        async with client(server.url("https"), path, tls=Certificates().client()) as dc:
            failed = await endpoint.fails(dc, ConnectFailed, attempts=1)
        assert failed.fatal
        assert "does not speak TLS" in str(failed)
        assert server.connections == 1


async def test_no_tls_version_in_common() -> None:
    tls = Certificates().client()
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    async with FaultServer(serve, ssl=wanting(ssl.TLSVersion.TLSv1_2)) as server:
        async with client(server.base_url, tls=tls) as dc:
            failed = await ADD.fails(dc, ConnectFailed)
            assert failed.fatal
            assert "no TLS version in common" in str(failed)


_LATE = """
import asyncio, os, sys
from deepcall_async import DeepCall, UserToken
os.environ["SSL_CERT_FILE"] = sys.argv[2]

async def main():
    async with DeepCall(UserToken("7", "t"), base_url=sys.argv[1]) as dc:
        print("group", (await dc.groups.add("Sales 28")).group_id)

asyncio.run(main())
"""


async def test_an_authority_that_the_environment_names_after_the_import(tmp_path: Path) -> None:
    authority = tmp_path / "authority.pem"
    Certificates().authority.cert_pem.write_to_path(str(authority))
    async with FaultServer(serve, ssl=Certificates().good) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", _LATE),
            *(server.base_url, str(authority)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"},
            cwd=Path(__file__).parents[2],
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert output.decode() == "group 28\n"


# Proxies -----------------------------------------------------------------------------------------

CORE = "Zk4XbQ81wLm"
LOGIN = f"böb:p@ss:{CORE}"
ENCODED = f"b%C3%B6b:p%40ss%3A{CORE}"
LOGINS = pytest.mark.parametrize(
    ("wanted", "given"),
    [(None, None), (LOGIN, ENCODED), (None, ENCODED)],
    ids=["none", "login", "unasked"],
)


@each_endpoint
@both_paths
@LOGINS
async def test_calls_through_a_proxy(
    endpoint: Endpoint, path: str, wanted: str | None, given: str | None
) -> None:
    async with FaultServer(serve) as server, Proxy(wanted) as proxy:
        async with client(server.base_url, path, proxy=proxy.url(given)) as dc:
            for number in range(1, 6):
                await endpoint(dc, number)
            assert CORE not in repr(dc) + repr(dc._session.pool.options)
        assert (len(server.ledger), server.connections, proxy.connections) == (5, 1, 1)
        assert all("proxy-authorization" not in each.headers for each in server.ledger)
        first = proxy.asked[0]
        assert ("proxy-authorization" in first.fields) == (given is not None)
        if server_context() is None:
            assert len(proxy.asked) == 5
            assert first.target == f"{server.base_url}/api/v2/Group/{endpoint.verb}"
        else:
            (asked,) = proxy.asked
            assert (asked.method, asked.target) == ("CONNECT", f"127.0.0.1:{server.port}")
            assert "token" not in str(asked.fields)


@both_paths
async def test_each_of_many_tunnels_is_authenticated(path: str) -> None:
    def slow(request: Received) -> Sequence[Step]:
        return [Delay(0.02), *serve(request)]

    async with FaultServer(slow) as server, Proxy(LOGIN) as proxy:
        async with client(server.base_url, path, proxy=proxy.url(ENCODED)) as dc:
            await asyncio.gather(*(RELATION(dc, number) for number in range(1, 11)))
            await asyncio.gather(*(RELATION(dc, number) for number in range(1, 11)))
        assert proxy.connections == server.connections == 10
        assert all("proxy-authorization" in each.fields for each in proxy.asked)


def refusing(status: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()


def https(server: FaultServer) -> str:
    return server.url("https")


def told(failure: BaseException) -> str:
    """All that a program may show of an error, without the test's own frames."""
    texts = []
    links: list[BaseException | None] = [failure]
    seen: list[BaseException] = []
    while links:
        each = links.pop()
        if each is None or each in seen:
            continue
        seen.append(each)
        links += [each.__cause__, each.__context__]
        texts += [repr(each), str(each), repr(vars(each)), repr(each.args)]
        frames = traceback.StackSummary.extract(
            traceback.walk_tb(each.__traceback__), capture_locals=True
        )
        texts += [str(frame.locals) for frame in frames if "/tests/" not in frame.filename]
    return "\n".join(texts)


@one_of_each_kind
@both_paths
async def test_a_proxy_wants_a_login(endpoint: Endpoint, path: str) -> None:
    async with FaultServer(serve, ssl=Certificates().good) as server, Proxy(LOGIN) as proxy:
        for given in (None, f"b:{CORE}"):
            asked = len(proxy.asked)
            async with client(
                https(server), path, tls=Certificates().client(), proxy=proxy.url(given)
            ) as dc:
                failed = await endpoint.fails(dc, ConnectFailed, attempts=1)
            assert failed.fatal
            assert "407" in str(failed)
            assert f"proxy 127.0.0.1:{proxy.port}" in str(failed)
            assert CORE not in told(failed)
            assert len(proxy.asked) == asked + 1
        assert server.connections == 0


@over(LIST, ADD)
async def test_a_proxy_that_forwards_wants_a_login(endpoint: Endpoint) -> None:
    async with FaultServer(serve, ssl=False) as server, Proxy(LOGIN) as proxy:
        async with client(server.base_url, proxy=proxy.url(f"b:{CORE}")) as dc:
            failed = await endpoint.fails(dc, UnexpectedReply, attempts=1)
        assert failed.http_status == 407
        assert CORE not in told(failed)
        assert server.connections == 0


@pytest.mark.parametrize(
    ("says", "attempts", "why"),
    [
        (refusing("403 Forbidden"), 1, "the proxy answered HTTP 403"),
        (refusing("404 Not Found"), 1, "the proxy answered HTTP 404"),
        (refusing("502 Bad Gateway"), 3, "the proxy answered HTTP 502"),
        (refusing("503 Away"), 3, "the proxy answered HTTP 503"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 1, "the proxy did not answer in HTTP"),
        (b"HTTP/1.1 twohundred OK\r\n\r\n", 1, "the proxy did not answer in HTTP"),
        (b"", 3, ""),
    ],
)
@one_of_each_kind
@both_paths
async def test_a_proxy_that_makes_no_tunnel(
    endpoint: Endpoint, path: str, says: bytes, attempts: int, why: str
) -> None:
    """Where the target may come back, another attempt may follow: nothing was sent."""
    async with FaultServer(serve, ssl=Certificates().good) as server, Proxy(refusal=says) as proxy:
        async with client(
            https(server), path, tls=Certificates().client(), proxy=proxy.url(ENCODED)
        ) as dc:
            failed = await endpoint.fails(dc, ConnectFailed, attempts=attempts)
        assert why in str(failed)
        assert failed.fatal == (attempts == 1)
        assert CORE not in told(failed)
        assert server.connections == 0


@both_paths
@one_of_each_kind
async def test_a_proxy_that_is_not_there(endpoint: Endpoint, path: str) -> None:
    with refused_port() as port:
        url = f"http://{ENCODED}@127.0.0.1:{port}"
        async with client("https://127.0.0.1:1", path, proxy=url) as dc:
            failed = await endpoint.fails(dc, ConnectFailed, attempts=3)
    assert "the proxy cannot be reached (connection refused)" in str(failed)
    assert f"through the proxy 127.0.0.1:{port}" in str(failed)
    assert CORE not in told(failed)


async def test_a_proxy_that_never_answers() -> None:
    with black_hole() as port:
        url = f"http://{ENCODED}@127.0.0.1:{port}"
        async with client("https://127.0.0.1:1", proxy=url, timeout=0.2, retry=quick(1)) as dc:
            failed = await ADD.fails(dc, ConnectFailed)
    assert "timed out" in str(failed)
    assert CORE not in told(failed)


@both_paths
@one_of_each_kind
async def test_tls_to_a_proxy_that_speaks_none(endpoint: Endpoint, path: str) -> None:
    async with FaultServer(serve, ssl=Certificates().good) as server:
        steps: list[Step] = [Send(b"HTTP/1.1 400 Bad\r\n\r\n"), Delay(0.02), Fin()]
        async with FaultServer(Early(20, steps), ssl=False) as plain:
            url = f"https://{ENCODED}@127.0.0.1:{plain.port}"
            async with client(https(server), path, tls=Certificates().client(), proxy=url) as dc:
                failed = await endpoint.fails(dc, ConnectFailed, attempts=1)
        assert failed.fatal
        assert "does not speak TLS" in str(failed)
        assert CORE not in told(failed)


@one_of_each_kind
@pytest.mark.parametrize("kind", REASONS)
async def test_a_certificate_behind_a_proxy(endpoint: Endpoint, kind: str) -> None:
    certificates = Certificates()
    async with FaultServer(serve, ssl=getattr(certificates, kind)) as server, Proxy() as proxy:
        async with client(
            server.base_url, tls=certificates.client(), proxy=proxy.url(ENCODED)
        ) as dc:
            failed = await endpoint.fails(dc, ConnectFailed, attempts=1)
        assert REASONS[kind] in str(failed)
        assert CORE not in told(failed)
        assert server.begun == 0


@pytest.mark.parametrize(
    "url",
    [
        f"http://b:{CORE}@",
        f"//b:{CORE}@proxy.invalid:3128",
        f"socks5://b:{CORE}@proxy.invalid:1080",
        f"ftp://b:{CORE}@proxy.invalid",
        f"http://b:{CORE}@proxy.invalid:port",
        f"http://b:{CORE}@proxy.invalid:99999",
        f"http://b:{CORE}@pro xy.invalid",
        f"http://b:{CORE}@proxy.invalid/path",
        f"http://b:{CORE}@[::1",
        f"http://b:{CORE}\r\n@proxy.invalid",
        f"http://b:{CORE}@{'a' * 70}.invalid",
        "",
    ],
)
def test_a_malformed_proxy_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="proxy") as caught:
        DeepCall(UserToken("7", "t"), base_url="https://x.invalid", proxy=url)
    assert CORE not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("bad", [3128, b"http://proxy.invalid", ("proxy", 1)])
def test_a_proxy_of_another_type_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="proxy must be a str"):
        DeepCall(UserToken("7", "t"), base_url="https://x.invalid", proxy=bad)


# What the environment says -----------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without proxies, with a password for the tests' address in .netrc."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login netrc-user password netrc-password\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    return monkeypatch


@pytest.mark.parametrize("lower", [True, False])
async def test_the_environments_proxy_is_used_and_its_passwords_are_not(
    environment: pytest.MonkeyPatch, lower: bool
) -> None:
    async with FaultServer(serve) as server, Proxy(LOGIN) as proxy:
        name = "HTTP_PROXY" if server_context() is None else "HTTPS_PROXY"
        environment.setenv(name.lower() if lower else name, proxy.url(ENCODED))
        async with client(server.base_url, trust_env=True) as dc:
            await RELATION(dc, 1)
            await ADD(dc, 2)
        assert (proxy.connections, len(server.ledger)) == (1, 2)
        fields = [each.headers for each in server.ledger] + [each.fields for each in proxy.asked]
        assert all("authorization" not in each for each in fields)


async def test_no_password_of_netrc_is_sent_without_a_proxy_either(
    environment: pytest.MonkeyPatch,
) -> None:
    async with FaultServer(serve) as server:
        async with client(server.base_url, trust_env=True) as dc:
            await RELATION(dc, 1)
        assert "authorization" not in server.ledger[0].headers


async def test_the_environments_exceptions_hold(environment: pytest.MonkeyPatch) -> None:
    with refused_port() as port:
        for name in ("http_proxy", "https_proxy"):
            environment.setenv(name, f"http://127.0.0.1:{port}")
        environment.setenv("no_proxy", "127.0.0.1")
        async with FaultServer(serve) as server:
            async with client(server.base_url, trust_env=True) as dc:
                await RELATION(dc, 1)


async def test_a_proxy_that_was_given_wins_over_the_environments(
    environment: pytest.MonkeyPatch,
) -> None:
    with refused_port() as port:
        for name in ("http_proxy", "https_proxy"):
            environment.setenv(name, f"http://127.0.0.1:{port}")
        async with FaultServer(serve) as server, Proxy() as proxy:
            async with client(server.base_url, trust_env=True, proxy=proxy.url()) as dc:
                await RELATION(dc, 1)
            assert proxy.connections == 1


# Headers -----------------------------------------------------------------------------------------


@each_endpoint
@both_paths
async def test_headers_of_ones_own_are_sent(endpoint: Endpoint, path: str) -> None:
    mine = {"X-Tenant": "north", "x-empty": "", "Authorization": f"Bearer {CORE}"}
    async with FaultServer(serve) as server, client(server.base_url, path, headers=mine) as dc:
        await endpoint(dc)
        (request,) = server.ledger
        sent = {name: request.headers[name.lower()] for name in mine}
        assert sent == mine
        assert request.headers["content-type"] == "application/json"
        assert CORE not in repr(dc) + repr(dc._session.pool.options)


async def test_headers_are_sent_with_repeats_and_by_siblings() -> None:
    failing = [Send(reply(b"", 503))]
    async with FaultServer(failing, serve) as server:
        async with client(server.base_url, headers={"X-Tenant": "north"}) as dc:
            await RELATION(dc, 1)
            await RELATION(dc.with_options(timeout=9), 2)
        assert [each.headers["x-tenant"] for each in server.ledger] == ["north"] * 3


@pytest.mark.parametrize(
    "name", ["Host", "content-LENGTH", "Content-Type", "Transfer-Encoding", "Connection",
             "Accept-Encoding", "User-Agent", "Expect", "Proxy-Authorization", "Upgrade"],
)  # fmt: skip
def test_the_packages_own_headers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"headers: {name} is set by this package"):
        DeepCall(UserToken("7", "t"), base_url="https://x.invalid", headers={name: CORE})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X", f"{CORE}\r\nEvil: 1"),
        ("X", f"{CORE}\n"),
        ("X", f"{CORE}\0"),
        ("X", f" {CORE}"),
        ("X", f"{CORE}é"),
        ("X\r\nEvil", CORE),
        ("X Y", CORE),
        ("X:", CORE),
        ("", CORE),
        ("é", CORE),
    ],
)
def test_headers_that_would_break_a_request_are_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="headers: ") as caught:
        DeepCall(UserToken("7", "t"), base_url="https://x.invalid", headers={name: value})
    assert CORE not in str(caught.value)
    assert not re.search(r"[\r\n]", str(caught.value))


@pytest.mark.parametrize("bad", [{"X": 1}, {1: "x"}, [("X", "y")], "X: y", {"X": b"y"}])
def test_headers_of_another_type_are_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="headers must be a mapping"):
        DeepCall(UserToken("7", "t"), base_url="https://x.invalid", headers=bad)
