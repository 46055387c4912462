"""How well each group of a report is covered: the rows and the bar that a page shows of them.

Pure, report to rows. How they look is the template's matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec import Struct

from deepcall_async.audit.labels import clean
from deepcall_async.audit.report import Report

__all__ = ["Cover", "Slice", "covers", "slices"]

_BAR_STEPS = 20


class Cover(Struct, frozen=True):
    """One group's row: `kind` is a CSS class, `says` the same in words."""

    id: int
    name: str
    members: int | None
    receivers: int | None
    kind: str
    says: str
    share: int


class Slice(Struct, frozen=True):
    """A part of the bar that shows all groups; places are in per mille of its width."""

    kind: str
    says: str
    groups: int
    start: float
    width: float


_KINDS = {
    "dark": "rings nobody",
    "one": "one agent",
    "thin": "thin",
    "good": "good",
    "off": "inactive",
    "lost": "not read",
}


def covers(report: Report) -> list[Cover]:
    """Give each group's row, the worst covered first.

    Args:
        report: the report.
    """
    return sorted(_covers(report), key=_worst_first)


def _covers(report: Report) -> Iterator[Cover]:
    context, snapshot = report.context, report.snapshot
    for group_id in snapshot.asked:
        view = context.groups.get(group_id)
        group = snapshot.group(group_id)
        name = clean(group.name).strip() if group is not None else ""
        name = name or "(no name)"
        if view is None:
            if group_id not in snapshot.gone:
                yield Cover(group_id, name, None, None, "lost", _KINDS["lost"], 0)
            continue
        members, receivers = len(view.members), len(view.receivers)
        if not view.active:
            kind = "off"
        elif receivers < 2:
            kind = "one" if receivers else "dark"
        else:
            kind = "thin" if receivers < context.thresholds.min_receivers else "good"
        # A share above 0 is always visible, and only a share of 1 fills the bar.
        share = receivers * _BAR_STEPS // members if members else 0
        share = max(share, 1) if receivers else 0
        yield Cover(group_id, name, members, receivers, kind, _KINDS[kind], share)


def _worst_first(row: Cover) -> tuple[int, int, int, int]:
    order = ("lost", "dark", "one", "thin", "good", "off")
    return (order.index(row.kind), row.receivers or 0, -(row.members or 0), row.id)


def slices(rows: Sequence[Cover]) -> list[Slice]:
    """Give the parts of the bar, one for each kind of cover that there is.

    Args:
        rows: all groups' rows.
    """
    numbers = Counter(row.kind for row in rows)
    parts: list[Slice] = []
    start = 0.0
    for kind, says in _KINDS.items():
        if numbers[kind]:
            width = 1000 * numbers[kind] / len(rows)
            parts.append(Slice(kind, says, numbers[kind], round(start, 1), round(width, 1)))
            start += width
    return parts
