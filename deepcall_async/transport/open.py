"""The choice between the transports, made once for each pool and event loop.

`direct` is imported only here and only when it is wanted: an aiohttp in which a name that it needs
is missing must not keep the package from being imported.
"""

from __future__ import annotations

import warnings

from aiohttp import ClientSession

from deepcall_async.transport.base import Transport, TransportOptions
from deepcall_async.transport.client_session import ClientSessionTransport

__all__ = ["open_transport"]


def open_transport(options: TransportOptions, session: ClientSession | None) -> Transport:
    """Make the transport of a pool on the running event loop.

    Args:
        options: the service's address, limits, TLS and proxy.
        session: a session to borrow, if any.

    Warns:
        RuntimeWarning: this aiohttp is not one that the direct transport knows.
    """
    if session is not None:
        return ClientSessionTransport(options, session)
    try:
        from deepcall_async.transport import direct
    except ImportError:
        possible = False
    else:
        possible = direct.is_possible()
    if possible:
        return direct.DirectTransport(options)
    warnings.warn(
        "this version of aiohttp is not one that deepcall_async knows: calls work, but slower",
        RuntimeWarning,
        stacklevel=2,
    )
    return ClientSessionTransport(options, None)
