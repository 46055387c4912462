"""Proxies that are themselves spoken to over TLS."""

from __future__ import annotations

import pytest

from deepcall_async import ConnectFailed
from tests.support.clients import both_paths, client
from tests.support.endpoints import ADD, LIST, RELATION, Endpoint, over
from tests.support.faultserver import FaultServer
from tests.support.hazards import Certificates
from tests.support.proxy import Proxy
from tests.support.replies import serve

pytestmark = pytest.mark.anyio


@over(LIST, ADD)
@both_paths
async def test_a_service_over_tls_through_a_proxy_over_tls(endpoint: Endpoint, path: str) -> None:
    trusting, good = Certificates().client(), Certificates().good
    async with FaultServer(serve, ssl=good) as server, Proxy(tls=good) as proxy:
        async with client(server.url("https"), path, tls=trusting, proxy=proxy.url()) as dc:
            for number in range(1, 6):
                await endpoint(dc, number)
        assert (len(server.ledger), server.connections, proxy.connections) == (5, 1, 1)


@over(LIST, ADD)
async def test_a_plain_service_through_a_proxy_over_tls(endpoint: Endpoint) -> None:
    """What `ssl=` trusts is asked for the proxy, which is all there is of TLS."""
    async with FaultServer(serve, ssl=False) as server, Proxy(tls=Certificates().good) as proxy:
        async with client(server, tls=Certificates().client(), proxy=proxy.url()) as dc:
            for number in range(1, 6):
                await endpoint(dc, number)
        assert (len(server.ledger), proxy.connections) == (5, 1)


async def test_a_proxy_whose_certificate_is_not_trusted() -> None:
    async with FaultServer(serve, ssl=False) as server, Proxy(tls=Certificates().good) as proxy:
        async with client(server, proxy=proxy.url(), ssl=None) as dc:
            failed = await RELATION.fails(dc, ConnectFailed, attempts=1)
        assert "its issuer is not known" in str(failed)
        assert server.connections == 0
