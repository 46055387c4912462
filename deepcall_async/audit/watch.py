"""What changed since the last look at an account, and what of it is worth a message.

Pure: a state and a snapshot go in, the next state and the changes to tell come out. Asking the
service, keeping the state and delivering the changes is done in ``deepcall_async.watch``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import count
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from deepcall_async.audit.change import (
    Appeared,
    Blind,
    Change,
    DarkGroup,
    FirstLook,
    Recovered,
    SightAgain,
    SwitchedOff,
    Thin,
    Vanished,
    WentDark,
)
from deepcall_async.audit.context import Context, GroupView
from deepcall_async.audit.labels import clean
from deepcall_async.audit.snapshot import Snapshot

__all__ = ["GroupState", "State", "is_blind", "step", "why_blind"]

GOOD, THIN, OFF, DARK, GONE = "g", "t", "o", "d", "x"
"""How a group is found in a look. Gone: a whole list does not name it."""
NEW, UNREAD = "n", "u"
"""What was told of a group that is not known for long enough, or was listed and never read."""

_BLIND_LOOKS = 3


class GroupState(Struct, frozen=True, kw_only=True):
    """What is known of one group.

    ``reads`` is how it was found in the last looks that read it, the latest last, and ``since``
    when it was first found as it is now. ``told`` is how it was last told to be, ``told_since``
    since when it was so, and ``told_at`` the time of the last message about it.
    """

    name: str
    told: str
    reads: str
    since: datetime
    receivers: int = 0
    members: int = 0
    told_since: datetime | None = None
    told_at: datetime | None = None
    mild: bool = False
    """The last message was that it is thin or new: that it went dark does not wait for it."""

    @property
    def dark(self) -> bool:
        """Whether it was dark when it was last read."""
        return self.reads.endswith(DARK)

    @property
    def thin(self) -> bool:
        """Whether it was thinly covered when it was last read."""
        return self.reads.endswith(THIN)

    @property
    def off(self) -> bool:
        """Whether it was inactive when it was last read."""
        return self.reads.endswith(OFF)

    @property
    def confirmed(self) -> bool:
        """Whether what was last read is also what was told."""
        return self.reads.endswith(self.told)


class State(Struct, frozen=True, kw_only=True):
    """What a watch remembers from one look to the next.

    Times are those of looks: the last, the last that read anything, the last that read everything.
    """

    groups: dict[int, GroupState] = {}
    looks: int = 0
    numbers: int = 0
    last_look: datetime | None = None
    last_sight: datetime | None = None
    last_whole: datetime | None = None
    blind_looks: int = 0
    blind_since: datetime | None = None
    blind_told: bool = False
    blind_told_at: datetime | None = None
    user_ids: tuple[str, ...] = ()

    @property
    def present(self) -> Mapping[int, GroupState]:
        """The groups that the account has, as far as is known."""
        return {
            group_id: group
            for group_id, group in self.groups.items()
            if not group.reads.endswith(GONE) and group.told != GONE
        }


class _Limits(NamedTuple):
    confirm: int
    clear: int
    cooldown: timedelta

    @property
    def kept(self) -> int:
        return max(self.confirm, self.clear)

    def holds_back(self, told_at: datetime | None, now: datetime) -> bool:
        # A clock that was set back must not silence anything for longer than the cooldown.
        return told_at is not None and timedelta() <= now - told_at < self.cooldown


def step(
    state: State,
    snapshot: Snapshot,
    now: datetime,
    *,
    confirm: int = 2,
    clear: int = 2,
    cooldown: float = 3600.0,
    min_receivers: int = 3,
    reason: str = "",
    note: str = "",
) -> tuple[State, tuple[Change, ...]]:
    """Take one look into account.

    A group changes only by looks that read it, or whose whole list does not name it; other looks
    neither count for it nor against it. The first look that reads anything gives one summary.

    Args:
        state: what was known before; ``State()`` at first.
        snapshot: what the look found. ``cut_short`` says that the groups could not be listed.
        now: the time of the look, aware.
        confirm: looks in a row that must agree before a group is told to be dark, thin, off, new
            or gone.
        clear: looks in a row that must agree before a group is told to have recovered.
        cooldown: seconds after a message about a group in which it gets no other; what still
            holds then is told then. Only that a group went dark is told at once when the message
            before was that it is thin or new.
        min_receivers: agents who receive calls, below which cover is thin.
        reason: why the groups could not be listed.
        note: what the summary of the first look is to say besides.

    Returns:
        The next state, and the changes to tell.
    """
    limits = _Limits(confirm, clear, timedelta(seconds=cooldown))
    looked = replace(state, looks=state.looks + 1, last_look=now)
    if is_blind(snapshot):
        return _blind(looked, now, limits, reason or why_blind(snapshot))
    context = Context.of(snapshot)
    found = {group_id: _condition(view, min_receivers) for group_id, view in context.groups.items()}
    seen = replace(
        looked,
        last_sight=now,
        last_whole=now if snapshot.complete else state.last_whole,
        user_ids=tuple(sorted(snapshot.user_ids)) if snapshot.complete else state.user_ids,
        blind_looks=0,
        blind_since=None,
        blind_told=False,
    )
    numbers = count(state.numbers + 1)
    if state.last_sight is None:
        groups, summary = _first(context, found, now, next(numbers), note)
        return replace(seen, groups=groups, numbers=summary.number), (summary,)
    changes: list[Change] = []
    if state.blind_told:
        since = state.blind_since or now
        changes.append(SightAgain(number=next(numbers), at=now, since=since))
    if snapshot.run.whole_account:
        found |= dict.fromkeys(state.groups.keys() - context.known.keys(), GONE)
    groups = dict(state.groups)
    for group_id, condition in found.items():
        before = groups.get(group_id) or GroupState(name="", told=NEW, reads="", since=now)
        group, kind = _observed(before, condition, context.groups.get(group_id), now, limits)
        if group is not None and kind is not None:
            changes.append(_change(kind, group_id, before, group, now, next(numbers)))
        if group is None:
            groups.pop(group_id, None)
        elif group is not before:
            groups[group_id] = group
    return (
        replace(seen, groups=groups, numbers=state.numbers + len(changes)),
        tuple(changes),
    )


def is_blind(snapshot: Snapshot) -> bool:
    """Whether a look could not read anything, although there was something to read."""
    there = len(snapshot.asked) - len(snapshot.gone)
    return snapshot.cut_short or (there > 0 and not snapshot.relations)


def why_blind(snapshot: Snapshot) -> str:
    """Say why no group could be read: the reason that most lookups failed for."""
    reasons = Counter(f"{failed.error}: {failed.message}" for failed in snapshot.failed.values())
    return max(reasons, key=reasons.__getitem__, default="")


def _blind(
    state: State, now: datetime, limits: _Limits, reason: str
) -> tuple[State, tuple[Change, ...]]:
    since = state.blind_since or now
    state = replace(state, blind_looks=state.blind_looks + 1, blind_since=since)
    if (
        state.blind_told
        or state.blind_looks < _BLIND_LOOKS
        or limits.holds_back(state.blind_told_at, now)
    ):
        return state, ()
    number = state.numbers + 1
    state = replace(state, numbers=number, blind_told=True, blind_told_at=now)
    return state, (Blind(number=number, at=now, since=since, reason=clean(reason, 300)),)


def _first(
    context: Context, found: Mapping[int, str], now: datetime, number: int, note: str
) -> tuple[dict[int, GroupState], FirstLook]:
    groups = {}
    for group_id, group in context.known.items():
        view, condition = context.groups.get(group_id), found.get(group_id)
        groups[group_id] = GroupState(
            name=group.name,
            told=condition or UNREAD,
            reads=condition or "",
            since=now,
            told_since=now,
            receivers=0 if view is None else len(view.receivers),
            members=0 if view is None else len(view.members),
        )
    conditions = [group.told for group in groups.values()]
    dark = [
        DarkGroup(group_id=group_id, name=group.name)
        for group_id, group in groups.items()
        if group.dark
    ]
    summary = FirstLook(
        number=number,
        at=now,
        groups=len(groups),
        dark=tuple(dark),
        thin=conditions.count(THIN),
        off=conditions.count(OFF),
        unread=conditions.count(UNREAD),
        note=note,
    )
    return groups, summary


def _observed(
    before: GroupState, condition: str, view: GroupView | None, now: datetime, limits: _Limits
) -> tuple[GroupState | None, type | None]:
    """Add what a look found of a group, and say what is to be told of it.

    Returns:
        The group, None when it may be forgotten; and the kind of change, if any.
    """
    told = before.told
    if told == NEW and condition == GONE:
        return None, None
    reads = (before.reads + condition)[-limits.kept :]
    group = replace(
        before,
        reads=reads,
        since=before.since if before.reads.endswith(condition) and before.reads else now,
        name=before.name if view is None else view.group.name,
        receivers=before.receivers if view is None else len(view.receivers),
        members=before.members if view is None else len(view.members),
    )
    held = limits.holds_back(before.told_at, now)
    if condition == told:
        # Kept as long as it could come back within the cooldown.
        return (None if told == GONE and not held else _same(before, group)), None
    if told == UNREAD and condition != GONE:
        # It was known from the list, so it is not new; that it is dark is still to be told.
        known = GOOD if condition == DARK else condition
        told = known
        group = replace(group, told=known, told_since=now)
    held = held and not (condition == DARK and before.mild)
    if condition == told or held or not _agree(told, reads, limits):
        return _same(before, group), None
    appeared = told in (NEW, GONE)
    group = replace(
        group,
        # A group that appears dark is told to be dark next.
        told=GOOD if appeared and condition == DARK else condition,
        told_since=group.since,
        told_at=now,
        mild=appeared or (condition == THIN and told == GOOD),
    )
    if appeared:
        return group, Appeared
    kinds = {DARK: WentDark, OFF: SwitchedOff, GONE: Vanished}
    if condition == THIN and told == GOOD:
        return group, Thin
    return group, kinds.get(condition, Recovered)


def _agree(told: str, reads: str, limits: _Limits) -> bool:
    """Whether the last looks in a row confirm that a group is no longer as it was told to be."""
    condition, needed = reads[-1], limits.confirm
    bear_out = {condition}
    if told in (NEW, GONE):
        bear_out = {GOOD, THIN, OFF, DARK}
    elif condition == THIN and told == GOOD:
        bear_out = {THIN, DARK}
    elif condition in (GOOD, THIN):
        needed = limits.clear
        if told != THIN:
            # It has receivers again, few or many.
            bear_out = {GOOD, THIN}
    return len(reads) >= needed and bear_out.issuperset(reads[-needed:])


def _change(
    kind: type, group_id: int, before: GroupState, group: GroupState, now: datetime, number: int
) -> Change:
    common: dict[str, Any] = {"number": number, "at": now, "group_id": group_id, "name": group.name}
    if kind is WentDark:
        return WentDark(**common, members=group.members, since=group.since)
    if kind is Thin:
        return Thin(**common, receivers=group.receivers, members=group.members)
    if kind is Appeared:
        return Appeared(**common, receivers=group.receivers, active=not group.off)
    if kind is Recovered:
        since = before.told_since or before.since
        was = {THIN: "thin", OFF: "off"}.get(before.told, "dark")
        return Recovered(
            **common, was=was, since=since, well_since=group.since, receivers=group.receivers
        )
    return SwitchedOff(**common) if kind is SwitchedOff else Vanished(**common)


def _condition(view: GroupView, min_receivers: int) -> str:
    if not view.active:
        return OFF
    if not view.receivers:
        return DARK
    return THIN if len(view.receivers) < min_receivers else GOOD


def _same(before: GroupState, group: GroupState) -> GroupState:
    return before if group == before else group
