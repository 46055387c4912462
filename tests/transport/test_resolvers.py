"""With aiodns each resolver has a thread and files of its own; none outlives its client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deepcall_async import ConnectFailed, DeepCall, RetryPolicy, UserToken
from tests.support.loops import needs_proc

pytest.importorskip("aiodns", reason="aiodns, a part of aiohttp's speedups, is not installed")
pytestmark = needs_proc

CLOSED_PORT = "https://localhost:9"
LOOPS = 5


def threads_and_files() -> tuple[int, int]:
    threads, files = (sum(1 for _ in Path("/proc/self", each).iterdir()) for each in ("task", "fd"))
    return threads, files


def settle(before: tuple[int, int]) -> None:
    """Wait for the thread that closes resolvers for all."""
    ends = time.monotonic() + 10
    while any(now > then for now, then in zip(threads_and_files(), before, strict=True)):
        assert time.monotonic() < ends, (before, threads_and_files())
        time.sleep(0.005)


def make_client() -> DeepCall:
    return DeepCall(
        UserToken("29791451", "t0ken"), base_url=CLOSED_PORT, retry=RetryPolicy(attempts=1)
    )


async def ask(client: DeepCall) -> None:
    with pytest.raises(ConnectFailed):
        await client.groups.list()


async def ask_and_close() -> None:
    async with make_client() as client:
        await ask(client)


def run_and_only_close_the_loop(client: DeepCall) -> None:
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(ask(client))
    finally:
        loop.close()


@pytest.fixture(params=["direct", "client_session"])
def shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> DeepCall:
    if request.param == "client_session":
        monkeypatch.setattr("deepcall_async.transport.direct.is_possible", lambda: False)
    return make_client()


@pytest.mark.filterwarnings("ignore:this version of aiohttp:RuntimeWarning")
@pytest.mark.parametrize(
    "use",
    [run_and_only_close_the_loop, lambda client: asyncio.run(ask(client))],
    ids=["closed", "run"],
)
def test_no_resolver_outlives_its_event_loop(
    shared: DeepCall, use: Callable[[DeepCall], None]
) -> None:
    # aiodns' one thread that ends resolvers, and the first of them.
    asyncio.run(ask_and_close())
    use(shared)
    before = threads_and_files()
    for _ in range(LOOPS):
        use(shared)
    settle(before)
    asyncio.run(shared.aclose())
    settle(before)


def test_closing_a_client_ends_its_resolver() -> None:
    asyncio.run(ask_and_close())
    before = threads_and_files()
    for _ in range(LOOPS):
        asyncio.run(ask_and_close())
    settle(before)
