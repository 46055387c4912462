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

from deepcall_async.cli.parameters import RUNNING, Whole

__all__ = ["DAY", "TellOptions", "WatchOptions"]

LOOKING = Group("Looking", sort_key=5)
TELLING = Group("Telling", sort_key=10)

DAY = 86_400
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY}


def _duration(_: Any, tokens: Sequence[Token]) -> float:
    text = tokens[0].value
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text} is not a duration such as 30s, 5m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def _shown(seconds: Any) -> str:
    unit = next(unit for unit in "hms" if seconds % _UNITS[unit] == 0 or unit == "s")
    return f"{seconds / _UNITS[unit]:g}{unit}"


Duration = Annotated[float, Parameter(converter=_duration, show_default=_shown)]
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
    concurrency: Annotated[
        Whole | None,
        Parameter(
            help="Lookups in flight at once, at most 1,000; otherwise it adapts.", group=RUNNING
        ),
    ] = None
    rate: Annotated[float | None, Parameter(help="Requests a second at most.", group=RUNNING)] = (
        None
    )
    patience: Annotated[
        float,
        Parameter(help="Seconds for which a look waits for the service.", group=RUNNING),
    ] = 60.0
    verbose: Annotated[
        bool,
        Parameter(
            name=["--verbose", "-v"], help="Tell of each request.", negative="", group=RUNNING
        ),
    ] = False
    quiet: Annotated[
        bool,
        Parameter(
            name=["--quiet", "-q"], help="Only errors on stderr.", negative="", group=RUNNING
        ),
    ] = False


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
            help="HOST:PORT to serve a page, /metrics for Prometheus and /healthz at, such as"
            " 127.0.0.1:9109."
        ),
    ] = None
    allow_remote: Annotated[
        bool, Parameter(help="--listen may name an address that others can reach.", negative="")
    ] = False
    heartbeat: Annotated[
        str | None,
        Parameter(
            help="A URL to call after each look that saw the account, or file:PATH of a file that"
            " holds it."
        ),
    ] = None
