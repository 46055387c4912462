"""Every file that the command reads, with everything that can be wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command import called, environment

AUDIT = ("audit", "--sandbox", "40", "--progress", "none")
LIST = ("groups", "list", "--base-url", "http://127.0.0.1:1")
WATCH = ("watch", "--base-url", "http://127.0.0.1:1")

READ = {
    "mutes": (*AUDIT, "--mutes", "F"),
    "baseline": (*AUDIT, "--baseline", "F"),
    "resume": (*AUDIT, "--resume", "F"),
    "report": ("report", "F"),
    "old": ("diff", "F", "good.jsonl"),
    "new": ("diff", "good.jsonl", "F"),
    "accounts": ("fleet", "audit", "F", "--folder", "audits"),
    "notify": (*WATCH, "--state", "watch.db", "--notify", "F"),
    "credentials": (*LIST, "--credentials", "F"),
    "ca": (*LIST, "--ca", "F"),
    "cert": (*LIST, "--cert", "F"),
    "profiles": (*LIST, "--profile", "brand"),
}

WRONG = {
    "missing": None,
    "a folder": None,
    "empty": b"",
    "no text": b"\xff\xfe\x00\x80",
    "another format": b'{"a": [1, 2]}\n',
}

FINE = {
    ("mutes", "empty"),  # a file without mutes
    ("baseline", "missing"),  # the first night
}


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> bytes:
    file = tmp_path_factory.mktemp("record") / "good.jsonl"
    assert called(*AUDIT, "-o", f"jsonl:{file}").returncode == 1
    return file.read_bytes()


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("read", READ)
def test_it_is_refused_by_name_and_nothing_is_changed(read, wrong, record, tmp_path):
    (tmp_path / "good.jsonl").write_bytes(record)
    file = tmp_path / ("deepcall/config.toml" if read == "profiles" else "F")
    file.parent.mkdir(exist_ok=True)
    content = WRONG[wrong]
    if wrong == "a folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
        file.chmod(0o600)
    before = sorted(tmp_path.rglob("*"))
    env = environment(DEEPCALL_SSID="hush", XDG_CONFIG_HOME=str(tmp_path))
    done = called(*READ[read], env=env, cwd=tmp_path)
    if (read, wrong) in FINE:
        assert done.returncode == 1
        return
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    *warnings, said = done.stderr.splitlines()
    assert said.startswith("deepcall: ")
    assert (str(file) if read == "profiles" else "F") in said
    assert all("others can read" in each for each in warnings)
    assert "hush" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert content is None or file.read_bytes() == content


@pytest.mark.parametrize("read", ["resume", "report", "old", "baseline"])
@pytest.mark.parametrize("cut", [0.3, 0.999])
def test_a_record_that_is_cut_off_is_borne(read, cut, record, tmp_path):
    (tmp_path / "good.jsonl").write_bytes(record)
    (tmp_path / "F").write_bytes(record[: int(len(record) * cut)])
    done = called(*READ[read], cwd=tmp_path)
    # What it lacks is asked for again, or makes what is judged by it incomplete.
    whole = read in ("resume", "baseline") or cut > 0.9
    assert done.returncode == (3 if not whole else 0 if read == "old" else 1), done.stderr


@pytest.mark.parametrize(("read", "place"), [("report", "middle"), ("resume", "twice")])
def test_a_record_that_is_damaged_is_refused_with_the_line(read, place, record, tmp_path):
    lines = record.splitlines(keepends=True)
    damaged = lines * 2 if place == "twice" else [*lines[:5], b"damaged\n", *lines[5:]]
    (tmp_path / "good.jsonl").write_bytes(record)
    (tmp_path / "F").write_bytes(b"".join(damaged))
    done = called(*READ[read], cwd=tmp_path)
    assert done.returncode == 2
    line = 6 if place == "middle" else len(lines) + 1
    assert done.stderr.startswith(f"deepcall: F: line {line}")


def test_a_folder_for_nightly_that_is_a_file_is_said(tmp_path):
    (tmp_path / "F").write_text("kept")
    for folder in ("F", Path("F") / "sub"):
        done = called(*AUDIT, "--nightly", folder, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr == f"deepcall: {folder}: not a directory\n"
    assert (tmp_path / "F").read_text() == "kept"
