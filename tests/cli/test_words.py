"""Messages of the command name its options and units, never the library's parameters."""

from __future__ import annotations

import pytest

from tests.support.command import called, environment


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("watch", "--every", "0.5s"), "--every must be from 1 to 604,800 seconds, not 0.5"),
        (("watch", "--cooldown", "9000h"), "--cooldown must be from 0 to 31,536,000 seconds"),
        (("audit", "--timeout", "0"), "--timeout must be from 0.001 to 86,400 seconds, not 0"),
        (("audit", "--patience", "-1"), "--patience must be from 0 to 86,400 seconds, not -1"),
        (("sandbox", "--latency", "-1"), "--latency must be from 0 to 86,400 seconds, not -1"),
    ],
)
def test_a_time_out_of_range_is_told_in_seconds(arguments, said, tmp_path):
    state = ("--state", tmp_path / "w.db") if arguments[0] == "watch" else ()
    done = called(*arguments, *state, env=environment(DEEPCALL_SSID="abc"))
    assert done.returncode == 2
    assert said in done.stderr


def test_a_credentials_file_without_any_says_what_it_must_hold(tmp_path):
    file = tmp_path / "acme.env"
    file.write_text("# nothing\n")
    file.chmod(0o600)
    done = called("check", "--credentials", file)
    assert "DEEPCALL_USER_ID and DEEPCALL_TOKEN" in done.stdout + done.stderr
    assert "in code" not in done.stdout + done.stderr


def test_a_status_that_nobody_documents_is_called_so(deepcall_sandbox):
    done = called(
        *("groups", "update", "28", "--name", "Mahipal singh", "--status", "7", "--dry-run"),
        env=environment(deepcall_sandbox),
    )
    assert done.returncode == 0
    assert "status: 1 (active) -> 7 (inactive)\n" in done.stderr
    assert "7 is no status that is documented" in done.stderr


def test_a_status_that_stays_is_called_so(deepcall_sandbox):
    done = called(
        *("groups", "update", "28", "--name", "Sales", "--status", "1", "--dry-run"),
        env=environment(deepcall_sandbox),
    )
    assert "status: 1 (active), as it is\n" in done.stderr


def test_a_name_without_quotes_is_one_argument_too_many():
    done = called("groups", "add", "Sales", "EU", "[x]", env=environment(DEEPCALL_SSID="abc"))
    assert done.returncode == 2
    assert done.stderr == ("deepcall: 2 arguments too many; a name with spaces stands in quotes\n")


@pytest.mark.parametrize("word", ["help", "version"])
def test_help_and_version_are_options(word):
    done = called(word)
    assert (done.returncode, done.stderr) == (2, f"deepcall: did you mean --{word}?\n")


@pytest.mark.parametrize(
    "arguments",
    [("audit", "--sandbox", "40", "--nightly="), ("fleet", "audit", "fleet.toml", "--folder", "")],
)
def test_a_folder_without_a_name_is_not_the_present_one(arguments, tmp_path):
    (tmp_path / "fleet.toml").write_text("")
    done = called(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "an empty name; write . for the present folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.toml"]
