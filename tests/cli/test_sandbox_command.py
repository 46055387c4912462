"""``deepcall sandbox``: its account for other programs, and faults as options."""

from __future__ import annotations

import json
from urllib.request import urlopen

import pytest

from tests.support.command import called, environment, started


def served(*arguments, **more):
    """Start one, and give the process with the environment that it prints."""
    return started("sandbox", "--groups", "30", *arguments, **more)


def account_of(process):
    printed = [process.stdout.readline() for _ in range(3)]
    return environment(
        **dict(line.removeprefix("export ").strip().split("=", 1) for line in printed)
    )


def test_its_environment_is_all_that_another_command_needs():
    with served() as process:
        done = called("groups", "list", "-o", "json", env=account_of(process))
    assert done.returncode == 0
    assert len(json.loads(done.stdout)) == 30


def test_faults_are_options():
    with served("--error-rate", "1015=1", "--latency", "0.01") as process:
        done = called("check", env=account_of(process))
    assert done.returncode == 3
    assert "FAIL  permission" in done.stdout


def test_its_settings_are_options_too():
    arguments = ("--agents", "70", "--no-agent-to-agent-call", "--no-retry-after")
    with served(*arguments, "--rate-limit", "5") as process:
        env = account_of(process)
        url = f"{env['DEEPCALL_BASE_URL']}/_sandbox/"
        with urlopen(url) as reply:
            told = json.load(reply)["result"]["settings"]
        done = called("check", env=env)
    assert (told["retry_after"], told["agent_to_agent_call"]) == (False, False)
    assert done.returncode == 3
    assert "FAIL  permission" in done.stdout


def test_an_account_without_groups_passes():
    with started("sandbox", "--empty") as process:
        env = account_of(process)
        assert called("check", env=env).returncode == 0
        assert called("groups", "list", env=env).returncode == 0


def test_tls_and_the_certificate_to_trust(tmp_path):
    ca = tmp_path / "ca.pem"
    with served("--tls", ca) as process:
        env = account_of(process)
        assert env["DEEPCALL_BASE_URL"].startswith("https://")
        assert called("groups", "show", "28", "--ca", ca, env=env).returncode == 0
        refused = called("groups", "show", "28", env=env)
    assert refused.returncode == 3
    assert "--ca FILE" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--error-rate", "x"), "CODE=PROBABILITY"),
        (("--error-rate", "1032=2"), "--error-rate: "),
        (("--error-rate", "1032=0.9,503=0.9"), "--error-rate: "),
        (("--drop-rate", "2"), "--drop-rate must be from 0 to 1, not 2"),
        (("--latency", "-1"), "--latency must be from 0 to 86,400, not -1"),
        (("--rate-limit", "0"), "--rate-limit must be from 0.001"),
        (("--ssid-lifetime", "-1"), "--ssid-lifetime must be from 0"),
        (("--seed", "-1"), "--seed must be from 0"),
        (("--agents", "5"), "--agents must be from 60"),
        (("--groups", "5", "--empty"), "leave out --groups"),
    ],
)
def test_what_cannot_be_is_refused(arguments, said):
    done = called("sandbox", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_an_account_with_a_long_list_can_be_read():
    with started("sandbox", "--groups", "9000") as process:
        env = account_of(process)
        refused = called("groups", "list", "--max-response-mib", 1, env=env)
        assert refused.returncode == 3
        assert "(max_response_bytes=, or --max-response-mib)" in refused.stderr
        assert called("groups", "list", "--max-response-mib", 8, env=env).returncode == 0
