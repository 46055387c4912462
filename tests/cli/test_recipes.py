"""The README's recipes around the command, run as they stand: the cron line and the workflow."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest
import yaml

from deepcall_async.cli.config import Profile
from tests.support.command import called, environment, lines_of
from tests.support.guides import README, blocks, guide

BLOCKS = blocks(README)
CRON = next(code for kind, code in BLOCKS if kind == "text" and code.startswith("0 5 * * *"))
WORKFLOW = next(code for kind, code in BLOCKS if kind == "yaml")
PROFILES = next(
    code for kind, code in blocks(guide("cli")) if kind == "toml" and "[profile." in code
)

pytestmark = [
    pytest.mark.deepcall_sandbox(groups=40),
    pytest.mark.skipif(sys.platform == "win32", reason="cron and sh are POSIX's"),
    pytest.mark.thorough,
]


def mute_group_28(server):
    arguments = ("groups", "assign", "28", "3", "8", "2", "--yes")
    assert called(*arguments, env=environment(server)).returncode == 0


def test_the_cron_line_runs_as_cron_runs_it(deepcall_sandbox, tmp_path):
    scripts = Path(sys.executable).parent
    secrets = tmp_path / "deepcall.env"
    secrets.write_text(
        f"DEEPCALL_BASE_URL={deepcall_sandbox.base_url}\n"
        f"DEEPCALL_USER_ID={deepcall_sandbox.user_id}\nDEEPCALL_TOKEN={deepcall_sandbox.token}\n"
    )
    secrets.chmod(0o600)
    line = CRON.strip().split(maxsplit=5)[5]
    assert "%" not in line  # cron would take it for a line's end
    for old, new in (
        ("/opt/deepcall/bin", scripts),
        ("/var/lib/deepcall", tmp_path / "lib"),
        ("/etc/deepcall.env", secrets),
    ):
        assert old in line
        line = line.replace(old, str(new))

    def night():
        return subprocess.run(
            ["/bin/sh", "-c", line],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"},
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    first = night()
    assert (first.returncode, first.stderr) == (1, "")
    assert "G002" in first.stdout
    second = night()
    assert (second.returncode, second.stderr) == (0, "")
    mute_group_28(deepcall_sandbox)
    deepcall_sandbox.error_rate = {1015: 0.1}
    assert night().returncode == 3
    deepcall_sandbox.error_rate = {}
    news = night()
    assert news.returncode == 1
    assert "D001" in news.stdout


class Runner:
    """Runs a workflow's steps as far as these need it: caches, commands, `if: always()`."""

    def __init__(self, job, folder, env):
        self.steps, self.folder, self.env = job["steps"], folder, env
        (folder / "cache").mkdir()
        (folder / "bin").mkdir()
        # What it would install is installed.
        (folder / "bin" / "pip").write_text('#!/bin/sh\ntest "$1" = install\n')
        (folder / "bin" / "pip").chmod(0o755)
        (folder / "bin" / "deepcall").symlink_to(Path(sys.executable).with_name("deepcall"))
        self.runs = 0

    def run(self, secrets):
        self.runs += 1
        work = self.folder / f"work{self.runs}"
        work.mkdir()
        failed, printed = False, ""
        for step in self.steps:
            if failed and step.get("if") != "always()":
                continue
            done = self.step(step, work, secrets)
            failed = failed or done.returncode != 0
            printed += done.stdout + done.stderr
        return ("failure" if failed else "success"), printed, work

    def step(self, step, work, secrets):
        fill = lambda text: re.sub(  # noqa: E731
            r"\$\{\{ (\w+)\.(\w+) \}\}",
            lambda found: secrets[found[2]] if found[1] == "secrets" else str(self.runs),
            text,
        )
        if "run" in step:
            env = {name: fill(value) for name, value in step.get("env", {}).items()}
            path = f"{self.folder / 'bin'}{os.pathsep}{self.env['PATH']}"
            command = ["bash", "-e", "-o", "pipefail", "-c", step["run"]]
            return subprocess.run(
                command, cwd=work, env=self.env | {"PATH": path} | env,
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        action, options = step["uses"].partition("@")[0], step["with"]
        key, path = fill(options["key"]), work / options["path"]
        caches = self.folder / "cache"
        if action == "actions/cache/restore":
            fitting = [c for c in caches.iterdir() if c.name.startswith(options["restore-keys"])]
            if fitting:
                shutil.copytree(max(fitting, key=lambda c: c.stat().st_mtime), path)
        elif action == "actions/cache/save":
            assert not (caches / key).exists()  # a cache cannot be changed
            shutil.copytree(path, caches / key)
        else:
            raise AssertionError(action)
        return subprocess.CompletedProcess([], 0, "", "")


def test_the_workflow_keeps_its_baseline(deepcall_sandbox, tmp_path):
    workflow = WORKFLOW.replace("https://brand.example", deepcall_sandbox.base_url)
    assert deepcall_sandbox.base_url in workflow
    job = yaml.safe_load(workflow)["jobs"]["audit"]
    secrets = {
        "DEEPCALL_USER_ID": deepcall_sandbox.user_id,
        "DEEPCALL_TOKEN": deepcall_sandbox.token,
    }
    runner = Runner(job, tmp_path, environment())
    verdict, printed, work = runner.run(secrets)
    assert verdict == "failure"
    assert "G002" in printed
    assert (work / "audit.xml").read_text().startswith("<?xml")
    assert runner.run(secrets)[0] == "success"
    deepcall_sandbox.error_rate = {1015: 0.1}
    verdict, printed, _ = runner.run(secrets)
    assert verdict == "failure"
    assert "Incomplete: " in printed
    deepcall_sandbox.error_rate = {}
    mute_group_28(deepcall_sandbox)
    verdict, printed, work = runner.run(secrets)
    assert verdict == "failure"
    assert "D001" in printed
    assert lines_of(work / "deepcall" / "last.jsonl")[-1]["complete"] is True


def test_the_profiles_are_ones_that_can_be_read():
    profiles = tomllib.loads(PROFILES)["profile"]
    assert set(msgspec.convert(profiles, dict[str, Profile])) == {"default", "acme", "other"}
