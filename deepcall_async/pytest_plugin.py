"""The pytest plugin: a fixture that runs the sandbox for one test.

Law: pytest's glue only. The sandbox is imported inside the fixture, so a run that does not use it
does not pay for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from deepcall_async.sandbox import Sandbox

__all__ = ["deepcall_sandbox"]


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker that carries the sandbox's options."""
    config.addinivalue_line(
        "markers",
        "deepcall_sandbox(groups=300, **options): start the deepcall_sandbox fixture's server "
        "with these arguments of deepcall_async.sandbox.Sandbox",
    )


@pytest.fixture
def deepcall_sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Give the test a running sandbox of its own; ``@pytest.mark.deepcall_sandbox`` sets options.

    The server has its own thread and event loop, so synchronous tests can use it as well as those
    of any asyncio plugin.
    """
    from anyio.from_thread import start_blocking_portal

    from deepcall_async.sandbox import Sandbox

    marker = request.node.get_closest_marker("deepcall_sandbox")
    sandbox = Sandbox(*marker.args, **marker.kwargs) if marker else Sandbox()
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(sandbox) as server,
    ):
        yield server
