"""The pytest plugin: fixtures for the sandbox, and for a client of it.

Every pytest run in an environment with this package loads this module. So it imports nothing of the
package before a fixture is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from deepcall_async import DeepCall
    from deepcall_async.sandbox import Sandbox

__all__ = [
    "SandboxFactory",
    "deepcall_client",
    "deepcall_sandbox",
    "deepcall_sandbox_factory",
]

SandboxFactory: TypeAlias = "Callable[..., AbstractContextManager[Sandbox]]"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker that carries the sandbox's options."""
    config.addinivalue_line(
        "markers",
        "deepcall_sandbox(groups=300, **options): start the deepcall_sandbox fixture's server "
        "with these arguments of deepcall_async.sandbox.Sandbox; markers of a module, class and "
        "test are merged, and the nearest to the test wins",
    )


@pytest.fixture(scope="session")
def deepcall_sandbox_factory() -> SandboxFactory:
    """Give a function that starts a sandbox, for fixtures of any scope.

    It takes the arguments of `deepcall_async.sandbox.Sandbox` and is used in a ``with`` statement.
    `Sandbox.reset` puts a sandbox that many tests share back as it was.
    """
    return _running


@pytest.fixture
def deepcall_sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Give the test a running sandbox of its own; ``@pytest.mark.deepcall_sandbox`` sets options.

    The server has its own thread and event loop, so synchronous tests can use it as well as those
    of any asyncio plugin.
    """
    with _running(**_options(request.node)) as server:
        yield server


@pytest.fixture
def deepcall_client(deepcall_sandbox: Sandbox) -> Iterator[DeepCall]:
    """Give the test a client that is logged in to the test's sandbox.

    It belongs to the first event loop that it is used on, and is closed on it after the test and
    after the fixtures that use the client.
    """
    from deepcall_async import DeepCall, UserToken

    secure = deepcall_sandbox.base_url.startswith("https:")
    client = DeepCall(
        UserToken(deepcall_sandbox.user_id, deepcall_sandbox.token),
        base_url=deepcall_sandbox.base_url,
        ssl=deepcall_sandbox.ssl_context() if secure else None,
    )
    yield client
    # Each asyncio plugin wants asynchronous fixtures marked in its own way, so this is none. A loop
    # that has ended has closed the connections already. One that serves more tests is idle here.
    loop = client._session.pool._loop  # noqa: SLF001 - no user has to ask a client for its loop
    if loop is not None and not loop.is_closed():
        loop.run_until_complete(client.aclose())


@contextmanager
def _running(*arguments: Any, **options: Any) -> Iterator[Sandbox]:
    from anyio.from_thread import start_blocking_portal

    from deepcall_async.sandbox import Sandbox

    sandbox = Sandbox(*arguments, **options)
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(sandbox) as server,
    ):
        yield server


def _options(node: pytest.Item) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for marker in reversed(list(node.iter_markers("deepcall_sandbox"))):
        if len(marker.args) > 1 or (marker.args and "groups" in marker.kwargs):
            raise TypeError(
                "the deepcall_sandbox marker takes the number of groups, then options by name:"
                f" not {marker.args!r}, {marker.kwargs!r}"
            )
        if marker.args:
            options["groups"] = marker.args[0]
        options.update(marker.kwargs)
    return options
