"""What is written and where: beside itself and moved into place, nothing twice, nothing that is read."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

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


DEMO = ("audit", "--sandbox", "40", "--progress", "none")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "csv:F", "-o", "html:F"), "-o html:F would overwrite the file of -o csv:F"),
        (("-o", "csv:F", "-o", "html:./F"), "would overwrite"),
        (("-o", "csv:-", "-o", "md:-"), "would overwrite"),
        (("-o", "jsonl:F", "-o", "md:F.part"), "would overwrite"),
        (("-o", "csv:link", "-o", "md:target"), "would overwrite"),
        (("-o", "md:mutes.toml", "--mutes", "mutes.toml"), "the file of --mutes"),
        (("-o", "md:old.jsonl", "--baseline", "old.jsonl"), "the file of --baseline"),
        (("-o", "jsonl:old.jsonl", "--baseline", "old.jsonl"), "the file of --baseline"),
        (("-o", "html:old.jsonl", "--resume", "old.jsonl"), "would overwrite"),
        (("-o", "md:sub"), "sub is a folder"),
        (("-o", "md:none/x"), "there is no folder none"),
    ],
)
def test_a_clash_is_refused_before_anything_is_done(arguments, said, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "target").write_text("kept")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "mutes.toml").write_text("[thresholds]\n")
    (tmp_path / "old.jsonl").write_text("kept")
    before = sorted(tmp_path.iterdir())
    done = called(*DEMO, *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "mutes.toml").read_text() == "[thresholds]\n"
    assert (tmp_path / "old.jsonl").read_text() == "kept"


def test_diff_and_report_refuse_to_write_over_what_they_read(tmp_path):
    record = tmp_path / "a.jsonl"
    called(*DEMO, "-o", f"jsonl:{record}")
    before = record.read_bytes()
    for arguments in (("report", record), ("diff", record, record)):
        done = called(*arguments, "-o", f"md:{record}")
        assert done.returncode == 2
        assert "would overwrite" in done.stderr
    assert record.read_bytes() == before


def test_nothing_is_left_beside_a_report_and_its_permissions_stay(tmp_path):
    report = tmp_path / "report.html"
    report.write_text("yesterday")
    report.chmod(0o640)
    called(*DEMO, "-o", f"html:{report}", "-o", f"jsonl:{tmp_path / 'a.jsonl'}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "report.html"]
    if sys.platform != "win32":
        assert stat.S_IMODE(report.stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    for name in ("report.md", "run.jsonl"):
        (tmp_path / name).symlink_to(Path("real") / name)
    outputs = ("-o", "md:report.md", "-o", "jsonl:run.jsonl")
    assert deepcall(*DEMO, *outputs, cwd=tmp_path).returncode == 1
    for name in ("report.md", "run.jsonl"):
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "real" / name).stat().st_size > 1000
    assert (
        deepcall("audit", "--sandbox", "40", "--resume", "run.jsonl", cwd=tmp_path).returncode == 1
    )
    assert (tmp_path / "run.jsonl").is_symlink()
    assert len(groups_in(tmp_path / "real" / "run.jsonl")) == 40


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes are POSIX's")
@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_what_is_no_regular_file_is_written_directly(kind, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        done = deepcall(*DEMO, "-o", f"{kind}:{pipe}")
        assert reader.stdout is not None
        content = reader.stdout.read()
    assert done.returncode == 1
    assert len(content) > 1000
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is Linux's")
def test_an_output_that_fails_does_not_keep_the_others_from_being_written(tmp_path):
    places = [tmp_path / name for name in ("a.md", "b.csv")]
    outputs = ["-o", f"md:{places[0]}", "-o", "html:/dev/full", "-o", f"csv:{places[1]}"]
    done = deepcall(*DEMO, *outputs)
    assert done.returncode == 5
    assert all(place.stat().st_size > 1000 for place in places)


@pytest.mark.parametrize("fault", ["refused", "unreachable"])
def test_a_report_of_yesterday_does_not_pass_for_one_of_a_failed_run(
    deepcall_sandbox, tmp_path, fault
):
    env = environment(deepcall_sandbox)
    places = {kind: tmp_path / kind for kind in ("html", "md", "csv", "json", "jsonl")}
    outputs = [part for kind, path in places.items() for part in ("-o", f"{kind}:{path}")]
    assert called("audit", "28", "5", *outputs, env=env).returncode == 1
    record = places["jsonl"].read_bytes()
    env |= (
        {"DEEPCALL_TOKEN": "wrong"}
        if fault == "refused"
        else {"DEEPCALL_BASE_URL": "http://127.0.0.1:1"}
    )
    done = called("audit", "--patience", "0", *outputs, env=env)
    assert done.returncode == (4 if fault == "refused" else 3)
    for kind in ("html", "md"):
        assert "Incomplete: " in places[kind].read_text(), kind
    assert json.loads(places["json"].read_bytes())["summary"]["complete"] is False
    # A record is only replaced by a newer one, and its date stands in it.
    assert places["jsonl"].read_bytes() == record
    assert not (tmp_path / "jsonl.part").exists()


def test_a_report_can_be_made_of_a_run_that_was_killed(deepcall_sandbox, tmp_path):
    deepcall_sandbox.latency = 0.02
    record, part = tmp_path / "run.jsonl", tmp_path / "run.jsonl.part"
    arguments = ("audit", "-o", f"jsonl:{record}", "--concurrency", "4", "--progress", "none")
    with started(*arguments, env=environment(deepcall_sandbox)) as process:
        wait_until(lambda: len(groups_in(part)) >= 20, process=process)
        process.kill()
        process.communicate(timeout=20)
    read = len(groups_in(part))
    for file in (record, part):
        done = deepcall("report", file, "-o", f"html:{tmp_path / 'report.html'}", "-o", "md:-")
        assert done.returncode == 3
        assert f"{40 - read} of 40 groups were not looked up" in done.stdout
        assert "Incomplete: " in (tmp_path / "report.html").read_text()


def test_report_renders_what_the_run_itself_rendered(tmp_path):
    record = tmp_path / "a.jsonl"
    ran = called(*DEMO, "-o", f"jsonl:{record}", "-o", "csv:-")
    again = called("report", record, "-o", "csv:-")
    assert again.stdout == ran.stdout
    only = called("report", record, "--rules", "G002", "-o", "csv:-")
    assert only.stdout.count("G002") == 1
    assert "G001" not in only.stdout


def test_a_record_grows_beside_the_one_it_replaces(deepcall_sandbox, tmp_path):
    env = environment(deepcall_sandbox)
    record, part = tmp_path / "run.jsonl", tmp_path / "run.jsonl.part"
    assert deepcall("audit", "-o", f"jsonl:{record}", env=env).returncode == 1
    before = record.read_bytes()
    deepcall_sandbox.latency = 0.02
    arguments = ("audit", "-o", f"jsonl:{record}", "--concurrency", "4", "--progress", "none")
    with started(*arguments, env=env) as process:
        wait_until(lambda: len(groups_in(part)) >= 20, process=process)
        assert record.read_bytes() == before
        process.communicate(timeout=60)
    assert process.returncode == 1
    assert record.read_bytes() != before
    assert lines_of(record)[-1]["type"] == "summary"
    assert not part.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on files is POSIX's")
def test_a_full_disk_costs_the_record_and_not_the_report(tmp_path):
    record = tmp_path / "run.jsonl"
    record.write_text("yesterday's")
    arguments = ("audit", "--sandbox", "40", "-o", f"jsonl:{record}", "-o", "md:-")
    done = deepcall(*arguments, preexec_fn=no_room)
    assert done.returncode == 5
    assert f"{record}: file too large; the record is not whole" in done.stderr
    assert done.stdout.startswith("# Group audit")
    assert record.read_text() == "yesterday's"
    assert groups_in(tmp_path / "run.jsonl.part")


def test_a_report_of_an_old_record_carries_its_date(tmp_path):
    record = tmp_path / "a.jsonl"
    called(*DEMO, "-o", f"jsonl:{record}")
    assert "The account was read on" not in called("report", record).stdout
    run, *rest = record.read_text().splitlines(keepends=True)
    old = json.loads(run) | {"started": "2026-01-02T03:04:05Z"}
    record.write_text("".join([json.dumps(old) + "\n", *rest]))
    assert "The account was read on 2026-01-02." in called("report", record).stdout


def test_an_unfinished_record_is_not_replaced_without_a_word(deepcall_sandbox, tmp_path):
    env, record = environment(deepcall_sandbox), tmp_path / "run.jsonl"
    called("audit", "28", "-o", f"jsonl:{record}", env=env)
    part = record.rename(tmp_path / "run.jsonl.part")
    done = called("audit", "28", "--resume", record, env=env)
    assert "unfinished" not in done.stderr
    record.rename(part)
    done = called("audit", "28", "-o", f"jsonl:{record}", env=env)
    assert f"{part} of an unfinished run will be replaced; --resume {record} goes on" in done.stderr
    assert not part.exists()
