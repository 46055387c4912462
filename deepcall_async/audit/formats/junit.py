"""A report as JUnit XML, for the CI services that show it.

Pure, report to string, always well-formed. The document holds only what the schemas of Jenkins and
of GitLab both allow. A rule is a suite, and each of its findings a case whose name stays the same
from run to run. A first suite holds one case: that the run is complete.
"""

from __future__ import annotations

import re
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from deepcall_async.audit.finding import Finding, Severity, rank
from deepcall_async.audit.report import ASK_AGAIN, Report
from deepcall_async.audit.rule import Rule

__all__ = ["to_junit"]

# XML 1.0 cannot hold these characters, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(report: Report, fail_on: Severity | Literal["never"] = "high") -> str:
    """Write the findings as JUnit XML.

    A run that is not complete and a lookup that failed are errors. Findings at or above
    ``fail_on`` are failures; milder ones are cases that pass and tell what was found. Muted
    findings are skipped cases.

    Args:
        report: the report.
        fail_on: the lowest severity that fails, or "never".

    Returns:
        The document.
    """
    by_rule: dict[str, list[Finding]] = {rule.id: [] for rule in report.rules}
    for finding in report.findings:
        by_rule[finding.rule].append(finding)
    root = Element("testsuites", name="deepcall audit")
    suites = [_run(report)]
    suites += [_suite(rule, by_rule[rule.id], report, fail_on) for rule in report.rules]
    root.extend(suites)
    for name in ("tests", "failures", "errors"):  # Jenkins' schema knows no others here
        root.set(name, str(sum(int(suite.attrib[name]) for suite in suites)))
    if report.health.seconds is not None:
        root.set("time", f"{report.health.seconds:.3f}")
    indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{tostring(root, encoding="unicode")}\n'


def _run(report: Report) -> Element:
    suite = Element("testsuite", name="deepcall audit")
    case = SubElement(suite, "testcase", classname="deepcall.run", name="the run is complete")
    if report.incomplete:
        told = SubElement(case, "error", type="incomplete", message=_legal(report.incomplete))
        told.text = _legal(f"{report.verdict}\n{ASK_AGAIN}")
    else:
        SubElement(case, "system-out").text = _legal(report.verdict)
    return _counted(suite)


def _suite(
    rule: Rule, findings: list[Finding], report: Report, fail_on: Severity | Literal["never"]
) -> Element:
    suite = Element("testsuite", name=_legal(f"{rule.id} {rule.name}"))
    classname = _legal(f"deepcall.{rule.id}")
    for finding in findings:
        case = SubElement(suite, "testcase", classname=classname, name=_name(finding))
        text = _legal(f"{finding.message}\n{rule.meaning}\nWhat to do: {rule.fix}")
        if rule.id == "X001":
            told = SubElement(case, "error")
        elif fail_on != "never" and rank(finding.severity) <= rank(fail_on):
            told = SubElement(case, "failure")
        else:
            SubElement(case, "system-out").text = f"{finding.severity}: {text}"
            continue
        told.set("type", finding.severity)
        told.set("message", _legal(finding.message))
        told.text = text
    muted = [each for each in report.muted if each.finding.rule == rule.id]
    for each in muted:
        case = SubElement(suite, "testcase", classname=classname, name=_name(each.finding))
        SubElement(case, "skipped", message=_legal(f"muted: {each.reason}"))
    if not findings and not muted:
        SubElement(suite, "testcase", classname=classname, name=_legal(rule.name))
    return _counted(suite)


def _counted(suite: Element) -> Element:
    suite.set("tests", str(len(suite)))
    for name, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(len(suite.findall(f"testcase/{kind}"))))
    return suite


def _name(finding: Finding) -> str:
    parts = [f"group {finding.group_id}"] if finding.group_id is not None else []
    parts += [f"agent {finding.agent_id}"] if finding.agent_id is not None else []
    if finding.count > 1:
        parts += [f"{finding.severity} findings", *(["new"] if finding.new else [])]
    elif finding.key:
        parts += [finding.key]
    return _legal(", ".join(parts) or "account")


def _legal(text: str) -> str:
    return _ILLEGAL.sub("", text)
