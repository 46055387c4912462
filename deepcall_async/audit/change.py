"""What a watch tells: changes as frozen data, and the message that is made of them.

Data and pure functions; what counts as a change is decided in ``audit.watch``. Every change can be
encoded as JSON, where ``kind`` says which one it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import ClassVar, NamedTuple, TypeAlias

from msgspec import Struct

from deepcall_async.audit.labels import clean, count, listing

__all__ = [
    "Appeared",
    "Blind",
    "Change",
    "DarkGroup",
    "Digest",
    "FirstLook",
    "Recovered",
    "SightAgain",
    "SwitchedOff",
    "Thin",
    "Vanished",
    "WentDark",
    "digest",
]

_MOST_NAMED = 10


class _Change(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What all changes have: a number of their own, in the order of time, and the look's time."""

    number: int
    at: datetime


class _GroupChange(_Change, frozen=True, kw_only=True):
    """What all changes of one group have."""

    group_id: int
    name: str

    @property
    def label(self) -> str:
        """The group's name and id, as messages show them."""
        return _label(self.group_id, self.name)


class WentDark(_GroupChange, frozen=True, kw_only=True, tag="went_dark"):
    """An active group has nobody left who receives calls; ``since`` is when that was first seen."""

    heading: ClassVar[str] = "went dark"
    members: int
    since: datetime

    def __str__(self) -> str:
        has = {0: "it has no agents", 1: "its only agent receives no calls"}.get(
            self.members, f"none of its {self.members:,} agents receives calls"
        )
        return f"{self.label} went dark: {has}, since {_time(self.since)}."


class Recovered(_GroupChange, frozen=True, kw_only=True, tag="recovered"):
    """A group is well again, ``well_since`` when; it was ``"dark"``, ``"thin"`` or ``"off"``."""

    heading: ClassVar[str] = "recovered"
    was: str
    since: datetime
    well_since: datetime
    receivers: int

    def __str__(self) -> str:
        was = {"thin": "thinly covered", "off": "switched off"}.get(self.was, self.was)
        rings = f"{count(self.receivers, 'agent')} {_receive(self.receivers)} calls"
        return (
            f"{self.label} recovered: {rings}, since {_time(self.well_since)};"
            f" it was {was} since {_time(self.since)}."
        )


class Thin(_GroupChange, frozen=True, kw_only=True, tag="thin"):
    """An active group was well covered, and few of its agents still receive calls."""

    heading: ClassVar[str] = "became thinly covered"
    receivers: int
    members: int

    def __str__(self) -> str:
        rings = f"{self.receivers} of {count(self.members, 'agent')}"
        return f"{self.label} is thinly covered: {rings} {_receive(self.receivers)} calls."


class SwitchedOff(_GroupChange, frozen=True, kw_only=True, tag="switched_off"):
    """A group is no longer active: its callers are turned away."""

    heading: ClassVar[str] = "switched off"

    def __str__(self) -> str:
        return f"{self.label} was switched off: its callers are turned away."


class Appeared(_GroupChange, frozen=True, kw_only=True, tag="appeared"):
    """A group was added to the account."""

    heading: ClassVar[str] = "appeared"
    receivers: int
    active: bool

    def __str__(self) -> str:
        state = "" if self.active else ", inactive"
        who = f"{self.receivers} of its agents {_receive(self.receivers)} calls"
        return f"{self.label} appeared{state}: {who}."


class Vanished(_GroupChange, frozen=True, kw_only=True, tag="vanished"):
    """A group is no longer in the account."""

    heading: ClassVar[str] = "vanished"

    def __str__(self) -> str:
        return f"{self.label} vanished: the account no longer lists it."


class Blind(_Change, frozen=True, kw_only=True, tag="blind"):
    """Several looks in a row could read nothing; ``since`` is the time of the first of them."""

    heading: ClassVar[str] = "cannot see the account"
    since: datetime
    reason: str = ""

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"The account cannot be read since {_time(self.since)}{why}: nothing is watched."


class SightAgain(_Change, frozen=True, kw_only=True, tag="sight_again"):
    """The account can be read again; ``since`` is since when it could not."""

    heading: ClassVar[str] = "sees the account again"
    since: datetime

    def __str__(self) -> str:
        return f"The account can be read again; it could not since {_time(self.since)}."


class DarkGroup(Struct, frozen=True, kw_only=True):
    """A group that was dark when it was first looked at."""

    group_id: int
    name: str

    @property
    def label(self) -> str:
        """The group's name and id, as messages show them."""
        return _label(self.group_id, self.name)


class FirstLook(_Change, frozen=True, kw_only=True, tag="first_look"):
    """The first look ever: how the account was found. ``note`` says why it is not an older one."""

    heading: ClassVar[str] = "first look"
    groups: int
    dark: tuple[DarkGroup, ...] = ()
    thin: int = 0
    off: int = 0
    unread: int = 0
    note: str = ""

    def __str__(self) -> str:
        parts = [f"{len(self.dark):,} dark", f"{self.thin:,} thinly covered"]
        parts.append(f"{self.off:,} switched off")
        parts += [f"{self.unread:,} could not be read"] if self.unread else []
        said = f"The watch began with {count(self.groups, 'group')}: {', '.join(parts)}."
        if self.dark:
            names = (group.label for group in self.dark)
            said += f" Dark: {listing(names, len(self.dark), _MOST_NAMED)}."
        return f"{said} {self.note}" if self.note else said


Change: TypeAlias = (
    WentDark | Recovered | Thin | SwitchedOff | Appeared | Vanished | Blind | SightAgain | FirstLook
)
"""What may be told; ``str(change)`` is a sentence."""

_WORST_FIRST = (
    Blind,
    WentDark,
    SwitchedOff,
    Thin,
    SightAgain,
    Recovered,
    Vanished,
    Appeared,
    FirstLook,
)


class Digest(NamedTuple):
    """The changes of one look as one message: plain text."""

    title: str
    body: str


def digest(changes: Iterable[Change]) -> Digest:
    """Make one message of the changes of a look, the worst first.

    Args:
        changes: at least one. Of more than ten of a kind, ten are written out.
    """
    kinds: dict[type, list[Change]] = {kind: [] for kind in _WORST_FIRST}
    for change in changes:
        kinds[type(change)].append(change)
    titles, lines = [], []
    for found in filter(None, kinds.values()):
        heading = found[0].heading
        grouped = isinstance(found[0], _GroupChange)
        titles.append(f"{count(len(found), 'group')} {heading}" if grouped else heading)
        lines += [str(change) for change in found[:_MOST_NAMED]]
        if len(found) > _MOST_NAMED:
            lines.append(f"… and {len(found) - _MOST_NAMED:,} more groups {heading}.")
    title = ", ".join(titles)
    return Digest(title[:1].upper() + title[1:], "\n".join(lines))


def _label(group_id: int, name: str) -> str:
    shown = clean(name).strip()
    return f"{shown} ({group_id})" if shown else f"group {group_id}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _receive(number: int) -> str:
    return "receives" if number == 1 else "receive"
