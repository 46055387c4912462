"""The command ``deepcall watch``.

Its options are checked here; what it does is in ``watch_run``, imported when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from deepcall_async.cli.parameters import ConnectOptions, in_range
from deepcall_async.cli.watch_options import DAY, TellOptions, WatchOptions

__all__ = ["watch"]


def watch(
    *,
    state: Annotated[
        Path, Parameter(help="The file that keeps what is known and what is still to be told.")
    ],
    looking: WatchOptions = WatchOptions(),  # noqa: B008  (frozen)
    telling: TellOptions = TellOptions(),  # noqa: B008  (frozen)
    connect: ConnectOptions = ConnectOptions(),  # noqa: B008  (frozen)
) -> int:
    """Look at the account again and again, and tell what changed."""
    in_range("--every", looking.every, 1, 7 * DAY)
    in_range("--confirm", looking.confirm, 1, 100)
    in_range("--clear", looking.clear, 1, 100)
    in_range("--cooldown", looking.cooldown, 0, 365 * DAY)
    in_range("--concurrency", looking.concurrency, 1, 1000)
    in_range("--rate", looking.rate, 0.001, 1_000_000)
    in_range("--patience", looking.patience, 0, 86_400)
    in_range("--timeout", connect.timeout, 0.001, 86_400)
    in_range("--max-response-mib", connect.max_response_mib, 1, 4096)
    from deepcall_async.cli.watch_run import watch_account

    return watch_account(state, looking=looking, telling=telling, connect=connect)
