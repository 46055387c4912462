"""A watch from the command line: what runs beside the looks, and how it ends.

The looks are in ``deepcall_async.watch``; where messages go is in ``watch_notify``, and what is
served over HTTP in ``watch_serve``.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine, Iterable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from deepcall_async.cli.connect import Target, open_client, target_of
from deepcall_async.cli.exits import Stopped, UsageError, usage_errors
from deepcall_async.cli.logs import log_to_stderr
from deepcall_async.cli.loop import run_async
from deepcall_async.cli.parameters import ConnectOptions
from deepcall_async.cli.terminal import say, unhurried_stderr
from deepcall_async.cli.watch_notify import (
    Channel,
    channels_in,
    deliver,
    heartbeat_file,
    heartbeat_url,
    send_heartbeats,
    stdout_channel,
)
from deepcall_async.cli.watch_options import TellOptions, WatchOptions
from deepcall_async.pacing import Adaptive
from deepcall_async.retry import RetryPolicy
from deepcall_async.watch import watch

__all__ = ["watch_account"]


def watch_account(
    state: Path, *, looking: WatchOptions, telling: TellOptions, connect: ConnectOptions
) -> int:
    """Watch until a signal comes; the arguments are the options of ``watch``."""
    _refuse_clashes(state, telling, connect)
    target = target_of(connect)
    channels = [stdout_channel()]
    if telling.notify is not None:
        host = urlsplit(target.base_url).hostname
        channels += channels_in(telling.notify, f"DeepCall at {host}")
    heartbeat = None if telling.heartbeat is None else heartbeat_url(telling.heartbeat)
    if telling.listen is None:
        if telling.allow_remote:
            raise UsageError("--allow-remote is about --listen: give both")
    else:
        from deepcall_async.cli.watch_serve import address_of

        address_of(telling.listen, allow_remote=telling.allow_remote)
    # A signal is how it is meant to end; a service manager sends SIGTERM.
    with (
        unhurried_stderr(),
        log_to_stderr(verbose=looking.verbose, quiet=looking.quiet, patience=looking.patience),
        suppress(Stopped),
    ):
        run_async(_work(state, target, channels, heartbeat, looking, telling))
    return 0


async def _work(
    state: Path,
    target: Target,
    channels: list[Channel],
    heartbeat: str | None,
    looking: WatchOptions,
    telling: TellOptions,
) -> None:
    failures: Counter[str] = Counter({channel.label: 0 for channel in channels})
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            open_client(
                target,
                retry=RetryPolicy(attempts=5),
                per_second=looking.rate,
                connections=looking.concurrency or Adaptive().max,
            )
        )
        watched = watch(
            client,
            state=state,
            every=looking.every,
            confirm=looking.confirm,
            clear=looking.clear,
            cooldown=looking.cooldown,
            concurrency=looking.concurrency,
            patience=looking.patience,
            followers=[channel.key for channel in channels],
        )
        with usage_errors():
            await stack.enter_async_context(watched)
        if telling.listen is not None:
            from deepcall_async.cli.watch_serve import serve

            url = await stack.enter_async_context(
                serve(
                    telling.listen,
                    watched,
                    failures,
                    account=target.base_url,
                    allow_remote=telling.allow_remote,
                )
            )
            if not looking.quiet:
                say(f"deepcall: {url} shows what is dark")
        pick = random.Random()  # noqa: S311  (spreads load)
        work = [
            deliver(watched.follow(channel.key), channel, failures, pick) for channel in channels
        ]
        if heartbeat is not None:
            work.append(send_heartbeats(watched, heartbeat))
        await _all(work)


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all until one fails, and raise what it raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _refuse_clashes(state: Path, telling: TellOptions, connect: ConnectOptions) -> None:
    """Refuse a state file that is read as something else: it would be taken for a damaged one."""
    read = {
        "--notify": telling.notify,
        "--heartbeat": None if telling.heartbeat is None else heartbeat_file(telling.heartbeat),
        "--credentials": connect.credentials,
        "--ca": connect.ca,
        "--cert": connect.cert,
    }
    for option, path in read.items():
        if path is not None and path.resolve() == state.resolve():
            raise UsageError(f"--state {state} is the file of {option}; name another")
