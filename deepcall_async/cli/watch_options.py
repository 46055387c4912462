"""The options of ``deepcall watch``: how they are named, read and explained.

Declarations only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter, Token

from deepcall_async.cli.parameters import (
    RUNNING,
    Concurrency,
    Quiet,
    Rate,
    Seconds,
    Verbose,
    Whole,
    check_pace,
    in_range,
)

__all__ = ["TellOptions", "WatchOptions"]

LOOKING = Group("Looking", sort_key=5)
TELLING = Group("Telling", sort_key=10)

_DAY = 86_400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": _DAY}


def _duration(_: Any, tokens: Sequence[Token]) -> float:
    text = tokens[0].value
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text} is not a duration such as 30s, 5m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def _shown(seconds: Any) -> str:
    unit = next(unit for unit in "hms" if seconds % _UNITS[unit] == 0 or unit == "s")
    return f"{seconds / _UNITS[unit]:g}{unit}"


Duration = Annotated[float, Parameter(converter=_duration, show_default=_shown, metavar="DURATION")]
"""A time with its unit, in seconds."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """How often to look, and when a change counts."""

    every: Annotated[
        Duration, Parameter(help="Time between two looks, such as 30s or 5m.", group=LOOKING)
    ] = 300.0
    confirm: Annotated[
        Whole,
        Parameter(help="Looks in a row until a group is told to be dark or gone.", group=LOOKING),
    ] = 2
    clear: Annotated[
        Whole, Parameter(help="Looks in a row until it is told to have recovered.", group=LOOKING)
    ] = 2
    cooldown: Annotated[
        Duration, Parameter(help="Time between two messages about one group.", group=LOOKING)
    ] = 3600.0
    concurrency: Annotated[Concurrency, Parameter(group=RUNNING)] = None
    rate: Annotated[Rate, Parameter(group=RUNNING)] = None
    patience: Annotated[
        Seconds, Parameter(help="How long a look waits for the service.", group=RUNNING)
    ] = 60.0
    verbose: Annotated[Verbose, Parameter(group=RUNNING)] = False
    quiet: Annotated[Quiet, Parameter(group=RUNNING)] = False

    def __post_init__(self) -> None:
        in_range("--every", self.every, 1, 7 * _DAY, "seconds")
        in_range("--confirm", self.confirm, 1, 100)
        in_range("--clear", self.clear, 1, 100)
        in_range("--cooldown", self.cooldown, 0, 365 * _DAY, "seconds")
        check_pace(self.concurrency, self.rate, self.patience)


@Parameter(name="*", group=TELLING)
@dataclass(frozen=True, kw_only=True)
class TellOptions:
    """Whom to tell, besides stdout."""

    notify: Annotated[
        Path | None,
        Parameter(
            help="A file of Apprise URLs, one a line; they hold secrets, so let only yourself read"
            " it."
        ),
    ] = None
    listen: Annotated[
        str | None,
        Parameter(
            help="Where to serve a page, /metrics for Prometheus and /healthz, such as"
            " 127.0.0.1:9109.",
            metavar="HOST:PORT",
        ),
    ] = None
    allow_remote: Annotated[
        bool, Parameter(help="--listen may name an address that others can reach.", negative="")
    ] = False
    heartbeat: Annotated[
        str | None,
        Parameter(
            help="What to call after each look that saw the account: a URL, or file:PATH of a file"
            " that holds it.",
            metavar="URL",
        ),
    ] = None
