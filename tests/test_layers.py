"""The layers that `pyproject.toml` draws, kept by import-linter."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

# One import that is forbidden, and a part of the name of the contract that forbids it.
FORBIDDEN = [
    ("sandbox/clock.py", "import deepcall_async.models", "the sandbox imports nothing"),
    ("audit/run.py", "import deepcall_async.sandbox", "only the command and the fixtures"),
    ("fanout.py", "import aiohttp", "aiohttp is used by"),
    ("audit/formats/text.py", "import rich", "what the command alone needs"),
    ("sandbox/clock.py", "import pytest", "only the plug-in imports pytest"),
    ("transport/plain.py", "import deepcall_async.client", "a module imports only from"),
]


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_import_contracts_are_kept() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_contract_sees_what_it_forbids(tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(ROOT / "deepcall_async", tmp_path / "deepcall_async")
    for module, line, _ in FORBIDDEN:
        with (tmp_path / "deepcall_async" / module).open("a") as file:
            file.write(f"{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    summary, _, broken = done.stdout.partition("Broken contracts")
    assert "Contracts:" in summary, done.stdout
    assert [name for _, _, name in FORBIDDEN if name not in broken] == []


def test_the_guide_for_contributors_shows_the_same_layers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contract = project["tool"]["importlinter"]["contracts"][0]
    guide = (ROOT / ".github/CONTRIBUTING.md").read_text("utf-8").partition("\n## The house\n")[2]
    house = guide.partition("\n## ")[0]
    shown = [
        re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| (`.*?) \|", house, re.MULTILINE)
    ]
    # A name in parentheses is a layer that may be missing.
    drawn = [re.findall(r"(?<!\()\b\w+\b(?!\))", layer) for layer in contract["layers"]]
    assert shown == drawn
