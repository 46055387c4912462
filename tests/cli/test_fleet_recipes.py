"""The recipes for many accounts: the file, cron, GNU parallel, a job of Kubernetes."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from deepcall_async.audit.accounts import read_accounts
from tests.support.command import called, environment
from tests.support.guides import README, blocks, guide

pytestmark = [
    pytest.mark.deepcall_sandbox(groups=40),
    pytest.mark.thorough,
]

BLOCKS = blocks(guide("fleet"))
CRON = next(code for kind, code in BLOCKS if kind == "text" and code.startswith("0 4 * * *"))
PARALLEL = next(code for kind, code in BLOCKS if "| parallel" in code)
JOB = yaml.safe_load(next(code for kind, code in BLOCKS if kind == "yaml"))


@pytest.fixture
def accounts(tmp_path):
    file = tmp_path / "fleet.toml"
    tables = (f'[[account]]\nname = "{name}"\ncredentials = "env:{name}"\n' for name in "ABC")
    file.write_text("".join(tables))
    return file


def run(words, server, names):
    """Run a recipe's command, with what stands for its files."""
    words = [str(names.get(word, word)) for word in words]
    assert words[0] == "fleet"
    env = environment(server)
    for name in "ABC":
        env |= {f"{name}_{part}": env[f"DEEPCALL_{part}"] for part in ("USER_ID", "TOKEN")}
    return called(*words, env=env)


def test_the_accounts_are_ones_that_can_be_read():
    parsed = tomllib.loads(
        next(code for kind, code in blocks(README) if kind == "toml" and "[[account]]" in code)
    )
    acme, other = read_accounts(parsed, Path("/etc/deepcall"))
    assert (acme.base_url, acme.per_second) == ("https://acme.example", 5)
    assert other.credentials == "file:/etc/deepcall/secrets/other.env"


def test_the_cron_line_reads_everything_each_night(deepcall_sandbox, accounts, tmp_path):
    line = CRON.strip().split(maxsplit=5)[5]
    assert "%" not in line  # cron would take it for a line's end
    program, *words = shlex.split(line)
    assert program.endswith("/deepcall")
    names = {"/etc/deepcall/fleet.toml": accounts, "/var/lib/deepcall/fleet": tmp_path / "fleet"}
    for nights in (1, 2):
        done = run(words, deepcall_sandbox, names)
        assert (done.returncode, done.stderr) == (1, "")
        assert deepcall_sandbox.requests["list"] == 3 * nights


def test_the_shards_of_parallel_make_one_report(deepcall_sandbox, accounts, tmp_path):
    numbers, _, rest = PARALLEL.splitlines()[0].partition(" | parallel deepcall ")
    assert numbers == "seq 0 3"
    names = {"fleet.toml": accounts, "audits": tmp_path / "audits", "html:fleet.html": "json:-"}
    for number in range(4):
        words = shlex.split(rest.replace("{}", str(number)))
        assert run(words, deepcall_sandbox, names).returncode == 0
    report = run(shlex.split(PARALLEL.splitlines()[1])[1:], deepcall_sandbox, names)
    assert report.returncode == 1
    assert '"accounts":3,"unread":0' in report.stdout


def test_the_job_of_kubernetes_runs_every_shard_once(deepcall_sandbox, accounts, tmp_path):
    spec, pod = JOB["spec"], JOB["spec"]["template"]["spec"]
    assert (JOB["apiVersion"], JOB["kind"]) == ("batch/v1", "Job")
    assert spec["completionMode"] == "Indexed"
    # What a policy by exit codes, and a limit for each index, ask for.
    assert pod["restartPolicy"] == "Never"
    [rule] = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == sorted(rule["onExitCodes"]["values"]) == [2, 3]
    [container] = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    names = {f"{mounts['fleet']}/fleet.toml": accounts, mounts["audits"]: tmp_path / "audits"}
    for index in range(spec["completions"]):
        words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in container["args"]]
        assert run(words, deepcall_sandbox, names).returncode == 0
    assert deepcall_sandbox.requests["list"] == 3
