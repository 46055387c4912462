"""The record of a run: what is written is what is read back, and nothing else is accepted."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import deepcall_async.audit
from deepcall_async.audit import (
    FailedLookup,
    Health,
    LineWriter,
    Mute,
    RunInfo,
    Snapshot,
    SnapshotBuilder,
    audit,
    read_jsonl,
    render,
)
from deepcall_async.models import Agent, AgentRelation, Group, GroupAgentRelation
from tests.support.audit_accounts import NOW, account, refused, relation

SCHEMA = json.loads(
    (Path(deepcall_async.audit.__file__).parent / "formats/schema.json").read_bytes()
)
VALID = jsonschema_rs.validator_for(SCHEMA, validate_formats=True)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.integers(-5, 2**62)
maybe = st.none() | texts
records = st.builds(
    Group,
    unique_id=numbers,
    name=texts,
    user_id=maybe,
    create_by=maybe,
    status=st.none() | st.integers(-1, 3),
    create_date=st.none() | numbers,
    agents=st.lists(texts, max_size=3).map(tuple),
)
rosters = st.lists(
    st.builds(Agent, unique_id=st.integers(1, 20), name=texts, user_id=maybe), max_size=4
).map(tuple)
rows = st.builds(
    AgentRelation,
    group_id=st.integers(1, 9),
    agent_id=st.integers(1, 20),
    receive_call=st.sampled_from(["Y", "N", "y", "", "\u2028"]) | texts,
    user_id=maybe,
)
relations = st.builds(
    GroupAgentRelation,
    group=records,
    agents=rosters,
    relations=st.lists(rows, max_size=5).map(tuple),
)
failures = st.builds(
    FailedLookup,
    error=texts,
    message=texts,
    code=st.none() | st.integers(1000, 1600),
    http_status=st.none() | st.integers(100, 599),
    attempts=st.integers(0, 9),
)
moments = st.none() | st.integers(0, 2**32).map(
    lambda seconds: datetime.fromtimestamp(seconds, UTC)
)
runs = st.builds(
    RunInfo,
    started=moments,
    base_url=texts,
    sandbox=st.booleans(),
    whole_account=st.booleans(),
    resumed_from=moments,
    tool=texts,
)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    builder = SnapshotBuilder(draw(runs))
    for group_id in draw(st.lists(st.integers(1, 9), unique=True)):
        listed = draw(st.none() | records)
        if listed is not None:
            builder.add_unread(group_id, listed)
        kind = draw(st.sampled_from(["read", "failed", "gone", "pending"]))
        if kind == "read":
            builder.add_relation(group_id, draw(relations))
        elif kind == "failed":
            builder.add_failure(group_id, draw(failures))
        elif kind == "gone":
            builder.add_gone(group_id)
        else:
            builder.add_asked([group_id])
    return builder.snapshot()


@given(snapshots())
def test_a_snapshot_comes_back_as_it_went(snapshot: Snapshot) -> None:
    report = audit(snapshot, baseline=snapshot)
    record = render(report, "jsonl")
    assert read_jsonl(record) == snapshot
    assert read_jsonl(record.splitlines(keepends=True)) == snapshot
    for line in record.decode().split("\n")[:-1]:
        VALID.validate(json.loads(line))
    VALID.validate(json.loads(render(report, "json")))


@given(snapshots(), st.data())
def test_a_record_cut_anywhere_loses_only_what_was_not_written(
    snapshot: Snapshot, data: st.DataObject
) -> None:
    record = render(audit(snapshot), "jsonl")
    first = record.index(b"\n") + 1
    cut = data.draw(st.integers(first, len(record)))
    found = read_jsonl(record[:cut])
    for group_id, relation_read in found.relations.items():
        assert relation_read == snapshot.relations[group_id]
    whole_lines = record[:cut].count(b'\n{"type":"group"')
    assert len(found.relations) + len(found.failed) <= whole_lines
    if cut == len(record):
        assert found == snapshot


def _record() -> list[bytes]:
    snapshot = account(
        relation(1, "NNNN"), relation(2, "YY"), relation(3, "Y"), failed={9: refused()}
    )
    report = audit(
        snapshot,
        baseline=account(relation(1)),
        mutes=[Mute(rule="G003", group=3, reason="small")],
        health=Health(seconds=1.5, requests=10, retries=2),
        now=NOW,
    )
    return render(report, "jsonl").splitlines(keepends=True)


def test_the_lines_and_their_order() -> None:
    kinds = [json.loads(line)["type"] for line in _record()]
    assert kinds[:6] == ["run", "asked", "roster", "group", "group", "group"]
    assert kinds.count("roster") == 1
    assert kinds.count("muted") == 1
    assert kinds[-1] == "summary"
    run = json.loads(_record()[0])
    assert list(run)[:2] == ["type", "schema"]
    assert run["schema"] == 1
    summary = json.loads(_record()[-1])
    assert (summary["complete"], summary["groups"], summary["failed"]) == (False, 4, 1)
    assert list(summary["findings"]) == ["critical", "high", "medium", "low", "info"]


def test_a_finding_line_is_what_the_format_promises() -> None:
    lines = map(json.loads, _record())
    found = next(line for line in lines if line.get("rule") == "G002")
    assert found == {
        "type": "finding",
        "rule": "G002",
        "severity": "critical",
        "group_id": 1,
        "agent_id": None,
        "message": "Group B (1) has 4 agents, and no one receives calls.",
        "evidence": {"members": 4},
        "key": "",
        "new": True,
    }


def test_the_schema_refuses_what_is_wrong() -> None:
    for line in _record():
        VALID.validate(json.loads(line))
        broken = json.loads(line)
        broken["type"] = "grup"
        assert not VALID.is_valid(broken)
    finding = next(found for found in map(json.loads, _record()) if found["type"] == "finding")
    assert not VALID.is_valid(finding | {"severity": "grave"})
    assert not VALID.is_valid({"run": {}, "findings": []})
    run = json.loads(next(iter(_record())))
    assert not VALID.is_valid(run | {"started": "yesterday"})


def test_the_document_holds_the_same_as_the_lines() -> None:
    snapshot = account(relation(1, "NNNN"), failed={9: refused()})
    report = audit(snapshot, now=NOW)
    document = json.loads(render(report, "json"))
    lines = [json.loads(line) for line in render(report, "jsonl").splitlines()]
    assert document["run"] == lines[0]
    assert document["summary"] == lines[-1]
    assert document["findings"] == [line for line in lines if line["type"] == "finding"]
    assert document["groups"] == [line for line in lines if line["type"] == "group"]
    assert {rule["id"] for rule in document["rules"]} >= {"G001", "X003"}


def test_a_torn_last_line_is_left_out() -> None:
    lines = _record()
    torn = read_jsonl(b"".join(lines[:4]) + lines[4][:40])
    assert list(torn.relations) == [1]
    assert torn.asked == (1, 2, 3, 9)
    assert torn.pending == (2, 3, 9)
    assert not torn.complete
    assert list(read_jsonl(b"".join(lines[:4]) + b"\0\0\0").relations) == [1]
    assert list(read_jsonl(b"".join(lines[:4]) + b'{"type":"group"\xff').relations) == [1]


def test_a_last_line_without_its_newline_counts() -> None:
    lines = _record()
    assert list(read_jsonl(b"".join(lines[:4])[:-1]).relations) == [1]


def test_a_record_that_ends_before_the_list_is_incomplete() -> None:
    snapshot = read_jsonl(_record()[0])
    assert snapshot.cut_short
    assert not snapshot.complete


def test_unknown_lines_and_fields_are_passed_over() -> None:
    lines = _record()
    later = json.loads(lines[0]) | {"weather": "fine"}
    extra = b'{"type":"weather","sky":"blue"}\n'
    found = read_jsonl([json.dumps(later).encode() + b"\n", *lines[1:3], extra, b"\n", *lines[3:]])
    assert found == read_jsonl(lines)


def _with(place: int, line: bytes) -> bytes:
    lines = _record()
    return b"".join([*lines[:place], line, *lines[place:]])


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (b"", "the file is empty"),
        (b"hello\n", "line 1 is not a line of an audit's JSONL"),
        (b'{"type":"group","group_id":1}\n', "line 1: the first line must be the run's"),
        (b'{"a":1}\n', "line 1 is not a line"),
        (b'{"type":"run"}\n', "line 1: the run's line has no schema"),
        (b'{"type":"run","schema":"1"}\n', "line 1: the run's line has no schema"),
        (
            b'{"type":"run","schema":2,"started":["?"]}\n',
            "line 1: schema 2 is newer than 1.*upgrade deepcall-async",
        ),
        (_with(3, b'{"torn": \n'), "line 4 is not a line"),
        (_with(3, b"\xff\xfe\n"), "line 4 is not"),
        (_with(3, b'{"type":"group","group_id":"one"}\n'), "line 4 is not a line.*group_id"),
        (_with(2, _record()[3]), "line 3: roster 1 stands in no line before"),
        (_with(3, _record()[0]), "line 4: a second run begins here"),
        (b"".join(_record()) + b'{"type":"roster","roster":1}\n', "line .* is not a line"),
    ],
)
def test_what_is_no_record_is_refused(record: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_jsonl(record)


def test_lines_written_one_by_one_make_the_same_snapshot() -> None:
    builder, writer = SnapshotBuilder(RunInfo(started=NOW)), LineWriter()
    first = Group(unique_id=7, name="Seven")
    builder.add_groups([first, Group(unique_id=8, name="Eight"), Group(unique_id=9, name="Nine")])
    lines = [writer.run_line(RunInfo(started=NOW)), writer.asked_line([7, 8, 9])]
    roster = (Agent(unique_id=1, name="A"),)
    copy = (Agent(unique_id=1, name="A"),)
    assert copy is not roster
    lines += writer.relation_lines(8, builder.add_relation(8, relation(8, "YY", roster=roster)))
    lines += writer.relation_lines(9, builder.add_relation(9, relation(9, "YY", roster=copy)))
    lines.append(writer.gone_line(7, builder.group(7)))
    builder.add_gone(7)
    assert sum(b'"type":"roster"' in line for line in lines) == 1
    assert read_jsonl(lines) == builder.snapshot()


def test_a_later_line_of_a_group_wins() -> None:
    lines = _record()
    again = json.loads(next(line for line in lines if b'"group_id":9' in line))
    again.pop("error")
    again |= {"group": {"unique_id": 9, "name": "Nine"}, "roster": 1, "relations": []}
    found = read_jsonl([*lines, json.dumps(again).encode() + b"\n"])
    assert 9 in found.relations
    assert 9 not in found.failed


def test_a_snapshot_without_a_start_has_none_after_reading() -> None:
    snapshot = replace(account(relation(1)), run=RunInfo())
    assert read_jsonl(render(audit(snapshot), "jsonl")).run.started is None
    assert isinstance(read_jsonl(render(audit(account()), "jsonl")), Snapshot)


def test_a_folded_finding_is_valid_and_says_how_many_it_is() -> None:
    report = audit(account(relation(1, "YYY")), now=NOW)
    (flood,) = [
        found
        for found in map(json.loads, render(report, "jsonl").splitlines())
        if found.get("rule") == "A001"
    ]
    VALID.validate(flood)
    assert flood["count"] == len(flood["evidence"]["agent_ids"]) == 77
    assert not VALID.is_valid(flood | {"count": 0})
    assert json.loads(render(report, "json"))["findings"][0]["count"] == 77
