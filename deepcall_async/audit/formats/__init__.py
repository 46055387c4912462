"""All formats by name.

A table from a format's name to the pure function that writes it. No format imports a rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

from deepcall_async.audit.formats import jsonl, junit, text
from deepcall_async.audit.formats.html import to_html
from deepcall_async.audit.report import Report

__all__ = ["FORMATS", "Format", "render"]

Format: TypeAlias = Literal["table", "json", "jsonl", "csv", "md", "html", "junit"]
"""The name of a format."""

FORMATS: tuple[Format, ...] = get_args(Format)
"""All formats."""

_WRITERS: dict[Format, Callable[[Report], str | bytes]] = {
    "table": text.to_table,
    "json": jsonl.document,
    "jsonl": lambda report: b"".join(jsonl.lines(report)),
    "csv": text.to_csv,
    "md": text.to_markdown,
    "html": to_html,
    "junit": junit.to_junit,
}


def render(report: Report, format: Format) -> bytes:  # noqa: A002  (what users call it)
    """Write a report in a format.

    Args:
        report: the report.
        format: one of `FORMATS`; "html" needs Jinja2, which the extra ``cli`` brings.

    Returns:
        The file's contents: UTF-8, with the format's own line ends.

    Raises:
        ValueError: there is no such format.
        ImportError: Jinja2 is not installed.
    """
    if format not in _WRITERS:
        raise ValueError(f"no such format: {format}; there are {', '.join(FORMATS)}")
    text = _WRITERS[format](report)
    # A lone surrogate has no UTF-8; nobody can read it either.
    return text if isinstance(text, bytes) else text.encode("utf-8", "replace")
