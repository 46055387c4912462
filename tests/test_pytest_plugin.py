"""The pytest plugin, used by a pytest of its own as a user's project would."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deepcall_async import sandbox

Run = Callable[..., subprocess.CompletedProcess[str]]

PROJECT = Path(sandbox.__file__).parents[1]

USERS_TESTS = """
import json
import threading
import urllib.request

import aiohttp
import pytest

URL = "/api/v2/Group/"


def ask(server, verb, **fields):
    body = json.dumps({"ssid": server.ssid, **fields}).encode()
    with urllib.request.urlopen(server.base_url + URL + verb, body) as reply:
        return json.load(reply)


def test_sync(deepcall_sandbox):
    assert len(ask(deepcall_sandbox, "list")["response"]) == 300
    assert ask(deepcall_sandbox, "add", name="Sales")["groupId"] == 301
    deepcall_sandbox.error_rate = {1039: 1.0}
    assert ask(deepcall_sandbox, "list")["code"] == 1039
    assert deepcall_sandbox.requests == {"list": 2, "add": 1}


def test_fresh_for_every_test(deepcall_sandbox):
    assert len(ask(deepcall_sandbox, "list")["response"]) == 300


@pytest.mark.deepcall_sandbox(groups=1, agent_to_agent_call=False)
def test_marker(deepcall_sandbox):
    assert ask(deepcall_sandbox, "list")["code"] == 1015
    assert len(ask(deepcall_sandbox, "list", forward=True)["response"]) == 1


@pytest.mark.anyio
async def test_async(deepcall_sandbox, anyio_backend):
    async with aiohttp.ClientSession() as http:
        body = {"userId": deepcall_sandbox.user_id, "token": deepcall_sandbox.token}
        url = deepcall_sandbox.base_url + URL + "list"
        async with http.post(url, json=body) as reply:
            assert len((await reply.json())["response"]) == 300


@pytest.mark.deepcall_sandbox(latency=60)
def test_left_with_a_request_in_flight(deepcall_sandbox):
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(
            deepcall_sandbox.base_url + URL + "list", b'{"ssid": "x"}', timeout=0.2
        )


@pytest.fixture
def anyio_backend():
    return "asyncio"


def test_no_thread_is_left():
    assert threading.active_count() == 1
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    # Plugins by name only: the run is the same with and without the package's entry point.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_the_fixture_serves_sync_and_async_tests_and_leaves_nothing(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "test_users.py").write_text(USERS_TESTS)
    plugins = ["-p", "anyio", "-p", "deepcall_async.pytest_plugin", "-p", "no:cacheprovider"]
    done = run("-m", "pytest", *plugins, "--strict-markers", "-q")
    assert "6 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_mistaken_option_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "test_users.py").write_text(
        "import pytest\n\n"
        "@pytest.mark.deepcall_sandbox(latancy=1)\n"
        "def test(deepcall_sandbox): ...\n"
    )
    done = run("-m", "pytest", "-p", "deepcall_async.pytest_plugin", "-p", "no:cacheprovider")
    assert done.returncode == 1
    assert "unexpected keyword argument 'latancy'" in done.stdout


def test_the_marker_is_documented(run: Run) -> None:
    done = run("-m", "pytest", "-p", "deepcall_async.pytest_plugin", "--markers")
    assert "@pytest.mark.deepcall_sandbox(groups=300, **options)" in done.stdout


def test_loading_the_plugin_does_not_load_the_sandbox(run: Run) -> None:
    done = run(
        "-c",
        "import sys, deepcall_async.pytest_plugin as plugin\n"
        "assert 'deepcall_async.sandbox' not in sys.modules, plugin",
    )
    assert done.returncode == 0, done.stderr
