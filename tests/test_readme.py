"""The README's code blocks, run as they stand, and compared with the output that follows them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deepcall_async.sandbox import Sandbox

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
SCRIPTS = [
    (code, BLOCKS[place + 1][1] if BLOCKS[place + 1 :] and BLOCKS[place + 1][0] == "text" else None)
    for place, (language, code) in enumerate(BLOCKS)
    if language == "python"
]
COMMANDS = [
    line
    for language, code in BLOCKS
    if language == "sh"
    for line in code.splitlines()
    if line.startswith("deepcall ")
]
SESSIONS = [code for language, code in BLOCKS if language == "text" and code.startswith("$ ")]


def environment(server: Sandbox) -> dict[str, str]:
    return {
        **os.environ,
        "DEEPCALL_BASE_URL": server.base_url,
        "DEEPCALL_USER_ID": server.user_id,
        "DEEPCALL_TOKEN": server.token,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def test_every_language_is_one_that_is_run_here_or_in_ci():
    # yaml and crontab lines are recipes around the same commands.
    assert {language for language, _ in BLOCKS} <= {"python", "text", "sh", "yaml", "toml"}
    assert len(SCRIPTS) >= 6


@pytest.mark.parametrize(("code", "output"), SCRIPTS)
def test_python_blocks(code, output, deepcall_sandbox, tmp_path):
    script = tmp_path / "test_block.py"
    script.write_text(code)
    is_test = "deepcall_sandbox" in code
    runner = ["-m", "pytest", "-q", "-p", "no:cacheprovider"] if is_test else ["-W", "error"]
    done = subprocess.run(
        [sys.executable, *runner, str(script)],
        env=environment(deepcall_sandbox),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if output is not None:
        assert done.stdout == output


@pytest.mark.parametrize("session", SESSIONS)
def test_sessions(session):
    command, _, output = session.removeprefix("$ ").partition("\n")
    shell = [sys.executable, "-m", "deepcall_async", *shlex.split(command)[1:]]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == output


def test_commands(deepcall_sandbox, tmp_path):
    """One after the other in one folder, as someone would type them on the second day."""
    (tmp_path / "mutes.toml").write_text(next(code for kind, code in BLOCKS if kind == "toml"))
    for command in ("deepcall audit -o jsonl:yesterday.jsonl", *COMMANDS):
        done = subprocess.run(
            shlex.split(command),
            env=environment(deepcall_sandbox),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        # 1 says that there are findings, and the demo account has many.
        assert done.returncode in (0, 1), f"{command}\n{done.stdout}{done.stderr}"
    assert len(COMMANDS) >= 5
