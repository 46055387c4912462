"""An aiohttp that lacks a name of which the direct transport makes use: calls work all the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

# The names are gone before the package is imported. aiohttp itself has its own references to them.
PROGRAM = """
import asyncio, importlib, sys, warnings

module, _, name = sys.argv[1].rpartition(".")
import aiohttp
delattr(importlib.import_module(module), name)

from deepcall_async import DeepCall, UserToken
from deepcall_async.sandbox import Sandbox

async def main():
    async with Sandbox(groups=3) as server:
        async with DeepCall(UserToken(server.user_id, server.token), base_url=server.base_url) as dc:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                groups = [await dc.groups.list() for _ in range(2)]
            print(*map(len, groups), dc, *(str(each.message) for each in warned), sep="|")

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "name",
    [
        "aiohttp.client_proto.ResponseHandler",
        pytest.param("aiohttp.AddrInfoType", marks=pytest.mark.thorough),
        pytest.param("aiohttp.http_exceptions.ContentLengthError", marks=pytest.mark.thorough),
    ],
)
def test_without_a_name_the_public_session_answers_with_one_warning(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, name],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second, client, *warned = done.stdout.strip().split("|")
    assert first == second == "3"
    assert "ClientSessionTransport" in client
    [warning] = warned
    assert "calls work, but slower" in warning
