"""Places where nobody answers, and certificates that a client should and should not accept.

Plain sockets, the standard library and trustme; nothing from the package.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property

import trustme


@contextlib.contextmanager
def refused_port(host: str = "127.0.0.1") -> Iterator[int]:
    """A port that refuses connections; held without listening, so nobody else can take it."""
    with socket.socket() as holder:
        holder.bind((host, 0))
        yield holder.getsockname()[1]


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1") -> Iterator[int]:
    """A port that neither accepts nor refuses: its queue of waiting connections is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, 0))
        listener.listen(0)
        for _ in range(16):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.05)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                break
        else:
            raise RuntimeError("this system's queue does not fill")
        yield listener.getsockname()[1]


@cache
class Certificates:
    """A certificate authority made for the tests, and servers it should and should not vouch for."""

    def __init__(self) -> None:
        self.authority = trustme.CA()

    def client(self) -> ssl.SSLContext:
        """What a client that trusts this authority uses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        return context

    @cached_property
    def good(self) -> ssl.SSLContext:
        return _server_side(self.authority.issue_cert("127.0.0.1", "localhost"))

    @cached_property
    def expired(self) -> ssl.SSLContext:
        past = datetime.now(UTC) - timedelta(days=1)
        return _server_side(self.authority.issue_cert("127.0.0.1", "localhost", not_after=past))

    @cached_property
    def wrong_host(self) -> ssl.SSLContext:
        return _server_side(self.authority.issue_cert("elsewhere.example"))

    @cached_property
    def untrusted(self) -> ssl.SSLContext:
        return _server_side(trustme.CA().issue_cert("127.0.0.1", "localhost"))


def _server_side(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context
