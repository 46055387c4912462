"""Many accounts through an engine, and the list of their reports."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from deepcall_async import fanout, options
from deepcall_async.audit.accounts import Account, anchored, check_distinct
from deepcall_async.audit.engine import check_choice
from deepcall_async.audit.fleet import AccountReport, ignored_in_fleet
from deepcall_async.audit.fleet_parts import SCHEMA, EndLine, FleetLine
from deepcall_async.audit.rule import Rule
from deepcall_async.audit.rules import RULES
from deepcall_async.audit.snapshot import Snapshot
from deepcall_async.fanout import Ok, Outcome
from deepcall_async.fleet.account import AccountAudit, AuditPlan
from deepcall_async.fleet.folder import (
    append_line,
    begun_log,
    made_folder,
    night_of,
    part_file,
)
from deepcall_async.validation import positive_int
from deepcall_async.version import __version__

__all__ = ["Engine", "audit_fleet"]


class Engine(Protocol):
    """What runs many calls at once: `fan_out`, or another function of its shape.

    Between a call's arguments and its result only what can be pickled passes: the call itself, an
    `Account`, an `AccountReport`.
    """

    def __call__(
        self,
        call: Callable[[Account], Awaitable[AccountReport]],
        keys: Iterable[Account],
        *,
        concurrency: int,
        patience: float,
    ) -> AbstractAsyncContextManager[AsyncIterator[Outcome[Account, AccountReport]]]:
        """Give an outcome for each key, as they finish."""
        ...


async def audit_fleet(
    accounts: Iterable[Account],
    *,
    folder: Path | str,
    at_once: int = 64,
    again: bool = False,
    shard: tuple[int, int] = (0, 1),
    plan: AuditPlan = AuditPlan(),  # noqa: B008  (frozen)
    rules: Iterable[Rule] = RULES,
    fan_out: Engine = fanout.fan_out,
) -> AsyncGenerator[AccountReport]:
    """Audit many accounts, and give what each came to as it ends.

    The state is in the folder: ``accounts/NAME.jsonl`` is the last whole record of an account,
    ``accounts/NAME.jsonl.part`` what was read of an unfinished one, ``baselines/NAME.jsonl`` what
    the last whole one was compared with, ``fleet.jsonl`` the list of reports. After an
    interruption, however hard, the same call goes on: accounts whose records are whole are not
    asked anything, and are given from their files.

    Args:
        accounts: the accounts; credentials are looked up where an account is audited.
        folder: where the records are kept; it is made if it is not there. Where the engine uses
            several machines, all of them must see it.
        at_once: accounts audited at once.
        again: begin a new night, in which every account is read again and compared with its last
            whole record. A night that was cut short is gone on with.
        shard: audit only every N-th account, from the I-th on: (I, N), I from 0 to N - 1.
        plan: how each account is audited.
        rules: the rules; add your own with ``(*RULES, mine)``. An engine that audits elsewhere
            pickles them.
        fan_out: the engine; by default `fan_out` in this process.

    Returns:
        An `AccountReport` for each account of the shard, once.

    Raises:
        ValueError: an account is there twice, the shard does not exist, or a rule named in the
            plan does not.
        OSError: the folder cannot be used, or a record not be written.
        ImportError: filelock is not installed; the extra ``cli`` brings it.
    """
    positive_int("at_once", at_once)
    number, shards = shard
    if not 0 <= number < shards:
        raise ValueError(f"shard must be (I, N) with I from 0 to N - 1, not {shard}")
    here = Path.cwd()
    accounts = tuple(anchored(account, here) for account in accounts)
    check_distinct(accounts)
    rules = tuple(rules)
    check_choice(
        rules,
        plan.only,
        ignored_in_fleet(plan.ignore, rules),
        new_only=False,
        baseline=Snapshot(),
        whole_account=True,
    )
    _require_filelock()
    # Looked up here: the environment of another machine may name another address.
    plan = replace(plan, base_url=options.base_url(plan.base_url, allow_http=None))
    mine = accounts[number::shards]
    folder = made_folder(folder)
    file = part_file(folder, shard)
    first = FleetLine(
        schema=SCHEMA,
        started=night_of(folder, file, again=again),
        names=tuple(account.name for account in accounts),
        shard=shard,
        tool=f"deepcall-async {__version__}",
    )
    audit = AccountAudit(str(folder), first.started, plan, rules)
    with begun_log(file, first) as log:
        async with fan_out(audit, mine, concurrency=at_once, patience=0.0) as outcomes:
            async for outcome in outcomes:
                report = (
                    outcome.value
                    if isinstance(outcome, Ok)
                    else AccountReport.unread(outcome.key.name, outcome.error)
                )
                append_line(log, report)
                yield report
        append_line(log, EndLine(accounts=len(mine)))


def _require_filelock() -> None:
    try:
        import filelock  # noqa: F401  (only whether it is there)
    except ImportError as error:
        raise ImportError("fleets need filelock: pip install 'deepcall-async[cli]'") from error
