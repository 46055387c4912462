"""The rules about one group's cover (G) and about groups' names (N).

One small pure function for each rule, with its texts beside it.
"""

# ruff: noqa: D103  (what a rule means stands beside its function)

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from math import inf

from deepcall_async.audit.context import (
    Context,
    GroupView,
    created_seconds,
    in_milliseconds,
    receives,
)
from deepcall_async.audit.finding import Hit
from deepcall_async.audit.labels import capped, count, listing
from deepcall_async.audit.rule import rule

__all__ = [
    "duplicate_name",
    "inactive_but_staffed",
    "mostly_muted",
    "name_hygiene",
    "no_agents",
    "nobody_receives",
    "odd_create_date",
    "oversized",
    "same_receivers",
    "single_receiver",
    "stale_empty",
    "suffix_twin",
    "thin_cover",
]

_DAY = 86_400
_MINUTE = 60
_NUMBERED = re.compile(r"[0-9]+\Z")
_MOST_DIGITS = 9  # a longer one is a telephone number or the like, not a count
_SPACES = re.compile(r"\s+")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs"})
_UNSEEN = _INVISIBLE | {"Zl", "Zp"}


def _hit(view: GroupView, says: str, **evidence: object) -> Hit:
    return Hit(message=f"{view.label} {says}", group_id=view.id, evidence=evidence)


def _cluster(context: Context, ids: list[int], says: str, **evidence: object) -> Hit:
    ids.sort()
    return Hit(
        message=says.format(listing(map(context.label, ids), len(ids))),
        group_id=ids[0],
        evidence={"group_ids": capped(ids), "groups": len(ids), **evidence},
        # With one group more or less it is another finding.
        key=",".join(map(str, capped(ids))),
    )


@rule(
    "G001",
    "no-agents",
    "high",
    meaning="An active group has no agents: its callers ring nobody.",
    fix="Assign agents to the group, or make it inactive.",
)
def no_agents(context: Context) -> Iterator[Hit]:
    for view in context.active():
        if not view.members:
            yield _hit(view, "is active and has no agents.")


@rule(
    "G002",
    "nobody-receives",
    "critical",
    meaning="An active group looks staffed, but none of its agents receives calls.",
    fix="Turn on receive-call for at least one of the group's agents.",
)
def nobody_receives(context: Context) -> Iterator[Hit]:
    for view in context.active():
        if view.members and not view.receivers:
            staff = count(len(view.members), "agent")
            why = "and no one receives calls"
            unlisted = [row for row in view.rows if receives(row.receive_call)]
            if unlisted:
                why = "and the roster lists none of those who should receive calls"
            yield _hit(view, f"has {staff}, {why}.", members=len(view.members))


@rule(
    "G003",
    "single-receiver",
    "high",
    meaning="All calls to an active group hang on one agent.",
    fix="Turn on receive-call for a second agent of the group.",
)
def single_receiver(context: Context) -> Iterator[Hit]:
    for view in context.active():
        if len(view.receivers) == 1:
            (only,) = view.receivers
            yield _hit(
                view,
                f"rings {view.agent(only)} alone.",
                members=len(view.members),
                receivers=[only],
            )


@rule(
    "G004",
    "thin-cover",
    "low",
    meaning="Fewer agents receive an active group's calls than the threshold asks for.",
    fix="Turn on receive-call for more agents, or assign more.",
    many="groups have thin cover",
)
def thin_cover(context: Context) -> Iterator[Hit]:
    enough = context.thresholds.min_receivers
    for view in context.active():
        if 1 < len(view.receivers) < enough:
            yield _hit(
                view,
                f"has {len(view.receivers)} agents who receive calls; {enough} are wanted.",
                members=len(view.members),
                receivers=capped(view.receivers),
            )


@rule(
    "G005",
    "mostly-muted",
    "medium",
    meaning="Most agents of an active group do not receive its calls.",
    fix="Turn on receive-call for more of them, or take out those who are not meant to answer.",
    many="groups are mostly muted",
)
def mostly_muted(context: Context) -> Iterator[Hit]:
    limits = context.thresholds
    for view in context.active():
        members, receivers = len(view.members), len(view.receivers)
        if (
            members >= limits.muted_members
            and receivers
            and receivers / members < limits.muted_share
        ):
            yield _hit(
                view,
                f"has {members} agents, of whom {receivers} receive{'s' * (receivers == 1)} calls.",
                members=members,
                receivers=receivers,
            )


@rule(
    "G006",
    "inactive-but-staffed",
    "medium",
    meaning="An inactive group still has agents.",
    fix="Make the group active again, or delete it.",
    many="groups are inactive but have agents",
)
def inactive_but_staffed(context: Context) -> Iterator[Hit]:
    for view in context.groups.values():
        if not view.active and view.members:
            yield _hit(
                view,
                f"is inactive but has {count(len(view.members), 'agent')}.",
                members=len(view.members),
                status=view.group.status,
            )


@rule(
    "G007",
    "oversized",
    "low",
    meaning="A group has more agents than the threshold allows.",
    fix="Split the group, or take out those who do not belong to it.",
    many="groups are oversized",
)
def oversized(context: Context) -> Iterator[Hit]:
    most = context.thresholds.oversized
    for view in context.groups.values():
        if len(view.members) > most:
            yield _hit(
                view,
                f"has {len(view.members):,} agents, more than {most}.",
                members=len(view.members),
            )


@rule(
    "G008",
    "stale-empty",
    "low",
    meaning="A group was made long ago and has no agents.",
    fix="Delete the group if nobody needs it.",
    many="groups are old and have no agents",
)
def stale_empty(context: Context) -> Iterator[Hit]:
    if context.now is None:
        return
    for view in context.groups.values():
        created = created_seconds(view.group)
        if view.members or created is None:
            continue
        days = (context.now.timestamp() - created) / _DAY
        if days > context.thresholds.stale_days:
            yield _hit(
                view,
                f"was made {days:,.0f} days ago and has no agents.",
                create_date=view.group.create_date,
                days=int(days),
            )


@rule(
    "G009",
    "odd-create-date",
    "info",
    meaning="A group's create date is zero, in the future, or in milliseconds.",
    fix="Nothing is broken by it; ask the provider to correct the record.",
    many="groups have an odd create date",
)
def odd_create_date(context: Context) -> Iterator[Hit]:
    for group_id, group in context.known.items():
        date = group.create_date
        if date is None:
            continue
        shown = str(date)
        if date <= 0:
            odd = "not set" if date == 0 else "negative"
        elif in_milliseconds(date):
            odd = "in milliseconds"
        elif context.now is not None and date > context.now.timestamp():
            odd, shown = "in the future", f"{datetime.fromtimestamp(date, UTC):%Y-%m-%d}"
        else:
            continue
        yield Hit(
            message=f"{context.label(group_id)} has a create date that is {odd}: {shown}.",
            group_id=group_id,
            evidence={"create_date": date, "odd": odd},
        )


@rule(
    "N001",
    "duplicate-name",
    "medium",
    meaning="Groups have names that look the same: only case, spaces or unseen characters differ.",
    fix="Rename all but one, or delete the doubles.",
    many="names are shared by several groups",
)
def duplicate_name(context: Context) -> Iterator[Hit]:
    first: dict[str, int] = {}
    same: dict[str, list[int]] = {}
    for group_id, group in context.known.items():
        name = _folded(group.name).strip()
        one = first.setdefault(name, group_id)
        if one != group_id and name:  # a blank name is N003's
            same.setdefault(name, [one]).append(group_id)
    for ids in same.values():
        yield _cluster(context, ids, f"{len(ids):,} groups share one name: {{}}.")


@rule(
    "N002",
    "suffix-twin",
    "medium",
    meaning="Two groups made within minutes differ by a number at the end: an add sent twice.",
    fix="Check which one is in use, and delete the other.",
    many="groups look like an add that was sent twice",
)
def suffix_twin(context: Context) -> Iterator[Hit]:
    numbered: defaultdict[str, dict[int, list[tuple[float, int]]]] = defaultdict(dict)
    for group_id, group in context.known.items():
        if not group.name[-1:].isdigit():
            continue
        when, name = created_seconds(group), _folded(group.name)
        digits = _NUMBERED.search(name)
        if digits is not None and digits.start() and len(digits[0]) <= _MOST_DIGITS:
            stem, number = name[: digits.start()], int(digits[0])
            found = numbered[stem].setdefault(number, [])
            if when is not None and not digits[0].startswith("0"):  # a server counts from 1
                found.append((when, group_id))
    if not numbered:
        return
    bare: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for group_id, group in context.known.items():
        name = _folded(group.name)
        if name in numbered and (when := created_seconds(group)) is not None:
            bare[name].append((when, group_id))
    for made in bare.values():
        made.sort()
    apart = context.thresholds.twin_minutes * _MINUTE
    for stem, numbers in numbered.items():
        # A bare name that ends in a digit, or that has several numbers, is a series by intent.
        if len(numbers) > 1 or stem not in bare:
            continue
        for when, group_id in next(iter(numbers.values())):
            seconds, twin = _nearest(bare[stem], when)
            if seconds <= apart:
                yield Hit(
                    message=(
                        f"{context.label(group_id)} was made {seconds:,.0f} s from "
                        f"{context.label(twin)} and differs by the number at its end."
                    ),
                    group_id=group_id,
                    evidence={"twin": twin, "group_ids": sorted([twin, group_id])},
                    key=str(twin),
                )


def _folded(name: str) -> str:
    """A name as people compare it: case, invisible characters and doubled spaces do not count."""
    if name.isascii() and name.isprintable():
        folded = name.lower()
        if "  " not in folded:
            return folded
    else:
        folded = unicodedata.normalize("NFKC", name).casefold()
        folded = "".join(char for char in folded if unicodedata.category(char) not in _INVISIBLE)
    return _SPACES.sub(" ", folded)


def _nearest(made: Sequence[tuple[float, int]], when: float) -> tuple[float, int]:
    place = bisect_left(made, (when, 0))
    return min(
        ((abs(when - other), group_id) for other, group_id in made[max(0, place - 1) : place + 1]),
        default=(inf, 0),
    )


@rule(
    "N003",
    "name-hygiene",
    "low",
    meaning="A group's name is blank, has spaces at an edge, or has characters nobody can see.",
    fix="Rename the group.",
    many="groups have a name that is blank or hard to see",
)
def name_hygiene(context: Context) -> Iterator[Hit]:
    for group_id, group in context.known.items():
        if not group.name.strip():
            wrong = "a blank name"
        elif not group.name.isprintable() and any(map(_is_unseen, group.name)):
            wrong = "characters in its name that nobody can see"
        elif group.name != group.name.strip():
            wrong = "spaces at the edge of its name"
        else:
            continue
        yield Hit(
            message=f"{context.label(group_id)} has {wrong}.",
            group_id=group_id,
            evidence={"name": group.name},
        )


def _is_unseen(char: str) -> bool:
    # Not the joiners, with which Indic names and emoji are written.
    return char not in "\u200c\u200d" and unicodedata.category(char) in _UNSEEN


@rule(
    "N004",
    "same-receivers",
    "low",
    meaning="Active groups ring exactly the same agents.",
    fix="Merge the groups if callers need not tell them apart.",
    many="sets of groups ring the same agents",
    whole_account=True,
)
def same_receivers(context: Context) -> Iterator[Hit]:
    same: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for view in context.active():
        if len(view.receivers) > 1:
            same[view.receivers].append(view.id)
    for receivers, ids in same.items():
        if len(ids) > 1:
            says = f"{{}} ring the same {len(receivers):,} agents."
            yield _cluster(context, ids, says, receivers=capped(receivers))
