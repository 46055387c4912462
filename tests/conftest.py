"""What every test shares: the event loops they run on."""

from __future__ import annotations

import sys

import pytest

LOOPS = [pytest.param(("asyncio", {"debug": False}), id="asyncio")]
if sys.platform != "win32":
    LOOPS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


@pytest.fixture(params=LOOPS)
def anyio_backend(request):
    return request.param
