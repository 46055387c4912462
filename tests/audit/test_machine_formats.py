"""JUnit, SARIF, GitHub and Excel: valid by their own schemas, and true to the report."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.etree import ElementTree

import jsonschema_rs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from deepcall_async.audit import (
    Health,
    Mute,
    Report,
    RunInfo,
    Severity,
    Snapshot,
    audit,
    read_jsonl,
    render,
)
from tests.support.audit_accounts import NOW, account, agents, everyone, hostile, refused, relation

if TYPE_CHECKING:
    from xmlschema import XMLSchema

DATA = Path(__file__).parents[1] / "data"
# From the npm package @microsoft/jest-sarif (MIT); one pattern of it, which was no regular
# expression, is mended.
SARIF = jsonschema_rs.validator_for(json.loads((DATA / "sarif-2.1.0.json").read_bytes()))


@cache
def junit_schemas() -> list[XMLSchema]:
    import xmlschema  # takes a second, and most processes of a run do without

    return [xmlschema.XMLSchema(DATA / name) for name in ("junit-jenkins.xsd", "junit-gitlab.xsd")]


@pytest.fixture(scope="module")
def report() -> Report:
    roster = agents(*range(1, 60))
    snapshot = account(
        relation(1, "NNNN", name="Sales, EU: 100 %", roster=roster),
        relation(2, "Y", roster=roster),
        relation(3, "YY", roster=roster),
        failed={9: refused()},
    )
    snapshot = replace(
        snapshot,
        run=RunInfo(started=NOW, tool="deepcall-async 1.2.3", base_url="https://a.example"),
    )
    before = account(relation(1, "NNNN", roster=roster))
    mute = Mute(rule="G003", group=2, reason="a small team")
    return audit(snapshot, baseline=before, mutes=[mute], now=NOW, health=Health(seconds=1234.5))


# --- JUnit


def test_junit_is_valid_for_jenkins_and_gitlab(report: Report) -> None:
    for each in (report, audit(account(), now=NOW)):
        document = ElementTree.fromstring(render(each, "junit"))
        for schema in junit_schemas():
            schema.validate(document)


@settings(max_examples=min(40, settings().max_examples))
@given(st.text(max_size=30))
@example("\x00\x0b\ufffe]]>")
def test_junit_is_valid_whatever_the_names(name: str) -> None:
    document = ElementTree.fromstring(render(hostile(name), "junit"))
    for schema in junit_schemas():
        schema.validate(document)


def test_the_schemas_refuse_what_is_wrong(report: Report) -> None:
    for schema in junit_schemas():
        document = ElementTree.fromstring(render(report, "junit"))
        document.set("skipped", "1")
        if schema is junit_schemas()[0]:
            assert not schema.is_valid(document)
        ElementTree.SubElement(document, "verdict")
        assert not schema.is_valid(document)


@pytest.mark.parametrize(
    ("fail_on", "failing"),
    [
        ("never", set()),
        ("critical", {"critical"}),
        ("high", {"critical", "high"}),
        ("low", {"critical", "high", "medium", "low"}),
    ],
)
def test_junit_fails_what_the_command_fails(
    report: Report, fail_on: Severity | Literal["never"], failing: set[str]
) -> None:
    root = ElementTree.fromstring(render(report, "junit", fail_on=fail_on))
    found = {each.attrib["type"] for each in root.iter("failure")}
    present = {f.severity for f in report.findings if f.rule != "X001"}
    assert found == present & failing
    assert len(list(root.iter("error"))) == 2


# --- SARIF


def test_sarif_is_valid(report: Report) -> None:
    for each in (report, audit(account(), now=NOW), audit(Snapshot(), now=NOW)):
        SARIF.validate(json.loads(render(each, "sarif")))


@settings(max_examples=min(40, settings().max_examples))
@given(st.text(max_size=30))
@example("\ud800")
def test_sarif_is_valid_whatever_the_names(name: str) -> None:
    SARIF.validate(json.loads(render(hostile(name), "sarif")))


def test_sarif_holds_what_code_scanning_needs(report: Report) -> None:
    (run,) = json.loads(render(report, "sarif"))["runs"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("deepcall audit", "1.2.3")
    ids = [each["id"] for each in driver["rules"]]
    assert len(run["results"]) == len(report.findings)
    for result, finding in zip(run["results"], report.findings, strict=True):
        assert ids[result["ruleIndex"]] == result["ruleId"] == finding.rule
        (place,) = result["locations"]
        uri = place["physicalLocation"]["artifactLocation"]["uri"]
        assert not re.search(r"[^a-z0-9/]", uri)
        assert result["message"]["text"] == finding.message
    prints = [each["partialFingerprints"]["primaryLocationLineHash"] for each in run["results"]]
    assert len(prints) == len(set(prints))
    states = {each.get("baselineState") for each in run["results"]}
    assert states >= {"new", "unchanged"}
    assert "G003" not in {each["ruleId"] for each in run["results"]}  # it is muted


def test_a_fingerprint_stays_when_the_words_change() -> None:
    one, two = (
        json.loads(render(audit(account(*everyone(relation(1, flags)))), "sarif"))["runs"][0]
        for flags in ("NN", "NNN")
    )
    first, second = (
        {each["ruleId"]: each["partialFingerprints"] for each in run["results"]}
        for run in (one, two)
    )
    assert first["G002"] == second["G002"]


def test_sarif_is_not_successful_when_the_run_is_incomplete(report: Report) -> None:
    (invocation,) = json.loads(render(report, "sarif"))["runs"][0]["invocations"]
    assert invocation["executionSuccessful"] is False
    assert invocation["toolExecutionNotifications"][0]["level"] == "error"
    complete = audit(account(relation(1)), now=NOW)
    (invocation,) = json.loads(render(complete, "sarif"))["runs"][0]["invocations"]
    assert invocation["executionSuccessful"] is True


# --- GitHub


def test_github_has_a_command_for_each_finding(report: Report) -> None:
    lines = render(report, "github").decode().splitlines()
    assert lines[0] == report.verdict
    assert lines[1].startswith("::error title=X001 the run is not complete::Incomplete: 1 of 4")
    assert len(lines) == 2 + len(report.findings)
    dark = next(line for line in lines if "title=G002 " in line)
    assert dark.startswith(
        "::error title=G002 nobody-receives::Sales, EU: 100 %25 (1) has 4 agents"
    )
    kinds = {line.split(" ")[0] for line in lines[1:]}
    assert kinds == {"::error", "::warning", "::notice"}


@settings(max_examples=min(40, settings().max_examples))
@given(st.text(max_size=30))
@example("\n::error::x")
@example("%0A::stop-commands::x")
def test_no_name_is_a_command(name: str) -> None:
    report = hostile(name)
    lines = render(report, "github").decode().split("\n")
    assert len(lines) == 3 + len(report.findings)
    for line in lines[1:-1]:
        assert re.match(r"::(error|warning|notice) title=[A-Z][0-9]{3} [^:,]*::", line)
        assert not re.search(r"%(?!25|0A|0D|3A|2C)", line)


def test_github_says_how_many_more_there_are() -> None:
    many = audit(Snapshot.of((), {i: relation(i, "") for i in range(1, 1200)}), now=NOW)
    text = render(many, "github").decode()
    assert f"{len(many.findings) - 500:,} more findings stand in the JSONL report." in text


# --- Excel


def test_only_the_csv_for_excel_has_a_byte_order_mark(report: Report) -> None:
    plain, excel = render(report, "csv"), render(report, "csv-excel")
    assert excel == b"\xef\xbb\xbf" + plain
    assert not plain.startswith(b"\xef\xbb\xbf")


# --- records of earlier versions


def test_a_record_of_the_first_version_is_read() -> None:
    record = (DATA / "audit-record-1.jsonl").read_bytes()
    snapshot = read_jsonl(record)
    assert (len(snapshot.relations), len(snapshot.failed), len(snapshot.asked)) == (10, 1, 12)
    report = audit(snapshot)
    assert report.incomplete
    assert {"G001", "G002", "G003"} <= {finding.rule for finding in report.findings}
