"""The result of an audit: findings, most severe first, and what they were found in.

Data only: no rule runs here, and nothing is written in a format.
"""

from __future__ import annotations

from collections import Counter

from msgspec import Struct

from deepcall_async.audit.context import Context
from deepcall_async.audit.finding import SEVERITIES, Finding, Severity, rank
from deepcall_async.audit.mutes import Muted
from deepcall_async.audit.rule import Rule
from deepcall_async.audit.snapshot import Snapshot

__all__ = ["Action", "Health", "Report"]


class Health(Struct, frozen=True, kw_only=True):
    """What a run cost: seconds, requests sent, and how many of them were repeats."""

    seconds: float | None = None
    requests: int | None = None
    retries: int | None = None


class Action(Struct, frozen=True, kw_only=True):
    """One thing to do, for all findings of one rule and severity."""

    rule: Rule
    severity: Severity
    findings: tuple[Finding, ...]


class Report(Struct, frozen=True, kw_only=True, eq=False):
    """What an audit found, most severe first.

    ``verdict`` sums it up in a sentence or two. ``rules`` are those that ran; ``context``
    is the indexed snapshot that they ran on. With ``new_only`` the findings that the baseline had
    as well were left out. ``resolved`` counts what the baseline had and this report has not; it is
    None without a baseline, or when the account was not read whole.
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

        Args:
            limit: how many to give at most.
        """
        found: dict[tuple[Severity, str], list[Finding]] = {}
        for finding in self.findings:
            found.setdefault((finding.severity, finding.rule), []).append(finding)
        order = sorted(found.items(), key=lambda item: (rank(item[0][0]), -len(item[1])))
        return tuple(
            Action(rule=self.rule(rule_id), severity=severity, findings=tuple(findings))
            for (severity, rule_id), findings in order[:limit]
        )
