"""Settings of an audit: the thresholds of the rules, and the mutes.

Values in, values out. Reading and parsing the settings file is the caller's part.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from deepcall_async.audit.mutes import Mute

__all__ = ["Settings", "Thresholds", "read_settings"]


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

    Example:
        >>> mute = {"rule": "G002", "group": 5, "reason": "closes in spring"}
        >>> settings = read_settings({"mute": [mute]})
        >>> report = await run_audit(dc, mutes=settings.mutes, thresholds=settings.thresholds)
    """
    try:
        file = msgspec.convert(dict(parsed), _File)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        place = where.strip("`").lstrip(".") or "the file"
        raise ValueError(f"audit settings: {what} (at {place})") from None
    return Settings(mutes=file.mute, thresholds=file.thresholds)
