"""The command ``deepcall sandbox``: serve the built-in sandbox."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Annotated

from cyclopts import Parameter

from deepcall_async.cli.connect import DEMO_GROUPS
from deepcall_async.cli.loop import run_async
from deepcall_async.cli.terminal import say

__all__ = ["serve_sandbox"]


def serve_sandbox(
    *,
    port: Annotated[int, Parameter(help="Where to listen on 127.0.0.1; 0 for any.")] = 0,
    groups: Annotated[int, Parameter(help="Groups in the demo account.")] = DEMO_GROUPS,
) -> int:
    """Serve the built-in sandbox until Ctrl-C, and print the environment for its account."""
    from deepcall_async.sandbox import Sandbox

    async def work() -> int:
        async with Sandbox(groups=groups, port=port) as server:
            print(f"export DEEPCALL_BASE_URL={server.base_url}")
            print(f"export DEEPCALL_USER_ID={server.user_id}")
            print(f"export DEEPCALL_TOKEN={server.token}", flush=True)
            say(f"{groups} groups at {server.base_url}; end with Ctrl-C")
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            # A service manager ends it with SIGTERM; that is as orderly an end as Ctrl-C.
            if sys.platform != "win32":
                loop.add_signal_handler(signal.SIGTERM, ended.set)
            await ended.wait()
        return 0

    try:
        return run_async(work())
    except KeyboardInterrupt:
        return 0
