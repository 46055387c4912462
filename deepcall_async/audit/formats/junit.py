"""A report as JUnit XML, for the CI services that show it.

Pure, report to string, always well-formed. A rule is a suite; each of its findings is a case
that fails, with a name that stays the same from run to run; a rule without findings is one that
passes.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from deepcall_async.audit.finding import Finding
from deepcall_async.audit.report import Report
from deepcall_async.audit.rule import Rule

__all__ = ["to_junit"]

# XML 1.0 has no way, not even escaped, to hold these.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(report: Report) -> str:
    """Write the findings as JUnit XML.

    Lookups that failed are errors, muted findings are skipped cases, and all others are failures
    with their severity as the type.

    Args:
        report: the report.

    Returns:
        The document.
    """
    by_rule: dict[str, list[Finding]] = {rule.id: [] for rule in report.rules}
    for finding in report.findings:
        by_rule[finding.rule].append(finding)
    root = Element("testsuites", name="deepcall audit")
    root.set("tests", "0")
    if report.health.seconds is not None:
        root.set("time", f"{report.health.seconds:.3f}")
    totals = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for rule in report.rules:
        suite, numbers = _suite(rule, by_rule[rule.id], report)
        root.append(suite)
        for name, number in numbers.items():
            totals[name] += number
    for name, number in totals.items():
        root.set(name, str(number))
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _suite(rule: Rule, findings: list[Finding], report: Report) -> tuple[Element, dict[str, int]]:
    suite = Element("testsuite", name=_legal(f"{rule.id} {rule.name}"))
    kind = "error" if rule.id == "X001" else "failure"
    classname = _legal(f"deepcall.{rule.id}")
    for finding in findings:
        case = SubElement(suite, "testcase", classname=classname, name=_name(finding))
        told = SubElement(case, kind, type=finding.severity, message=_legal(finding.message))
        told.text = _legal(f"{finding.message}\n{rule.meaning}\nWhat to do: {rule.fix}")
    skipped = [muted for muted in report.muted if muted.finding.rule == rule.id]
    for muted in skipped:
        case = SubElement(suite, "testcase", classname=classname, name=_name(muted.finding))
        SubElement(case, "skipped", message=_legal(f"muted: {muted.reason}"))
    if not findings and not skipped:
        SubElement(suite, "testcase", classname=classname, name=_legal(rule.name))
    numbers = {
        "tests": len(suite),
        "failures": len(findings) if kind == "failure" else 0,
        "errors": len(findings) if kind == "error" else 0,
        "skipped": len(skipped),
    }
    for name, number in numbers.items():
        suite.set(name, str(number))
    return suite, numbers


def _name(finding: Finding) -> str:
    parts = [f"group {finding.group_id}"] if finding.group_id is not None else []
    parts += [f"agent {finding.agent_id}"] if finding.agent_id is not None else []
    parts += [finding.key] if finding.key else []
    return _legal(", ".join(parts) or "account")


def _legal(text: str) -> str:
    return _ILLEGAL.sub("", text)
