"""Folding: many findings of one rule become one sentence.

Pure functions over hits. What is new and what is muted was decided before, so nothing is decided
here; and a hit beyond those that are shown is counted, and never made a finding.
"""

from __future__ import annotations

from collections.abc import Iterable

from deepcall_async.audit.context import Context
from deepcall_async.audit.finding import Finding, Hit, Severity, rank
from deepcall_async.audit.labels import clean, count, listing
from deepcall_async.audit.rule import Rule

__all__ = ["Pile"]

_MOST = 10
"""Findings of one rule that are shown one by one; findings of "high" and "critical" always are."""


class Pile:
    """Findings of one rule and severity, all of them new or none.

    More than ten of a severity below "high" are one, with all their ids.

    Args:
        rule: whose findings.
        severity: how severe they are.
        new: whether the baseline lacked them; None when it is not known.
    """

    def __init__(self, rule: Rule, severity: Severity, new: bool | None) -> None:
        self._rule = rule
        self._severity = severity
        self._new = new
        self._folds = rank(severity) > rank("high")
        self._count = 0
        self._first: list[Finding] = []
        self._groups: set[int] = set()
        self._agents: set[int] = set()

    def add(self, hit: Hit) -> None:
        """Add what the rule has hit."""
        self._count += 1
        if not self._folds or self._count <= _MOST:
            self._first.append(self._rule.finding(hit, new=self._new))
        else:
            self._gather(hit)

    def findings(self, context: Context) -> list[Finding]:
        """Give them: each one, or one for all.

        Args:
            context: what they were found in.
        """
        if self._count == len(self._first):
            return self._first
        for finding in self._first:
            self._gather(finding)
        evidence: dict[str, object] = {"count": self._count}
        if self._groups:
            evidence["group_ids"] = sorted(self._groups)
        if self._agents:
            evidence["agent_ids"] = sorted(self._agents)
        examples = listing((_example(each, context) for each in self._first), self._count)
        return [
            Finding(
                rule=self._rule.id,
                severity=self._severity,
                group_id=None,
                agent_id=None,
                message=f"{self._subjects(context)}, such as {examples}.",
                evidence=evidence,
                key="folded",
                new=self._new,
                count=self._count,
            )
        ]

    def _gather(self, hit: Hit | Finding) -> None:
        if hit.group_id is not None:
            self._groups.add(hit.group_id)
        if hit.agent_id is not None:
            self._agents.add(hit.agent_id)
        if hit.evidence:
            self._groups.update(_ids(hit.evidence.get("group_ids")))
            self._agents.update(_ids(hit.evidence.get("agent_ids")))

    def _subjects(self, context: Context) -> str:
        rule, number = self._rule, self._count
        if not rule.many:
            return f"{count(number, 'finding')} of {clean(rule.id)} ({clean(rule.name)})"
        total = 0
        if rule.many.startswith("agents "):
            total = len(context.agents)
        elif rule.many.startswith("groups ") and not rule.compares:
            total = len(context.snapshot.asked)
        of = f" of {total:,}" if total >= number else ""
        return f"{number:,}{of} {rule.many}"


def _example(finding: Finding, context: Context) -> str:
    parts = []
    if finding.agent_id is not None:
        parts.append(context.agent(finding.agent_id))
    if finding.group_id is not None:
        parts.append(context.label(finding.group_id))
    return " in ".join(parts) or finding.message.rstrip(".")


def _ids(found: object) -> Iterable[int]:
    return (each for each in found if isinstance(each, int)) if isinstance(found, list) else ()
