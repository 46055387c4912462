"""The command ``deepcall watch``.

Its options, and nothing heavy: what it does is in ``watch_run``, imported when it runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from deepcall_async.cli.parameters import ConnectOptions
from deepcall_async.cli.watch_options import TellOptions, WatchOptions

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
    from deepcall_async.cli.watch_run import watch_account

    return watch_account(state, looking=looking, telling=telling, connect=connect)
