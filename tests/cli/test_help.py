"""Help that people use: groups of options, examples, exit codes; completion for their shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from cyclopts import App

from deepcall_async.audit import FORMATS
from deepcall_async.cli.app import build_app
from deepcall_async.cli.parameters import Outputs
from tests.support.command import called, deepcall, environment
from tests.support.rows import mostly_thorough


def test_the_audits_help_has_groups_examples_the_environment_and_exit_codes():
    shown = called("audit", "--help").stdout
    for heading in (
        "What counts:",
        "Running:",
        "Connecting:",
        "Examples:",
        "Environment:",
        "Exit codes:",
    ):
        assert heading in shown
    for name in (
        "DEEPCALL_USER_ID",
        "DEEPCALL_TOKEN",
        "DEEPCALL_SSID",
        "DEEPCALL_BASE_URL",
        "HTTPS_PROXY",
    ):
        assert name in shown
    for code in (0, 1, 2, 3, 4, 5, 70, 130, 141):
        assert re.search(rf"^  {code}\b", shown, re.MULTILINE)


def test_the_examples_in_help_are_ones_that_parse():
    shown = called("audit", "--help").stdout
    examples = re.findall(r"^  deepcall (.*)$", shown, re.MULTILINE)
    assert len(examples) >= 5
    app = build_app(plain=True)
    for example in examples:
        words = example.replace("--sandbox", "--sandbox=40").split()
        app.parse_args(words, print_error=False, exit_on_error=False)


@pytest.mark.parametrize(
    "command",
    [
        "audit",
        "check",
        "diff",
        "fleet audit",
        "fleet report",
        "groups",
        "probe",
        "report",
        "rules",
        "sandbox",
        "watch",
        "groups add",
        "groups assign",
        "groups delete",
        "groups list",
        "groups show",
        "groups update",
    ],
)
def test_every_command_has_help_of_its_own(command):
    done = called(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: deepcall {command}")
    # What a value is, such as SECONDS or URL, and not how the parser stores it.
    assert not re.findall(r"\b(?:FLOAT|INT|STR)\b|: \d+\.0\]", done.stdout)


def test_the_formats_in_help_are_those_of_the_library():
    text = str(Outputs)
    assert all(name in text for name in FORMATS)


def test_version_is_the_packages():
    from deepcall_async import __version__

    assert deepcall("--version").stdout == f"{__version__}\n"


@cache
def app() -> App:
    return build_app(plain=True)


@pytest.mark.parametrize("shell", mostly_thorough(["bash", "zsh", "fish"]))
def test_completion_knows_commands_and_options(shell):
    script = app().generate_completion(shell=shell)
    for word in ("audit", "groups", "nightly", "fail-on", "critical"):
        assert word in script
    if shutil.which(shell):
        done = subprocess.run(
            [shell, "-n"], input=script, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("bash"), reason="it takes bash")
def test_completion_is_installed_and_completes_in_bash(tmp_path):
    env = environment(HOME=str(tmp_path), SHELL="/bin/bash")
    done = deepcall("--install-completion", "--shell", "bash", env=env)
    assert done.returncode == 0, done.stderr
    scripts = [path for path in tmp_path.rglob("*") if path.is_file() and path.name == "deepcall"]
    assert len(scripts) == 1
    asked = (
        f"source {scripts[0]}; COMP_WORDS=(deepcall au); COMP_CWORD=1; COMP_LINE='deepcall au';"
        " COMP_POINT=11; $(complete -p deepcall | sed 's/.*-F \\([^ ]*\\).*/\\1/');"
        ' echo "${COMPREPLY[@]}"'
    )
    # The function asks the command itself.
    (tmp_path / "bin").mkdir()
    command = Path(sys.executable).with_name("deepcall")
    (tmp_path / "bin" / "deepcall").symlink_to(command)
    env["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{env['PATH']}"
    done = subprocess.run(
        ["bash", "-c", asked], env=env, text=True, capture_output=True, check=False
    )
    assert "audit" in done.stdout, done.stderr


def test_help_ends_with_what_is_of_use_to_the_command():
    for words in (["rules"], ["sandbox"]):
        assert "Environment:" not in called(*words, "--help").stdout
    for words in (["groups"], ["groups", "add"], ["check"]):
        shown = called(*words, "--help").stdout
        assert "Environment:" in shown
        assert "has examples" not in shown  # it has none
    assert "`deepcall COMMAND --help` has examples." in called("--help").stdout
