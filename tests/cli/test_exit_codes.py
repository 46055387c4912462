"""Each exit code of the real command, reached in at least two ways, and what is said with it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.command import called, deepcall, environment

pytestmark = pytest.mark.deepcall_sandbox(groups=40)


DEMO = ("audit", "--sandbox", "40", "--progress", "none")


def refused(server, code):
    server.error_rate = {code: 1.0}


@pytest.mark.parametrize(
    "arguments",
    [
        (*DEMO, "--fail-on", "never"),
        (*DEMO, "--rules", "G005"),
        ("rules",),
        ("--help",),
        ("--version",),
    ],
)
def test_0_when_all_is_fine(arguments):
    done = deepcall(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("arguments", [DEMO, (*DEMO, "--fail-on", "critical")])
def test_1_when_there_are_findings(arguments):
    assert deepcall(*arguments).returncode == 1


def test_1_also_for_a_record_and_for_what_changed(tmp_path):
    deepcall(*DEMO, "-o", f"jsonl:{tmp_path / 'a.jsonl'}")
    assert deepcall("report", tmp_path / "a.jsonl").returncode == 1
    assert deepcall("report", tmp_path / "a.jsonl", "--fail-on", "never").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("audit", "1.5"), "1.5 is not a whole number"),
        (("audit", "0x1c"), "0x1c is not a whole number"),
        (("audit", "28", "--concurrency", "1e3"), "--concurrency"),
        ((*DEMO, "--concurrency", "1000000"), "--concurrency must be from 1 to 1,000"),
        ((*DEMO, "--concurrency", "0"), "--concurrency"),
        ((*DEMO, "--rate", "nan"), "--rate"),
        ((*DEMO, "--timeout", "-1"), "--timeout"),
        ((*DEMO, "--max-response-mib", "0"), "--max-response-mib"),
        ((*DEMO, "--base-url", "nonsense"), "--base-url"),
        ((*DEMO, "--credentials", "nonsense"), "--credentials"),
        ((*DEMO, "--new-only"), "--baseline"),
        (("sandbox", "--port", "99999"), "--port must be from 0 to 65,535"),
        (("sandbox", "--groups", "-1"), "--groups"),
        (("audti",), 'Did you mean "audit"?'),
        (("audit", "--senbox"), "--sandbox"),
        (("audit", "--fail-on", "hgih"), '"high"'),
        (("groups", "lsit"), '"list"'),
        (("audit", "-o", "htlm:x"), "did you mean html?"),
        (("audit", "-o", "html"), "html:-"),
        (("groups", "show", "28"), "no credentials"),
        (("audit",), "DEEPCALL_USER_ID"),
        (("report", "/nonexistent"), "/nonexistent: no such file or directory"),
        (("diff", "/nonexistent", "/nonexistent"), "/nonexistent"),
        ((*DEMO, "--mutes", "/nonexistent"), "/nonexistent"),
        ((*DEMO, "--rules", "G999"), "G999"),
    ],
)
def test_2_when_it_is_called_wrongly(arguments, said, tmp_path):
    done = deepcall(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr
    # One style: a line, no box, no traceback.
    assert done.stderr.startswith("deepcall: ")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_2_when_a_port_is_taken(deepcall_sandbox):
    port = deepcall_sandbox.base_url.rpartition(":")[2]
    done = deepcall("sandbox", "--port", port)
    assert done.returncode == 2
    assert f"--port {port}: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("audit", "--patience", "1"), ("groups", "list"), ("check",), ("probe",)]
)
def test_3_when_nobody_answers(arguments):
    env = environment(DEEPCALL_BASE_URL="http://127.0.0.1:1", DEEPCALL_SSID="abc")
    done = deepcall(*arguments, "--timeout", "5", env=env)
    assert done.returncode == 3
    assert "127.0.0.1:1" in done.stdout + done.stderr


@pytest.mark.parametrize("fault", [1015, 1032, 503])
def test_3_when_groups_could_not_be_read(deepcall_sandbox, fault):
    refused(deepcall_sandbox, fault)
    done = deepcall("audit", "28", "5", env=environment(deepcall_sandbox))
    assert done.returncode == 3
    assert done.stdout.startswith("Incomplete: ")


def test_3_when_nothing_was_read_even_where_partial_runs_pass(deepcall_sandbox):
    refused(deepcall_sandbox, 1015)
    env = environment(deepcall_sandbox)
    done = deepcall("audit", "28", "5", "--allow-partial", "--fail-on", "never", env=env)
    assert done.returncode == 3


def test_3_when_a_run_that_was_compared_was_incomplete(deepcall_sandbox, tmp_path):
    env = environment(deepcall_sandbox)
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    assert deepcall("audit", "28", "5", "-o", f"jsonl:{whole}", env=env).returncode == 1
    lines = whole.read_bytes().splitlines(keepends=True)
    torn.write_bytes(b"".join(line for line in lines if b'"group_id":5,' not in line))
    for old, new in ((whole, torn), (torn, whole)):
        assert deepcall("diff", old, new, env=env).returncode == 3
    assert deepcall("diff", whole, torn, "--allow-partial", env=env).returncode == 0
    assert deepcall("report", torn, env=env).returncode == 3
    assert deepcall("diff", whole, whole, env=env).returncode == 0


@pytest.mark.parametrize("arguments", [("audit",), ("groups", "list"), ("check",)])
def test_4_when_the_credentials_are_not_accepted(deepcall_sandbox, arguments):
    env = environment(deepcall_sandbox, DEEPCALL_TOKEN="hush-hush-hush")
    done = deepcall(*arguments, env=env)
    assert done.returncode == 4
    assert "1014" in done.stdout + done.stderr
    assert "hush" not in done.stdout + done.stderr


def test_4_comes_before_3(deepcall_sandbox, tmp_path):
    # Groups 1 and 2 fail first, then the session ends.
    env = environment(DEEPCALL_BASE_URL=deepcall_sandbox.base_url)
    deepcall_sandbox.ssid_lifetime = 2
    env["DEEPCALL_SSID"] = deepcall_sandbox.ssid
    done = deepcall("audit", "987654", "987655", "28", "--concurrency", "1", env=env)
    assert done.returncode == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is Linux's")
@pytest.mark.parametrize(
    "outputs",
    [("-o", "html:/dev/full"), ("-o", "jsonl:/dev/full"), ("-o", "csv:/dev/full", "-o", "md:-")],
)
def test_5_when_an_output_could_not_be_written_and_the_others_were(outputs, tmp_path):
    other = tmp_path / "other.json"
    done = deepcall(*DEMO, *outputs, "-o", f"json:{other}")
    assert done.returncode == 5
    assert "/dev/full: no space left on device" in done.stderr
    assert other.stat().st_size > 1000


def test_70_when_the_command_itself_fails(tmp_path):
    # A module that breaks stands in for a bug of ours.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types\n"
        "broken = types.ModuleType('deepcall_async.cli.audit_run')\n"
        "def audit_account(*_, **__): raise RuntimeError('hush-hush-hush')\n"
        "broken.audit_account = audit_account\n"
        "sys.modules['deepcall_async.cli.audit_run'] = broken\n"
    )
    done = deepcall(*DEMO, env=environment(PYTHONPATH=str(tmp_path)))
    assert done.returncode == 70
    assert done.stderr.startswith("deepcall: this is a bug: RuntimeError at ")
    assert "hush" not in done.stderr
    assert "Traceback" not in done.stderr


def test_70_also_when_a_command_without_a_service_fails(tmp_path, monkeypatch):
    from deepcall_async.cli import offline

    def broken(*_, **__):
        raise KeyError("hush-hush-hush")

    monkeypatch.setattr(offline, "report_record", broken)
    done = called("report", tmp_path / "a.jsonl")
    assert done.returncode == 70
    assert done.stderr.startswith("deepcall: this is a bug: KeyError at ")
    assert "hush" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a pipe's end is told otherwise")
@pytest.mark.parametrize("output", ["table:-", "jsonl:-", "json:-"])
def test_141_when_whoever_read_stdout_has_closed_it(output):
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as pipe:  # noqa: PTH123
        done = deepcall(*DEMO, "-o", output, stdout=pipe, stderr=-1)
    assert (done.returncode, done.stderr) == (141, "")
