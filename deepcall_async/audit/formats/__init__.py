"""All formats by name.

A table from a format's name to the pure function that writes it. No format imports a rule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, TypeAlias, get_args

from deepcall_async.audit.finding import Severity
from deepcall_async.audit.formats import github, jsonl, junit, sarif, text
from deepcall_async.audit.formats.html import to_html
from deepcall_async.audit.report import Report

__all__ = ["FORMATS", "Format", "render"]

Format: TypeAlias = Literal[
    "table", "json", "jsonl", "csv", "csv-excel", "md", "html", "junit", "sarif", "github"
]
"""The name of a format."""

FORMATS: tuple[Format, ...] = get_args(Format)
"""All formats."""

_WRITERS: dict[Format, Callable[[Report], str | bytes]] = {
    "table": text.to_table,
    "json": jsonl.document,
    "jsonl": lambda report: b"".join(jsonl.lines(report)),
    "csv": text.to_csv,
    "csv-excel": text.to_csv_for_excel,
    "md": text.to_markdown,
    "html": to_html,
    "sarif": sarif.to_sarif,
    "github": github.to_github,
}


def render(
    report: Report,
    format: Format,  # noqa: A002  (what users call it)
    *,
    fail_on: Severity | Literal["never"] = "high",
) -> bytes:
    """Write a report in a format.

    Args:
        report: the report.
        format: one of `FORMATS`; "html" needs Jinja2, which the extra ``cli`` brings.
        fail_on: the lowest severity that is a failure in "junit", or "never".

    Returns:
        The file's contents: UTF-8, with the format's own line ends.

    Raises:
        ValueError: there is no such format.
        ImportError: Jinja2 is not installed.

    Example:
        >>> report = await run_audit(dc)
        >>> Path("report.md").write_bytes(render(report, "md")) > 0
        True
    """
    if format not in FORMATS:
        raise ValueError(f"no such format: {format}; there are {', '.join(FORMATS)}")
    writer = partial(junit.to_junit, fail_on=fail_on) if format == "junit" else _WRITERS[format]
    text = writer(report)
    # A lone surrogate has no UTF-8; nobody can read it either.
    return text if isinstance(text, bytes) else text.encode("utf-8", "replace")
