"""The pytest plugin, used by a pytest of its own as a user's project would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import deepcall_async

PROJECT = Path(deepcall_async.__file__).parents[1]

ANYIO = "anyio.pytest_plugin"
ASYNCIO = "pytest_asyncio.plugin"
AIOHTTP = "pytest_aiohttp.plugin"
XDIST = "xdist.plugin"

ALONE = ["-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:aiohttp"]

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
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        # Plugins by name only: the run is the same with and without the package's entry point.
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run_project(folder: Path, source: str, plugins: Sequence[str], *options: str) -> str:
    """Run a project of one file with these plugins, and expect all of it to pass in silence."""
    (folder / "test_users.py").write_text(source)
    (folder / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
        if ASYNCIO in plugins
        else "[pytest]\nfilterwarnings = error\n"
    )
    chosen = [each for plugin in plugins for each in ("-p", plugin)]
    own = ["-p", "deepcall_async.pytest_plugin", "-p", "no:cacheprovider"]
    done = python(folder, "-m", "pytest", *chosen, *own, "--strict-markers", "-q", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_fixture_serves_sync_and_async_tests_and_leaves_nothing(tmp_path: Path) -> None:
    assert "6 passed" in run_project(tmp_path, USERS_TESTS, [ANYIO])


# What is the same under every plugin: only how tests and fixtures are marked differs.
ASYNC_TESTS = """
import asyncio
import gc
import warnings

import pytest

from deepcall_async import DeepCall, GroupUnavailable, SessionId, collect

{head}


@pytest.fixture(scope="module")
def shared(deepcall_sandbox_factory):
    with deepcall_sandbox_factory(groups=0) as server:
        server.add_group("Shared", {{server.add_agent("Asha"): "Y"}})
        yield server


{fixture}
async def group(deepcall_client):
    added = await deepcall_client.groups.add("Sales")
    yield added
    # After the test, on the test's own loop.
    await deepcall_client.groups.delete(added.group_id)


{test}
async def test_client(deepcall_client, deepcall_sandbox, group):
    relation = await deepcall_client.groups.agent_relation(group.group_id)
    assert relation.group.name == "Sales"
    deepcall_sandbox.fail_next("getGroupAgentRelation", code=1503)
    with pytest.raises(GroupUnavailable):
        await deepcall_client.groups.agent_relation(group.group_id)
    assert [call.code for call in deepcall_sandbox.calls] == [200, 200, 1503]


@pytest.mark.deepcall_sandbox(groups=5, tls=True)
class TestMarked:
    {test}
    @pytest.mark.deepcall_sandbox(7)
    async def test_merged(self, deepcall_client, deepcall_sandbox):
        assert deepcall_client.base_url.startswith("https:")
        groups = await deepcall_client.groups.list()
        assert len(groups) == 7
        batch = await collect(
            deepcall_client.groups.agent_relation, [each.unique_id for each in groups]
        )
        assert len(batch.ok) == 7

    {test}
    async def test_of_the_class(self, deepcall_client):
        assert len(await deepcall_client.groups.list()) == 5


{test}
@pytest.mark.parametrize("number", range(3))
async def test_shared(shared, number):
    async with DeepCall(SessionId(shared.ssid), base_url=shared.base_url) as dc:
        assert [each.name for each in await dc.groups.list()] == ["Shared"]


def test_sync(deepcall_client):
    async def names():
        return [each.name for each in await deepcall_client.groups.list(name="mahipal")]

    assert asyncio.run(names()) == ["Mahipal singh"]
    assert asyncio.run(names()) == ["Mahipal singh"]


def test_unused(deepcall_client):
    gc.collect()
"""
FOR_STRICT = {
    "head": "import pytest_asyncio",
    "fixture": "@pytest_asyncio.fixture",
    "test": "@pytest.mark.asyncio",
}
FOR_AUTO = {"head": "", "fixture": "@pytest.fixture", "test": ""}
FOR_ANYIO = {
    "head": "@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'",
    "fixture": "@pytest.fixture",
    "test": "@pytest.mark.anyio",
}


@pytest.mark.parametrize(
    ("words", "plugins", "options"),
    [
        pytest.param(
            FOR_STRICT,
            [ASYNCIO],
            ["--asyncio-mode=strict"],
            id="asyncio strict",
            marks=pytest.mark.thorough,
        ),
        pytest.param(FOR_AUTO, [ASYNCIO], ["--asyncio-mode=auto"], id="asyncio auto"),
        pytest.param(
            FOR_AUTO,
            [ASYNCIO],
            [
                "--asyncio-mode=auto",
                *("-o", "asyncio_default_fixture_loop_scope=session"),
                *("-o", "asyncio_default_test_loop_scope=session"),
            ],
            id="asyncio, one loop for the session",
            marks=pytest.mark.thorough,
        ),
        pytest.param(FOR_ANYIO, [ANYIO], [], id="anyio"),
        pytest.param(
            FOR_ANYIO,
            [ANYIO, ASYNCIO],
            [],
            id="anyio beside asyncio strict",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            FOR_STRICT,
            [ANYIO, ASYNCIO],
            [],
            id="asyncio strict beside anyio",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            FOR_AUTO,
            [ASYNCIO, AIOHTTP],
            ["--asyncio-mode=auto"],
            id="aiohttp",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            FOR_STRICT,
            [ASYNCIO, AIOHTTP],
            ["--asyncio-mode=strict"],
            id="aiohttp strict",
            marks=pytest.mark.thorough,
        ),
        pytest.param(
            FOR_ANYIO,
            [ANYIO, XDIST],
            ["-n", "2"],
            id="anyio xdist",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_the_fixtures_work_under(
    words: dict[str, str], plugins: list[str], options: list[str], tmp_path: Path
) -> None:
    for plugin in plugins:
        pytest.importorskip(plugin.split(".")[0], reason=f"needs {plugin}, of the extra `test`")
    assert "8 passed" in run_project(tmp_path, ASYNC_TESTS.format(**words), plugins, *options)


SHARED_TESTS = """
import json
import urllib.request

import pytest


@pytest.fixture(scope="{scope}")
def server(deepcall_sandbox_factory):
    with deepcall_sandbox_factory(1) as server:
        yield server


@pytest.fixture(autouse=True)
def clean(server):
    server.reset()


class TestOne:
    def test_first(self, server):
        server.add_group("mine")
        assert names(server) == ["Mahipal singh", "mine"]

    def test_second(self, server):
        assert names(server) == ["Mahipal singh"]


def test_third(server):
    assert names(server) == ["Mahipal singh"]


def test_two_at_once(deepcall_sandbox_factory):
    with deepcall_sandbox_factory(groups=1) as one, deepcall_sandbox_factory(empty=True) as two:
        assert one.base_url != two.base_url
        assert names(one) == ["Mahipal singh"]
        two.add_group("other")
        assert names(one) == ["Mahipal singh"]
        assert names(two) == ["other"]


def names(server):
    body = json.dumps({{"ssid": server.ssid}}).encode()
    with urllib.request.urlopen(server.base_url + "/api/v2/Group/list", body) as reply:
        return [each["name"] for each in json.load(reply)["response"]]
"""


def test_the_factory_serves_fixtures_of_any_scope(tmp_path: Path) -> None:
    scopes = ("function", "class", "module", "package", "session")
    for scope in scopes:
        (tmp_path / f"test_{scope}.py").write_text(SHARED_TESTS.format(scope=scope))
    assert "20 passed" in run_project(tmp_path, "", [])


def test_markers_of_module_class_and_method_merge(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        pytestmark = pytest.mark.deepcall_sandbox(groups=3, latency=0.25, drop_rate=0.5)

        @pytest.mark.deepcall_sandbox(drop_rate=0.125, seed=4)
        class Test:
            @pytest.mark.deepcall_sandbox(1, latency=0)
            def test(self, deepcall_sandbox):
                assert deepcall_sandbox.latency == 0
                assert deepcall_sandbox.drop_rate == 0.125
                assert deepcall_sandbox.planted.keys() == {"A001", "A005"}

            def test_of_the_class(self, deepcall_sandbox):
                assert (deepcall_sandbox.latency, deepcall_sandbox.drop_rate) == (0.25, 0.125)
        """
    )
    pytester.runpytest(*ALONE).assert_outcomes(passed=2)


def test_a_mistaken_option_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import pytest\n\n"
        "@pytest.mark.deepcall_sandbox(latancy=1)\n"
        "def test(deepcall_sandbox): ...\n"
    )
    done = pytester.runpytest(*ALONE)
    assert done.ret == 1
    done.stdout.fnmatch_lines("*unexpected keyword argument 'latancy'*")


def test_options_without_a_name_are_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import pytest\n\n"
        "@pytest.mark.deepcall_sandbox(40, 0.5)\n"
        "def test(deepcall_sandbox): ...\n"
        "@pytest.mark.deepcall_sandbox(40, groups=30)\n"
        "def test_twice(deepcall_sandbox): ...\n"
    )
    done = pytester.runpytest(*ALONE)
    done.assert_outcomes(errors=2)
    done.stdout.fnmatch_lines("*takes the number of groups, then options by name: not (40, 0.5)*")


def test_the_marker_is_documented(pytester: pytest.Pytester) -> None:
    done = pytester.runpytest(*ALONE, "--markers")
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
