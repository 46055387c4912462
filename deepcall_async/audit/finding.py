"""Findings and their severities.

Plain frozen data. Nothing here knows a rule or a format.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from msgspec import Struct

__all__ = ["SEVERITIES", "Evidence", "Finding", "Hit", "Identity", "Severity", "rank"]

Severity: TypeAlias = Literal["critical", "high", "medium", "low", "info"]
"""How severe a finding is."""

SEVERITIES: tuple[Severity, ...] = ("critical", "high", "medium", "low", "info")
"""All severities, most severe first."""

Evidence: TypeAlias = dict[str, Any]
"""The facts behind a finding, as JSON can hold them."""

Identity: TypeAlias = tuple[str, str, int | None, int | None, str]
"""Rule, severity, group, agent and key: what makes a finding the same in another run."""

_RANK = {severity: place for place, severity in enumerate(SEVERITIES)}


def rank(severity: Severity) -> int:
    """Place a severity: 0 is the most severe."""
    return _RANK[severity]


class Hit(Struct, frozen=True, kw_only=True):
    """What a rule's function yields; the rule itself adds its id and severity.

    Args:
        message: who and what, as a sentence.
        group_id: the group concerned, if it is one.
        agent_id: the agent concerned, if it is one.
        evidence: the facts, as JSON can hold them.
        key: tells apart findings of one rule about the same group and agent.
        severity: in place of the rule's own.
    """

    message: str
    group_id: int | None = None
    agent_id: int | None = None
    evidence: Evidence = {}
    key: str = ""
    severity: Severity | None = None


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One thing that one rule found.

    ``new`` says whether the baseline lacked it; None without a baseline, or when the baseline had
    not read the groups concerned. ``key`` tells apart findings of one rule about the same group
    and agent. ``count`` is how many findings this one stands for: more than one when many of a
    rule were folded, and then ``evidence`` holds all their ids.
    """

    rule: str
    severity: Severity
    group_id: int | None
    agent_id: int | None
    message: str
    evidence: Evidence
    key: str = ""
    new: bool | None = None
    count: int = 1

    @property
    def identity(self) -> Identity:
        """What makes it the same finding in another run; one that became more severe is another."""
        return (self.rule, self.severity, self.group_id, self.agent_id, self.key)
