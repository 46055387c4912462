"""The pytest plugin, used by a pytest of its own as a user's project would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import deepcall_async

PROJECT = Path(deepcall_async.__file__).parents[1]

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


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", *arguments],
        cwd=folder,
        # Plugins by name only: the run is the same with and without the package's entry point.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_fixture_serves_sync_and_async_tests_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_users.py").write_text(USERS_TESTS)
    plugins = ["-p", "anyio", "-p", "deepcall_async.pytest_plugin", "-p", "no:cacheprovider"]
    done = python(tmp_path, "-m", "pytest", *plugins, "--strict-markers", "-q")
    assert "6 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_mistaken_option_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import pytest\n\n"
        "@pytest.mark.deepcall_sandbox(latancy=1)\n"
        "def test(deepcall_sandbox): ...\n"
    )
    done = pytester.runpytest("-p", "no:cacheprovider")
    assert done.ret == 1
    done.stdout.fnmatch_lines("*unexpected keyword argument 'latancy'*")


def test_the_marker_is_documented(pytester: pytest.Pytester) -> None:
    done = pytester.runpytest("--markers")
    done.stdout.fnmatch_lines("@pytest.mark.deepcall_sandbox(groups=300, [*][*]options)*")


WRITE_MODULES = """
import json
import pathlib
import sys


def pytest_sessionstart():
    pathlib.Path("started.json").write_text(json.dumps(sorted(sys.modules)))


def pytest_unconfigure():
    pathlib.Path("ended.json").write_text(json.dumps(sorted(sys.modules)))
"""


def test_a_run_that_does_not_ask_for_a_fixture_loads_nothing(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(WRITE_MODULES)
    (tmp_path / "test_users.py").write_text("def test(): pass")
    loaded = {}
    for plugin in ("deepcall_async.pytest_plugin", "pytester"):
        done = python(tmp_path, "-m", "pytest", "-p", plugin, "-p", "no:cacheprovider", "-q")
        assert done.returncode == 0, done.stdout + done.stderr
        for when in ("started", "ended"):
            loaded[plugin, when] = {*json.loads((tmp_path / f"{when}.json").read_text())}
    for when in ("started", "ended"):
        more = loaded["deepcall_async.pytest_plugin", when] - loaded["pytester", when]
        assert more == {
            "deepcall_async",
            "deepcall_async.pytest_plugin",
            "deepcall_async.version",
        }
