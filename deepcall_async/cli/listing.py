"""Rows for people and for programs: a table, JSON or CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Literal, NamedTuple

from deepcall_async.cli.terminal import emit, show_table

__all__ = ["Listing"]

Cell = str | int | bool | None

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class Listing(NamedTuple):
    """What a command lists; the columns name the fields in JSON and CSV too."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def show(self, output: Literal["table", "json", "csv"]) -> None:
        """Print it on stdout."""
        if output == "json":
            import msgspec

            names = [name.replace(" ", "_") for name in self.columns]
            rows = [dict(zip(names, row, strict=True)) for row in self.rows]
            emit(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
        elif output == "csv":
            emit(self._csv())
        else:
            headings = [name.capitalize() for name in self.columns]
            show_table(self.title, headings, [[*map(_text, row)] for row in self.rows])

    def _csv(self) -> str:
        out = StringIO()
        writer = csv.writer(out, lineterminator="\r\n")
        writer.writerow(self.columns)
        for row in self.rows:
            writer.writerow([_harmless(_text(cell)) for cell in row])
        return out.getvalue()


def _text(cell: Cell) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return "" if cell is None else str(cell)


def _harmless(text: str) -> str:
    # A spreadsheet would take it for a formula.
    return f"'{text}" if text.startswith(_FORMULA) else text
