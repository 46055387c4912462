"""``--nightly DIR``: the first night, a failed one, two at once, a full disk, ``kill -9``."""

from __future__ import annotations

import sys

import pytest

from tests.support.command import (
    called,
    deepcall,
    environment,
    groups_in,
    lines_of,
    no_room,
    started,
    wait_until,
)

pytestmark = pytest.mark.deepcall_sandbox(groups=40)


def night(folder, *more, env):
    return called("audit", "--nightly", folder, "--new-only", "--progress", "none", *more, env=env)


def dated(folder):
    return sorted(path for path in folder.iterdir() if path.name.startswith("20"))


def mute_group(server, group_id):
    members = [3, 8, 2]
    done = called("groups", "assign", group_id, *members, "--yes", env=environment(server))
    assert done.returncode == 0


def test_a_first_night_a_quiet_one_and_one_with_news(deepcall_sandbox, tmp_path):
    env, folder = environment(deepcall_sandbox), tmp_path / "var" / "audit"
    first = night(folder, env=env)
    assert first.returncode == 1
    assert "there is no baseline yet" in first.stderr
    assert "G002" in first.stdout
    assert len(groups_in(folder / "last.jsonl")) == 40
    second = night(folder, env=env)
    assert second.returncode == 0
    assert "G002" not in second.stdout
    mute_group(deepcall_sandbox, 28)
    third = night(folder, env=env)
    assert third.returncode == 1
    assert "D001" in third.stdout
    assert len(dated(folder)) == 3
    assert dated(folder)[-1].read_bytes() == (folder / "last.jsonl").read_bytes()


@pytest.mark.parametrize("fault", ["refused", "incomplete"])
def test_a_failed_night_changes_no_baseline(deepcall_sandbox, tmp_path, fault):
    env = environment(deepcall_sandbox)
    night(tmp_path, env=env)
    before = (tmp_path / "last.jsonl").read_bytes()
    if fault == "incomplete":
        deepcall_sandbox.error_rate = {1015: 0.1}
        assert night(tmp_path, env=env).returncode == 3
        deepcall_sandbox.error_rate = {}
    else:
        assert night(tmp_path, env=env | {"DEEPCALL_TOKEN": "wrong"}).returncode == 4
    assert (tmp_path / "last.jsonl").read_bytes() == before
    mute_group(deepcall_sandbox, 28)
    done = night(tmp_path, env=env)
    assert done.returncode == 1
    assert "D001" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX's")
def test_two_at_once_and_one_that_is_killed(deepcall_sandbox, tmp_path):
    env = environment(deepcall_sandbox)
    night(tmp_path, env=env)
    before = (tmp_path / "last.jsonl").read_bytes()
    deepcall_sandbox.latency = 0.02
    with started("audit", "--nightly", tmp_path, "--concurrency", "2", env=env) as first:
        parts = lambda: list(tmp_path.glob("*.part"))  # noqa: E731
        wait_until(lambda: parts() and len(groups_in(parts()[0])) > 9, process=first)
        second = night(tmp_path, env=env)
        assert second.returncode == 2
        assert second.stderr == f"deepcall: {tmp_path}: another run is at work there\n"
        first.kill()
        first.communicate(timeout=20)
    assert (tmp_path / "last.jsonl").read_bytes() == before
    deepcall_sandbox.latency = 0.0
    assert night(tmp_path, env=env).returncode == 0
    assert lines_of(tmp_path / "last.jsonl")[-1]["complete"] is True


def test_thirty_records_are_kept(deepcall_sandbox, tmp_path):
    for day in range(1, 41):
        (tmp_path / f"2020-01-01T00-00-{day:02}Z.jsonl").write_text("")
    (tmp_path / "mine.txt").write_text("kept")
    night(tmp_path, env=environment(deepcall_sandbox))
    assert len(dated(tmp_path)) == 30
    assert dated(tmp_path)[0].name == "2020-01-01T00-00-12Z.jsonl"
    assert (tmp_path / "mine.txt").exists()
    assert (tmp_path / "last.jsonl").exists()


def test_it_chooses_the_baseline_itself(tmp_path):
    for option in ("--baseline", "--resume"):
        done = called("audit", "--sandbox", "40", "--nightly", tmp_path, option, tmp_path / "x")
        assert done.returncode == 2
        assert "--nightly chooses the baseline" in done.stderr
    done = called(
        "audit", "--sandbox", "--nightly", tmp_path, "-o", f"md:{tmp_path / 'last.jsonl'}"
    )
    assert done.returncode == 2
    assert "would overwrite" in done.stderr


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    done = called("audit", "--sandbox", "40", "--nightly", tmp_path / "file")
    assert done.returncode == 2
    assert str(tmp_path / "file") in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on files is POSIX's")
def test_a_full_disk_leaves_the_last_complete_record(deepcall_sandbox, tmp_path):
    env = environment(deepcall_sandbox)
    assert night(tmp_path, env=env).returncode == 1
    before = (tmp_path / "last.jsonl").read_bytes()
    done = deepcall("audit", "--nightly", tmp_path, env=env, preexec_fn=no_room)
    assert done.returncode == 5
    assert "file too large; the record is not whole" in done.stderr
    assert "G002" in done.stdout
    assert (tmp_path / "last.jsonl").read_bytes() == before
    assert night(tmp_path, env=env).returncode == 0
