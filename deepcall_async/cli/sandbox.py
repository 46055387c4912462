"""The command ``deepcall sandbox``: serve the built-in sandbox."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from cyclopts import Parameter

from deepcall_async.cli.exits import Stopped, usage_errors
from deepcall_async.cli.parameters import DEMO_GROUPS, Whole, in_range
from deepcall_async.cli.terminal import emit, say

__all__ = ["serve_sandbox"]


def serve_sandbox(
    *,
    port: Annotated[Whole, Parameter(help="Where to listen on 127.0.0.1; 0 for any.")] = 0,
    groups: Annotated[Whole, Parameter(help="Groups in the demo account.")] = DEMO_GROUPS,
) -> int:
    """Serve the sandbox, and print the environment for its account."""
    in_range("--port", port, 0, 65_535)
    in_range("--groups", groups, 0, 1_000_000)
    import asyncio

    from deepcall_async.cli.loop import run_async
    from deepcall_async.sandbox import Sandbox

    async def work() -> None:
        with usage_errors(f"--port {port}"):
            server = await Sandbox(groups=groups, port=port).__aenter__()
        try:
            emit(
                f"export DEEPCALL_BASE_URL={server.base_url}\n"
                f"export DEEPCALL_USER_ID={server.user_id}\n"
                f"export DEEPCALL_TOKEN={server.token}\n"
            )
            say(f"{groups} groups at {server.base_url}; end with Ctrl-C")
            await asyncio.Event().wait()
        finally:
            await server.__aexit__(None, None, None)

    # A signal is how it is meant to end; a service manager sends SIGTERM.
    with suppress(Stopped):
        run_async(work())
    return 0
