"""Event loops whose transports cannot do what the direct path needs: the other path is taken, with one warning."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest

from deepcall_async import ConnectFailed
from tests.support.clients import client
from tests.support.endpoints import ADD, RELATION
from tests.support.faultserver import FaultServer
from tests.support.replies import serve


class _Wrapped:
    """A transport without some of what asyncio's have."""

    def __init__(self, inner: Any, lost: str) -> None:
        self._inner, self._lost = inner, lost

    def __getattr__(self, name: str) -> Any:
        if name == self._lost:
            raise AttributeError(name)
        return getattr(self._inner, name)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default if name == self._lost else self._inner.get_extra_info(name, default)


class _Loop(asyncio.SelectorEventLoop):
    lost = ""

    async def create_connection(self, factory: Any, *args: Any, **named: Any) -> Any:
        class Told:
            def __new__(cls) -> Any:
                protocol = factory()
                made = protocol.connection_made
                protocol.connection_made = lambda transport: made(_Wrapped(transport, self.lost))
                return protocol

        transport, protocol = await super().create_connection(Told, *args, **named)
        return _Wrapped(transport, self.lost), protocol


@pytest.mark.parametrize("lost", ["set_protocol", "socket"])
def test_a_loop_without_what_is_needed_takes_the_slower_path(lost: str) -> None:
    async def main() -> None:
        async with FaultServer(serve, ssl=False) as server, client(server, ssl=None) as dc:
            with pytest.warns(RuntimeWarning, match="this event loop is not one"):
                await RELATION(dc, 1)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                await asyncio.gather(*(ADD(dc, number) for number in range(2, 6)))
        assert len(server.ledger) == 5

    class Loop(_Loop):
        pass

    Loop.lost = lost
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


def test_a_server_that_cannot_be_reached_is_told_as_ever() -> None:
    async def main() -> None:
        async with client("http://127.0.0.1:1", ssl=None) as dc:
            await RELATION.fails(dc, ConnectFailed, attempts=3)

    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(main())
