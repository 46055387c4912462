"""What the owner of an account sets: thresholds, and the findings that are known and accepted.

Law: values in, values out. The file they stand in is read and parsed by whoever calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

import msgspec
from msgspec import Struct

from deepcall_async.audit.finding import Finding

__all__ = ["Mute", "MuteIndex", "Settings", "Thresholds", "read_settings"]


class Thresholds(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the rules draw their lines.

    Args:
        min_receivers: agents who receive calls, below which cover is thin.
        oversized: agents in a group, above which it is oversized.
        stale_days: days after which an empty group is stale.
        muted_share: the share of receiving members below which a group is mostly muted.
        muted_members: members a group must have before its share of receivers is judged.
        overloaded: groups an agent receives in, above which the agent is overloaded.
        twin_minutes: minutes between two groups within which one may be the other's double.
        key_groups: groups that hang on one agent, from which that agent is a key person.

    Raises:
        ValueError: a number is out of range.
    """

    min_receivers: int = 3
    oversized: int = 50
    stale_days: float = 90
    muted_share: float = 0.5
    muted_members: int = 4
    overloaded: int = 10
    twin_minutes: float = 10
    key_groups: int = 2

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"threshold {name} must be a number above 0")
        if self.muted_share > 1:
            raise ValueError("threshold muted_share is a share: at most 1")


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

    def __str__(self) -> str:
        about = [f"group {self.group}"] if self.group is not None else []
        about += [f"agent {self.agent}"] if self.agent is not None else []
        return f"{self.rule} for {' and '.join(about)}"


class MuteIndex:
    """Finds the mutes of a finding without going through all of them.

    Args:
        mutes: mutes that name their rules by id.
    """

    def __init__(self, mutes: Iterable[Mute]) -> None:
        self._mutes: dict[tuple[str, int | None, int | None], list[Mute]] = {}
        for mute in mutes:
            self._mutes.setdefault((mute.rule, mute.group, mute.agent), []).append(mute)

    def of(self, finding: Finding) -> list[Mute]:
        """Give the mutes that are about a finding, expired ones included."""
        rule, group, agent = finding.rule, finding.group_id, finding.agent_id
        if not self._mutes:
            return []
        keys = dict.fromkeys([(rule, group, agent), (rule, group, None), (rule, None, agent)])
        return [mute for key in keys for mute in self._mutes.get(key, ())]


class Settings(Struct, frozen=True, kw_only=True):
    """What a settings file holds."""

    mutes: tuple[Mute, ...] = ()
    thresholds: Thresholds = Thresholds()


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mute: tuple[Mute, ...] = ()
    thresholds: Thresholds = Thresholds()


def read_settings(parsed: Mapping[str, object]) -> Settings:
    """Read mutes and thresholds from a parsed TOML file.

    It holds any number of ``[[mute]]`` tables (``rule``, ``reason``, ``group`` or ``agent`` or
    both, ``expires``) and at most one table ``[thresholds]``.

    Args:
        parsed: what ``tomllib`` made of the file.

    Returns:
        The mutes, in the file's order, and the thresholds.

    Raises:
        ValueError: something is missing, misspelt or out of range; the message says where.
    """
    try:
        file = msgspec.convert(dict(parsed), _File)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        place = where.strip("`").lstrip(".") or "the file"
        raise ValueError(f"audit settings: {what} (at {place})") from None
    return Settings(mutes=file.mute, thresholds=file.thresholds)
