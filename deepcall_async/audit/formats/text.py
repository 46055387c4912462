"""A report as text: an aligned table, CSV, Markdown.

Pure functions, report to string. Every value is made harmless for the reader of that format.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from io import StringIO

import msgspec

from deepcall_async.audit.finding import Finding
from deepcall_async.audit.labels import clean, count
from deepcall_async.audit.report import ASK_AGAIN, Report
from deepcall_async.redaction import printable

__all__ = [
    "TABLE_COLUMNS",
    "cell",
    "escaped",
    "table_rows",
    "to_csv",
    "to_csv_for_excel",
    "to_markdown",
    "to_table",
]

TABLE_COLUMNS = ("severity", "rule", "finding", "what to do")
"""What the columns of `table_rows` are."""

_CSV_COLUMNS = (
    *("severity", "rule", "name", "group_id", "group", "agent_id", "agent"),
    *("finding", "what to do", "new", "evidence"),
)
_MOST_MARKDOWN_ROWS = 500  # a comment on a pull request holds 65,536 characters
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~^$-])")


def table_rows(report: Report) -> Iterator[tuple[str, str, str, str]]:
    """Give the findings as rows of cells, most severe first.

    Args:
        report: the report.

    Returns:
        Rows of `TABLE_COLUMNS`, safe to print on a terminal.
    """
    fixes = {rule.id: rule.fix for rule in report.rules}
    for finding in report.findings:
        message = printable(finding.message)
        if finding.new:
            message = f"[new] {message}"
        yield finding.severity, clean(finding.rule), message, printable(fixes[finding.rule])


def to_table(report: Report) -> str:
    """Write the verdict and the findings as plain text, one finding a line.

    Args:
        report: the report.

    Returns:
        The text, ended by a newline.
    """
    rows = [TABLE_COLUMNS, *table_rows(report)] if report.findings else []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [report.verdict, ""] if rows else [report.verdict]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def to_csv(report: Report) -> str:
    """Write the findings as CSV (RFC 4180: commas, quotes doubled, CRLF).

    A cell that a spreadsheet would take for a formula begins with an apostrophe.

    Args:
        report: the report.

    Returns:
        The text, with a line of column names first.
    """
    out = StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_CSV_COLUMNS)
    rules = {rule.id: rule for rule in report.rules}
    for finding in report.findings:
        rule = rules[finding.rule]
        group, agent = _names(report, finding)
        cells = (
            *(finding.severity, finding.rule, rule.name, finding.group_id, group),
            *(finding.agent_id, agent, finding.message, rule.fix),
            "" if finding.new is None else "yes" if finding.new else "no",
            msgspec.json.encode(finding.evidence).decode(),
        )
        writer.writerow(map(cell, cells))
    if report.incomplete and all(finding.rule != "X001" for finding in report.findings):
        # A program that reads the rows must see that they are not all, whatever rules were chosen.
        texts = (report.incomplete, ASK_AGAIN, "", "{}")
        writer.writerow(("high", "X001", "lookup-failed", "", "", "", "", *texts))
    return out.getvalue()


def to_csv_for_excel(report: Report) -> str:
    """Write the same CSV with a byte order mark, by which Excel knows that it is UTF-8.

    Args:
        report: the report.
    """
    return f"\ufeff{to_csv(report)}"


def to_markdown(report: Report) -> str:
    """Write the report as GitHub's Markdown: the verdict, what to do first, the findings.

    Args:
        report: the report.

    Returns:
        The text; beyond 500 findings it says how many more there are.
    """
    verdict = escaped(report.verdict)
    lines = ["# Group audit", "", f"**{verdict}**", ""]
    if report.findings:
        lines += ["| severity | findings |", "| --- | ---: |"]
        lines += [f"| {name} | {number:,} |" for name, number in report.counts.items()]
        lines += ["", "## What to do first", ""]
        for place, action in enumerate(report.actions(), 1):
            number = count(action.count, "finding")
            lines.append(
                f"{place}. {escaped(action.rule.fix)} "
                f"({escaped(action.rule.id)}, {action.severity}, {number})"
            )
        shown = report.findings[:_MOST_MARKDOWN_ROWS]
        lines += ["", "## Findings", "", "| severity | rule | finding |", "| --- | --- | --- |"]
        for finding in shown:
            new = "**new** " if finding.new else ""
            lines.append(
                f"| {finding.severity} | {escaped(finding.rule)} "
                f"| {new}{escaped(finding.message)} |"
            )
        if len(report.findings) > len(shown):
            more = len(report.findings) - len(shown)
            lines += ["", f"{count(more, 'more finding')} in the JSONL or CSV report."]
    return "\n".join(lines).rstrip() + "\n"


def _names(report: Report, finding: Finding) -> tuple[str, str]:
    group = report.snapshot.group(finding.group_id) if finding.group_id is not None else None
    agent = report.context.agents.get(finding.agent_id) if finding.agent_id is not None else None
    return group.name if group else "", agent.name if agent else ""


def cell(value: str | int | None) -> str | int | None:
    """Keep a spreadsheet from taking a cell for a formula."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def escaped(text: str) -> str:
    """Make text mean itself in a Markdown table's cell."""
    text = printable(text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _MARKDOWN.sub(r"\\\1", text)
    # An "@name" would notify somebody, and a bare address would become a link.
    return text.replace("@", "&#64;").replace("://", "&#58;//").replace("www.", "www&#46;")
