"""Options of ``deepcall fleet``, declared once: how they are named, read and explained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from deepcall_async.cli.parameters import CONNECTING, JUDGING, RUNNING, FailOn, Whole
from deepcall_async.cli.terminal import ProgressStyle

__all__ = ["FleetConnect", "FleetJudge", "FleetOutputs", "FleetRun"]

FleetOutputs = Annotated[
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
