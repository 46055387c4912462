"""What every test shares: the event loop it runs on."""

from __future__ import annotations

import pytest


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
