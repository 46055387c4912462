"""Groups chosen by id: what a run of them may replace, says of itself, and how it goes on."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.support.command import called, environment, groups_in, started, wait_until


def test_a_night_is_of_the_whole_account(deepcall_sandbox, tmp_path):
    env, folder = environment(deepcall_sandbox), tmp_path / "nights"
    done = called("audit", "1", "2", "--nightly", folder, env=env)
    assert done.returncode == 2
    assert done.stderr == (
        "deepcall: --nightly keeps the record of the whole account, which the next night is"
        " compared with: leave out the group ids\n"
    )
    assert not folder.exists()


def test_fewer_rules_make_no_lesser_baseline(deepcall_sandbox, tmp_path):
    env = environment(deepcall_sandbox)
    night = ("audit", "--nightly", tmp_path, "-q")
    called(*night, "--rules", "G001", "--ignore", "G002", env=env)
    done = called(*night, "--new-only", env=env)
    assert (done.returncode, len(groups_in(tmp_path / "last.jsonl"))) == (0, 300)


def test_the_demo_does_not_replace_the_account(deepcall_sandbox, tmp_path):
    called("audit", "--nightly", tmp_path, "-q", env=environment(deepcall_sandbox))
    before = (tmp_path / "last.jsonl").read_bytes()
    done = called("audit", "--sandbox", "40", "--nightly", tmp_path, "-q")
    assert done.returncode == 2
    assert "one of them is the sandbox's" in done.stderr
    assert (tmp_path / "last.jsonl").read_bytes() == before


def test_a_resumed_record_holds_more_than_was_chosen(deepcall_sandbox, tmp_path):
    env, record = environment(deepcall_sandbox), tmp_path / "run.jsonl"
    called("audit", "-q", "-o", f"jsonl:{record}", env=env)
    done = called("audit", "3", "--resume", record, env=env)
    assert "of the 300 groups in the record reach nobody" in done.stdout
    assert "chosen" not in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is POSIX's")
@pytest.mark.parametrize(
    ("chosen", "hint"),
    [
        ((), "the same options and --resume {}"),
        (range(1, 200), "the same groups and options and --resume {}"),
    ],
)
def test_what_was_ended_goes_on_with_the_same_groups(deepcall_sandbox, tmp_path, chosen, hint):
    env, record = environment(deepcall_sandbox), tmp_path / "run.jsonl"
    deepcall_sandbox.latency = 0.05
    with started("audit", *chosen, "--concurrency", 2, "-o", f"jsonl:{record}", env=env) as process:
        part = record.with_name("run.jsonl.part")
        wait_until(part.exists, process=process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.endswith(f"what was read is in {part}: go on with {hint.format(record)}\n")
