"""Options that several commands take, declared once: how they are named, read and explained.

Declarations only; what they lead to is made in ``connect`` and ``files``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter, Token

from deepcall_async.cli.exits import UsageError
from deepcall_async.cli.terminal import ProgressStyle

__all__ = [
    "CONNECTING",
    "DEMO_GROUPS",
    "ENVIRONMENT",
    "JUDGING",
    "RUNNING",
    "AllowPartial",
    "CaFile",
    "CertFile",
    "Concurrency",
    "ConnectOptions",
    "FailOn",
    "FailOnOption",
    "Folder",
    "Ignore",
    "JudgeOptions",
    "ListFormat",
    "MaxResponse",
    "MutesFile",
    "Number",
    "Outputs",
    "Patience",
    "Progress",
    "Quiet",
    "Rate",
    "Rules",
    "RunOptions",
    "Seconds",
    "Timeout",
    "Verbose",
    "Whole",
    "check_pace",
    "in_range",
    "split",
]

DEMO_GROUPS = 300
"""How many groups the demo account has when no number is given."""

ENVIRONMENT = """\
Environment:
  DEEPCALL_USER_ID, DEEPCALL_TOKEN   a user and its token
  DEEPCALL_SSID                      or else a session id
  DEEPCALL_BASE_URL                  the service's address
  HTTPS_PROXY, NO_PROXY              a proxy, and for whom not
  NO_COLOR                           no colours
An option comes before the environment, and the environment before a profile."""

FailOn = Literal["critical", "high", "medium", "low", "never"]
ListFormat = Annotated[
    Literal["table", "json", "csv"], Parameter(name=["--output", "-o"], help="How to print it.")
]


def _whole_number(_: Any, tokens: Sequence[Token]) -> int:
    # The parser's own reading of an int takes 1.5 for 1.
    text = tokens[0].value
    if not text.isascii() or not text.removeprefix("-").isdecimal():
        raise ValueError(f"{text} is not a whole number")
    return int(text)


def _folder(_: Any, tokens: Sequence[Token]) -> Path:
    # Such as from a variable that is not set; to `Path` it is the present folder.
    if not tokens[0].value:
        raise ValueError("an empty name; write . for the present folder")
    return Path(tokens[0].value)


Folder = Annotated[Path, Parameter(converter=_folder, metavar="FOLDER")]
Whole = Annotated[int, Parameter(converter=_whole_number, metavar="N")]
"""A whole number, and nothing that could be rounded to one."""
Number = Annotated[float, Parameter(metavar="N")]
Seconds = Annotated[float, Parameter(metavar="SECONDS")]

Outputs = Annotated[
    tuple[str, ...],
    Parameter(
        name=["--output", "-o"],
        negative="",
        metavar="FORMAT:FILE",
        help="Repeatable; - is stdout. Formats: table, json, jsonl, csv, csv-excel, md, html,"
        " junit, sarif, github.",
    ),
]

CONNECTING = Group("Connecting", sort_key=20)
JUDGING = Group("What counts", sort_key=10)
RUNNING = Group("Running", sort_key=15)

CaFile = Annotated[Path | None, Parameter(help="PEM certificates to trust besides the system's.")]
CertFile = Annotated[
    Path | None, Parameter(help="A client certificate and its key, in one PEM file.")
]
Timeout = Annotated[Seconds, Parameter(help="The most that one attempt may take.")]
MaxResponse = Annotated[Whole, Parameter(help="The largest reply that is taken, in MiB.")]

Rules = Annotated[
    tuple[str, ...],
    Parameter(help="Only these rules, by id or name.", negative="", metavar="RULE,..."),
]
Ignore = Annotated[
    tuple[str, ...], Parameter(help="All rules but these.", negative="", metavar="RULE,...")
]
MutesFile = Annotated[
    Path | None,
    Parameter(help="A TOML file of accepted findings and thresholds.", group=JUDGING),
]
FailOnOption = Annotated[
    FailOn,
    Parameter(help="The mildest severity that makes the exit code 1.", group=JUDGING),
]
AllowPartial = Annotated[
    bool, Parameter(help="An incomplete run may pass.", negative="", group=JUDGING)
]

Concurrency = Annotated[
    Whole | None,
    Parameter(help="Lookups in flight at once, at most 1,000; otherwise it adapts."),
]
Rate = Annotated[Number | None, Parameter(help="Requests a second at most.")]
Patience = Annotated[
    Seconds, Parameter(help="How long to wait for a service that cannot be reached or refuses all.")
]
Progress = Annotated[ProgressStyle, Parameter(help="How to show progress, on stderr.")]
Verbose = Annotated[
    bool, Parameter(name=["--verbose", "-v"], help="Tell of each request.", negative="")
]
Quiet = Annotated[
    bool, Parameter(name=["--quiet", "-q"], help="Only errors on stderr.", negative="")
]


@Parameter(name="*", group=CONNECTING)
@dataclass(frozen=True, kw_only=True)
class ConnectOptions:
    """Which service, as whom, and by which way."""

    base_url: Annotated[
        str | None,
        Parameter(help="The service's address [env: DEEPCALL_BASE_URL].", metavar="URL"),
    ] = None
    credentials: Annotated[
        Path | None,
        Parameter(
            allow_leading_hyphen=True,
            help="A file of NAME=VALUE lines: DEEPCALL_SSID, or DEEPCALL_USER_ID and"
            " DEEPCALL_TOKEN, and perhaps DEEPCALL_BASE_URL; - for stdin"
            " [env: the same names].",
        ),
    ] = None
    profile: Annotated[
        str | None,
        Parameter(help="A [profile.NAME] of config.toml; otherwise its 'default'.", metavar="NAME"),
    ] = None
    proxy: Annotated[
        str | None, Parameter(help="An HTTP proxy [env: HTTPS_PROXY, NO_PROXY].", metavar="URL")
    ] = None
    ca: CaFile = None
    cert: CertFile = None
    timeout: Timeout = 30.0
    max_response_mib: MaxResponse = 32

    def __post_init__(self) -> None:
        in_range("--timeout", self.timeout, 0.001, 86_400, "seconds")
        in_range("--max-response-mib", self.max_response_mib, 1, 4096)


@Parameter(name="*", group=JUDGING)
@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Which findings are reported, and which make the exit code 1."""

    rules: Rules = ()
    ignore: Ignore = ()
    mutes: MutesFile = None
    fail_on: FailOnOption = "high"
    baseline: Annotated[Path | None, Parameter(help="An earlier run's JSONL to compare with.")] = (
        None
    )
    new_only: Annotated[bool, Parameter(help="Only what the baseline lacks.", negative="")] = False
    allow_partial: AllowPartial = False


@Parameter(name="*", group=RUNNING)
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How fast to ask, how long to wait for a service in trouble, and what to show meanwhile."""

    concurrency: Concurrency = None
    rate: Rate = None
    patience: Patience = 300.0
    max_failures: Annotated[
        Whole | None, Parameter(help="End the run after more failed lookups than this.")
    ] = None
    progress: Progress = "auto"
    verbose: Verbose = False
    quiet: Quiet = False

    def __post_init__(self) -> None:
        check_pace(self.concurrency, self.rate, self.patience)
        in_range("--max-failures", self.max_failures, 0, 10**9)


def split(words: Sequence[str]) -> list[str]:
    """Take apart what was given as ``a,b`` or by repeating the option."""
    return [part.strip() for word in words for part in word.split(",") if part.strip()]


def in_range(
    option: str, value: float | None, low: float, high: float, unit: str | None = None
) -> None:
    """Refuse a number that is out of range.

    Args:
        option: its name.
        value: the number, or None when it was not given.
        low: the least.
        high: the most.
        unit: what it counts, such as "seconds", where its name does not say so.
    """
    if value is not None and not low <= value <= high:
        limits = f"from {low:,.10g} to {high:,.10g}" + (f" {unit}" if unit else "")
        raise UsageError(f"{option} must be {limits}, not {value:,.10g}")


def check_pace(concurrency: int | None, rate: float | None, patience: float) -> None:
    """Refuse options of how fast to ask that are out of range."""
    in_range("--concurrency", concurrency, 1, 1000)
    in_range("--rate", rate, 0.001, 1_000_000)
    in_range("--patience", patience, 0, 86_400, "seconds")
