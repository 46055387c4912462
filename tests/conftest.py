"""What every test shares: the event loop it runs on, whether its servers speak TLS, how thorough it is.

Tests that touch connections (`ON_ALL_WAYS`) can run on four ways of the network: plain TCP and TLS,
on asyncio and on uvloop. By default each test draws one of them by its name, always the same one, so
that a run covers all four and stays short. ``pytest --ways all`` runs each test on all four, as CI
does, and ``--ways tls-uvloop`` runs them on that one alone. A failure names the way under "way".

In the same manner a test of both paths (the client's own connections, or a borrowed session) draws one
of them, and one over several endpoints draws one of those. Tests marked ``thorough`` repeat on more
ground what others show. All of it runs with ``--ways all``, and where a test is named on the command
line. ``--ways rest`` runs what a run without options does not: after one, it is ``--ways all``.

A test marked ``virtual_time`` runs on an asyncio loop whose clock jumps (`VirtualTimeLoop`), so what
it measures does not depend on the machine. Use it for whatever is about seconds.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import clients, command, ways
from tests.support.endpoints import Endpoint
from tests.support.loops import VirtualTimeLoop, loop_factory

# Few examples by default, so that the suite stays one that is run often; CI takes the other.
settings.register_profile("quick", max_examples=20, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile("quick")

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent
ON_ALL_WAYS = {
    HERE / "faults",
    HERE / "transport",
    HERE / "test_credentials.py",
    HERE / "test_lifecycle.py",
    HERE / "test_reconcile.py",
    HERE / "test_secrets.py",
    HERE / "test_session.py",
}
# How many tests of a file are quick, where it is not four: those that start programs or simulate
# minutes are none.
QUICK_TESTS = {
    **dict.fromkeys((HERE / "interop").glob("*.py"), 0),
    **dict.fromkeys((HERE / "cli").glob("*.py"), 0),
    HERE / "audit/test_jsonl.py": 0,
    HERE / "audit/test_machine_formats.py": 1,
    HERE / "audit/test_page_in_browser.py": 0,
    HERE / "cli/test_cli.py": 4,
    HERE / "cli/test_exit_codes.py": 1,
    HERE / "cli/test_fleet.py": 1,
    HERE / "cli/test_groups.py": 1,
    HERE / "cli/test_sandbox_command.py": 1,
    HERE / "cli/test_service.py": 1,
    HERE / "cli/test_watch.py": 1,
    HERE / "test_distributions.py": 0,
    HERE / "test_layers.py": 0,
    HERE / "test_outage.py": 0,
    HERE / "test_pacing.py": 0,
    HERE / "test_pytest_plugin.py": 0,
    HERE / "test_readme.py": 0,
    HERE / "transport/test_connections.py": 0,
    HERE / "transport/test_gate.py": 0,
    HERE / "transport/test_receipts.py": 0,
}


def pytest_addoption(parser):
    parser.addoption(
        "--loop",
        choices=("asyncio", "uvloop", "aiofastnet"),
        default=None,
        help="the event loop of asynchronous tests; asyncio by default",
    )
    parser.addoption(
        "--ways",
        choices=("drawn", "all", "rest", *ways.WAYS),
        default="drawn",
        help="which of TCP and TLS, asyncio and uvloop the tests of connections run on",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "virtual_time: runs on a loop whose clock jumps")
    config.addinivalue_line("markers", "thorough: runs with --ways all, and where it is named")
    config.addinivalue_line("markers", "quick: the beginning of every file, for while one works")
    if config.getoption("--ways") in ("all", "rest"):
        command.spawn_always()


def pytest_collection():
    # Thousands of tests stay until the end: to look through them for garbage takes long.
    gc.disable()


def pytest_collection_finish():
    gc.freeze()
    gc.enable()


def pytest_generate_tests(metafunc):
    if "way_of_network" not in metafunc.fixturenames or not _on_all_ways(metafunc.definition.path):
        return
    chosen = metafunc.config.getoption("--ways")
    if chosen in ("all", "rest"):
        virtual = metafunc.definition.get_closest_marker("virtual_time") is not None
        possible = [way for way in ways.WAYS if not virtual or way.endswith("asyncio")]
        metafunc.parametrize("way_of_network", possible, indirect=True)
    elif chosen != "drawn":
        metafunc.parametrize("way_of_network", [chosen], indirect=True)


def pytest_xdist_auto_num_workers(config):
    # Many tests wait, so that two cores serve four workers. To start one and to collect takes as
    # long as `quick`.
    return 0 if config.getoption("markexpr") == "quick" else 4


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in _quick(items):
        item.add_marker("quick")
    chosen = config.getoption("--ways")
    if any("::" in argument for argument in config.args) or chosen == "all":
        return
    left_out = {item for item in items if _is_run_by_default(item) == (chosen == "rest")}
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _quick(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """One row of the first tests of each file."""
    seen: dict[Path, set[str]] = {}
    for item in items:
        names = seen.setdefault(item.path, set())
        name = item.nodeid.partition("[")[0]
        if name not in names and len(names) < QUICK_TESTS.get(item.path, 4):
            yield item
        names.add(name)


def _is_run_by_default(item: pytest.Item) -> bool:
    """Whether a run without options runs it just so."""
    way = item.callspec.params.get("way_of_network") if hasattr(item, "callspec") else None
    name = item.nodeid
    if way is not None:
        name = name.replace(f"[{way}]", "").replace(f"[{way}-", "[")
    if (
        item.get_closest_marker("thorough") is not None
        or (way is not None and way != ways.one_of(ways.WAYS, name))
        or (item.config.getoption("--ways") == "rest" and _starts_the_command(item))
    ):
        return False
    for mark in item.iter_markers("parametrize"):
        value = item.callspec.params.get(mark.args[0])  # type: ignore[attr-defined]
        if mark in clients.DRAWN or isinstance(value, Endpoint):
            row = name.replace(getattr(value, "name", str(value)), "")
            if value is not ways.one_of(mark.args[1], row):
                return False
    return True


def _starts_the_command(item: pytest.Item) -> bool:
    """Whether it may start the command, which is forked by default."""
    named = vars(item.getparent(pytest.Module).obj).values()
    return command.deepcall in named or command.started in named


def _on_all_ways(path: Path) -> bool:
    return not ON_ALL_WAYS.isdisjoint((path, *path.parents))


@pytest.fixture(autouse=True)
def way_of_network(request) -> Iterator[str]:
    way = getattr(request, "param", None)
    if way is None:
        way = ways.draw(request) if _on_all_ways(request.path) else "tcp-asyncio"
    request.node.add_report_section("setup", "way", way)
    ways.set_tls(way.startswith("tls"))
    yield way
    ways.set_tls(False)


@pytest.fixture
def anyio_backend(request, way_of_network):
    if request.node.get_closest_marker("virtual_time") is not None:
        return "asyncio", {"loop_factory": VirtualTimeLoop}
    loop = request.config.getoption("--loop") or way_of_network.partition("-")[2]
    if loop == "aiofastnet":
        return "asyncio", {"loop_factory": loop_factory(loop)}
    return "asyncio", {"use_uvloop": loop == "uvloop"}
