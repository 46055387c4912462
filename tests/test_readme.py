"""Code blocks of the README and the guides, run as they stand, and compared with the output below."""

from __future__ import annotations

import runpy
import shlex
import subprocess
import sys

import pytest

from deepcall_async.cli import run
from tests.support.guides import GUIDES, blocks

BLOCKS = [block for text in GUIDES.values() for block in blocks(text)]
SCRIPTS = [
    (code, BLOCKS[place + 1][1] if BLOCKS[place + 1 :] and BLOCKS[place + 1][0] == "text" else None)
    for place, (language, code) in enumerate(BLOCKS)
    if language == "python" and "deepcall_sandbox" not in code
]
TESTS = [code for language, code in BLOCKS if language == "python" and "deepcall_sandbox" in code]
COMMANDS = [
    line
    for language, code in BLOCKS
    if language == "sh"
    for line in code.splitlines()
    if line.startswith("deepcall ")
]
SESSIONS = [code for language, code in BLOCKS if language == "text" and code.startswith("$ ")]


@pytest.fixture
def account(deepcall_sandbox, monkeypatch, tmp_path):
    """The sandbox in the environment, and an empty folder to work in."""
    monkeypatch.delenv("DEEPCALL_SSID", raising=False)
    monkeypatch.setenv("DEEPCALL_BASE_URL", deepcall_sandbox.base_url)
    monkeypatch.setenv("DEEPCALL_USER_ID", deepcall_sandbox.user_id)
    monkeypatch.setenv("DEEPCALL_TOKEN", deepcall_sandbox.token)
    monkeypatch.chdir(tmp_path)


def test_every_language_is_one_that_is_run_here_or_in_ci():
    # yaml and crontab lines are recipes around the same commands.
    assert {language for language, _ in BLOCKS} <= {"python", "text", "sh", "yaml", "toml"}
    assert len(SCRIPTS) >= 6
    assert len(TESTS) >= 2
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize(("code", "output"), SCRIPTS)
def test_python_blocks(code, output, account, tmp_path, capsys):
    script = tmp_path / "block.py"
    script.write_text(code)
    runpy.run_path(str(script), run_name="__main__")
    if output is not None:
        assert capsys.readouterr().out == output


def test_python_blocks_that_are_tests(account, tmp_path):
    for number, code in enumerate(TESTS):
        (tmp_path / f"test_block_{number}.py").write_text(code)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"test_block_{number}.py" in done.stdout for number in range(len(TESTS)))


@pytest.mark.parametrize("session", SESSIONS)
def test_sessions(session, capsys):
    command, _, output = session.removeprefix("$ ").partition("\n")
    run(shlex.split(command)[1:])
    assert capsys.readouterr().out == output


@pytest.mark.deepcall_sandbox(groups=40)
def test_commands(account, tmp_path, capsys):
    """One after the other in one folder, as someone would type them on the second day."""
    mutes = next(code for kind, code in BLOCKS if kind == "toml" and "[[mute]]" in code)
    (tmp_path / "mutes.toml").write_text(mutes)
    # The fleet is the account of the sandbox, which those of the guides are not.
    fleet = '[[account]]\nname = "acme"\ncredentials = "env:DEEPCALL"\n'
    (tmp_path / "fleet.toml").write_text(fleet)
    for command in ("deepcall audit -o jsonl:yesterday.jsonl", *COMMANDS):
        # 1 says that there are findings, and the demo account has many.
        assert run(shlex.split(command)[1:]) in (0, 1), f"{command}\n{capsys.readouterr()}"
