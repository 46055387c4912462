"""What every test shares: the event loop it runs on, and whether its servers speak TLS.

Tests that touch connections (those of ``tests/faults`` and ``tests/transport``) run on four ways:
plain TCP and TLS, on asyncio and on uvloop. By default each test draws one of them by its name;
``--ways all`` runs it on all four, as CI does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import ways

# Few examples by default, so that the suite stays one that is run often; CI takes the other.
settings.register_profile("quick", max_examples=40, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile("quick")

pytest_plugins = ["pytester"]

ON_ALL_WAYS = [Path(__file__).parent / "faults", Path(__file__).parent / "transport"]


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


def pytest_generate_tests(metafunc):
    if "way_of_network" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--ways")
    if chosen == "all":
        metafunc.parametrize("way_of_network", ways.WAYS, indirect=True)
    elif chosen != "drawn":
        metafunc.parametrize("way_of_network", [chosen], indirect=True)


@pytest.fixture(autouse=True)
def way_of_network(request) -> Iterator[str]:
    way = getattr(request, "param", None)
    if way is None:
        on_all = any(folder in request.path.parents for folder in ON_ALL_WAYS)
        way = ways.draw(request) if on_all else "tcp-asyncio"
    ways.set_tls(way.startswith("tls"))
    yield way
    ways.set_tls(False)


@pytest.fixture
def anyio_backend(request, way_of_network):
    loop = request.config.getoption("--loop") or way_of_network.partition("-")[2]
    return "asyncio", {"use_uvloop": loop == "uvloop"}
