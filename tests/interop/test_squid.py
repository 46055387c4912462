"""A forward proxy as companies have one: with and without a password, for http and by CONNECT."""

from __future__ import annotations

import traceback

import aiohttp
import anyio
import pytest

from deepcall_async import ConnectFailed, UnexpectedReply
from tests.interop import peers
from tests.support.hazards import refused_port

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]


@pytest.fixture(scope="module")
def open_squid(sandboxes):
    with peers.squid(*sandboxes) as peer:
        yield peer


@pytest.fixture(scope="module")
def closed_squid(sandboxes):
    with peers.squid(*sandboxes, password=True) as peer:
        yield peer


async def test_the_proxy_is_really_used(open_squid, scheme):
    start = len(open_squid.program.lines("access.log"))
    async with open_squid.client(scheme) as dc:
        await dc.groups.agent_relation(28)
    # A tunnel is logged when it has ended, so soon after the client has.
    asked = " CONNECT 127.0.0.1:" if scheme == "https" else " POST http://127.0.0.1:"
    with anyio.fail_after(30):
        while not any(asked in line for line in open_squid.program.lines("access.log")[start:]):
            await anyio.sleep(0.01)


@pytest.mark.parametrize("login", ["", "asha:wr0ng-secret@", "ash%C3%A4:wr0ng-secret@"])
async def test_a_password_that_is_missing_or_wrong_is_tried_once(closed_squid, scheme, login):
    proxy = closed_squid.proxy.rpartition("@")[2]
    # Without a tunnel the refusal is the answer to the request itself.
    kind = ConnectFailed if scheme == "https" else UnexpectedReply
    async with closed_squid.client(scheme, proxy=f"http://{login}{proxy}") as dc:
        with pytest.raises(kind, match="the proxy wants a user name and password") as failed:
            await dc.groups.agent_relation(28)
        shown = repr(dc) + "".join(traceback.format_exception(failed.value))
    assert "407" in str(failed.value)
    assert failed.value.attempts == 1
    assert "wr0ng" not in shown
    assert not closed_squid.sandboxes[scheme].calls


async def test_a_borrowed_session_goes_through_it_too(closed_squid, scheme):
    async with (
        aiohttp.ClientSession() as session,
        closed_squid.client(scheme, session=session) as dc,
    ):
        assert (await dc.groups.agent_relation(28)).group.unique_id == 28


async def test_a_host_that_the_proxy_refuses_is_tried_once(open_squid):
    with refused_port() as port:
        async with open_squid.client("https", base_url=f"https://127.0.0.1:{port}") as dc:
            with pytest.raises(ConnectFailed, match="the proxy answered HTTP 403") as failed:
                await dc.groups.add("Sales")
    assert failed.value.attempts == 1
    assert f"127.0.0.1:{port} through the proxy 127.0.0.1:" in str(failed.value)


async def test_tls_to_the_target_is_verified_through_the_proxy(open_squid):
    trusting_others = peers.client_certificate()
    async with open_squid.client("https", ssl=trusting_others) as dc:
        with pytest.raises(ConnectFailed, match="its issuer is not known") as failed:
            await dc.groups.agent_relation(28)
    assert failed.value.attempts == 1
