"""Ctrl-C, SIGTERM and SIGHUP, at any moment: the exit code, one line on how to go on, nothing lost."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.support.command import (
    deepcall,
    environment,
    groups_in,
    lines_of,
    looked_up,
    started,
    wait_until,
)
from tests.support.rows import mostly_thorough

pytestmark = [
    pytest.mark.deepcall_sandbox(groups=60),
    pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's"),
]

SIGNALS = mostly_thorough([(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])


@pytest.fixture(autouse=True)
def nothing_is_ignored():
    """Under nohup SIGHUP is ignored, which children inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_during_the_lookups(deepcall_sandbox, tmp_path, signum, code):
    deepcall_sandbox.latency = 0.02
    record, part = tmp_path / "run.jsonl", tmp_path / "run.jsonl.part"
    arguments = ("audit", "-o", f"jsonl:{record}", "--concurrency", "4", "--progress", "none")
    with started(*arguments, env=environment(deepcall_sandbox)) as process:
        wait_until(lambda: len(groups_in(part)) >= 20, process=process)
        process.send_signal(signum)
        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert err.count("\n") == 1
    assert err.startswith(f"deepcall: ended by {signum.name}; ")
    assert f"deepcall audit --resume {record}" in err
    assert not record.exists()
    deepcall_sandbox.latency = 0.0
    read, asked = groups_in(part), len(looked_up(deepcall_sandbox))
    done = deepcall("audit", "--resume", record, env=environment(deepcall_sandbox))
    assert done.returncode == 1
    again = looked_up(deepcall_sandbox)[asked:]
    assert len(again) == len(set(again))
    assert not set(again) & set(read)
    assert len(groups_in(record)) == 60
    assert lines_of(record)[-1]["complete"] is True
    assert not part.exists()


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_while_the_first_answer_is_waited_for(deepcall_sandbox, signum, code):
    deepcall_sandbox.latency = 30.0
    with started("audit", env=environment(deepcall_sandbox)) as process:
        wait_until(lambda: deepcall_sandbox.requests["list"], process=process)
        process.send_signal(signum)
        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert err == (
        f"deepcall: ended by {signum.name}; nothing was kept: -o jsonl:FILE keeps what was read\n"
    )


@pytest.mark.parametrize(("signum", "code"), SIGNALS)
def test_before_anything_was_begun(signum, code, tmp_path):
    # A module that is imported first holds the command where it has hardly started.
    (tmp_path / "cyclopts").mkdir()
    (tmp_path / "cyclopts" / "__init__.py").write_text(
        "import sys, time\nsys.stdout.write('here\\n'); sys.stdout.flush()\ntime.sleep(60)\n"
    )
    with started("rules", env=environment(PYTHONPATH=str(tmp_path))) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.send_signal(signum)
        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert err == f"deepcall: ended by {signum.name}\n"


def test_a_second_signal_ends_it_at_once(deepcall_sandbox, tmp_path):
    deepcall_sandbox.latency = 30.0
    with started("audit", env=environment(deepcall_sandbox)) as process:
        wait_until(lambda: deepcall_sandbox.requests["list"], process=process)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode in (143, -signal.SIGTERM)


def test_what_is_to_be_ignored_is_ignored(deepcall_sandbox, tmp_path):
    # As nohup does it, and shells for what runs in the background.
    deepcall_sandbox.latency = 0.02
    part = tmp_path / "run.jsonl.part"
    arguments = ("audit", "-o", f"jsonl:{tmp_path / 'run.jsonl'}", "--concurrency", "8")
    with started(
        *arguments,
        env=environment(deepcall_sandbox),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    ) as process:
        wait_until(lambda: len(groups_in(part)) >= 8, process=process)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)
    assert process.returncode == 1
    assert len(groups_in(tmp_path / "run.jsonl")) == 60


def test_a_report_of_yesterday_does_not_pass_for_one_of_a_run_that_was_ended(
    deepcall_sandbox, tmp_path
):
    env = environment(deepcall_sandbox)
    html, junit = tmp_path / "report.html", tmp_path / "audit.xml"
    outputs = ("-o", f"html:{html}", "-o", f"junit:{junit}")
    assert deepcall("audit", *outputs, env=env).returncode == 1
    assert "Incomplete" not in html.read_text()
    deepcall_sandbox.latency = 0.02
    with started("audit", *outputs, "--concurrency", "4", env=env) as process:
        seen = deepcall_sandbox.requests["getGroupAgentRelation"]
        wait_until(lambda: deepcall_sandbox.requests["getGroupAgentRelation"] > seen + 20)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 143
    assert "Incomplete: " in html.read_text()
    assert "were not looked up" in html.read_text()
    assert 'errors="0"' not in junit.read_text().splitlines()[1]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_sandbox_is_ended_in_order(signum):
    with started("sandbox", "--groups", "30") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("export DEEPCALL_BASE_URL=http://127.0.0.1:")
        process.send_signal(signum)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_ctrl_c_on_a_terminal_ends_a_question(deepcall_sandbox):
    import os
    import pty

    ours, theirs = pty.openpty()
    env = environment(deepcall_sandbox)
    shown = b""
    with started("groups", "delete", "28", stdin=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        while b"[y/N]" not in shown:
            shown += os.read(ours, 1024)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    os.close(ours)
    assert deepcall_sandbox.requests["delete"] == 0


def test_while_a_service_that_is_away_is_waited_for():
    env = environment(DEEPCALL_BASE_URL="http://127.0.0.1:1", DEEPCALL_SSID="abc")
    with started("audit", env=env) as process:
        assert process.stderr is not None
        assert "waiting up to 300 s for it (--patience)" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 143
    assert err.startswith("deepcall: ended by SIGTERM; ")


def test_while_a_report_is_written_to_one_who_does_not_read_it(tmp_path):
    import os

    record, pipe = tmp_path / "run.jsonl", tmp_path / "pipe"
    os.mkfifo(pipe)
    arguments = ("-o", f"jsonl:{record}", "-o", f"html:{pipe}", "--progress", "none")
    with started("audit", "--sandbox", "40", *arguments) as process:
        wait_until(record.exists, process=process)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 143
    assert err == "deepcall: ended by SIGTERM\n"
    assert lines_of(record)[-1]["complete"] is True  # and `report` makes the rest of it
