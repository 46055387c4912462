"""The files that the command reads and writes: mutes, earlier runs, reports.

"-" is stdout. An error about a file names the file. What the content means is decided in ``audit``;
how it looks on a terminal, in ``terminal``; the record of a run is written in ``record``.
"""

from __future__ import annotations

import difflib
import os
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from deepcall_async.audit import (
    FORMATS,
    Format,
    Settings,
    Snapshot,
    read_jsonl,
    read_settings,
)
from deepcall_async.cli.exits import OutputError, UsageError, reason, usage_errors
from deepcall_async.record import part_of

__all__ = [
    "STDOUT",
    "Output",
    "is_written_directly",
    "outputs_from",
    "part_of",
    "read_mutes",
    "read_run",
    "read_unfinished",
    "refuse_clashes",
    "replace_file",
    "replace_report",
]

STDOUT = Path("-")


class Output(NamedTuple):
    """What to write, and where."""

    format: Format
    path: Path


def outputs_from(items: Iterable[str]) -> list[Output]:
    """Read what was given to ``-o``, each FORMAT:FILE; without any it is a table on stdout."""
    return [_output(item) for item in items] or [Output("table", STDOUT)]


def refuse_clashes(outputs: Iterable[Output], read: Mapping[str, Path | None]) -> None:
    """Refuse to write one file twice, or a file that is read, before anything is done.

    Args:
        outputs: what is to be written.
        read: what is read, by the option that names it.
    """
    taken = {_real(path): option for option, path in read.items() if path is not None}
    for output in outputs:
        name = f"-o {output.format}:{output.path}"
        # A record grows beside its file, so that place is taken too.
        places = [output.path]
        if output.format == "jsonl" and not is_written_directly(output.path):
            places.append(part_of(output.path))
        for place in places:
            if place != STDOUT and is_written_directly(place):
                continue  # such as /dev/null
            other = taken.setdefault(_real(place), name)
            if other is not name:
                raise UsageError(f"{name} would overwrite the file of {other}; name another")


def read_mutes(file: Path | None) -> Settings:
    """Read accepted findings and thresholds from TOML; without a file there are none."""
    if file is None:
        return Settings()
    with usage_errors(file):
        return read_settings(tomllib.loads(file.read_bytes().decode("utf-8-sig")))


def read_run(file: Path) -> Snapshot:
    """Read an earlier run from its JSONL."""
    with usage_errors(file), file.open("rb") as lines:
        return read_jsonl(lines)


def read_unfinished(file: Path) -> Snapshot:
    """Read the run that last wrote a file: of one that was killed, what it had read by then."""
    part = part_of(file)
    return read_run(part if part.exists() else file)


def is_written_directly(file: Path) -> bool:
    """Whether a file is not to be replaced by another: stdout, a device, a pipe."""
    return file == STDOUT or (file.exists() and not file.is_file())


def replace_file(file: Path, content: bytes) -> None:
    """Write a file whole or not at all: beside itself first, then moved into its place.

    A link is followed, and the permissions of a file that is replaced are kept.

    Raises:
        OutputError: it could not be written; what stood there still does.
    """
    try:
        if is_written_directly(file):
            file.write_bytes(content)
        else:
            _replace(file.resolve(), content)
    except OSError as error:
        raise OutputError(f"{file}: {reason(error)}") from None


def replace_report(file: Path, content: bytes) -> None:
    """Write a report; where that fails, no earlier one is left in its place to pass for it.

    Raises:
        OutputError: it could not be written; an earlier one is in ``FILE.old``.
    """
    try:
        replace_file(file, content)
    except OutputError as error:
        raise OutputError(f"{error}{_set_aside(file)}") from None


def _set_aside(file: Path) -> str:
    """Move an earlier report away, which takes no room, and say where it is."""
    if is_written_directly(file) or not file.exists():
        return ""
    real = file.resolve()
    old = real.with_name(real.name + ".old")
    try:
        real.replace(old)
    except OSError:
        return "; what stands there is of an earlier run"
    return f"; that of an earlier run is now {old}"


def _replace(file: Path, content: bytes) -> None:
    try:
        number, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
    except PermissionError:
        # A file of ours in a folder that is not.
        file.write_bytes(content)
        return
    aside = Path(name)
    try:
        with os.fdopen(number, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        aside.chmod(_mode(file))
        aside.replace(file)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise


def _mode(file: Path) -> int:
    with suppress(OSError):
        return file.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _output(item: str) -> Output:
    name, colon, file = item.partition(":")
    kind = next((known for known in FORMATS if known == name), None)
    if kind is None:
        near = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(FORMATS)}"
        raise UsageError(f"-o {item}: no format is called {name}; {hint}")
    if not colon or not file:
        raise UsageError(f"-o {item}: give FORMAT:FILE, such as {name}:report, or {name}:-")
    path = Path(file)
    if path == STDOUT:
        return Output(kind, path)
    if path.is_dir():
        raise UsageError(f"-o {item}: {path} is a folder; name a file in it")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UsageError(f"-o {item}: there is no folder {path.parent}")
    if not (os.access(folder, os.W_OK) or (path.exists() and os.access(path, os.W_OK))):
        raise UsageError(f"-o {item}: {folder} may not be written to")
    return Output(kind, path)


def _real(path: Path) -> Path:
    return path if path == STDOUT else path.resolve()
