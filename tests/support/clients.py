"""Clients of the servers that the tests script, on the way of the network that the test runs on."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any, Literal, TypeAlias

import pytest
from aiohttp import ClientSession, TCPConnector

from deepcall_async import DeepCall, RetryPolicy, UserToken
from tests.support.faultserver import FaultServer, Reaction
from tests.support.ways import trusting

ClientPath: TypeAlias = Literal["direct", "borrowed", "trust_env"]
"""Over the client's own connections, through somebody's aiohttp session, or as the environment says."""

both_paths = pytest.mark.parametrize("path", ["direct", "borrowed"])
every_path = pytest.mark.parametrize("path", ["direct", "borrowed", "trust_env"])
DRAWN = (both_paths.mark, every_path.mark)
"""Of these one path is drawn, but with ``--ways all``."""

ME = UserToken("7", "t0ken")
ONCE = RetryPolicy(attempts=1)


def quick(attempts: int = 3, deadline: float | None = None) -> RetryPolicy:
    """A policy whose waits are too short to notice."""
    return RetryPolicy(attempts=attempts, base_delay=0.001, max_delay=0.01, deadline=deadline)


def session_to_borrow(**options: Any) -> ClientSession:
    """An aiohttp session that trusts what the test's servers show; ``limit`` and the like may be given."""
    limits = {name: options.pop(name) for name in list(options) if name.startswith("limit")}
    return ClientSession(connector=TCPConnector(ssl=trusting() or True, **limits), **options)


@contextlib.asynccontextmanager
async def client(
    server: FaultServer | str,
    path: str = "direct",
    *,
    credentials: Any = ME,
    timeout: float = 20.0,
    retry: RetryPolicy | None = None,
    connector: TCPConnector | None = None,
    session: ClientSession | None = None,
    tls: ssl.SSLContext | None = None,
    **options: Any,
) -> AsyncIterator[DeepCall]:
    """A client of a server, or of whatever is at an address.

    Args:
        server: the server, or a URL.
        path: a `ClientPath`.
        credentials: whom it calls as.
        timeout: seconds for one attempt.
        retry: by default three attempts, quickly.
        connector: what the borrowed session is made with.
        session: the borrowed session itself.
        tls: what is trusted; by default the authority of the tests, where the test runs on TLS.
        options: any other of the client's.
    """
    url = server if isinstance(server, str) else server.base_url
    tls = tls or trusting()
    async with contextlib.AsyncExitStack() as stack:
        if path == "borrowed" and session is None:
            connector = connector or TCPConnector(ssl=tls or True)
            session = await stack.enter_async_context(ClientSession(connector=connector))
            stack.callback(_still_open, session)
        if session is None:
            options = {"ssl": tls} | options
        options = {"trust_env": path == "trust_env"} | options
        dc = DeepCall(
            credentials,
            base_url=url,
            timeout=timeout,
            retry=retry or quick(),
            session=session,
            **options,
        )
        yield await stack.enter_async_context(dc)


@contextlib.asynccontextmanager
async def connect(
    reaction: Reaction, path: str = "direct", **options: Any
) -> AsyncIterator[tuple[FaultServer, DeepCall]]:
    """A server that always reacts so, and a client of it; options as for `client`."""
    async with FaultServer(reaction) as server, client(server, path, **options) as dc:
        yield server, dc


def _still_open(session: ClientSession) -> None:
    assert not session.closed, "a borrowed session is never closed"
