"""The objects that a run's record is made of, as JSON holds them.

Shapes only, those of ``schema.json`` beside this module. A field may be added, never renamed.
"""

from __future__ import annotations

from datetime import date, datetime

from msgspec import UNSET, Struct, UnsetType

from deepcall_async.audit.finding import Evidence, Severity
from deepcall_async.audit.snapshot import FailedLookup
from deepcall_async.models import Agent, Group

__all__ = [
    "SCHEMA",
    "AskedLine",
    "Document",
    "FindingLine",
    "GroupLine",
    "Line",
    "MutedLine",
    "RosterLine",
    "Row",
    "RuleWords",
    "RunLine",
    "SummaryLine",
]

SCHEMA = 1
"""The version of the format. Readers accept unknown types of lines and unknown fields."""


class Line(Struct, frozen=True, kw_only=True, tag_field="type"):
    """Any line."""


class RunLine(Line, frozen=True, kw_only=True, tag="run"):
    """The first line: where and when."""

    schema: int
    started: datetime | None = None
    base_url: str = ""
    sandbox: bool = False
    whole_account: bool = True
    resumed_from: datetime | None = None
    tool: str = ""
    thresholds: dict[str, float] = {}


class AskedLine(Line, frozen=True, kw_only=True, tag="asked"):
    """Which groups will be looked up."""

    group_ids: tuple[int, ...]


class RosterLine(Line, frozen=True, kw_only=True, tag="roster"):
    """A roster, which the groups after it refer to by its number."""

    roster: int
    agents: tuple[Agent, ...]


class Row(Struct, frozen=True, kw_only=True, gc=False):
    """A relation; what is left out is as in the group's own line or record."""

    agent_id: int
    receive_call: str
    group_id: int | UnsetType = UNSET
    user_id: str | UnsetType | None = UNSET


class GroupLine(Line, frozen=True, kw_only=True, tag="group"):
    """The outcome of one lookup: relations, an error, or that the group was gone."""

    group_id: int
    group: Group | None = None
    roster: int | UnsetType = UNSET
    relations: tuple[Row, ...] | UnsetType = UNSET
    error: FailedLookup | UnsetType = UNSET
    gone: bool | UnsetType = UNSET


class FindingLine(Line, frozen=True, kw_only=True, tag="finding", omit_defaults=True):
    """What a rule found."""

    rule: str
    severity: Severity
    group_id: int | None
    agent_id: int | None
    message: str
    evidence: Evidence
    key: str
    new: bool | None
    count: int = 1


class MutedLine(Line, frozen=True, kw_only=True, tag="muted"):
    """A finding that a mute took out."""

    finding: FindingLine
    reason: str
    expires: date | None


class SummaryLine(Line, frozen=True, kw_only=True, tag="summary"):
    """The last line."""

    complete: bool
    verdict: str
    groups: int
    read: int
    failed: int
    pending: int
    gone: int
    agents: int
    findings: dict[Severity, int]
    muted: int
    seconds: float | None
    requests: int | None
    retries: int | None


class RuleWords(Struct, frozen=True, kw_only=True):
    """A rule without its function."""

    id: str
    name: str
    severity: Severity
    meaning: str
    fix: str


class Document(Struct, frozen=True, kw_only=True):
    """A whole report, of the same objects as the lines."""

    run: RunLine
    rules: tuple[RuleWords, ...]
    asked: tuple[int, ...]
    rosters: tuple[RosterLine, ...]
    groups: tuple[GroupLine, ...]
    findings: tuple[FindingLine, ...]
    muted: tuple[MutedLine, ...]
    summary: SummaryLine
