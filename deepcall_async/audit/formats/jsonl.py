"""A run as JSON Lines: written as lookups finish, read again to resume or to compare.

Values to bytes and bytes to values; the file is the caller's. The format is that of ``schema.json``
beside this module. Reading never guesses: anything that is not the record of a run is refused,
except for an incomplete last line, which a killed run leaves behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from deepcall_async.audit.config import Thresholds
from deepcall_async.audit.finding import Finding
from deepcall_async.audit.formats.schema import (
    SCHEMA,
    AskedLine,
    Document,
    FindingLine,
    GroupLine,
    Line,
    MutedLine,
    RosterLine,
    Row,
    RuleWords,
    RunLine,
    SummaryLine,
)
from deepcall_async.audit.report import Report
from deepcall_async.audit.snapshot import FailedLookup, RunInfo, Snapshot, SnapshotBuilder
from deepcall_async.models import Agent, AgentRelation, Group, GroupAgentRelation

__all__ = ["LineWriter", "NewerSchema", "document", "lines", "read_jsonl", "tail"]


_encode = msgspec.json.Encoder().encode


class LineWriter:
    """Makes the lines of one run, each ended by a newline; a roster is written once."""

    def __init__(self) -> None:
        # By identity, holding the roster so that its id stays its own: a `SnapshotBuilder` gives
        # equal rosters as one object.
        self._rosters: dict[int, tuple[int, tuple[Agent, ...]]] = {}
        # An agent's row is the same in nearly every group.
        self._rows: dict[tuple[int, str], Row] = {}

    def run_line(self, info: RunInfo, thresholds: Thresholds = Thresholds()) -> bytes:  # noqa: B008
        """Make the first line, which says where and when."""
        return _line(_run(info, thresholds))

    def asked_line(self, group_ids: Iterable[int]) -> bytes:
        """Make the line that says which groups will be looked up."""
        return _line(AskedLine(group_ids=tuple(group_ids)))

    def relation_lines(self, group_id: int, relation: GroupAgentRelation) -> list[bytes]:
        """Make the line of a group that was read, after its roster's if that is new."""
        return [_line(part) for part in self.relation_parts(group_id, relation)]

    def failure_line(self, group_id: int, group: Group | None, failure: FailedLookup) -> bytes:
        """Make the line of a group that could not be read."""
        return _line(GroupLine(group_id=group_id, group=group, error=failure))

    def gone_line(self, group_id: int, group: Group | None) -> bytes:
        """Make the line of a listed group that was not there any more."""
        return _line(GroupLine(group_id=group_id, group=group, gone=True))

    def relation_parts(
        self, group_id: int, relation: GroupAgentRelation
    ) -> list[RosterLine | GroupLine]:
        """Make the same as `relation_lines`, not yet encoded."""
        found: list[RosterLine | GroupLine] = []
        roster = relation.agents
        if id(roster) not in self._rosters:
            self._rosters[id(roster)] = (len(self._rosters) + 1, roster)
            found.append(RosterLine(roster=len(self._rosters), agents=roster))
        group = relation.group
        rows = tuple([self._row(row, group_id, group.user_id) for row in relation.relations])
        number = self._rosters[id(roster)][0]
        found.append(GroupLine(group_id=group_id, group=group, roster=number, relations=rows))
        return found

    def _row(self, row: AgentRelation, group_id: int, user_id: str | None) -> Row:
        plain = row.group_id == group_id and row.user_id == user_id
        key = (row.agent_id, row.receive_call)
        found = self._rows.get(key) if plain else None
        if found is None:
            found = Row(
                agent_id=row.agent_id,
                receive_call=row.receive_call,
                group_id=UNSET if row.group_id == group_id else row.group_id,
                user_id=UNSET if row.user_id == user_id else row.user_id,
            )
            if plain:
                self._rows[key] = found
        return found


def lines(report: Report) -> Iterator[bytes]:
    """Write a whole report as lines.

    Args:
        report: the report.

    Returns:
        The lines, each ended by a newline, as a run would have written them.
    """
    snapshot, writer = report.snapshot, LineWriter()
    yield writer.run_line(snapshot.run, report.context.thresholds)
    if not snapshot.cut_short:
        yield writer.asked_line(snapshot.asked)
    for part in _outcomes(snapshot):
        yield _line(part)
    yield from tail(report)


def tail(report: Report) -> Iterator[bytes]:
    """Write what follows the last lookup: the findings, what was muted, and the summary.

    Args:
        report: the report.

    Returns:
        The lines, each ended by a newline.
    """
    for finding in report.findings:
        yield _line(_finding(finding))
    for muted in _muted(report):
        yield _line(muted)
    yield _line(_summary(report))


def document(report: Report) -> bytes:
    """Write a whole report as one JSON document.

    Args:
        report: the report.

    Returns:
        The document, of the same objects as the lines.
    """
    parts = list(_outcomes(report.snapshot))
    return _encode(
        Document(
            run=_run(report.snapshot.run, report.context.thresholds),
            rules=tuple(msgspec.convert(report.rules, list[RuleWords], from_attributes=True)),
            asked=report.snapshot.asked,
            rosters=tuple(part for part in parts if isinstance(part, RosterLine)),
            groups=tuple(part for part in parts if isinstance(part, GroupLine)),
            findings=tuple(map(_finding, report.findings)),
            muted=tuple(_muted(report)),
            summary=_summary(report),
        )
    )


class NewerSchema(ValueError):
    """A newer version wrote the record: it is not damaged."""


def read_jsonl(source: bytes | Iterable[bytes]) -> Snapshot:
    """Read back what a run wrote, whole or cut short.

    A torn last line is left out, and so are lines of types that are not known here.

    Args:
        source: the file's bytes, or its lines (such as the file opened in binary mode).

    Returns:
        What the run had seen. Its findings are not read: audit the snapshot again.

    Raises:
        ValueError: this is not the record of one run, or a newer version wrote it; the message
            says in which line, and what to do.

    Example:
        >>> report = await run_audit(dc)
        >>> snapshot = read_jsonl(render(report, "jsonl"))
        >>> audit(snapshot).verdict == report.verdict
        True
    """
    reader = _Reader()
    torn: ValueError | None = None
    for number, line in enumerate(source.split(b"\n") if isinstance(source, bytes) else source, 1):
        if not line.strip():
            continue
        if torn is not None:
            raise torn
        try:
            reader.take(line)
        except msgspec.DecodeError as error:
            said = f"line {number} is not a line of an audit's JSONL: {error}"
            torn = ValueError(f"{said}; use an undamaged file, or start anew")
            if number == 1 or isinstance(error, msgspec.ValidationError):
                raise torn from None  # a torn line is not JSON: this one is, and is wrong
        except UnicodeDecodeError:
            torn = ValueError(f"line {number} is not UTF-8; use an undamaged file, or start anew")
        except ValueError as error:
            kind = NewerSchema if isinstance(error, NewerSchema) else ValueError
            raise kind(f"line {number}: {error}") from None
    return reader.snapshot()


class _Header(Struct):
    type: str


_header = msgspec.json.Decoder(_Header).decode
_decode_run = msgspec.json.Decoder(RunLine).decode
_decode_asked = msgspec.json.Decoder(AskedLine).decode
_decode_roster = msgspec.json.Decoder(RosterLine).decode
_decode_group = msgspec.json.Decoder(GroupLine).decode


class _Reader:
    def __init__(self) -> None:
        self._builder: SnapshotBuilder | None = None
        self._rosters: dict[int, tuple[Agent, ...]] = {}
        self._listed = False

    def take(self, line: bytes) -> None:
        kind = _header(line).type
        if self._builder is None:
            if kind != "run":
                raise ValueError("the first line must be the run's; is this an audit's JSONL?")
            self._builder = SnapshotBuilder(self._run(line))
        elif kind == "run":
            raise ValueError("a second run begins here; give a file with one run")
        elif kind == "asked":
            self._builder.add_asked(_decode_asked(line).group_ids)
            self._listed = True
        elif kind == "roster":
            roster = _decode_roster(line)
            self._rosters[roster.roster] = roster.agents
        elif kind == "group":
            self._group(_decode_group(line), self._builder)

    def snapshot(self) -> Snapshot:
        if self._builder is None:
            raise ValueError("the file is empty; give the JSONL that an audit wrote")
        return self._builder.snapshot(cut_short=not self._listed)

    def _run(self, line: bytes) -> RunInfo:
        # The version first: a line of a newer version may not decode.
        version = msgspec.json.decode(line, type=dict[str, Any]).get("schema")
        if not isinstance(version, int) or version < 1:
            raise ValueError("the run's line has no schema; is this an audit's JSONL?")
        if version > SCHEMA:
            raise NewerSchema(
                f"schema {version} is newer than {SCHEMA}, the newest read here; "
                "upgrade deepcall-async"
            )
        return msgspec.convert(_decode_run(line), RunInfo, from_attributes=True)

    def _group(self, line: GroupLine, builder: SnapshotBuilder) -> None:
        group_id, group = line.group_id, line.group
        if line.relations is not UNSET and line.roster is not UNSET and group is not None:
            if line.roster not in self._rosters:
                raise ValueError(f"roster {line.roster} stands in no line before; start anew")
            user_id = group.user_id
            rows = tuple(
                AgentRelation(
                    group_id=group_id if row.group_id is UNSET else row.group_id,
                    agent_id=row.agent_id,
                    receive_call=row.receive_call,
                    user_id=user_id if row.user_id is UNSET else row.user_id,
                )
                for row in line.relations
            )
            builder.add_relation(
                group_id, GroupAgentRelation(group, self._rosters[line.roster], rows)
            )
            return
        builder.add_unread(group_id, group)
        if line.error is not UNSET:
            builder.add_failure(group_id, line.error)
        elif line.gone is True:
            builder.add_gone(group_id)


def _line(part: Line) -> bytes:
    return _encode(part) + b"\n"


def _run(info: RunInfo, thresholds: Thresholds) -> RunLine:
    return RunLine(
        schema=SCHEMA,
        started=info.started,
        base_url=info.base_url,
        sandbox=info.sandbox,
        whole_account=info.whole_account,
        resumed_from=info.resumed_from,
        tool=info.tool,
        thresholds=msgspec.structs.asdict(thresholds),
    )


def _outcomes(snapshot: Snapshot) -> Iterator[RosterLine | GroupLine]:
    writer = LineWriter()
    for group_id in snapshot.asked:
        relation = snapshot.relations.get(group_id)
        group = snapshot.unread.get(group_id)
        if relation is not None:
            yield from writer.relation_parts(group_id, relation)
        elif group_id in snapshot.gone:
            yield GroupLine(group_id=group_id, group=group, gone=True)
        elif group_id in snapshot.failed:
            yield GroupLine(group_id=group_id, group=group, error=snapshot.failed[group_id])
        elif group is not None:
            yield GroupLine(group_id=group_id, group=group)


def _finding(finding: Finding) -> FindingLine:
    return msgspec.convert(finding, FindingLine, from_attributes=True)


def _muted(report: Report) -> Iterator[MutedLine]:
    for muted in report.muted:
        yield MutedLine(finding=_finding(muted.finding), reason=muted.reason, expires=muted.expires)


def _summary(report: Report) -> SummaryLine:
    return SummaryLine(
        complete=report.complete,
        verdict=report.verdict,
        groups=report.groups,
        read=report.read_count,
        failed=report.failed,
        pending=report.pending,
        gone=len(report.snapshot.gone),
        agents=len(report.context.agents),
        findings=report.counts,
        muted=len(report.muted),
        seconds=report.health.seconds,
        requests=report.health.requests,
        retries=report.health.retries,
    )
