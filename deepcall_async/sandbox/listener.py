"""Where a sandbox listens: on this machine only."""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web

__all__ = ["HOST", "serve"]

HOST = "127.0.0.1"
_NEVER_WAIT = 0.01  # seconds; aiohttp takes 0 for "wait for ever"


async def serve(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    port: int,
    context: ssl.SSLContext | None = None,
) -> web.ServerRunner:
    """Serve on this machine until the runner is cleaned up.

    Args:
        handler: answers each request.
        port: the TCP port; 0 takes a free one.
        context: for HTTPS.

    Raises:
        OSError: the port cannot be listened on.
    """
    # A client that gives up cancels what is left of its request: only the waiting, by then.
    server = web.Server(handler, access_log=None, handler_cancellation=True)
    runner = web.ServerRunner(server, shutdown_timeout=_NEVER_WAIT)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port, ssl_context=context).start()
    except OSError as error:
        await runner.cleanup()
        reason = os.strerror(error.errno or 0).lower()
        raise OSError(
            error.errno,
            f"the sandbox cannot listen on {HOST}:{port}: {reason};"
            " give another port, or 0 for a free one",
        ) from error
    return runner
