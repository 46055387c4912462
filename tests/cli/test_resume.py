"""``--resume``: what it goes on from, what stays in the record, and what it refuses."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support.command import (
    called,
    deepcall,
    environment,
    groups_in,
    lines_of,
    looked_up,
    started,
    wait_until,
)

pytestmark = pytest.mark.deepcall_sandbox(groups=40)


def test_groups_that_are_not_asked_for_now_stay_in_the_record(deepcall_sandbox, tmp_path):
    env, record = environment(deepcall_sandbox), tmp_path / "run.jsonl"
    assert called("audit", "1", "2", "3", "-o", f"jsonl:{record}", env=env).returncode in (0, 1)
    asked = deepcall_sandbox.requests["getGroupAgentRelation"]
    called("audit", "3", "28", "--resume", record, env=env)
    assert sorted(groups_in(record)) == [1, 2, 3, 28]
    assert deepcall_sandbox.requests["getGroupAgentRelation"] - asked == 1


def test_the_sandbox_and_a_real_account_are_not_mixed(deepcall_sandbox, tmp_path):
    env, record = environment(deepcall_sandbox), tmp_path / "run.jsonl"
    called("audit", "28", "-o", f"jsonl:{record}", env=env)
    before = record.read_bytes()
    done = called("audit", "--sandbox", "40", "--resume", record, env=env)
    assert done.returncode == 2
    assert "that run was of a real account, and this one is of the sandbox" in done.stderr
    assert record.read_bytes() == before
    called("audit", "--sandbox", "40", "-o", f"jsonl:{record}", env=env)
    assert called("audit", "--resume", record, env=env).returncode == 2


def test_another_service_is_refused(deepcall_sandbox, tmp_path):
    env, record = environment(deepcall_sandbox), tmp_path / "run.jsonl"
    called("audit", "28", "-o", f"jsonl:{record}", env=env)
    env["DEEPCALL_BASE_URL"] = "https://other.invalid"
    done = called("audit", "--resume", record, env=env)
    assert done.returncode == 2
    assert "https://other.invalid" in done.stderr


@pytest.mark.parametrize("content", [b"", b"{}\n", b"\xff\xfe", b'{"type":"group","group_id":1}\n'])
def test_what_is_no_record_is_refused(content, tmp_path):
    file = tmp_path / "run.jsonl"
    file.write_bytes(content)
    for arguments in (("audit", "--sandbox", "40", "--resume", file), ("report", file)):
        done = called(*arguments)
        assert done.returncode == 2
        assert str(file) in done.stderr
        assert file.read_bytes() == content


def test_a_record_that_is_not_there_is_refused(tmp_path):
    done = called("audit", "--sandbox", "40", "--resume", tmp_path / "none.jsonl")
    assert done.returncode == 2
    assert "none.jsonl: no such file" in done.stderr


@pytest.mark.thorough
@pytest.mark.deepcall_sandbox(groups=120)
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX's")
def test_a_run_killed_again_and_again_loses_nothing_and_asks_nothing_twice(
    deepcall_sandbox, tmp_path
):
    env = environment(deepcall_sandbox)
    record, part = tmp_path / "run.jsonl", tmp_path / "run.jsonl.part"
    deepcall_sandbox.latency = 0.02
    first = ("-o", f"jsonl:{record}")
    read = 0
    for arguments in (first, ("--resume", record), ("--resume", record)):
        options = ("--concurrency", "4", "--progress", "none")
        with started("audit", *arguments, *options, env=env) as process:
            wait_until(lambda: len(groups_in(part)) >= read + 20, process=process)  # noqa: B023
            process.kill()
            process.communicate(timeout=20)
        now = groups_in(part)
        assert len(now) >= read + 20
        read = len(now)
    assert not record.exists()
    deepcall_sandbox.latency = 0.0
    assert deepcall("audit", "--resume", record, env=env).returncode == 1
    assert sorted(groups_in(record)) == list(range(1, 121))
    # Twice only what was in flight when it was killed: four, three times.
    asked = looked_up(deepcall_sandbox)
    assert len(asked) - len(set(asked)) <= 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.jsonl"]


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX's")
def test_what_a_resumed_run_had_is_kept_when_it_is_killed_at_once(deepcall_sandbox, tmp_path):
    env = environment(deepcall_sandbox)
    record, part = tmp_path / "run.jsonl", tmp_path / "run.jsonl.part"
    deepcall_sandbox.error_rate = {1015: 0.1}
    assert deepcall("audit", "-o", f"jsonl:{record}", env=env).returncode == 3
    lines = [line for line in lines_of(record) if line["type"] == "group"]
    had = {line["group_id"] for line in lines if "error" not in line}
    assert 20 < len(had) < 40
    deepcall_sandbox.error_rate = {}
    deepcall_sandbox.latency = 30.0
    for _ in range(2):
        asked = deepcall_sandbox.requests["list"]
        with started("audit", "--resume", record, "--progress", "none", env=env) as process:
            wait_until(lambda: deepcall_sandbox.requests["list"] > asked)  # noqa: B023
            process.kill()
            process.communicate(timeout=20)
        file = part if part.exists() else record
        assert had <= set(groups_in(file))
    deepcall_sandbox.latency = 0.0
    asked = len(looked_up(deepcall_sandbox))
    assert deepcall("audit", "--resume", record, env=env).returncode == 1
    again = looked_up(deepcall_sandbox)[asked:]
    assert len(again) == len(set(again))
    assert not set(again) & had


def test_a_torn_last_line_is_borne(deepcall_sandbox, tmp_path):
    env, record = environment(deepcall_sandbox), tmp_path / "run.jsonl"
    called("audit", "1", "2", "28", "-o", f"jsonl:{record}", env=env)
    whole = record.read_bytes().splitlines(keepends=True)
    groups = [line for line in whole if line.startswith(b'{"type":"group"')]
    kept = whole[: whole.index(groups[-1])]
    record.unlink()
    (tmp_path / "run.jsonl.part").write_bytes(b"".join(kept) + groups[-1][:50])
    called("audit", "1", "2", "28", "--resume", record, env=env)
    assert sorted(groups_in(record)) == [1, 2, 28]
    assert json.loads(record.read_bytes().splitlines()[-1])["complete"] is True
