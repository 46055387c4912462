"""Real servers and proxies, each with a sandbox behind it.

A test's way says whether it speaks TLS to the peer, and on which event loop: by default one of the
four, drawn by its name; ``--ways all`` takes all.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop import peers
from tests.support import ways


@pytest.fixture(autouse=True)
def way_of_network(request) -> str:
    return getattr(request, "param", None) or ways.draw(request)


@pytest.fixture
def scheme(way_of_network) -> str:
    """How the peer is spoken to."""
    return "https" if way_of_network.startswith("tls") else "http"


@pytest.fixture(scope="session")
def sandboxes(deepcall_sandbox_factory):
    """A sandbox, and one of the same account that speaks TLS with the tests' certificate."""
    with (
        deepcall_sandbox_factory(groups=peers.GROUPS, agents=60) as plain,
        deepcall_sandbox_factory(groups=peers.GROUPS, agents=60, tls=True) as secure,
    ):
        yield plain, secure


@pytest.fixture(scope="module", params=sorted(peers.PEERS))
def peer(request, sandboxes) -> Iterator[peers.Peer]:
    """Each of the peers in turn."""
    with peers.PEERS[request.param](*sandboxes) as started:
        yield started


@pytest.fixture(autouse=True)
def as_new(sandboxes) -> None:
    for sandbox in sandboxes:
        sandbox.reset()
