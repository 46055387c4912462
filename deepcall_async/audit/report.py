"""The result of an audit: findings, most severe first, and what they were found in.

Data only: no rule runs here, and nothing is written in a format.
"""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from deepcall_async.audit.context import Context
from deepcall_async.audit.finding import SEVERITIES, Finding, Severity, rank
from deepcall_async.audit.labels import count
from deepcall_async.audit.mutes import Muted
from deepcall_async.audit.rule import Rule
from deepcall_async.audit.snapshot import Snapshot

__all__ = ["ASK_AGAIN", "RING_NOBODY", "Action", "Health", "Report"]

ASK_AGAIN = "Run again with --resume, which asks only for what is missing."
"""What to do about a report that is not complete."""

RING_NOBODY = ("G001", "G002")
_WENT_DARK = "D001"


class Health(Struct, frozen=True, kw_only=True):
    """What a run cost: seconds, requests sent, and how many of them were repeats."""

    seconds: float | None = None
    requests: int | None = None
    retries: int | None = None


class Action(Struct, frozen=True, kw_only=True):
    """One thing to do, for all ``count`` findings of one rule and severity."""

    rule: Rule
    severity: Severity
    findings: tuple[Finding, ...]
    count: int


class Report(Struct, frozen=True, kw_only=True, eq=False):
    """What an audit found, most severe first.

    ``verdict`` sums it up in a few sentences. ``rules`` are those that ran; ``context`` is the
    indexed snapshot that they ran on. Many findings of one rule below "high" are one here. With
    ``new_only`` the findings that the baseline had as well were left out. ``resolved`` counts what
    the baseline had and this report has not; it is None without a baseline, or when the account was
    not read whole.
    """

    findings: tuple[Finding, ...]
    muted: tuple[Muted, ...]
    verdict: str
    rules: tuple[Rule, ...]
    context: Context
    health: Health = Health()
    new_only: bool = False
    resolved: int | None = None

    def __repr__(self) -> str:
        # Short: before Python 3.13, `asyncio.run` makes the repr of what it returns.
        return f"Report({self.verdict!r})"

    @property
    def snapshot(self) -> Snapshot:
        """What was audited."""
        return self.context.snapshot

    @property
    def baseline(self) -> Snapshot | None:
        """What it was compared with, if anything."""
        return self.context.before.snapshot if self.context.before is not None else None

    @property
    def complete(self) -> bool:
        """Whether every group asked for was read."""
        return self.snapshot.complete

    @property
    def groups(self) -> int:
        """How many groups were asked for."""
        return len(self.snapshot.asked)

    @property
    def read_count(self) -> int:
        """How many groups were read."""
        return len(self.snapshot.relations)

    @property
    def failed(self) -> int:
        """How many lookups failed."""
        return len(self.snapshot.failed)

    @property
    def pending(self) -> int:
        """How many groups were not looked up before the run ended."""
        return len(self.snapshot.pending)

    @property
    def dark(self) -> tuple[int, ...]:
        """The active groups that were read and ring nobody, whatever rules and mutes leave out."""
        return tuple(view.id for view in self.context.active() if not view.receivers)

    @property
    def incomplete(self) -> str:
        """What is missing, as a sentence; blank when nothing is."""
        snapshot = self.snapshot
        if snapshot.complete:
            return ""
        if snapshot.cut_short:
            return "Incomplete: the groups were not listed."
        asked, failed, pending = self.groups, self.failed, self.pending
        parts = []
        if failed:
            parts.append(f"{failed:,} of {count(asked, 'group')} could not be read")
        if pending:
            of = "" if failed else f" of {count(asked, 'group')}"
            parts.append(f"{pending:,}{of} {'was' if pending == 1 else 'were'} not looked up")
        return f"Incomplete: {' and '.join(parts)}."

    @property
    def counts(self) -> dict[Severity, int]:
        """The number of findings by severity, most severe first, zeros included."""
        found = Counter(finding.severity for finding in self.findings)
        return {severity: found[severity] for severity in SEVERITIES}

    @property
    def worst(self) -> Severity | None:
        """The highest severity found, or None when nothing was."""
        return self.findings[0].severity if self.findings else None

    def rule(self, rule_id: str) -> Rule:
        """Give the rule of a finding.

        Raises:
            KeyError: no rule with this id ran.
        """
        for rule in self.rules:
            if rule.id == rule_id:
                return rule
        raise KeyError(rule_id)

    def actions(self, limit: int = 5) -> tuple[Action, ...]:
        """Give the most urgent things to do: by severity, then by how much each one mends.

        A group that rings nobody is named once, even when it went dark since the baseline.

        Args:
            limit: how many to give at most.
        """
        dark = {finding.group_id for finding in self.findings if finding.rule in RING_NOBODY}
        found: dict[tuple[Severity, str], list[Finding]] = {}
        for finding in self.findings:
            if finding.rule != _WENT_DARK or finding.group_id not in dark:
                found.setdefault((finding.severity, finding.rule), []).append(finding)
        actions = [
            Action(
                rule=self.rule(rule_id),
                severity=severity,
                findings=tuple(findings),
                count=sum(finding.count for finding in findings),
            )
            for (severity, rule_id), findings in found.items()
        ]
        actions.sort(key=lambda action: (rank(action.severity), -action.count))
        return tuple(actions[:limit])
