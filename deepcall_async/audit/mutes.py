"""Mutes: findings that are known and accepted, and what they take out of a report.

Only data and the search for the mutes of a finding. The file they come from is read elsewhere.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from datetime import date

from msgspec import Struct

from deepcall_async.audit.finding import Finding, Hit

__all__ = ["Mute", "MuteIndex", "Muted"]


class Mute(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A finding that is known and accepted, with the reason why.

    Args:
        rule: the rule's id or name.
        group: the group's id; None for any group.
        agent: the agent's id; None for any agent. A mute needs a group or an agent.
        reason: why it is accepted.
        expires: the last day (UTC) on which it holds; None for no end.

    Raises:
        ValueError: the reason is blank, or there is neither group nor agent.
    """

    rule: str
    reason: str
    group: int | None = None
    agent: int | None = None
    expires: date | None = None

    def __post_init__(self) -> None:
        if not self.rule.strip() or not self.reason.strip():
            raise ValueError("a mute needs a rule and a reason that are not blank")
        if self.group is None and self.agent is None:
            raise ValueError("a mute needs a group or an agent; to drop a whole rule, ignore it")

    def holds(self, today: date | None) -> bool:
        """Whether it has not expired; with no date to compare it holds."""
        return self.expires is None or today is None or today <= self.expires

    def stale(self, known: Container[str], today: date | None) -> str | None:
        """Why it can match nothing, whatever is found; None where it can.

        Args:
            known: the rules there are.
            today: the date to compare with, if there is one.
        """
        if not self.holds(today):
            return f"expired on {self.expires}"
        return None if self.rule in known else "names a rule that does not exist"

    def __str__(self) -> str:
        about = [f"group {self.group}"] if self.group is not None else []
        about += [f"agent {self.agent}"] if self.agent is not None else []
        return f"{self.rule} for {' and '.join(about)}"


class MuteIndex:
    """Finds the mutes of a hit without going through all of them.

    Args:
        mutes: mutes that name their rules by id.
    """

    def __init__(self, mutes: Iterable[Mute]) -> None:
        self._mutes: dict[tuple[str, int | None, int | None], list[Mute]] = {}
        for mute in mutes:
            self._mutes.setdefault((mute.rule, mute.group, mute.agent), []).append(mute)

    def of(self, rule_id: str, hit: Hit) -> list[Mute]:
        """Give the mutes that are about what a rule has hit, expired ones included."""
        if not self._mutes:
            return []
        group, agent = hit.group_id, hit.agent_id
        keys = dict.fromkeys(
            [(rule_id, group, agent), (rule_id, group, None), (rule_id, None, agent)]
        )
        return [mute for key in keys for mute in self._mutes.get(key, ())]


class Muted(Struct, frozen=True, kw_only=True):
    """A finding that a mute took out of the report."""

    finding: Finding
    reason: str
    expires: date | None = None
