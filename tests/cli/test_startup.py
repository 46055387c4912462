"""What a command imports: only what it uses, so that it starts at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import COMMAND, environment
from tests.support.rows import mostly_thorough

HEAVY = {
    "aiohttp", "asyncio", "cyclopts", "jinja2", "msgspec", "rich", "rich.console", "rich.markdown",
    "rich.progress", "ssl", "uvloop",
}  # fmt: skip
PARSING = {"cyclopts", "rich", "rich.console"}

RECORDING = """
import atexit, json, os, sys
def tell():
    with open(os.environ["MODULES"], "w") as file:
        json.dump(sorted(sys.modules), file)
atexit.register(tell)
"""


def imported_by(tmp_path: Path, code: int, *arguments: object) -> set[str]:
    (tmp_path / "sitecustomize.py").write_text(RECORDING)
    told = tmp_path / "modules.json"
    env = environment(PYTHONPATH=str(tmp_path), MODULES=str(told))
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], env=env, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == code, done.stderr
    return HEAVY & set(json.loads(told.read_bytes()))


@pytest.mark.parametrize(
    ("arguments", "code", "used"),
    mostly_thorough(
        [
            (("--version",), 0, set()),
            (("--help",), 0, PARSING),
            (("audit", "--help"), 0, PARSING),
            (("audti",), 2, PARSING),
            (("audit", "--concurrency", "0"), 2, PARSING),
            (("rules",), 0, PARSING | {"msgspec"}),
            (("diff", "EMPTY", "EMPTY"), 0, PARSING | {"msgspec"}),
            (("report", "EMPTY", "-o", "md:-"), 0, PARSING | {"msgspec"}),
        ],
        but=2,
    ),
)
def test_nothing_is_imported_that_is_not_used(arguments, code, used, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"type":"run","schema":1}\n{"type":"asked","group_ids":[]}\n')
    words = [str(empty) if word == "EMPTY" else word for word in arguments]
    assert imported_by(tmp_path, code, *words) <= used


@pytest.mark.skipif(sys.platform == "win32", reason="the CPU time of children is POSIX's")
def test_version_takes_little_more_than_the_interpreter_itself():
    # CPU time, and the least of several: what else the machine does changes little of it.
    bare = min(cpu(sys.executable, "-c", "pass") for _ in range(5))
    assert min(cpu(*COMMAND, "--version") for _ in range(5)) < 3 * bare


@pytest.mark.skipif(sys.platform == "win32", reason="the CPU time of children is POSIX's")
def test_help_takes_less_than_the_client_it_does_not_need():
    # It took 712 ms where the interpreter takes 18: forty times. Now less than twenty-four.
    bare = min(cpu(sys.executable, "-c", "pass") for _ in range(5))
    assert min(cpu(*COMMAND, "--help") for _ in range(3)) < 24 * bare


def cpu(*command: str) -> float:
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, env=dict(os.environ), check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
