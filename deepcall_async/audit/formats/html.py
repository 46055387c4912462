"""A report as one HTML file that a person opens.

Pure, report to string. What is shown is chosen here; how it looks stands in ``report.html.jinja``,
``report.css`` and ``report.js`` beside this module.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from html import escape
from itertools import islice

from msgspec import Struct
from msgspec.structs import asdict

from deepcall_async.audit.context import Context, GroupView
from deepcall_async.audit.finding import Finding
from deepcall_async.audit.formats.cover import covers, slices
from deepcall_async.audit.formats.page import assets, template
from deepcall_async.audit.labels import clean, listing
from deepcall_async.audit.report import Action, Report

__all__ = ["to_html"]

_MOST_ROWS = 2_000
_FINDINGS_BYTES = 175_000
_COVER_BYTES = 150_000
_DETAILS_BYTES = 50_000
"""Half a megabyte opens everywhere and passes as an attachment; rows give way first."""

_HEAT_SIDE = 60
_DRIFT_ROWS = 20
_MOST_DETAILS = 200
_MOST_NAMES = 25
_ANCHOR = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,30}\Z")


class _Heat(Struct, frozen=True):
    """Agents against groups: each row is an agent's name and a mark per group."""

    groups: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    all_groups: int
    all_agents: int
    at_risk: bool


class _Action(Struct, frozen=True):
    """One thing to do, with some of the findings it mends; `anchor` is where all of them stand."""

    severity: str
    rule: str
    anchor: str
    fix: str
    meaning: str
    number: int
    examples: tuple[str, ...]


class _Details(Struct, frozen=True):
    """The members of one group that has findings."""

    id: int
    label: str
    says: str
    receivers: str
    others: str


class _Row(Struct, frozen=True):
    """One finding's row; `anchor` marks the first of a rule, `details` that its group has them."""

    finding: Finding
    anchor: str
    details: bool


class _Drift(Struct, frozen=True):
    """What changed since the baseline; `numbers` are what, then and now."""

    since: str
    complete: bool
    numbers: tuple[tuple[str, int, int], ...]
    new: int
    resolved: int | None
    findings: tuple[Finding, ...]
    more: int


def to_html(report: Report) -> str:
    """Write the report as one self-contained page: no network, readable without JavaScript.

    Args:
        report: the report.

    Returns:
        The page, under 500 KB.

    Raises:
        ImportError: Jinja2 is not installed; the extra ``cli`` brings it.
    """
    groups = covers(report)
    shown = groups[: _fitting((row.name for row in groups), _COVER_BYTES, 62)]
    messages = (finding.message for finding in report.findings)
    findings = report.findings[: _fitting(messages, _FINDINGS_BYTES, 62)]
    details = _fit_details(report)
    rows = list(_rows(findings, {each.id for each in details}))
    anchors = {row.anchor for row in rows}
    fired = {finding.rule for finding in report.findings}
    run = report.snapshot.run
    return template("report.html.jinja").render(
        report=report,
        title=_title(report),
        started=_when(run.started),
        resumed=_when(run.resumed_from),
        actions=[_action(action, anchors) for action in report.actions()],
        slices=slices(groups),
        covers=shown,
        more_covers=len(groups) - len(shown),
        heat=_heat(report.context),
        details=details,
        drift=_drift(report),
        rows=rows,
        more_findings=len(report.findings) - len(findings),
        rules=[rule for rule in report.rules if rule.id in fired],
        health=tuple(_health(report)),
        thresholds=asdict(report.context.thresholds),
        **assets(),
    )


def _title(report: Report) -> str:
    run = report.snapshot.run
    where = "the sandbox" if run.sandbox else clean(run.base_url.partition("://")[2])
    return f"Group audit of {where}" if where else "Group audit"


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment is not None else ""


def _fitting(texts: Iterable[str], budget: int, around: int) -> int:
    """How many rows fit into a budget of bytes, each a text and the mark-up around it."""
    rows = 0
    for text in islice(texts, _MOST_ROWS):
        budget -= around + len(escape(text).encode("utf-8", "replace"))
        if budget < 0:
            break
        rows += 1
    return rows


def _heat(context: Context) -> _Heat:
    """The groups at risk and the agents who are in most of them; the largest where none is."""
    staffed = [view for view in context.groups.values() if view.members]
    enough = context.thresholds.min_receivers
    risky = [view for view in staffed if view.active and len(view.receivers) < enough]
    risky.sort(key=lambda view: (len(view.receivers), -len(view.members), view.id))
    staffed.sort(key=lambda view: (-len(view.members), view.id))
    shown = (risky or staffed)[:_HEAT_SIDE]
    busiest = Counter(agent_id for view in shown for agent_id in view.members)
    agents = sorted(busiest, key=lambda agent_id: (-busiest[agent_id], agent_id))
    return _Heat(
        groups=tuple(_short(view.label) for view in shown),
        rows=tuple(
            (
                _short(context.agent(agent_id).replace("(agent ", "(")),
                tuple(_mark(view, agent_id) for view in shown),
            )
            for agent_id in agents[:_HEAT_SIDE]
        ),
        all_groups=len(risky or staffed),
        all_agents=len(agents),
        at_risk=bool(risky),
    )


def _mark(view: GroupView, agent_id: int) -> str:
    if agent_id in view.receivers:
        return "Y"
    return "N" if agent_id in view.members else ""


def _short(label: str) -> str:
    name, bracket, rest = label.rpartition(" (")
    return f"{clean(name, 24)}{bracket}{rest}" if bracket else label


def _rows(findings: Iterable[Finding], detailed: set[int]) -> Iterator[_Row]:
    """The findings' rows; the first of a rule is what a link to the rule leads to."""
    marked: set[str] = set()
    for finding in findings:
        first = finding.rule not in marked and _ANCHOR.match(finding.rule) is not None
        marked.add(finding.rule)
        yield _Row(finding, finding.rule if first else "", finding.group_id in detailed)


def _fit_details(report: Report) -> list[_Details]:
    """The members of the groups that have findings, most severe first, as many as fit."""
    groups = report.context.groups
    ids = dict.fromkeys(
        finding.group_id for finding in report.findings if finding.group_id in groups
    )
    found = [_details(groups[group_id]) for group_id in islice(ids, _MOST_DETAILS) if group_id]
    texts = (each.label + each.receivers + each.others for each in found)
    return found[: _fitting(texts, _DETAILS_BYTES, 150)]


def _details(view: GroupView) -> _Details:
    return _Details(
        id=view.id,
        label=view.label if view.group.name.strip() else f"(no name) ({view.id})",
        says=(
            f"{len(view.receivers):,} of {len(view.members):,} receive calls"
            if view.members
            else "no agents"
        ),
        receivers=_names(view, view.receivers),
        others=_names(view, sorted(set(view.members).difference(view.receivers))),
    )


def _names(view: GroupView, ids: Sequence[int]) -> str:
    names = (_short(view.agent(each).replace("(agent ", "(")) for each in ids)
    return listing(names, len(ids), _MOST_NAMES) or "nobody"


def _action(action: Action, anchors: set[str]) -> _Action:
    return _Action(
        severity=action.severity,
        rule=action.rule.id,
        anchor=action.rule.id if action.rule.id in anchors else "",
        fix=action.rule.fix,
        meaning=action.rule.meaning,
        number=action.count,
        examples=tuple(finding.message for finding in action.findings[:3]),
    )


def _drift(report: Report) -> _Drift | None:
    before, now = report.context.before, report.context
    if before is None:
        return None
    changes = tuple(f for f in report.findings if report.rule(f.rule).compares)
    dark, single = (
        [sum(1 for view in side.active() if len(view.receivers) == n) for side in (before, now)]
        for n in (0, 1)
    )
    return _Drift(
        since=_when(before.snapshot.run.started),
        complete=before.snapshot.complete,
        numbers=(
            ("Groups", len(before.known), len(now.known)),
            ("Agents", len(before.agents), len(now.agents)),
            ("Groups that ring nobody", dark[0], dark[1]),
            ("Groups that ring one agent", single[0], single[1]),
        ),
        new=sum(1 for finding in report.findings if finding.new),
        resolved=report.resolved,
        findings=changes[:_DRIFT_ROWS],
        more=max(0, len(changes) - _DRIFT_ROWS),
    )


def _health(report: Report) -> Iterator[tuple[str, str]]:
    health, snapshot = report.health, report.snapshot
    if health.seconds is not None:
        yield "Duration", f"{health.seconds:,.1f} s"
    if health.requests is not None:
        yield "Requests", f"{health.requests:,}"
    if health.retries is not None:
        yield "Retries", f"{health.retries:,}"
    yield "Groups read", f"{report.read_count:,} of {report.groups:,}"
    yield "Lookups failed", f"{report.failed:,}"
    if report.pending:
        yield "Not looked up", f"{report.pending:,}"
    if snapshot.gone:
        yield "Gone while it ran", f"{len(snapshot.gone):,}"
    yield "Agents seen", f"{len(report.context.agents):,}"
    if report.muted:
        yield "Findings muted", f"{len(report.muted):,}"
    if snapshot.run.tool:
        yield "Written by", clean(snapshot.run.tool)
