"""What every test shares: the event loop it runs on."""

from __future__ import annotations

import pytest
from hypothesis import settings

# Few examples by default, so that the suite stays one that is run often; CI takes the other.
settings.register_profile("quick", max_examples=40, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile("quick")

pytest_plugins = ["pytester"]


def pytest_addoption(parser):
    parser.addoption(
        "--loop",
        choices=("asyncio", "uvloop"),
        default="asyncio",
        help="the event loop of asynchronous tests",
    )


@pytest.fixture
def anyio_backend(request):
    loop = request.config.getoption("--loop")
    return "asyncio", {"use_uvloop": loop == "uvloop"}
