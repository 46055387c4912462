"""The files that the command reads and writes: credentials, mutes, earlier runs, reports.

"-" is stdin or stdout. An error about a file names the file. What the content means is decided in
``audit``; how it looks on a terminal, in ``terminal``.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from deepcall_async.audit import (
    FORMATS,
    Format,
    Report,
    Settings,
    Snapshot,
    read_jsonl,
    read_settings,
    render,
)
from deepcall_async.credentials import SessionId, UserToken
from deepcall_async.options import credentials_from

__all__ = [
    "STDOUT",
    "Output",
    "Record",
    "output_from",
    "read_credentials",
    "read_mutes",
    "read_run",
    "write_report",
]

STDOUT = Path("-")


class Output(NamedTuple):
    """What to write, and where."""

    format: Format
    path: Path


def output_from(item: str) -> Output:
    """Read FORMAT:FILE, as given to ``-o``."""
    name, colon, file = item.partition(":")
    kind = next((known for known in FORMATS if known == name), None)
    if kind is None or not colon or not file:
        raise ValueError(f"-o {item}: give FORMAT:FILE with one of {', '.join(FORMATS)}")
    path = Path(file)
    if path != STDOUT and not path.parent.is_dir():
        raise ValueError(f"-o {item}: there is no folder {path.parent}")
    if path.is_dir():
        raise ValueError(f"-o {item}: {path} is a folder; name a file in it")
    return Output(kind, path)


def read_mutes(file: Path) -> Settings:
    """Read accepted findings and thresholds from TOML."""
    try:
        return read_settings(tomllib.loads(file.read_text("utf-8")))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def read_run(file: Path) -> Snapshot:
    """Read an earlier run from its JSONL."""
    try:
        with file.open("rb") as lines:
            return read_jsonl(lines)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def read_credentials(file: Path) -> SessionId | UserToken:
    """Read credentials, written as the environment's lines."""
    stdin = file == STDOUT
    text = sys.stdin.read() if stdin else file.read_text("utf-8")
    pairs = (line.partition("=") for line in text.splitlines() if line.strip())
    found = {
        name.strip().removeprefix("export ").strip(): value.strip().strip("\"'")
        for name, _, value in pairs
    }
    return credentials_from(lambda name: found.get(name), "stdin" if stdin else str(file))


def write_report(report: Report, output: Output) -> None:
    """Write a report as asked."""
    content = render(report, output.format)
    if output.path == STDOUT:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    else:
        output.path.write_bytes(content)


class Record:
    """A JSONL file that is whole lines at any moment, even while it replaces the one resumed.

    The new file takes the old one's place only when it holds all that the old one held; and a run
    that fails before its first group leaves an old file as it is.

    Args:
        path: the file, or `STDOUT`.
        earlier: the run that this one goes on from, if any.
    """

    def __init__(self, path: Path, earlier: Snapshot | None) -> None:
        self._path = path
        self._aside: Path | None = None
        self._carried = 1
        self._held: list[bytes] = []
        self._file: BinaryIO | None = None
        if path == STDOUT:
            self._file = sys.stdout.buffer
        elif earlier is not None and path.exists():
            self._aside = path.with_name(path.name + ".part")
            self._carried = max(1, len(earlier.relations))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        if self._file is None or self._file is sys.stdout.buffer:
            return
        self._file.close()
        # A finished run is whole, even if groups of the earlier one are gone.
        if kind is None:
            self._take_place()

    def write(self, line: bytes) -> None:
        """Write a line so that a kill right after it cannot lose it."""
        self._held.append(line)
        is_group = line.startswith(b'{"type":"group"')
        if self._file is not None or is_group:
            self._flush()
        if is_group:
            self._carried -= 1
        if self._carried <= 0:
            self._take_place()

    def _flush(self) -> None:
        if self._file is None:
            self._file = (self._aside or self._path).open("wb")
        self._file.writelines(self._held)
        self._file.flush()
        self._held.clear()

    def _take_place(self) -> None:
        if self._aside is not None:
            self._aside.replace(self._path)
            self._aside = None
