"""What a person sees: tables, the progress of a run, messages.

It presents and decides nothing. Data goes to stdout, all else to stderr. Names come from a server:
they are shown as text, never as markup, emoji codes or control characters. Rich is imported only
where something is drawn.
"""

from __future__ import annotations

import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from io import StringIO
from queue import Full, Queue
from typing import TYPE_CHECKING, Literal, TextIO, cast

from deepcall_async.cli.exits import OutputError, PipeClosed, is_closed_pipe, reason
from deepcall_async.redaction import printable

if TYPE_CHECKING:
    from rich.console import Console

    from deepcall_async.fanout import Progress

__all__ = [
    "ProgressStyle",
    "drawn",
    "emit",
    "page",
    "progress_display",
    "say",
    "show_table",
    "stdout_is_terminal",
    "unhurried_stderr",
    "write_all_of",
]

ProgressStyle = Literal["auto", "bar", "lines", "none"]

_EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""
_WAITING = 1000
"""Messages that wait for a slow stderr before more are lost."""
_LAST_WORDS = 1.0
"""Seconds that the end waits for what was said to be read."""
_NARROWEST = 40
"""Columns below which help is laid out as if there were so many."""
_UNWRAPPED = 10_000
_NARROWEST_TABLE = 60
"""Columns below which a table is not drawn: its cells would be a letter wide."""

_STYLES = {
    "critical": "bold red",
    "high": "red",
    "medium": "yellow",
    "low": "cyan",
    "info": "dim",
}


def say(text: str) -> None:
    """Print a message for the user on stderr; that nobody reads it is no error."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@contextmanager
def unhurried_stderr() -> Iterator[None]:
    """Let nothing wait for whoever reads stderr, for what runs for long.

    What is said meanwhile is written by a thread; while a thousand messages wait, more are lost.
    """
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # closed, or a stand-in for stderr
        yield
        return
    waiting: Queue[str | None] = Queue(_WAITING)

    def write() -> None:
        for text in iter(waiting.get, None):
            # Not through `sys.stderr`: while nobody reads it, its lock would hold up the end.
            with suppress(OSError):
                write_all_of(descriptor, text)

    thread = threading.Thread(target=write, name="deepcall-stderr", daemon=True)
    thread.start()
    try:
        with redirect_stderr(_Queued(sys.stderr, waiting)):
            yield
    finally:
        with suppress(Full):
            waiting.put_nowait(None)
            thread.join(_LAST_WORDS)


def write_all_of(descriptor: int, text: str) -> None:
    """Write a text to a descriptor, however many writes it takes.

    Raises:
        OSError: it could not be written.
    """
    rest = text.encode("utf-8", "backslashreplace")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def emit(content: bytes | str, *, drawn: bool = False) -> None:
    """Write data to stdout, at once.

    On a terminal no name in it can steer the terminal, whatever the format; elsewhere data stays as
    it is.

    Args:
        content: bytes, or text.
        drawn: it holds escape sequences of our own, and its names were made safe.

    Raises:
        PipeClosed: whoever read stdout has closed it.
        OutputError: it could not be written, such as to a full disk.
    """
    if not drawn and stdout_is_terminal():
        text = content if isinstance(content, str) else content.decode()
        content = "\n".join(printable(line.removesuffix("\r")) for line in text.split("\n"))
    try:
        sys.stdout.flush()
        buffer = getattr(sys.stdout, "buffer", None)
        if buffer is None:  # a stand-in for stdout that takes text only
            sys.stdout.write(content if isinstance(content, str) else content.decode())
        else:
            if isinstance(content, str):
                content = content.encode("utf-8", "backslashreplace")
            buffer.write(content)
            buffer.flush()
    except OSError as error:
        if is_closed_pipe(error):
            raise PipeClosed from None
        raise OutputError(f"stdout: {reason(error)}") from None


def page() -> Console:
    """Make a console that draws as stdout can show it, into a text that is then emitted.

    It is never so narrow that help cannot be laid out.
    """
    from rich.console import Console

    stdout = _console(sys.stdout)
    return Console(
        file=StringIO(),
        # Elsewhere than on a terminal `drawn` wraps: the parser's own wrapping leaves rags.
        width=max(stdout.width, _NARROWEST) if stdout.is_terminal else _UNWRAPPED,
        force_terminal=stdout.is_terminal,
        color_system="auto" if stdout.is_terminal else None,
        markup=False,
        emoji=False,
        highlight=False,
    )


def drawn(page: Console) -> str:
    """Give what was drawn on a `page`."""
    text = cast("StringIO", page.file).getvalue()
    if page.is_terminal:
        return text
    width = max(_console(sys.stdout).width, _NARROWEST)
    return "".join(f"{_wrapped(line, width)}\n" for line in text.splitlines())


def stdout_is_terminal() -> bool:
    """Whether stdout is a terminal, so that tables are drawn and not only aligned."""
    return _is_terminal(sys.stdout)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows as a table: drawn on a wide terminal, a row a line elsewhere; nothing is cut.

    Args:
        title: above the table; empty for none.
        columns: the headings; a column named Severity is coloured by what it says.
        rows: the cells.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if not stdout_is_terminal() or (console := page()).width < _NARROWEST_TABLE:
        lines = [columns, *cells] if cells else []
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [printable(title), ""] if title else []
        for line in lines:
            padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            text.append("  ".join(padded).rstrip())
        emit("\n".join(text) + "\n")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for place, name in enumerate(columns):
        widest = max((len(row[place]) for row in cells), default=0)
        # Short columns stay whole; the long ones share what is left and wrap.
        table.add_column(name, no_wrap=widest <= 24, overflow="fold")
    for row in cells:
        shown = [Text(cell) for cell in row]
        for name, cell in zip(columns, shown, strict=True):
            if name == "Severity":
                cell.stylize(_STYLES.get(cell.plain, ""))
        table.add_row(*shown)
    if title:
        console.print(Text(printable(title), style="bold"))
    if cells:
        console.print(table)
    emit(drawn(console), drawn=True)


@contextmanager
def progress_display(
    label: str, style: ProgressStyle
) -> Iterator[Callable[[Progress], object] | None]:
    """Show on stderr how far a run is: a bar on a terminal, a line every ten seconds elsewhere.

    Args:
        label: what is being done.
        style: "auto" to choose by what stderr is.
    """
    if style == "none":
        yield None
    elif style == "bar" or (style == "auto" and _is_terminal(sys.stderr)):
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        with Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]}", style="red"),
            console=_console(cast("TextIO", _Forgiving(sys.stderr))),
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
        yield _Lines(label)


def _wrapped(line: str, width: int) -> str:
    """Wrap a line with what follows indented by two more; an example to copy stays whole."""
    indent = line[: len(line) - len(line.lstrip())]
    if line.startswith("  deepcall "):
        return line
    return textwrap.fill(
        line.strip(),
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  " if indent else "",
        break_long_words=False,
        break_on_hyphens=False,
    )


class _Lines:
    def __init__(self, label: str) -> None:
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
        say(f"{self._label}: {progress.done:,}{of}, {progress.rate:,.0f}/s{left}{failed}")


class _Queued(StringIO):
    """A stand-in for stderr that never waits."""

    def __init__(self, stream: TextIO, waiting: Queue[str | None]) -> None:
        super().__init__()
        self._waiting = waiting
        self.isatty = stream.isatty  # type: ignore[method-assign]
        self.fileno = stream.fileno  # type: ignore[method-assign]

    def write(self, text: str) -> int:
        with suppress(Full):
            self._waiting.put_nowait(text)
        return len(text)


class _Forgiving:
    """A stream for what may be lost: a terminal that is gone is no reason to end a run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, markup=False, emoji=False, highlight=False)


def _is_terminal(stream: TextIO) -> bool:
    with suppress(ValueError):  # closed
        return stream.isatty()
    return False


def _failures(progress: Progress) -> str:
    return f"{progress.failed:,} failed" if progress.failed else ""
