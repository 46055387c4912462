"""From the options of a command to a client: the address, the credentials, or the sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from deepcall_async.cli.files import read_credentials
from deepcall_async.client import DeepCall
from deepcall_async.credentials import UserToken
from deepcall_async.retry import RetryPolicy

__all__ = ["DEMO_GROUPS", "BaseUrl", "CredentialsFile", "open_client"]

DEMO_GROUPS = 300
"""How many groups the demo account has when no number is given."""

BaseUrl = Annotated[
    str | None, Parameter(help="The service's address, instead of DEEPCALL_BASE_URL.")
]
CredentialsFile = Annotated[
    Path | None,
    Parameter(
        name="--credentials",
        allow_leading_hyphen=True,
        help="A file of DEEPCALL_SSID=... or DEEPCALL_USER_ID=... and DEEPCALL_TOKEN=... lines"
        " instead of the environment; - for stdin.",
    ),
]


@asynccontextmanager
async def open_client(
    sandbox: int | None,
    base_url: str | None,
    credentials_file: Path | None,
    *,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008  (frozen)
    per_second: float | None = None,
    connections: int = 100,
) -> AsyncIterator[DeepCall]:
    """Open a client of the account that the options name, or of a sandbox made for it.

    Args:
        sandbox: groups in the sandbox's demo account; None for a real service.
        base_url: the service's address; None for the environment's.
        credentials_file: where the credentials stand; None for the environment.
        retry: when and how often to repeat.
        per_second: requests a second at most.
        connections: the most connections open at once.
    """
    if sandbox is None:
        client = DeepCall(
            None if credentials_file is None else read_credentials(credentials_file),
            base_url=base_url,
            retry=retry,
            per_second=per_second,
            max_connections=connections,
            app_info="deepcall-command",
        )
        async with client:
            yield client
        return
    from deepcall_async.sandbox import Sandbox

    async with Sandbox(groups=sandbox) as server:
        client = DeepCall(
            UserToken(server.user_id, server.token),
            base_url=server.base_url,
            retry=retry,
            per_second=per_second,
            max_connections=connections,
        )
        async with client:
            yield client
