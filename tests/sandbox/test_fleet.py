"""Several accounts at one address: the credentials say which one is meant."""

from __future__ import annotations

import pytest

from deepcall_async import AuthenticationFailed, DeepCall, SessionId, UserToken
from deepcall_async.sandbox import SandboxFleet

pytestmark = pytest.mark.anyio


async def test_each_account_has_its_own_data_credentials_and_faults():
    async with SandboxFleet(2, groups=30) as server:
        north, south = server.accounts
        async with DeepCall(UserToken(north.user_id, north.token), base_url=server.base_url) as dc:
            other = dc.with_options(credentials=SessionId(south.ssid))
            wrong = dc.with_options(credentials=SessionId("unknown"))
            added = await dc.groups.add("Mine")
            assert len(await dc.groups.list()) == 31
            assert len(await other.groups.list()) == 30
            south.fail_next("list", code=1039)
            assert len(await dc.groups.list(group_id=added.group_id)) == 1
            with pytest.raises(Exception, match="1039"):
                await other.groups.list()
            with pytest.raises(AuthenticationFailed):
                await wrong.groups.list()
        assert [call.endpoint for call in south.calls] == ["list", "list"]
        assert north.token != south.token


async def test_it_is_served_once_and_its_address_is_known_then_only():
    server = SandboxFleet(1, groups=1)
    with pytest.raises(RuntimeError, match="inside `async with`"):
        assert server.base_url
    async with server:
        assert server.base_url.startswith("http://127.0.0.1:")
        with pytest.raises(RuntimeError, match="running already"):
            await server.__aenter__()
        with pytest.raises(OSError, match="give another port"):
            await SandboxFleet(
                1, groups=1, port=int(server.base_url.rpartition(":")[2])
            ).__aenter__()
    with pytest.raises(ValueError, match="accounts"):
        SandboxFleet(0)
