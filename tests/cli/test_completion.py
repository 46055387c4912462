"""Completion as it is installed, asked for in the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import called, environment

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="these shells are POSIX's"),
    pytest.mark.thorough,
]

ASKED = [
    ("deepcall au", "audit"),
    ("deepcall groups as", "assign"),
    ("deepcall audit --nig", "--nightly"),
    ("deepcall audit --fail-on cr", "critical"),
]


def installed(shell: str, home: Path) -> dict[str, str]:
    """Install completion for a shell, and give the environment in which it is asked."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}: apt-get install {shell}")
    env = environment(HOME=str(home), SHELL=f"/bin/{shell}", TERM="dumb")
    env["XDG_CONFIG_HOME"] = str(home / "settings")
    done = called("--install-completion", "--shell", shell, env=env)
    assert done.returncode == 0, done.stderr
    # The shells offer nothing for a command that is not there.
    (home / "bin").mkdir()
    (home / "bin" / "deepcall").symlink_to(Path(sys.executable).with_name("deepcall"))
    return env | {"PATH": f"{home / 'bin'}{os.pathsep}{env['PATH']}"}


def test_fish_completes(tmp_path):
    env = installed("fish", tmp_path)
    script = "; ".join(f"complete -C '{line}'; echo ----" for line, _ in ASKED)
    done = subprocess.run(
        ["fish", "--command", script], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for (line, wanted), shown in zip(ASKED, done.stdout.split("----\n"), strict=False):
        offered = [each.partition("\t")[0] for each in shown.splitlines()]
        assert wanted in offered, line


def test_zsh_completes(tmp_path):
    env = installed("zsh", tmp_path)
    shown = typed(
        ["zsh", "-f", "-i"],
        env,
        "PS1=; source ~/.zshrc; autoload -U compinit; compinit -D -u; setopt no_beep; echo re''ady\n",
        [(f"{line}\t", wanted) for line, wanted in ASKED],
    )
    assert "command not found" not in shown


def typed(command: list[str], env: dict[str, str], first: str, lines: list[tuple[str, str]]) -> str:
    """Type lines at a shell's prompt, each once the one before has brought what it should."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
    )
    os.close(theirs)
    shown = ""
    try:
        for text, wanted in [(first, "ready"), *lines]:
            os.write(ours, text.encode())
            seen = len(shown)
            # The whole word, which was not typed whole; else the test ends by its own timeout.
            while wanted not in shown[seen:]:
                shown += os.read(ours, 4096).decode(errors="replace")
            os.write(ours, b"\x15")  # away with the line
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown
