"""Starting and stopping the sandbox: ports, TLS, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from deepcall_async.sandbox import Sandbox
from tests.support.caller import Caller


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_connection_that_its_client_holds_open_does_not_outlive_the_sandbox(loop: str) -> None:
    for tls in (True, False):
        with asyncio.Runner(loop_factory=pytest.importorskip(loop).new_event_loop) as runner:
            server = runner.run(Sandbox(groups=0, tls=tls).__aenter__())
            host, port = server.base_url.rpartition("/")[2].split(":")

            async def connect(server=server, host=host, port=port, tls=tls) -> socket.socket:
                plain = await asyncio.to_thread(socket.create_connection, (host, int(port)))
                if not tls:
                    return plain
                context = server.ssl_context()
                return await asyncio.to_thread(context.wrap_socket, plain, server_hostname=host)

            with runner.run(connect()):
                runner.run(server.__aexit__(None, None, None))
                runner.close()
                # An unclosed connection would warn here, and warnings are errors.
                del server
                gc.collect()


@pytest.mark.anyio
async def test_it_serves_https_to_those_who_trust_its_authority(
    http: aiohttp.ClientSession,
) -> None:
    async with Sandbox(groups=1, tls=True) as server:
        assert server.base_url.startswith("https://127.0.0.1:")
        connector = aiohttp.TCPConnector(ssl=server.ssl_context())
        async with aiohttp.ClientSession(connector=connector) as trusting:
            assert len((await Caller(trusting, server)("list"))["response"]) == 1
            url = server.base_url.replace("127.0.0.1", "localhost")
            async with trusting.get(f"{url}/_sandbox/calls") as reply:
                assert reply.status == 200
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await Caller(http, server)("list")
        async with Sandbox(groups=1, tls=True) as other:
            assert other.ca_pem != server.ca_pem
            connector = aiohttp.TCPConnector(ssl=other.ssl_context())
            async with aiohttp.ClientSession(connector=connector) as wrong:
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await Caller(wrong, server)("list")
        assert [call.http_status for call in server.calls] == [200]


def test_the_authority_is_text_that_any_program_can_load() -> None:
    server = Sandbox(groups=0, tls=True)
    context = ssl.create_default_context(cadata=server.ca_pem)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert server.ca_pem.startswith("-----BEGIN CERTIFICATE-----\n")


def test_without_tls_there_is_no_authority() -> None:
    server = Sandbox(groups=0)
    for ask in (lambda: server.ca_pem, server.ssl_context):
        with pytest.raises(RuntimeError, match="tls=True"):
            ask()


def test_tls_without_its_extra_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['trustme'] = None\n"
        "from deepcall_async.sandbox import Sandbox\n"
        "Sandbox(groups=0)\n"
        "Sandbox(groups=0, tls=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr.rstrip().endswith(
        "ModuleNotFoundError: tls=True needs an extra: pip install 'deepcall-async[sandbox-tls]'"
    )


@pytest.mark.anyio
async def test_a_port_in_use_is_named_and_what_to_do() -> None:
    async with Sandbox(groups=0) as server:
        port = int(server.base_url.rpartition(":")[2])
        second = Sandbox(groups=0, port=port)
        with pytest.raises(OSError, match="in use") as caught:
            await second.__aenter__()
        assert caught.value.strerror == (
            f"the sandbox cannot listen on 127.0.0.1:{port}: address already in use;"
            " give another port, or 0 for a free one"
        )
    # The one that failed is whole, and works once the port is free.
    async with second:
        assert second.base_url.endswith(f":{port}")


@pytest.mark.anyio
async def test_one_that_runs_cannot_be_started_again() -> None:
    async with Sandbox(groups=0) as server:
        with pytest.raises(RuntimeError, match="running already"):
            await server.__aenter__()
        assert server.base_url


@pytest.mark.anyio
async def test_what_was_done_stays_when_it_is_started_again(http: aiohttp.ClientSession) -> None:
    sandbox = Sandbox(groups=0)
    for expected in (["Sales"], ["Sales", "Sales1"]):
        async with sandbox as server:
            await Caller(http, server)("add", name="Sales")
            listed = (await Caller(http, server)("list"))["response"]
            assert [group["name"] for group in listed] == expected


@pytest.mark.anyio
async def test_several_at_once_know_nothing_of_each_other(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=1) as one, Sandbox(groups=0, seed=1) as two:
        one.fail_next("list", code=1009)
        assert (await Caller(http, two)("list"))["response"] == []
        assert (await Caller(http, one)("list"))["code"] == 1009
        assert one.token != two.token
        assert [len(each.calls) for each in (one, two)] == [1, 1]


SERVE = """
import asyncio, sys
from deepcall_async.sandbox import Sandbox

async def main():
    async with Sandbox(groups=1, port=int(sys.argv[1])) as server:
        print(server.base_url, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_after_kill_its_port_can_be_taken_at_once(tmp_path: Path) -> None:
    port = "0"
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", SERVE, port], stdout=subprocess.PIPE, text=True, cwd=tmp_path
        ) as process:
            assert process.stdout is not None
            port = process.stdout.readline().strip().rpartition(":")[2]
            # A connection in use keeps the port busy for a while unless the server allows reuse.
            client = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
            client.request("GET", "/_sandbox/")
            assert client.getresponse().read()
            os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
            client.close()
    assert list(tmp_path.iterdir()) == [], "nothing is written to disk"


def test_it_loads_nothing_of_the_client() -> None:
    program = (
        "import sys, deepcall_async.sandbox\n"
        "print(*sorted(n for n in sys.modules if n.startswith('deepcall_async')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    first, sandbox, *others = done.stdout.split()
    assert (first, sandbox) == ("deepcall_async", "deepcall_async.sandbox")
    assert {each for each in others if not each.startswith("deepcall_async.sandbox.")} == {
        "deepcall_async.version"
    }
