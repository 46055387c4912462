"""What ``deepcall check`` says where a proxy is in the way."""

from __future__ import annotations

import asyncio

import pytest

from deepcall_async.sandbox import Sandbox
from tests.support.command import deepcall, environment
from tests.support.proxy import Proxy


def test_a_proxy_that_is_not_there_is_what_fails():
    env = environment(DEEPCALL_SSID="x", HTTPS_PROXY="http://127.0.0.1:1")
    done = deepcall("check", "--base-url", "https://x.invalid", env=env)
    assert done.returncode == 3
    failed = done.stdout.splitlines()[-1]
    assert failed.startswith("FAIL  proxy ")
    assert failed.endswith("; check the proxy from the environment")


@pytest.mark.anyio
async def test_a_certificate_is_not_the_proxys_trouble():
    async with Sandbox(groups=1, tls=True) as server, Proxy() as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        done = await asyncio.to_thread(deepcall, "check", "--proxy", url, env=environment(server))
    assert done.returncode == 3
    assert "FAIL  TLS" in done.stdout
    assert "or --ca FILE)" in done.stdout
