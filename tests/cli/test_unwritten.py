"""What becomes of an output that cannot be written, and of the others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command import called, deepcall, environment, lines_of

REPORTS = ("html", "md", "csv", "csv-excel", "json", "junit", "sarif", "table", "github")

posix = pytest.mark.skipif(sys.platform == "win32", reason="a limit on files is POSIX's")


@contextmanager
def full_disk() -> Iterator[None]:
    """Let nothing be written to a file by this process."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def record(tmp_path: Path) -> Path:
    file = tmp_path / "run.jsonl"
    file.write_text('{"type":"run","schema":1}\n{"type":"asked","group_ids":[]}\n')
    return file


def standing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def yesterdays(folder: Path) -> list[str]:
    """Put reports of yesterday into a folder, and give the options that write them anew."""
    folder.mkdir()
    for kind in REPORTS:
        (folder / kind).write_text("yesterday's")
    return [part for kind in REPORTS for part in ("-o", f"{kind}:{folder / kind}")]


def assert_set_aside(folder: Path, told: str) -> None:
    assert standing(folder) == sorted(f"{kind}.old" for kind in REPORTS)
    for kind in REPORTS:
        assert (folder / f"{kind}.old").read_text() == "yesterday's"
        assert f"{folder / kind}: file too large; that of an earlier run is now" in told


@posix
def test_no_report_of_yesterday_passes_for_one_of_an_audit_on_a_full_disk(
    deepcall_sandbox, tmp_path
):
    outputs = yesterdays(tmp_path / "reports")
    with full_disk():
        done = called("audit", "28", *outputs, "-q", env=environment(deepcall_sandbox))
    assert done.returncode == 5
    assert_set_aside(tmp_path / "reports", done.stderr)


@posix
def test_nor_for_one_of_an_audit_that_was_refused(deepcall_sandbox, tmp_path):
    outputs = yesterdays(tmp_path / "reports")
    with full_disk():
        env = environment(deepcall_sandbox, DEEPCALL_TOKEN="wrong")
        done = called("audit", *outputs, "-q", env=env)
    assert done.returncode == 4
    assert_set_aside(tmp_path / "reports", done.stderr)


@posix
@pytest.mark.parametrize("command", ["report", "diff"])
def test_nor_for_one_that_is_made_offline(command, record, tmp_path):
    outputs = yesterdays(tmp_path / "reports")
    with full_disk():
        done = called(command, *[record] * (2 if command == "diff" else 1), *outputs)
    assert done.returncode == 5
    assert_set_aside(tmp_path / "reports", done.stderr)


@posix
def test_nor_for_a_fleets_and_the_accounts_are_audited(tmp_path):
    fleet, report = tmp_path / "fleet.toml", tmp_path / "fleet.md"
    fleet.write_text('[[account]]\nname = "a"\ncredentials = "env:NOBODY"\n')
    report.write_text("yesterday's")
    with full_disk():
        done = called(
            *("fleet", "audit", fleet, "--folder", tmp_path / "audits", "-o", f"md:{report}")
        )
    # The accounts could not be kept either, and that is what it ends with.
    assert done.returncode == 5, done.stderr
    assert not report.exists()
    assert (tmp_path / "fleet.md.old").read_text() == "yesterday's"
    assert "audits" in done.stderr


@posix
def test_a_report_that_can_only_be_written_in_place_is_said_to_be_of_an_earlier_run(
    record, tmp_path, monkeypatch
):
    report = tmp_path / "report.md"
    report.write_text("yesterday's")
    replace = Path.replace

    def refused(self, target):
        if Path(target).name == "report.md.old":
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    with full_disk():
        done = called("report", record, "-o", f"md:{report}")
    assert done.returncode == 5
    assert "file too large; what stands there is of an earlier run" in done.stderr


@posix
def test_an_earlier_report_behind_a_link_is_set_aside_where_it_is(record, tmp_path):
    (tmp_path / "www").mkdir()
    real, link = tmp_path / "www" / "report.md", tmp_path / "report.md"
    real.write_text("yesterday's")
    link.symlink_to(real)
    with full_disk():
        assert called("report", record, "-o", f"md:{link}").returncode == 5
    assert standing(tmp_path / "www") == ["report.md.old"]


def test_a_record_is_whole_json_lines_on_stdout(deepcall_sandbox):
    done = called("audit", "28", "5", "-o", "jsonl:-", env=environment(deepcall_sandbox))
    assert done.returncode == 1
    assert all(line.startswith('{"type":') for line in done.stdout.splitlines())
    assert "Callers to" in done.stderr  # the verdict


def test_a_table_is_printed_unless_an_output_was_asked_for(deepcall_sandbox, tmp_path):
    env, record = environment(deepcall_sandbox), tmp_path / "run.jsonl"
    assert called("audit", "28", "-o", f"jsonl:{record}", env=env).stdout == ""
    assert lines_of(record)[-1]["type"] == "summary"
    for asked in (("5", "--resume", record), ("--nightly", tmp_path / "nights"), ("5",)):
        assert "G002" in called("audit", *asked, env=env).stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full device is Linux's")
def test_a_full_stdout_for_the_record_keeps_nothing_from_the_others(deepcall_sandbox, tmp_path):
    report, record = tmp_path / "report.md", tmp_path / "run.jsonl"
    with Path("/dev/full").open("wb") as full:
        done = deepcall(
            *("audit", "28", "5", "-o", "jsonl:-", "-o", f"md:{report}"),
            *("-o", f"jsonl:{record}"),
            env=environment(deepcall_sandbox),
            stdout=full,
        )
    assert done.returncode == 5
    assert done.stderr.count("stdout: no space left on device") == 1
    assert report.read_text().startswith("# Group audit")
    assert lines_of(record)[-1]["complete"] is True
