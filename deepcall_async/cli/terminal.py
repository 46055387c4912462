"""What a person at a terminal sees: tables, the progress of a run, messages.

It presents with rich and decides nothing. Data goes to stdout, all else to stderr. Names come from
a server: they are shown as text, never as markup or control characters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, Protocol

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from deepcall_async.fanout import Progress

__all__ = ["Observer", "ProgressStyle", "printable", "progress_display", "say", "show_table"]

ProgressStyle = Literal["auto", "bar", "lines", "none"]

_WIDEST = 10_000
_EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""

_STYLES = {
    "critical": "bold red",
    "high": "red",
    "medium": "yellow",
    "low": "cyan",
    "info": "dim",
}


class Observer(Protocol):
    """Whoever is told how far a run has come."""

    def __call__(self, progress: Progress, /) -> None:
        """Take note."""
        ...


def printable(text: str) -> str:
    """Make a name fit for a terminal: escape what could move the cursor or break the line."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def say(text: str) -> None:
    """Print a message for the user on stderr."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


def show_table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Print rows as a table; in a pipe it is as wide as its cells, so that nothing is cut.

    Args:
        console: where to.
        title: above the table.
        columns: the headings; a column named Severity is coloured by what it says.
        rows: the cells.
    """
    table = Table(header_style="bold")
    for place, name in enumerate(columns):
        widest = max((len(row[place]) for row in rows), default=0)
        # Short columns stay whole; the long ones share what is left and wrap.
        table.add_column(name, no_wrap=widest <= 24, overflow="fold")
    for row in rows:
        cells = [Text(printable(cell)) for cell in row]
        for name, cell in zip(columns, cells, strict=True):
            if name == "Severity":
                cell.stylize(_STYLES.get(cell.plain, ""))
        table.add_row(*cells)
    if not console.is_terminal:
        options = console.options.update(max_width=_WIDEST)
        console.width = Measurement.get(console, options, table).maximum
    console.print(title, markup=False, highlight=False, style="bold", soft_wrap=True)
    console.print(table)


@contextmanager
def progress_display(
    console: Console, label: str, style: ProgressStyle
) -> Iterator[Observer | None]:
    """Show how far a run has come: a bar on a terminal, a line every ten seconds elsewhere.

    Args:
        console: where to; of stderr.
        label: what is being done.
        style: "auto" to choose by what the console is.
    """
    if style == "none":
        yield None
    elif style == "bar" or (style == "auto" and console.is_terminal):
        with Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]}", style="red"),
            console=console,
        ) as bar:
            task = bar.add_task(label, total=None, rate="", failed="")

            def show(progress: Progress) -> None:
                bar.update(
                    task,
                    completed=progress.done,
                    total=progress.total,
                    rate=f"{progress.rate:,.0f}/s",
                    failed=_failures(progress),
                )

            yield show
    else:
        yield _Lines(console, label)


class _Lines:
    def __init__(self, console: Console, label: str) -> None:
        self._console = console
        self._label = label
        self._last = time.monotonic()

    def __call__(self, progress: Progress, /) -> None:
        now = time.monotonic()
        finished = progress.total is not None and progress.done == progress.total
        if now - self._last < _EVERY and not finished:
            return
        self._last = now
        of = "" if progress.total is None else f" of {progress.total:,}"
        left = "" if not progress.eta else f", about {progress.eta:,.0f} s left"
        failed = f", {_failures(progress)}" if progress.failed else ""
        self._console.print(
            f"{self._label}: {progress.done:,}{of}, {progress.rate:,.0f}/s{left}{failed}",
            markup=False,
            highlight=False,
        )


def _failures(progress: Progress) -> str:
    return f"{progress.failed:,} failed" if progress.failed else ""
