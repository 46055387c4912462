"""Many accounts: what the audit of each came to, and which of them need somebody first.

Data and pure functions. Nothing is asked and no file is touched here; that is in
``deepcall_async.fleet``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct

from deepcall_async.audit.finding import SEVERITIES, Severity, rank
from deepcall_async.audit.labels import count
from deepcall_async.audit.report import Report
from deepcall_async.audit.rule import Rule
from deepcall_async.audit.snapshot import FailedLookup
from deepcall_async.errors import AuthenticationFailed, DeepCallError

__all__ = [
    "AccountReport",
    "FleetReport",
    "FleetSummary",
    "account_report",
    "fleet_exit_code",
    "ignored_in_fleet",
]

_OLD = timedelta(days=1)
_STALE_MUTE = "X003"
_REFUSED = AuthenticationFailed.__name__


class AccountReport(Struct, frozen=True, kw_only=True, tag_field="type", tag="account"):
    """What the audit of one account came to.

    ``complete`` is False when the account, or a group of it, was not read: such an account is
    unread, whatever else is known of it. ``error`` says why, where one error ended it.
    ``dark_groups`` is how many active groups ring nobody; ``new_dark_groups`` how many of them did
    not when the account was last read, None where there is nothing to compare with.
    """

    name: str
    complete: bool
    verdict: str
    error: FailedLookup | None = None
    started: datetime | None = None
    groups: int = 0
    read: int = 0
    agents: int = 0
    dark_groups: int = 0
    new_dark_groups: int | None = None
    findings: dict[Severity, int] = {}
    seconds: float | None = None
    requests: int | None = None
    retries: int | None = None

    @property
    def refused(self) -> bool:
        """Whether its credentials were not accepted."""
        return self.error is not None and self.error.error == _REFUSED

    @classmethod
    def unread(cls, name: str, error: Exception | None = None) -> AccountReport:
        """An account of which nothing can be said.

        Args:
            name: its name.
            error: what ended its audit; None when it was not begun.
        """
        if error is None:
            return cls(name=name, complete=False, verdict="Not audited yet.")
        failure = _failure(error)
        said = failure.message.rstrip(".")
        return cls(name=name, complete=False, verdict=f"Not read: {said}.", error=failure)


def account_report(name: str, report: Report) -> AccountReport:
    """Sum up the report of one account.

    Args:
        name: the account's name.
        report: what its audit found.
    """
    return AccountReport(
        name=name,
        complete=report.complete,
        verdict=report.verdict,
        started=report.snapshot.run.started,
        groups=report.groups,
        read=report.read_count,
        agents=len(report.context.agents),
        dark_groups=len(report.dark),
        new_dark_groups=_new_dark(report),
        findings={severity: number for severity, number in report.counts.items() if number},
        seconds=report.health.seconds,
        requests=report.health.requests,
        retries=report.health.retries,
    )


def ignored_in_fleet(ignore: Iterable[str], rules: Iterable[Rule]) -> tuple[str, ...]:
    """The rules not to run in an account: besides those given, the one about mutes.

    All accounts share the mutes, so that in any one account most of them match nothing.

    Args:
        ignore: ids or names of rules not to run.
        rules: the rules there are.
    """
    return (*ignore, *(rule.id for rule in rules if rule.id == _STALE_MUTE))


class FleetSummary(Struct, frozen=True, kw_only=True, tag_field="type", tag="summary"):
    """A fleet in numbers."""

    complete: bool
    verdict: str
    accounts: int
    unread: int
    dark_accounts: int
    dark_groups: int
    new_dark_groups: int
    groups: int
    findings: dict[Severity, int]


class FleetReport(Struct, frozen=True, kw_only=True):
    """What the audits of many accounts came to; ``accounts`` are ranked, the worst first."""

    accounts: tuple[AccountReport, ...]
    started: datetime | None = None

    @classmethod
    def of(cls, accounts: Iterable[AccountReport], started: datetime | None = None) -> FleetReport:
        """Rank accounts: unread ones first, then by dark groups, new before old, then by findings.

        Args:
            accounts: what the audit of each came to.
            started: when the first audit began; by default the earliest that the accounts tell.
        """
        ranked = tuple(sorted(accounts, key=_urgency))
        known = [each.started for each in ranked if each.started is not None]
        return cls(accounts=ranked, started=started or min(known, default=None))

    def __repr__(self) -> str:
        # Short: before Python 3.13, `asyncio.run` makes the repr of what it returns.
        return f"FleetReport({self.verdict!r})"

    @property
    def complete(self) -> bool:
        """Whether every group of every account was read."""
        return all(each.complete for each in self.accounts)

    @property
    def unread(self) -> tuple[AccountReport, ...]:
        """The accounts that were not read, or not whole."""
        return tuple(each for each in self.accounts if not each.complete)

    @property
    def counts(self) -> dict[Severity, int]:
        """The number of findings by severity, most severe first, zeros included."""
        found: Counter[Severity] = Counter()
        for each in self.accounts:
            found.update(each.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    @property
    def summary(self) -> FleetSummary:
        """The same in numbers."""
        dark = [each for each in self.accounts if each.dark_groups]
        return FleetSummary(
            complete=self.complete,
            verdict=self.verdict,
            accounts=len(self.accounts),
            unread=len(self.unread),
            dark_accounts=len(dark),
            dark_groups=sum(each.dark_groups for each in dark),
            new_dark_groups=sum(each.new_dark_groups or 0 for each in dark),
            groups=sum(each.groups for each in self.accounts),
            findings=self.counts,
        )

    @property
    def verdict(self) -> str:
        """The fleet in a few sentences: what is missing, whose callers reach nobody."""
        said = (self._missing(), self._age(), self._cover(), self._numbers())
        return " ".join(filter(None, said))

    def _missing(self) -> str:
        unread, total = self.unread, len(self.accounts)
        if not unread:
            return ""
        said = f"Incomplete: {len(unread):,} of {count(total, 'account')} could not be read whole"
        refused = sum(1 for each in unread if each.refused)
        return f"{said}, {refused:,} because of refused credentials." if refused else f"{said}."

    def _age(self) -> str:
        """What is older than the rest, such as a shard that did not run last night."""
        read = [each.started for each in self.accounts if each.started is not None]
        newest = max(read, default=None)
        old = [when for when in read if newest is not None and newest - when >= _OLD]
        if not old:
            return ""
        were = "was" if len(old) == 1 else "were"
        return f"{count(len(old), 'account')} {were} last read on {max(old):%Y-%m-%d} or before."

    def _cover(self) -> str:
        if not self.accounts:
            return "There are no accounts."
        dark = [each for each in self.accounts if each.dark_groups]
        if dark:
            groups = sum(each.dark_groups for each in dark)
            new = sum(each.new_dark_groups or 0 for each in dark)
            fresh = f", {new:,} of them since the last time" if new else ""
            of = f"of {count(len(dark), 'account')}"
            return f"Callers to {count(groups, 'group')} {of} reach nobody{fresh}."
        if not any(each.read for each in self.accounts):
            return "" if self.unread else "No account has a group."
        which = "" if self.complete else " that was read"
        return f"Every active group{which} has someone who receives calls."

    def _numbers(self) -> str:
        parts = [f"{number:,} {severity}" for severity, number in self.counts.items() if number]
        total = count(sum(self.counts.values()), "finding")
        return f"{total}: {', '.join(parts)}." if parts else ""


def fleet_exit_code(
    report: FleetReport,
    *,
    fail_on: Severity | Literal["never"] = "high",
    allow_partial: bool = False,
) -> int:
    """Give the exit code of a program that audits a fleet.

    Args:
        report: what the audits came to.
        fail_on: the mildest severity that fails, or "never".
        allow_partial: let accounts that were not read pass, unless nothing at all was read.

    Returns:
        4 when all credentials were refused, 3 when an account was not read whole, 1 when there are
        findings that fail, otherwise 0.
    """
    if report.accounts and all(each.refused for each in report.accounts):
        return 4
    if not report.complete and not (allow_partial and any(each.read for each in report.accounts)):
        return 3
    if fail_on == "never":
        return 0
    failing = (severity for severity, number in report.counts.items() if number)
    return 1 if any(rank(severity) <= rank(fail_on) for severity in failing) else 0


def _urgency(each: AccountReport) -> tuple[object, ...]:
    worst = tuple(-each.findings.get(severity, 0) for severity in SEVERITIES)
    new = each.new_dark_groups or 0
    return (each.complete, each.read > 0, -new, -each.dark_groups, worst, each.name)


def _new_dark(report: Report) -> int | None:
    before = report.context.before
    if before is None:
        return None
    number = 0
    for group_id in report.dark:
        view = before.groups.get(group_id)
        if view is None:
            # A whole baseline that does not have the group says that it is new.
            number += before.whole
        else:
            number += bool(view.receivers) or not view.active
    return number


def _failure(error: Exception) -> FailedLookup:
    if isinstance(error, DeepCallError):
        return FailedLookup.of(error)
    said = str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        said = f"{where}{(error.strerror or said).lower()}"
    return FailedLookup(error=type(error).__name__, message=said)
