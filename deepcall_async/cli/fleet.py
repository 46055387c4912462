"""The commands ``deepcall fleet audit`` and ``deepcall fleet report``.

Their options, and nothing heavy: what they do is in ``fleet_run``, imported when one of them runs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from deepcall_async.cli.exits import UsageError
from deepcall_async.cli.fleet_options import FleetConnect, FleetJudge, FleetOutputs, FleetRun
from deepcall_async.cli.parameters import Folder

__all__ = ["app", "audit", "report"]

app: App = App(
    name="fleet",
    help="Audit many accounts, and report which of them need somebody first.",
    help_epilogue="""\
Examples:
  deepcall fleet audit fleet.toml --folder audits -o html:fleet.html
  deepcall fleet audit fleet.toml --folder audits --again --shard 0/4
  deepcall fleet report audits -o csv:-

Exit codes: those of `deepcall audit`; 3 when any account was not read whole, 4 when all credentials
were refused. With --shard it is 0 or 3.""",
)


@app.command
def audit(
    accounts: Annotated[Path, Parameter(help="A TOML file of [[account]] tables.")],
    *,
    folder: Annotated[
        Folder,
        Parameter(help="Where records are kept; the same command goes on from there."),
    ],
    output: FleetOutputs = (),
    judge: FleetJudge = FleetJudge(),  # noqa: B008  (frozen)
    running: FleetRun = FleetRun(),  # noqa: B008  (frozen)
    connect: FleetConnect = FleetConnect(),  # noqa: B008  (frozen)
) -> int:
    """Audit every account, and go on from where an interrupted run ended.

    An account is {name, credentials, base_url, per_second, proxy}; the last three are optional, and
    credentials is a reference: env:ACME, file:acme.env or keyring:SERVICE/USER_ID.
    """
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
    output: FleetOutputs = (),
    judge: FleetJudge = FleetJudge(),  # noqa: B008  (frozen)
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
