"""What every test shares: the event loop it runs on, whether its servers speak TLS, how thorough it is.

Tests that touch connections (`ON_ALL_WAYS`) can run on four ways of the network: plain TCP and TLS,
on asyncio and on uvloop. By default each test draws one of them by its name, always the same one, so
that a run covers all four and stays short. ``pytest --ways all`` runs each test on all four, as CI
does, and ``--ways tls-uvloop`` runs them on that one alone. A failure names the way under "way".

A test marked ``virtual_time`` runs on an asyncio loop whose clock jumps (`VirtualTimeLoop`), so what
it measures does not depend on the machine. Use it for whatever is about seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import ways
from tests.support.loops import VirtualTimeLoop

# Few examples by default, so that the suite stays one that is run often; CI takes the other.
settings.register_profile("quick", max_examples=40, deadline=None)
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


def pytest_addoption(parser):
    parser.addoption(
        "--loop",
        choices=("asyncio", "uvloop"),
        default=None,
        help="the event loop of asynchronous tests; asyncio by default",
    )
    parser.addoption(
        "--ways",
        choices=("drawn", "all", *ways.WAYS),
        default="drawn",
        help="which of TCP and TLS, asyncio and uvloop the tests of connections run on",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "virtual_time: runs on a loop whose clock jumps")


def pytest_generate_tests(metafunc):
    if "way_of_network" not in metafunc.fixturenames or not _on_all_ways(metafunc.definition.path):
        return
    chosen = metafunc.config.getoption("--ways")
    if chosen == "all":
        virtual = metafunc.definition.get_closest_marker("virtual_time") is not None
        possible = [way for way in ways.WAYS if not virtual or way.endswith("asyncio")]
        metafunc.parametrize("way_of_network", possible, indirect=True)
    elif chosen != "drawn":
        metafunc.parametrize("way_of_network", [chosen], indirect=True)


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
    return "asyncio", {"use_uvloop": loop == "uvloop"}
