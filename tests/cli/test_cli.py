"""The command: options, exit codes, what goes to stdout and what to stderr, files, resuming."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from deepcall_async.cli import run

pytestmark = pytest.mark.deepcall_sandbox(groups=40)


HIDDEN = ("DEEPCALL_SSID", "DEEPCALL_USER_ID", "DEEPCALL_TOKEN", "DEEPCALL_BASE_URL")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch):
    for name in HIDDEN:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def account(deepcall_sandbox, monkeypatch):
    monkeypatch.setenv("DEEPCALL_BASE_URL", deepcall_sandbox.base_url)
    monkeypatch.setenv("DEEPCALL_USER_ID", deepcall_sandbox.user_id)
    monkeypatch.setenv("DEEPCALL_TOKEN", deepcall_sandbox.token)
    return deepcall_sandbox


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_the_sandbox_audit_finds_something_and_says_so_by_its_exit_code(capsys):
    assert run(["audit", "--sandbox", "40"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("Callers to ")
    assert "G002" in out
    assert "Turn on receive-call" in out
    assert "40 of 40" in err
    assert "40 of 40" not in out


def test_the_demo_account_has_its_default_size_when_no_number_is_given(capsys):
    assert run(["audit", "--sandbox", "--progress", "lines", "--fail-on", "never"]) == 0
    assert "300 of 300" in capsys.readouterr().err


def test_an_account_in_the_environment_is_audited(account, capsys):
    assert run(["audit", "--progress", "none"]) == 1
    out, err = capsys.readouterr()
    assert "G002" in out
    assert err == ""
    # Groups whose labels differ from their relations are looked up once more before that is told.
    assert account.requests["getGroupAgentRelation"] == 40 + len(account.planted["R004"])


def test_only_the_groups_named_are_looked_up(account):
    assert run(["audit", "28", "5", "--progress", "none"]) == 1
    assert account.requests == {"getGroupAgentRelation": 2}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--fail-on", "never"], 0),
        (["--fail-on", "critical", "--ignore", "G002"], 0),
        (["--fail-on", "critical", "--rules", "G002,G001", "--rules", "G003"], 1),
        (["--rules", "nobody-receives"], 1),
    ],
)
def test_which_findings_count(arguments, code, capsys):
    assert run(["audit", "--sandbox", "40", *arguments]) == code


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["audit"], "DEEPCALL_SSID"),
        (["audit", "--sandbox", "40", "--rules", "G999"], "G999"),
        (["audit", "--sandbox", "40", "-o", "pdf:x"], "pdf"),
        (["audit", "--sandbox", "40", "-o", "html"], "FORMAT:FILE"),
        (["audit", "--sandbox", "40", "-o", "jsonl:/"], "is a folder"),
        (["audit", "--sandbox", "40", "-o", "html:/nowhere/at/all"], "/nowhere/at"),
        (["audit", "--sandbox", "40", "--new-only"], "--baseline"),
        (["audit", "--sandbox", "40", "--resume", "/nowhere"], "/nowhere"),
        (["audit", "--sandbox", "40", "--mutes", "/nowhere"], "/nowhere"),
        (["audit", "--sandbox", "40", "--concurrency", "0"], "--concurrency"),
        (["audit", "--sandbox", "40", "--rate", "0"], "--rate"),
        (["audit", "--sandbox", "40", "--fail-on", "sometimes"], "sometimes"),
        (["audit", "--nonsense"], "nonsense"),
        (["nonsense"], "nonsense"),
        (["diff", "/nowhere", "/nowhere"], "/nowhere"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_word_on_what_to_do(arguments, said, capsys):
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_rejected_credentials_end_with_4(account, monkeypatch, capsys):
    monkeypatch.setenv("DEEPCALL_TOKEN", "hush-hush-hush")
    assert run(["audit"]) == 4
    err = capsys.readouterr().err
    assert "1014" in err
    assert "hush" not in err


def test_an_incomplete_run_ends_with_3_and_says_so_first(account, capsys):
    account.error_rate = {1015: 0.6}
    assert run(["audit", *map(str, range(1, 41))]) == 3
    assert capsys.readouterr().out.startswith("Incomplete: ")


def test_an_incomplete_run_may_pass_when_asked(account, capsys):
    account.error_rate = {1015: 0.05}
    assert run(["audit", "--allow-partial", "--fail-on", "never"]) == 0
    assert capsys.readouterr().out.startswith("Incomplete: ")


def test_too_many_failures_end_the_run(account, capsys):
    account.error_rate = {1015: 0.9}
    code = run(["audit", "1", "2", "3", "4", "5", "6", "7", "8", "--max-failures", "1"])
    assert code == 3
    assert capsys.readouterr().out.startswith("Incomplete: ")


def test_credentials_from_a_file(deepcall_sandbox, tmp_path, capsys):
    file = tmp_path / "secret.env"
    file.write_text(f"export DEEPCALL_SSID='{deepcall_sandbox.ssid}'\n")
    base = ["--base-url", deepcall_sandbox.base_url, "--credentials", str(file)]
    assert run(["groups", "show", "28", *base]) == 0
    assert "bhawesh" in capsys.readouterr().out
    file.write_text("DEEPCALL_USER_ID=1\n")
    assert run(["groups", "show", "28", *base]) == 2
    assert "DEEPCALL_TOKEN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--rules", "G999"], 2),
        (["--max-failures", "-1"], 2),
        (["--base-url", "http://127.0.0.1:1", "--credentials", "bad.env", "--patience", "1"], 3),
        (["--sandbox=-1"], 2),
    ],
)
def test_a_run_that_never_begins_leaves_the_earlier_record(
    arguments, code, account, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.env").write_text("DEEPCALL_SSID=abc\n")
    assert run(["audit", "-o", "jsonl:run.jsonl", "--progress", "none"]) == 1
    before = (tmp_path / "run.jsonl").read_bytes()
    assert run(["audit", "-o", "jsonl:run.jsonl", "--progress", "none", *arguments]) == code
    assert (tmp_path / "run.jsonl").read_bytes() == before


def test_credentials_from_stdin(deepcall_sandbox, monkeypatch, capsys):
    command = ["groups", "show", "28", "--base-url", deepcall_sandbox.base_url, "--credentials"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"DEEPCALL_SSID={deepcall_sandbox.ssid}\n"))
    assert run([*command, "-"]) == 0
    assert "bhawesh" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert run([*command, "-"]) == 2
    assert "stdin holds no credentials" in capsys.readouterr().err


def test_groups_list_and_show(account, capsys):
    assert run(["groups", "list", "--name", "mahipal"]) == 0
    assert "Mahipal singh" in capsys.readouterr().out
    assert run(["groups", "show", "28"]) == 0
    assert "3 of 3 receive calls" in capsys.readouterr().out
    assert run(["groups", "show", "987654"]) == 2
    assert "1503" in capsys.readouterr().err


def test_rules_are_listed(capsys):
    assert run(["rules"]) == 0
    out = capsys.readouterr().out
    assert all(rule in out for rule in ("G001", "N002", "A004", "R005", "D001", "X003"))


def test_every_format_is_written(tmp_path, capsys):
    kinds = ("table", "json", "jsonl", "csv", "md", "html", "junit")
    outputs = [part for kind in kinds for part in ("-o", f"{kind}:{tmp_path / kind}")]
    assert run(["audit", "--sandbox", "40", "--progress", "none", *outputs]) == 1
    assert all((tmp_path / kind).stat().st_size > 1000 for kind in kinds)
    out, err = capsys.readouterr()
    assert out == ""
    assert "reach nobody" in err


def test_one_format_on_stdout_stands_alone_there(capsysbinary):
    run(["audit", "--sandbox", "40", "-o", "json:-"])
    assert json.loads(capsysbinary.readouterr().out)["summary"]["complete"] is True


def test_baseline_new_only_and_diff(deepcall_sandbox, account, tmp_path, capsys):
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    run(["audit", "-o", f"jsonl:{old}"])
    account_groups = lines_of(old)
    assert account_groups[0]["type"] == "run"
    assert account_groups[-1]["type"] == "summary"
    assert run(["audit", "--baseline", str(old), "--new-only"]) == 0

    import asyncio

    from deepcall_async import DeepCall

    async def mute_group_28() -> None:
        async with DeepCall() as dc:
            await dc.groups.assign_agents(28, [3, 8, 2])

    asyncio.run(mute_group_28())
    capsys.readouterr()
    outputs = ["-o", f"jsonl:{new}", "-o", "csv:-"]
    assert run(["audit", "--baseline", str(old), "--new-only", *outputs]) == 1
    assert "D001" in capsys.readouterr().out
    assert run(["diff", str(old), str(new)]) == 1
    assert "D001" in capsys.readouterr().out
    assert run(["diff", str(old), str(old)]) == 0


def test_mutes_and_thresholds_from_a_file(tmp_path, capsys):
    file = tmp_path / "mutes.toml"
    file.write_text('[[mute]]\nrule = "G002"\ngroup = 5\nreason = "closing in spring"\n')
    options = ["audit", "--sandbox", "40", "--mutes", str(file), "--rules", "G002"]
    assert run(options) == 0
    assert "1 finding muted" in capsys.readouterr().out
    file.write_text("[[mute]]\nrule = 5\n")
    assert run(options) == 2
    assert "mutes.toml" in capsys.readouterr().err


def test_without_the_extra_it_says_how_to_install_it():
    code = (
        "import sys; sys.modules['cyclopts'] = None; sys.argv = ['deepcall', 'audit'];"
        "import importlib.util as u; real = u.find_spec;"
        "u.find_spec = lambda n, *a: None if n == 'cyclopts' else real(n, *a);"
        "from deepcall_async.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "deepcall: install its extra: pip install 'deepcall-async[cli]'\n"
    assert done.stdout == ""


def test_a_name_cannot_move_the_cursor_or_be_markup(account, capsys):
    import asyncio

    from deepcall_async import DeepCall

    async def add() -> None:
        async with DeepCall() as dc:
            await dc.groups.add("[bold red]not markup[/]")

    asyncio.run(add())
    assert run(["groups", "list", "--name", "markup"]) == 0
    assert "[bold red]not markup[/]" in capsys.readouterr().out


def test_verbose_tells_of_each_request_and_quiet_of_nothing(account, capsys):
    assert run(["audit", "28", "5", "-v"]) == 1
    err = capsys.readouterr().err
    assert err.count("groups.agent_relation attempt=1") >= 2
    assert account.token not in err
    assert run(["audit", "28", "5", "-q"]) == 1
    assert capsys.readouterr().err == ""


def test_the_summary_of_a_github_job_gets_the_report(tmp_path, monkeypatch, capsys):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert run(["audit", "--sandbox", "40", "-o", "github:-", "--progress", "none"]) == 1
    assert "::error title=G002 " in capsys.readouterr().out
    assert summary.read_text().startswith("before\n# Group audit")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "none" / "summary.md"))
    assert run(["audit", "--sandbox", "40", "-o", "github:-", "--progress", "none"]) == 5
    assert "summary.md: no such file" in capsys.readouterr().err


def test_a_baseline_of_another_service_is_refused(account, tmp_path, monkeypatch, capsys):
    old = tmp_path / "old.jsonl"
    assert run(["audit", "28", "-o", f"jsonl:{old}", "--fail-on", "never", "-q"]) == 0
    monkeypatch.setenv("DEEPCALL_BASE_URL", "https://other.invalid")
    assert run(["audit", "28", "--baseline", str(old)]) == 2
    assert "https://other.invalid" in capsys.readouterr().err


def test_a_low_failure_is_one_in_junit_when_low_fails(account, capsys):
    run(["audit", "28", "5", "-o", "junit:-", "-q", "--fail-on", "never"])
    assert "<failure" not in capsys.readouterr().out
    run(["audit", "28", "5", "-o", "junit:-", "-q", "--fail-on", "critical"])
    assert "<failure" in capsys.readouterr().out


def test_a_service_that_is_away_is_waited_for_and_that_is_said(account, monkeypatch, capsys):
    monkeypatch.setenv("DEEPCALL_BASE_URL", "http://127.0.0.1:1")
    assert run(["audit", "--patience", "1"]) == 3
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("deepcall: no answer from 127.0.0.1:1")
    assert first.endswith("; waiting up to 1 s for it (--patience)")
    assert last.startswith("deepcall: groups.list: no connection to 127.0.0.1:1")
