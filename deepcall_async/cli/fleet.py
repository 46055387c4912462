"""The commands ``deepcall fleet audit`` and ``deepcall fleet report``.

Their options, and nothing heavy: what they do is in ``fleet_run``, imported when one of them runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from deepcall_async.cli.exits import UsageError
from deepcall_async.cli.parameters import (
    CONNECTING,
    JUDGING,
    RUNNING,
    FailOn,
    Whole,
    in_range,
)
from deepcall_async.cli.terminal import ProgressStyle

__all__ = ["FleetConnect", "FleetJudge", "FleetRun", "app", "audit", "report"]

app: App = App(
    name="fleet", help="Audit many accounts, and report which of them need somebody first."
)

Outputs = Annotated[
    tuple[str, ...],
    Parameter(
        name=["--output", "-o"],
        negative="",
        help="FORMAT:FILE, repeatable; - is stdout. Formats: table, json, csv, md, html. With html"
        " each account gets a page of its own, in its folder.",
    ),
]


@Parameter(name="*", group=CONNECTING)
@dataclass(frozen=True, kw_only=True)
class FleetConnect:
    """What is common to all accounts on the way to the service."""

    base_url: Annotated[
        str | None,
        Parameter(help="The address of accounts that have none [env: DEEPCALL_BASE_URL]."),
    ] = None
    ca: Annotated[
        Path | None, Parameter(help="PEM certificates to trust besides the system's.")
    ] = None
    cert: Annotated[
        Path | None, Parameter(help="A client certificate and its key, in one PEM file.")
    ] = None
    timeout: Annotated[float, Parameter(help="Seconds for one attempt.")] = 30.0
    max_response_mib: Annotated[
        Whole, Parameter(help="The largest reply that is taken, in MiB.")
    ] = 32


@Parameter(name="*", group=JUDGING)
@dataclass(frozen=True, kw_only=True)
class FleetJudge:
    """Which findings count, and which make the exit code 1."""

    rules: Annotated[
        tuple[str, ...], Parameter(help="Only these rules, by id or name.", negative="")
    ] = ()
    ignore: Annotated[tuple[str, ...], Parameter(help="All rules but these.", negative="")] = ()
    mutes: Annotated[
        Path | None, Parameter(help="A TOML file of accepted findings and thresholds.")
    ] = None
    fail_on: Annotated[
        FailOn, Parameter(help="The mildest severity that makes the exit code 1.")
    ] = "high"
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
        Parameter(help="I/N: audit every N-th account, I from 0 to N-1, and make no report."),
    ] = None
    dask: Annotated[
        str | None,
        Parameter(help="Audit on the workers of a Dask cluster, by its address, or local."),
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
        float | None, Parameter(help="Requests a second for an account that does not say its own.")
    ] = None
    patience: Annotated[
        float,
        Parameter(help="Seconds to wait for a service that cannot be reached or refuses all."),
    ] = 300.0
    max_failures: Annotated[
        Whole | None, Parameter(help="End an account's audit after more failed lookups than this.")
    ] = None
    progress: Annotated[ProgressStyle, Parameter(help="How to show progress, on stderr.")] = "auto"
    quiet: Annotated[
        bool, Parameter(name=["--quiet", "-q"], help="Only errors on stderr.", negative="")
    ] = False


@app.command
def audit(
    accounts: Annotated[Path, Parameter(help="A TOML file of [[account]] tables.")],
    *,
    folder: Annotated[
        Path, Parameter(help="Where records are kept; the same command goes on from there.")
    ],
    output: Outputs = (),
    judge: FleetJudge = FleetJudge(),
    running: FleetRun = FleetRun(),
    connect: FleetConnect = FleetConnect(),
) -> int:
    """Audit every account, and go on from where an interrupted run ended.

    An account is {name, credentials, base_url, per_second, proxy}; the last three are optional, and
    credentials is a reference: env:ACME, file:acme.env or keyring:SERVICE/USER_ID.
    """
    in_range("--at-once", running.at_once, 1, 10_000)
    in_range("--processes", running.processes, 1, 1000)
    in_range("--concurrency", running.concurrency, 1, 1000)
    in_range("--rate", running.rate, 0.001, 1_000_000)
    in_range("--timeout", connect.timeout, 0.001, 86_400)
    in_range("--patience", running.patience, 0, 86_400)
    in_range("--max-failures", running.max_failures, 0, 10**9)
    in_range("--max-response-mib", connect.max_response_mib, 1, 4096)
    ways = {"--processes": running.processes, "--shard": running.shard, "--dask": running.dask}
    given = [option for option, value in ways.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are different ways to run: give one")
    if running.shard is not None and output:
        raise UsageError("--shard makes no report: `deepcall fleet report` does, of all shards")
    from deepcall_async.cli.fleet_run import audit_accounts

    return audit_accounts(
        accounts,
        folder,
        shard=_shard(running.shard),
        output=output,
        judge=judge,
        running=running,
        connect=connect,
    )


@app.command
def report(
    folder: Annotated[Path, Parameter(help="A folder of `deepcall fleet audit`.")],
    *more: Annotated[Path, Parameter(help="More of them; one report is made.")],
    output: Outputs = (),
    judge: FleetJudge = FleetJudge(),
) -> int:
    """Make reports of what has been audited so far, offline."""
    from deepcall_async.cli.fleet_run import report_folders

    return report_folders((folder, *more), output=output, judge=judge)


def _shard(given: str | None) -> tuple[int, int] | None:
    if given is None:
        return None
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", given)
    if found is None or not int(found[1]) < int(found[2]):
        raise UsageError(f"--shard {given}: give I/N with I from 0 to N-1, such as 0/4")
    return int(found[1]), int(found[2])
