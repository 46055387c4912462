"""Folding: many findings of one rule become one sentence.

Pure functions. It runs after mutes and the baseline were applied, so that nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deepcall_async.audit.context import Context
from deepcall_async.audit.finding import Finding, rank
from deepcall_async.audit.labels import clean, count, listing
from deepcall_async.audit.rule import Rule

__all__ = ["folded"]

_MOST = 10
"""Findings of one rule that are shown one by one; findings of "high" and "critical" always are."""


def folded(findings: Iterable[Finding], rules: Iterable[Rule], context: Context) -> list[Finding]:
    """Put more than ten findings of one rule below "high" into one, with all their ids.

    Findings of another severity, or that are new where others are not, stay apart.

    Args:
        findings: what was found and not muted.
        rules: the rules of the findings.
        context: what they were found in.
    """
    words = {rule.id: rule for rule in rules}
    alike: dict[tuple[str, str, bool | None], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.rule, finding.severity, finding.new), []).append(finding)
    kept: list[Finding] = []
    for (rule_id, _, _), group in alike.items():
        if len(group) > _MOST and rank(group[0].severity) > rank("high"):
            kept.append(_one(group, words[rule_id], context))
        else:
            kept += group
    return kept


def _one(findings: Sequence[Finding], rule: Rule, context: Context) -> Finding:
    first = findings[0]
    groups = _ids(findings, "group_id", "group_ids")
    agents = _ids(findings, "agent_id", "agent_ids")
    evidence: dict[str, object] = {"count": len(findings)}
    if groups:
        evidence["group_ids"] = groups
    if agents:
        evidence["agent_ids"] = agents
    return Finding(
        rule=rule.id,
        severity=first.severity,
        group_id=None,
        agent_id=None,
        message=f"{_subjects(findings, rule, context)}, such as {_examples(findings, context)}.",
        evidence=evidence,
        key="folded",
        new=first.new,
        count=len(findings),
    )


def _subjects(findings: Sequence[Finding], rule: Rule, context: Context) -> str:
    number = len(findings)
    if not rule.many:
        return f"{count(number, 'finding')} of {clean(rule.id)} ({clean(rule.name)})"
    total = 0
    if rule.many.startswith("agents "):
        total = len(context.agents)
    elif rule.many.startswith("groups ") and not rule.compares:
        total = len(context.snapshot.asked)
    of = f" of {total:,}" if total >= number else ""
    return f"{number:,}{of} {rule.many}"


def _examples(findings: Sequence[Finding], context: Context) -> str:
    labels = []
    for finding in findings[:3]:
        parts = []
        if finding.agent_id is not None:
            parts.append(context.agent(finding.agent_id))
        if finding.group_id is not None:
            parts.append(context.label(finding.group_id))
        labels.append(" in ".join(parts) or finding.message.rstrip("."))
    return listing(labels, len(findings))


def _ids(findings: Iterable[Finding], one: str, several: str) -> list[int]:
    found: set[int] = set()
    for finding in findings:
        single = getattr(finding, one)
        if single is not None:
            found.add(single)
        more = finding.evidence.get(several, ())
        if isinstance(more, list):
            found.update(each for each in more if isinstance(each, int))
    return sorted(found)
