"""A fleet's report in the formats that people and programs read.

Pure functions, report to text. Every value is made harmless for the reader of that format. The page
is ``fleet.html.jinja`` beside this module, with the style sheet of an account's page.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from html import escape
from io import StringIO
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args
from urllib.parse import quote

import msgspec

from deepcall_async.audit.finding import SEVERITIES
from deepcall_async.audit.fleet import AccountReport, FleetReport
from deepcall_async.audit.formats.page import assets, template
from deepcall_async.audit.formats.text import cell, escaped
from deepcall_async.audit.labels import clean, count
from deepcall_async.redaction import printable

__all__ = ["FLEET_COLUMNS", "FLEET_FORMATS", "FleetFormat", "fleet_rows", "render_fleet"]

FleetFormat: TypeAlias = Literal["table", "json", "csv", "md", "html"]
"""The name of a format of a fleet's report."""

FLEET_FORMATS: tuple[FleetFormat, ...] = get_args(FleetFormat)
"""All of them."""

FLEET_COLUMNS = ("account", "read", "dark groups", "new", "verdict")
"""What the columns of `fleet_rows` are."""

_CSV_COLUMNS = (
    *("account", "complete", "error", "groups", "read", "agents", "dark_groups"),
    *("new_dark_groups", *SEVERITIES, "verdict", "started", "seconds", "requests", "retries"),
)
_MOST_MARKDOWN_ROWS = 300  # a comment on a pull request holds 65,536 characters
_PAGE_BYTES = 1_950_000
"""With the style sheet and what stands around the table, under 2 MB; rows give way first."""

_LONGEST_VERDICT = 160


def render_fleet(
    report: FleetReport,
    format: FleetFormat,  # noqa: A002  (what users call it)
    *,
    pages: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """Write a fleet's report in a format.

    Args:
        report: the report.
        format: "table", "json", "csv", "md" or "html"; the last needs Jinja2, which the extra
            ``cli`` brings.
        pages: where accounts have pages of their own, by name: paths relative to this page's.

    Returns:
        The file's contents: UTF-8.

    Raises:
        ValueError: there is no such format.
        ImportError: Jinja2 is not installed.
    """
    if format == "html":
        return _to_html(report, pages).encode("utf-8", "replace")
    writer = _WRITERS.get(format)
    if writer is None:
        raise ValueError(f"no such format: {format}; there are {', '.join(FLEET_FORMATS)}")
    return writer(report).encode("utf-8", "replace")


def fleet_rows(report: FleetReport) -> Iterator[tuple[str, str, str, str, str]]:
    """Give the accounts as rows of cells, the worst first.

    Args:
        report: the report.

    Returns:
        Rows of `FLEET_COLUMNS`, safe to print on a terminal.
    """
    for each in report.accounts:
        dark = f"{each.dark_groups:,}" if each.read else ""
        new = "" if not each.new_dark_groups else f"{each.new_dark_groups:,}"
        yield printable(each.name), _read(each), dark, new, printable(each.verdict)


def _read(each: AccountReport) -> str:
    if each.complete:
        return "whole"
    return f"{each.read:,} of {each.groups:,}" if each.read else "no"


def _to_table(report: FleetReport) -> str:
    rows = [FLEET_COLUMNS, *fleet_rows(report)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [report.verdict, ""]
    for row in rows:
        cells = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def _to_json(report: FleetReport) -> str:
    document = {"summary": report.summary, "accounts": report.accounts}
    return msgspec.json.encode(document).decode()


def _to_csv(report: FleetReport) -> str:
    out = StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(_CSV_COLUMNS)
    for each in report.accounts:
        error = "" if each.error is None else each.error.error
        cells = (
            *(each.name, "yes" if each.complete else "no", error, each.groups, each.read),
            *(each.agents, each.dark_groups, each.new_dark_groups),
            *(each.findings.get(severity, 0) for severity in SEVERITIES),
            *(each.verdict, each.started.isoformat() if each.started else ""),
            *(each.seconds, each.requests, each.retries),
        )
        writer.writerow(
            [value if value is None or isinstance(value, float) else cell(value) for value in cells]
        )
    return out.getvalue()


def _to_markdown(report: FleetReport) -> str:
    lines = ["# Fleet audit", "", f"**{escaped(report.verdict)}**", ""]
    lines += [
        "| account | read | dark groups | new | verdict |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    rows = list(fleet_rows(report))
    for row in rows[:_MOST_MARKDOWN_ROWS]:
        lines.append(f"| {' | '.join(map(escaped, row))} |")
    if len(rows) > _MOST_MARKDOWN_ROWS:
        more = count(len(rows) - _MOST_MARKDOWN_ROWS, "more account")
        lines += ["", f"{more}, less urgent, in the JSON or CSV report."]
    return "\n".join(lines) + "\n"


_WRITERS: dict[str, Callable[[FleetReport], str]] = {
    "table": _to_table,
    "json": _to_json,
    "csv": _to_csv,
    "md": _to_markdown,
}


class _Row(msgspec.Struct, frozen=True):
    """One account's row; `kind` is a CSS class, `link` where its page is, if it has one."""

    name: str
    link: str
    kind: str
    read: str
    dark: str
    new: str
    critical: str
    says: str


def _to_html(report: FleetReport, pages: Mapping[str, str]) -> str:
    rows: list[_Row] = []
    budget = _PAGE_BYTES
    for each in report.accounts:
        row = _row(each, pages.get(each.name, ""))
        budget -= _size(row)
        if budget < 0:
            break
        rows.append(row)
    summary = report.summary
    return template("fleet.html.jinja").render(
        report=report,
        summary=summary,
        started=f"{report.started:%Y-%m-%d %H:%M} UTC" if report.started else "",
        rows=rows,
        more=len(report.accounts) - len(rows),
        **assets(),
    )


def _row(each: AccountReport, page: str) -> _Row:
    says = clean(each.verdict, _LONGEST_VERDICT)
    if each.complete:
        # The numbers stand in their own columns, and its own page says the rest.
        says = says.partition(". ")[0].removesuffix(".") + "."
    dark = each.dark_groups
    return _Row(
        name=each.name,
        link=quote(page),
        kind="lost" if not each.complete else "dark" if dark else "good",
        read="whole" if each.complete else _read(each),
        dark=f"{dark:,}" if each.read else "",
        new=f"{each.new_dark_groups:,}" if each.new_dark_groups else "",
        critical=f"{each.findings.get('critical', 0):,}" if each.read else "",
        says=says,
    )


def _size(row: _Row) -> int:
    texts = (row.name, row.link, row.read, row.dark, row.new, row.critical, row.says)
    return 75 + sum(len(escape(text).encode("utf-8", "replace")) for text in texts)
