"""Accounts as a watch sees them, told in a letter a group, and a second opinion on what is told.

g is a group that is well covered, t thinly, d dark, o inactive, u could not be read, and - is not
listed. The model keeps a long list of what was read and searches it anew for every look; the package
keeps a few letters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from deepcall_async.audit import FailedLookup, RunInfo, Snapshot
from deepcall_async.audit.change import Change
from deepcall_async.models import Group, GroupAgentRelation
from tests.support.audit_accounts import relation

_FLAGS = {"g": "YYY", "t": "YN", "d": "NN", "o": "YYY"}

BLIND = Snapshot(cut_short=True)


@lru_cache(64)
def found(group_id: int, letter: str, name: str | None = None) -> GroupAgentRelation:
    return relation(group_id, _FLAGS[letter], status=0 if letter == "o" else 1, name=name)


def seen(groups: Mapping[int, str], name: str | None = None) -> Snapshot:
    """What a look finds of groups, each in a letter; ``name`` is what all of them are called."""
    listed = {group_id: letter for group_id, letter in groups.items() if letter != "-"}
    read = {group_id: letter for group_id, letter in listed.items() if letter != "u"}
    return Snapshot(
        run=RunInfo(),
        asked=tuple(listed),
        relations={group_id: found(group_id, letter, name) for group_id, letter in read.items()},
        failed={i: FailedLookup(error="RequestTimeout") for i in listed if i not in read},
        unread={
            i: Group(unique_id=i, name=f"Group {i}", status=1) for i in listed if i not in read
        },
    )


Told = tuple[str, int | None]


def told(change: Change) -> Told:
    """A change in short: its kind, and which group it is about."""
    kind = type(change).__name__
    return (f"{kind} {change.was}" if kind == "Recovered" else kind), getattr(
        change, "group_id", None
    )


class Model:
    """What has to be told, look by look, by the rules as a person would put them."""

    def __init__(self, confirm: int = 2, clear: int = 2, cooldown: float = 3600.0) -> None:
        self.confirm, self.clear, self.cooldown = confirm, clear, timedelta(seconds=cooldown)
        self.begun = False
        self.blind = 0
        self.blind_told = False
        self.last_blind: datetime | None = None
        self.reads: dict[int, list[str]] = {}
        self.told: dict[int, str] = {}
        self.last: dict[int, tuple[datetime, str]] = {}

    def look(self, groups: Mapping[int, str] | None, now: datetime) -> list[Told]:
        """Give what a look has to tell, in any order; None is a look that could not list."""
        listed = {i for i, letter in (groups or {}).items() if letter != "-"}
        if groups is None or (listed and all(groups[i] == "u" for i in listed)):
            return [*self._blind(now)]
        out: list[Told] = [("SightAgain", None)] if self.blind_told else []
        self.blind, self.blind_told = 0, False
        if not self.begun:
            self.begun = True
            for i in listed:
                self.told[i] = groups[i]
                self.reads[i] = [] if groups[i] == "u" else [groups[i]]
            return [("FirstLook", None)]
        for i in {*self.told, *listed}:
            letter = groups.get(i, "-")
            if letter != "u" and (kind := self._group(i, letter, now)):
                out.append((kind, i))
        return out

    def _blind(self, now: datetime) -> Iterator[Told]:
        self.blind += 1
        late = self.last_blind is None or now - self.last_blind >= self.cooldown
        if self.blind >= 3 and not self.blind_told and late:
            self.blind_told, self.last_blind = True, now
            yield "Blind", None

    def _group(self, i: int, letter: str, now: datetime) -> str | None:
        was = self.told.setdefault(i, "new")
        reads = self.reads.setdefault(i, [])
        reads.append(letter)
        del reads[:-50]
        last = self.last.get(i)
        quiet = last is None or now - last[0] >= self.cooldown
        if was == "new" and letter == "-":
            self._forget(i)
            return None
        if was == "-" and letter == "-" and quiet:
            self._forget(i)
            return None
        if was == "u" and letter != "-":
            was = self.told[i] = "g" if letter == "d" else letter
        kind, borne_out = self._kind(was, letter, reads)
        urgent = kind == "WentDark" and last is not None and last[1] in ("Thin", "Appeared")
        if kind is None or not borne_out or not (quiet or urgent):
            return None
        self.last[i] = now, kind
        self.told[i] = "g" if kind == "Appeared" and letter == "d" else letter
        return kind

    def _kind(self, was: str, letter: str, reads: Sequence[str]) -> tuple[str | None, bool]:
        def last(number: int, letters: str) -> bool:
            return len(reads) >= number and all(each in letters for each in reads[-number:])

        if letter == was:
            return None, False
        if was in ("new", "-"):
            return "Appeared", last(self.confirm, "gtdo")
        if letter == "d":
            return "WentDark", last(self.confirm, "d")
        if letter == "o":
            return "SwitchedOff", last(self.confirm, "o")
        if letter == "-":
            return "Vanished", last(self.confirm, "-")
        if was == "g":
            return "Thin", last(self.confirm, "td")
        if was == "t":
            return "Recovered thin", last(self.clear, "g")
        return f"Recovered {'dark' if was == 'd' else 'off'}", last(self.clear, "gt")

    def _forget(self, i: int) -> None:
        for known in (self.told, self.reads, self.last):
            known.pop(i, None)
