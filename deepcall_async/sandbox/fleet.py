"""Many accounts at one address: each is a `Sandbox`, and its credentials say which one is meant."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from aiohttp import web

from deepcall_async.sandbox.checks import integer, json_object
from deepcall_async.sandbox.listener import serve
from deepcall_async.sandbox.server import Sandbox

__all__ = ["SandboxFleet"]


class SandboxFleet:
    """Several demo accounts, served over HTTP at one address by ``async with``.

    A request belongs to the account whose token or session id it holds; one that holds none of
    them is refused by the first account.

    Args:
        accounts: how many.
        groups: groups in each account.
        agents: agents of each account's larger roster, at least 60.
        seed: the first account's; each further one has the next.
        port: TCP port on 127.0.0.1; 0 takes a free one.

    Attributes:
        accounts: the accounts. Their settings, `planted`, `calls` and methods are as those of a
            sandbox that runs by itself.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> async with SandboxFleet(2) as fleet:
        ...     for each in fleet.accounts:
        ...         one = UserToken(each.user_id, each.token)
        ...         async with DeepCall(one, base_url=fleet.base_url) as dc:
        ...             print(len(await dc.groups.list()))
        40
        40
    """

    def __init__(
        self,
        accounts: int,
        *,
        groups: int = 40,
        agents: int = 60,
        seed: int = 0,
        port: int = 0,
    ) -> None:
        number = integer("accounts", accounts, 1, 100_000)
        self.accounts: tuple[Sandbox, ...] = tuple(
            Sandbox(groups, agents=agents, seed=seed + i) for i in range(number)
        )
        self._port = integer("port", port, 0, 65535)
        self._by_secret = {each.token: each for each in self.accounts}
        self._runner: web.ServerRunner | None = None

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("this sandbox is running already: make another one")
        self._runner = await serve(self._handle, self._port)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    @property
    def base_url(self) -> str:
        """The URL to give a client, without a path.

        Raises:
            RuntimeError: it is not running.
        """
        if self._runner is None:
            raise RuntimeError("the sandbox runs inside `async with` only")
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body: dict[str, Any] = json_object(await request.read()) or {}
        account = self._by_secret.get(str(body.get("token")))
        if account is None:
            ssid = body.get("ssid")
            account = next((each for each in self.accounts if each.ssid == ssid), self.accounts[0])
        return await account.answer(request)
