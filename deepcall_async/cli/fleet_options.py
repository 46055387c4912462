"""Options of ``deepcall fleet``, declared once: how they are named, read and explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from deepcall_async.cli.parameters import (
    CONNECTING,
    JUDGING,
    RUNNING,
    CaFile,
    CertFile,
    FailOnOption,
    Ignore,
    MaxResponse,
    MutesFile,
    Number,
    Patience,
    Progress,
    Quiet,
    Rules,
    Timeout,
    Whole,
    check_pace,
    in_range,
)

__all__ = ["FleetConnect", "FleetJudge", "FleetOutputs", "FleetRun"]

FleetOutputs = Annotated[
    tuple[str, ...],
    Parameter(
        name=["--output", "-o"],
        negative="",
        metavar="FORMAT:FILE",
        help="Repeatable; - is stdout. Formats: table, json, csv, md, html. With html each account"
        " gets a page of its own, in its folder.",
    ),
]


@Parameter(name="*", group=CONNECTING)
@dataclass(frozen=True, kw_only=True)
class FleetConnect:
    """What is common to all accounts on the way to the service."""

    base_url: Annotated[
        str | None,
        Parameter(
            help="The address of accounts that have none [env: DEEPCALL_BASE_URL].", metavar="URL"
        ),
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
class FleetJudge:
    """Which findings count, and which make the exit code 1."""

    rules: Rules = ()
    ignore: Ignore = ()
    mutes: MutesFile = None
    fail_on: FailOnOption = "high"
    allow_partial: Annotated[
        bool, Parameter(help="Accounts that were not read whole may pass.", negative="")
    ] = False


@Parameter(name="*", group=RUNNING)
@dataclass(frozen=True, kw_only=True)
class FleetRun:
    """Where and how fast to ask, and what to tell meanwhile."""

    at_once: Annotated[Whole, Parameter(help="Accounts audited at once.")] = 64
    processes: Annotated[
        Whole | None, Parameter(help="Divide the accounts among N processes of this machine.")
    ] = None
    shard: Annotated[
        str | None,
        Parameter(
            help="Audit every N-th account, I from 0 to N-1, and make no report.", metavar="I/N"
        ),
    ] = None
    dask: Annotated[
        str | None,
        Parameter(
            help="Audit on the workers of a Dask cluster, by its address, or local.",
            metavar="ADDRESS",
        ),
    ] = None
    again: Annotated[
        bool,
        Parameter(
            help="Read all accounts anew, and compare them with their last records; a run that was"
            " cut short is gone on with.",
            negative="",
        ),
    ] = False
    concurrency: Annotated[
        Whole | None, Parameter(help="Lookups in flight in one account; otherwise it adapts.")
    ] = None
    rate: Annotated[
        Number | None,
        Parameter(help="Requests a second for an account that does not say its own."),
    ] = None
    patience: Patience = 300.0
    max_failures: Annotated[
        Whole | None, Parameter(help="End an account's audit after more failed lookups than this.")
    ] = None
    progress: Progress = "auto"
    quiet: Quiet = False

    def __post_init__(self) -> None:
        in_range("--at-once", self.at_once, 1, 10_000)
        in_range("--processes", self.processes, 1, 1000)
        check_pace(self.concurrency, self.rate, self.patience)
        in_range("--max-failures", self.max_failures, 0, 10**9)
