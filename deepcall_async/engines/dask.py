"""Many calls on the workers of a Dask cluster: a function of the shape of `fan_out`.

What travels is a call and its keys, and what comes back are its results: no secret is among them.
It needs the extra ``dask``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

from distributed import CancelledError, Client, KilledWorker, LocalCluster, Security
from distributed.comm import CommClosedError

from deepcall_async import fanout
from deepcall_async.errors import DeepCallError
from deepcall_async.fanout import Outcome

__all__ = ["LOCAL", "SchedulerLost", "WorkersLost", "connected", "fan_out"]

K = TypeVar("K")
V = TypeVar("V")

LOCAL = "local"
"""The address that stands for a cluster of this machine's own, for the time it is used."""

_log = logging.getLogger(__name__)

_GONE = "the Dask scheduler went away; run the same again to go on"

_Engine = Callable[..., AbstractAsyncContextManager[AsyncIterator[Outcome[Any, Any]]]]


class SchedulerLost(DeepCallError):
    """The cluster's scheduler went away. What was finished stands; run the same again."""


class WorkersLost(DeepCallError):
    """Worker after worker died at this key, so it was given up."""


def fan_out(
    call: Callable[[K], Awaitable[V]],
    keys: Iterable[K],
    *,
    client: Client,
    concurrency: int = 32,
    patience: float = 0.0,
) -> AbstractAsyncContextManager[AsyncIterator[Outcome[K, V]]]:
    """Call a coroutine function for many keys on a cluster, and stream the outcomes.

    Each call runs in a thread of a worker, on an event loop of its own. A worker that dies has its
    calls run again elsewhere. No more than ``concurrency`` keys are known to the cluster, and each
    result is released when it is here: so a death repeats little.

    Args:
        call: what to call; it is pickled, as are keys and results.
        keys: pulled as there is room.
        client: an asynchronous client of the cluster.
        concurrency: keys that are at the cluster at once.
        patience: as `deepcall_async.fan_out` has it.

    Returns:
        A context manager that gives an async iterator of `Ok` and `Failed`, one for each key.

    Raises:
        SchedulerLost: the cluster is gone; what had finished was given first.
    """

    async def there(key: K) -> V:
        if client.status != "running":
            raise SchedulerLost(_GONE)
        lost: DeepCallError
        future = client.submit(_run, call, key, pure=False)
        try:
            found: V = await future
        except KilledWorker:
            lost = WorkersLost("the Dask workers that were at it died")
        except (CancelledError, CommClosedError):
            # What Dask makes of its futures when the connection to the scheduler ends.
            lost = SchedulerLost(_GONE)
        else:
            return found
        finally:
            future.release()
        raise lost

    return fanout.fan_out(
        there, keys, concurrency=concurrency, patience=patience, fatal=(SchedulerLost,)
    )


@asynccontextmanager
async def connected(address: str, *, at_once: int) -> AsyncIterator[_Engine]:
    """Connect to a cluster, or start one on this machine, and give `fan_out` on it.

    Args:
        address: a scheduler's address, such as ``tls://scheduler.example:8786``, whose certificates
            Dask's own configuration names; ``tcp://`` for this machine only; or `LOCAL`.
        at_once: how many calls a cluster of this machine's own is to run at once.

    Raises:
        ValueError: the address is malformed, or would be talked to in the clear.
        OSError: no scheduler answers there.
    """
    if address == LOCAL:
        workers = min(os.cpu_count() or 1, at_once)
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=-(-at_once // workers),
            host="127.0.0.1",
            # A free port for what it serves over HTTP beside its own protocol.
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            # What happens to its workers is its own affair; what it means for keys is told here.
            silence_logs=logging.CRITICAL,
            preload=__name__,
            asynchronous=True,
        )
        async with cluster, Client(cluster, asynchronous=True) as client:
            yield partial(fan_out, client=client)
        return
    security = Security() if _is_encrypted(address) else None
    async with Client(address, security=security, asynchronous=True) as client:
        if not client.scheduler_info()["workers"]:
            _log.warning("the Dask cluster at %s has no workers: waiting for some", address)
        yield partial(fan_out, client=client)


def dask_setup(_: object) -> None:
    """Prepare a worker of a local cluster; Dask calls it by this name.

    Its logs are not this process's to show, and Ctrl-C, which reaches it too, is answered by the
    process that began the cluster.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.getLogger("deepcall_async").addHandler(logging.NullHandler())


def _run(call: Callable[[K], Awaitable[V]], key: K) -> V:
    async def work() -> V:
        return await call(key)

    try:
        return asyncio.run(work())
    except DeepCallError as error:
        failed = error
    # Dask pickles all that led to an error, and where it cannot, it sends no more than its text.
    each: BaseException | None = failed
    while each is not None:
        each.__context__ = None
        if not isinstance(each.__cause__, DeepCallError):
            each.__cause__ = None
        each = each.__cause__
    raise failed


def _is_encrypted(address: str) -> bool:
    try:
        parts = urlsplit(address if "://" in address else f"tcp://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.scheme not in ("tcp", "tls"):
        raise ValueError("give a scheduler's address, such as tls://scheduler.example:8786")
    if parts.scheme == "tcp" and not _is_loopback(host):
        raise ValueError(
            "tcp:// is for a scheduler on this machine: anybody on the way could run code on the"
            " workers, which hold the credentials; use tls://"
        )
    return parts.scheme == "tls"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
