"""Yesterday's reports never pass for those of a run that failed, whatever ended it."""

from __future__ import annotations

import csv
import gc
import io
import json
import sys
from pathlib import Path

import pytest

from tests.support.command import called, environment, started, wait_until

pytestmark = pytest.mark.deepcall_sandbox(groups=40)


KINDS = ("html", "md", "csv", "csv-excel", "json", "junit", "sarif", "table", "github")


def outputs_in(folder: Path) -> tuple[dict[str, Path], list[str]]:
    places = {kind: folder / kind for kind in KINDS}
    return places, [part for kind, path in places.items() for part in ("-o", f"{kind}:{path}")]


def assert_marked(places: dict[str, Path], said: str) -> None:
    for kind in ("html", "md", "table"):
        assert said in places[kind].read_text(), kind
    for kind in ("csv", "csv-excel"):
        rows = list(csv.DictReader(io.StringIO(places[kind].read_text("utf-8-sig"))))
        # The only finding of yesterday's was about group 28 or 5: none of it is left.
        assert rows, kind
        assert {row["rule"] for row in rows} == {"X001"}, kind
    assert json.loads(places["json"].read_bytes())["summary"]["complete"] is False
    (run,) = json.loads(places["sarif"].read_bytes())["runs"]
    assert run["invocations"][0]["executionSuccessful"] is False
    assert 'errors="0"' not in places["junit"].read_text().splitlines()[1]
    assert "X001" in places["github"].read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX's")
def test_a_run_that_is_killed_leaves_no_report_of_yesterday_unmarked(deepcall_sandbox, tmp_path):
    env = environment(deepcall_sandbox)
    places, outputs = outputs_in(tmp_path)
    assert called("audit", "28", "5", *outputs, env=env).returncode == 1
    assert not any("Incomplete: " in path.read_text() for path in places.values())
    deepcall_sandbox.latency = 30.0
    asked = deepcall_sandbox.requests["list"]
    with started("audit", *outputs, "--progress", "none", env=env) as process:
        # Before its first request was answered.
        wait_until(lambda: deepcall_sandbox.requests["list"] > asked, process=process)
        process.kill()
        process.communicate(timeout=20)
    assert_marked(places, "Incomplete: the groups were not listed.")
    assert {path.name for path in tmp_path.iterdir()} == set(KINDS)


@pytest.mark.parametrize("fault", ["refused", "unreachable"])
def test_a_run_that_fails_leaves_no_report_of_yesterday_unmarked(deepcall_sandbox, tmp_path, fault):
    env = environment(deepcall_sandbox)
    places, outputs = outputs_in(tmp_path)
    assert called("audit", "28", "5", *outputs, env=env).returncode == 1
    if fault == "refused":
        env["DEEPCALL_TOKEN"] = "wrong"
    else:
        env["DEEPCALL_BASE_URL"] = "http://127.0.0.1:1"
    done = called("audit", "--patience", "0", *outputs, env=env)
    assert done.returncode == (4 if fault == "refused" else 3)
    assert_marked(places, "Incomplete: the groups were not listed.")


def test_a_baseline_that_is_another_accounts_marks_them_once_the_run_has_begun(
    deepcall_sandbox, tmp_path
):
    env, report = environment(deepcall_sandbox), tmp_path / "report.md"
    baseline = tmp_path / "old.jsonl"
    called("audit", "-o", f"jsonl:{baseline}", "-o", f"md:{report}", env=env)
    for user in ("29791451", "29791466"):  # both users of the demo account
        baseline.write_bytes(baseline.read_bytes().replace(user.encode(), b"777"))
    done = called("audit", "--baseline", baseline, "-o", f"md:{report}", env=env)
    assert done.returncode == 2
    assert "the baseline is of another account" in done.stderr
    assert "Incomplete: " in report.read_text()


@pytest.mark.parametrize(
    "arguments",
    [("--rules", "G999"), ("--concurrency", "0"), ("--baseline", "broken"), ("--mutes", "broken")],
)
def test_a_run_that_never_begins_leaves_them_as_they_are(deepcall_sandbox, tmp_path, arguments):
    env = environment(deepcall_sandbox)
    places, outputs = outputs_in(tmp_path)
    called("audit", "28", "5", *outputs, env=env)
    before = {kind: path.read_bytes() for kind, path in places.items()}
    (tmp_path / "broken").write_text("{")
    done = called("audit", "28", *arguments, *outputs, env=env, cwd=tmp_path)
    assert done.returncode == 2
    assert {kind: path.read_bytes() for kind, path in places.items()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="a limit on files is POSIX's")
def test_a_full_disk_for_what_is_kept_meanwhile_ends_nothing(deepcall_sandbox, tmp_path):
    import resource

    report = tmp_path / "report.md"
    report.write_text("yesterday's")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (32768, hard))
    try:
        done = called("audit", "-o", f"md:{report}", env=environment(deepcall_sandbox))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    gc.collect()  # a file that was left open would warn, and a warning is an error here
    assert done.returncode == 1, done.stderr
    assert report.read_text().startswith("# Group audit")
    assert "Incomplete" not in report.read_text()
