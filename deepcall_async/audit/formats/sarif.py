"""A report as SARIF 2.1.0, for code scanning.

Pure, report to bytes. A result is about a group and not about a line of a file, but code scanning
takes only results that have a file: each group stands for one, such as ``groups/28``.
https://docs.oasis-open.org/sarif/sarif/v2.1.0/
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from deepcall_async.audit.finding import Finding, Severity
from deepcall_async.audit.report import ASK_AGAIN, Report
from deepcall_async.audit.rule import Rule
from deepcall_async.redaction import printable

__all__ = ["to_sarif"]

_MOST_RESULTS = 25_000
"""Code scanning refuses a file with more results in one run."""

_LEVELS: dict[Severity, str] = {
    "critical": "error",
    "high": "error",
    "medium": "warning",
    "low": "note",
    "info": "note",
}
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def to_sarif(report: Report) -> bytes:
    """Write the findings as SARIF 2.1.0.

    Muted findings are left out, so that code scanning closes their alerts.

    Args:
        report: the report.

    Returns:
        The document; beyond 25,000 results a notification says how many more there are.
    """
    run = report.snapshot.run
    rules = list(report.rules)
    places = {rule.id: place for place, rule in enumerate(rules)}
    shown = report.findings[:_MOST_RESULTS]
    invocation: dict[str, Any] = {"executionSuccessful": report.complete}
    if run.started is not None:
        invocation["startTimeUtc"] = f"{run.started:%Y-%m-%dT%H:%M:%SZ}"
    notes = [_note("note", report.verdict)]
    if report.incomplete:
        notes = [_note("error", f"{report.incomplete} {ASK_AGAIN}")]
    if len(report.findings) > len(shown):
        more = len(report.findings) - len(shown)
        notes.append(_note("warning", f"{more:,} more findings stand in the JSONL report."))
    invocation["toolExecutionNotifications"] = notes
    log = {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": _driver(report, rules)},
                "automationDetails": {"id": "deepcall-audit/"},
                "columnKind": "unicodeCodePoints",
                "invocations": [invocation],
                "results": [_result(finding, places[finding.rule]) for finding in shown],
            }
        ],
    }
    return msgspec.json.format(msgspec.json.encode(log), indent=1) + b"\n"


def _driver(report: Report, rules: list[Rule]) -> dict[str, Any]:
    name, _, version = report.snapshot.run.tool.partition(" ")
    driver: dict[str, Any] = {
        "name": "deepcall audit",
        "rules": [
            {
                "id": rule.id,
                "name": "".join(part.title() for part in rule.name.split("-")),
                "shortDescription": {"text": rule.meaning},
                "fullDescription": {"text": rule.meaning},
                "help": {"text": rule.fix, "markdown": f"**What to do:** {rule.fix}"},
                "defaultConfiguration": {"level": _LEVELS[rule.severity]},
                "properties": {"tags": ["deepcall", rule.severity], "precision": "high"},
            }
            for rule in rules
        ],
    }
    if name == "deepcall-async" and version:
        driver["version"] = printable(version)
    return driver


def _result(finding: Finding, place: int) -> dict[str, Any]:
    group_id, agent_id = finding.group_id, finding.agent_id
    uri = "groups" if group_id is None else f"groups/{group_id}"
    if group_id is None and agent_id is not None:
        uri = f"agents/{agent_id}"
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": place,
        "level": _LEVELS[finding.severity],
        "message": {"text": printable(finding.message)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": uri},
                    "region": {"startLine": 1},
                }
            }
        ],
        # Tells one alert from another across runs; the severity and the message may change.
        "partialFingerprints": {
            "primaryLocationLineHash": _fingerprint(finding),
        },
        "properties": {
            "severity": finding.severity,
            "groupId": group_id,
            "agentId": agent_id,
            "count": finding.count,
        },
    }
    if finding.new is not None:
        result["baselineState"] = "new" if finding.new else "unchanged"
    return result


def _fingerprint(finding: Finding) -> str:
    parts: tuple[object, ...] = (finding.rule, finding.group_id, finding.agent_id, finding.key)
    if finding.count > 1:  # as many as one rule has severities, new or not
        parts = (finding.rule, finding.severity, finding.new, finding.key)
    return hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()[:16] + ":1"


def _note(level: str, text: str) -> dict[str, Any]:
    return {"level": level, "message": {"text": printable(text)}}
