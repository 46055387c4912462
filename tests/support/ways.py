"""The ways on which what touches a connection is tested: TCP and TLS, on asyncio and on uvloop.

A test draws one of the four by its name, so that a run covers all of them and stays short.
``pytest --ways all`` runs each test on all four.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Sequence
from functools import cache
from typing import TypeVar
from zlib import crc32

import pytest

from tests.support.hazards import Certificates

__all__ = ["WAYS", "draw", "one_of", "server_context", "set_tls", "trusting"]

WAYS = ["tcp-asyncio", "tls-asyncio"]
if sys.platform != "win32":
    WAYS += ["tcp-uvloop", "tls-uvloop"]

_tls = False

T = TypeVar("T")


def draw(request: pytest.FixtureRequest) -> str:
    """The way of a test that runs on one of them."""
    return one_of(WAYS, request.node.nodeid)


def one_of(choices: Sequence[T], name: str) -> T:
    """One of these, always the same for a name."""
    return choices[crc32(name.encode()) % len(choices)]


def set_tls(on: bool) -> None:
    """Let the servers of the test that begins speak TLS, or not."""
    global _tls
    _tls = on


def server_context() -> ssl.SSLContext | None:
    """What the servers of the present test use."""
    return Certificates().good if _tls else None


def trusting() -> ssl.SSLContext | None:
    """What the clients of the present test use."""
    return _trusting() if _tls else None


@cache
def _trusting() -> ssl.SSLContext:
    return Certificates().client()
