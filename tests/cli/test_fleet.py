"""``deepcall fleet``: the command over a service of several accounts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import threading
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from deepcall_async.sandbox import SandboxFleet
from tests.support.command import called, deepcall, environment, groups_in, started, wait_until

GROUPS = 32
ACCOUNTS = 4
UNTAKEN = 3
"""Lookups of an account that a death may cost at a concurrency of one: the one in flight, and two
whose answers have come and wait to be taken, as `fan_out` lets them."""


@pytest.fixture(scope="module")
def service():
    """Served from a thread, so that the command may run in this process."""
    server, ready, end = SandboxFleet(ACCOUNTS, groups=GROUPS), threading.Event(), []

    async def serve():
        async with server:
            stop = asyncio.Event()
            end.append((asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    yield server
    loop, stop = end[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)


@pytest.fixture
def env(service):
    more = {"DEEPCALL_BASE_URL": service.base_url}
    for number, account in enumerate(service.accounts):
        account.reset()
        more |= {f"A{number}_USER_ID": account.user_id, f"A{number}_TOKEN": account.token}
    return environment(**more)


@pytest.fixture
def toml(tmp_path):
    file = tmp_path / "fleet.toml"
    tables = (
        f'[[account]]\nname = "acme {i}"\ncredentials = "env:A{i}"\n' for i in range(ACCOUNTS)
    )
    file.write_text("".join(tables))
    return file


def lookups(service):
    """How often each group of each account was looked up, but for those that are asked twice."""
    return [
        Counter(
            int(call.fields["groupId"])
            for call in account.calls
            if call.endpoint == "getGroupAgentRelation"
            and int(call.fields["groupId"]) not in account.planted["R004"]
        )
        for account in service.accounts
    ]


def audit(toml, folder, *more, env, run=called):
    return run("fleet", "audit", toml, "--folder", folder, "--progress", "none", *more, env=env)


def test_an_audit_its_reports_and_a_second_run(service, env, toml, tmp_path):
    folder = tmp_path / "audits"
    outputs = [f"{kind}:{tmp_path / kind}" for kind in ("html", "json", "csv", "md", "table")]
    done = audit(toml, folder, *(word for each in outputs for word in ("-o", each)), env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Callers to 8 groups of 4 accounts reach nobody.")
    document = json.loads((tmp_path / "json").read_text())
    assert document["summary"]["accounts"] == 4
    assert document["summary"]["verdict"] in (tmp_path / "table").read_text()
    assert 'href="audits/accounts/acme%200.html"' in (tmp_path / "html").read_text()
    page = (folder / "accounts" / "acme 0.html").read_text()
    assert "Callers to 2 groups reach nobody" in page
    # A page that is younger than its record stands, unless it is judged in another way.
    stamp = (folder / "accounts" / "acme 0.html").stat().st_mtime_ns
    words = ("fleet", "report", folder, "-o", f"html:{tmp_path / 'html'}")
    for more, stands in (((), True), (("--rules", "G001"), False), ((), False), ((), True)):
        assert called(*words, *more, env=env).returncode == 1
        now = (folder / "accounts" / "acme 0.html").stat().st_mtime_ns
        assert (now == stamp) is stands
        stamp = now
    before = lookups(service)
    assert {number for each in before for number in each.values()} == {1}
    again = audit(toml, folder, env=env)
    assert again.returncode == 1
    assert lookups(service) == before
    report = called("fleet", "report", folder, "-o", "json:-", env=env)
    assert report.returncode == 1
    assert json.loads(report.stdout)["accounts"] == document["accounts"]
    assert called("fleet", "report", folder, "--fail-on", "never", env=env).returncode == 0


def test_shards_exit_with_0_or_3_and_the_report_decides(service, env, toml, tmp_path):
    folder = tmp_path / "audits"
    service.accounts[1].fail_next("list", 9, code=1015)
    first = audit(toml, folder, "--shard", "0/2", env=env)
    assert (first.returncode, first.stdout) == (0, "")
    assert first.stderr == "2 of 2 accounts of this shard are read whole\n"
    second = audit(toml, folder, "--shard", "1/2", "--quiet", env=env)
    assert (second.returncode, second.stderr) == (3, "")
    report = called("fleet", "report", folder, env=env)
    assert report.returncode == 3
    assert "Incomplete: 1 of 4 accounts" in report.stdout
    service.accounts[1].reset()
    assert audit(toml, folder, "--shard", "1/2", env=env).returncode == 0
    assert called("fleet", "report", folder, env=env).returncode == 1


def test_exit_codes_of_what_was_not_read(env, toml, tmp_path):
    wrong = env | {f"A{number}_TOKEN": "wrong" for number in range(ACCOUNTS)}
    refused = audit(toml, tmp_path / "a", env=wrong)
    assert refused.returncode == 4
    assert "because of refused credentials" in refused.stdout
    one = audit(toml, tmp_path / "b", env=env | {"A0_TOKEN": "wrong"})
    assert one.returncode == 3
    assert one.stdout.splitlines()[3].startswith("acme 0   no")
    assert (
        audit(toml, tmp_path / "b", "--allow-partial", env=env | {"A0_TOKEN": "x"}).returncode == 1
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shard", "2/2"], "give I/N"),
        (["--shard", "0/2", "--processes", "2"], "different ways"),
        (["--shard", "0/2", "-o", "html:x.html"], "makes no report"),
        (["-o", "junit:x.xml"], "table, json, csv, md, html"),
        (["--at-once", "0"], "--at-once"),
        (["--rules", "Z9"], "no such rule"),
        (["--base-url", "http://brand.example"], "http://"),
    ],
)  # fmt: skip
def test_wrong_usage(env, toml, tmp_path, words, said):
    done = audit(toml, tmp_path / "audits", *words, env=env)
    assert done.returncode == 2
    assert said in done.stderr


def test_files_that_are_not_what_they_should_be(env, toml, tmp_path):
    missing = audit(tmp_path / "none.toml", tmp_path / "audits", env=env)
    assert (missing.returncode, "none.toml" in missing.stderr) == (2, True)
    toml.write_text('[[account]]\nname = "a"\ncredentials = "s3cret"\n')
    bare = audit(toml, tmp_path / "audits", env=env)
    assert bare.returncode == 2
    assert "must be a reference" in bare.stderr
    assert "s3cret" not in bare.stderr
    empty = called("fleet", "report", tmp_path, env=env)
    assert (empty.returncode, "no fleet was audited here" in empty.stderr) == (2, True)


def test_dask_is_only_talked_to_in_the_clear_on_this_machine(env, toml, tmp_path):
    pytest.importorskip("distributed", reason="pip install 'deepcall-async[dask]'")
    for address, said in (
        ("tcp://192.0.2.1:8786", "use tls://"),
        ("scheduler.invalid:8786", "use tls://"),
        ("ws://localhost:1", "give a scheduler's address"),
        ("nothing", "give a scheduler's address"),
    ):
        done = audit(toml, tmp_path / "audits", "--dask", address, env=env)
        assert done.returncode == 2
        assert said in done.stderr


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it looks processes up in /proc")
def test_processes_one_killed_then_the_command_then_the_same_again(service, env, toml, tmp_path):
    folder = tmp_path / "audits"
    for account in service.accounts:
        account.latency = 0.03
    words = ("fleet", "audit", toml, "--folder", folder, "--processes", "2", "--concurrency", "1")
    parts = lambda: list((folder / "accounts").glob("*.part"))  # noqa: E731
    with started(*words, env=env) as process:
        wait_until(lambda: sum(len(groups_in(part)) for part in parts()) > 12, process=process)
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert len(children) == 2
        os.kill(int(children[0]), signal.SIGKILL)
        wait_until(lambda: sum(len(groups_in(part)) for part in parts()) > 40, process=process)
        process.kill()
        # Its children end too: their stdin is closed.
        for child in children:
            wait_until(lambda child=child: not _alive(int(child)))
    for account in service.accounts:
        account.latency = 0
    done = deepcall(*words, "-o", "json:-", env=env)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["unread"] == 0
    assert len({each["name"] for each in report["accounts"]}) == len(report["accounts"]) == ACCOUNTS
    found = lookups(service)
    assert [len(each) for each in found] == [
        GROUPS - len(a.planted["R004"]) for a in service.accounts
    ]
    doubled = sum(number - 1 for each in found for number in each.values())
    # Two of the accounts met one death, and all of them the other.
    assert doubled <= (ACCOUNTS // 2 + ACCOUNTS) * UNTAKEN


def _alive(pid):
    stat = Path("/proc", str(pid), "stat")
    with contextlib.suppress(OSError):
        return b") Z " not in stat.read_bytes()  # a zombie of nobody who would wait for it
    return False


def test_ctrl_c_says_how_to_go_on(service, env, toml, tmp_path):
    folder = tmp_path / "audits"
    for account in service.accounts:
        account.latency = 0.03
    words = ("fleet", "audit", toml, "--folder", folder, "--concurrency", "1", "--progress", "none")
    old = tmp_path / "fleet.md"
    old.write_text("Every active group has someone who receives calls.")
    words = (*words, "-o", f"md:{old}")
    with started(*words, env=env) as process:
        wait_until(lambda: list((folder / "accounts").glob("*.part")), process=process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in said
    assert "4 of 4 accounts could not be read whole" in old.read_text()  # not yesterday's
    for account in service.accounts:
        account.latency = 0
    assert audit(toml, folder, env=env).returncode == 1
    doubled = sum(number - 1 for each in lookups(service) for number in each.values())
    assert doubled <= ACCOUNTS * UNTAKEN


def test_a_sandbox_of_accounts_prints_its_fleet(tmp_path):
    with started("sandbox", "--accounts", "2", "--groups", "30") as process:
        lines = []
        while not lines or not lines[-1].startswith("base_url") or len(lines) < 8:
            lines.append(process.stdout.readline())
        text = "".join(lines)
        fleet = tmp_path / "fleet.toml"
        fleet.write_text(text)
        assert [each["name"] for each in tomllib.loads(text)["account"]] == [
            "sandbox-1",
            "sandbox-2",
        ]
        exports = [
            word for line in lines if line.startswith("# export ") for word in line.split()[2:]
        ]
        env = environment(**dict(word.split("=") for word in exports))
        done = audit(fleet, tmp_path / "audits", env=env)
        assert done.returncode == 1
        assert "Callers to 4 groups of 2 accounts" in done.stdout
    refused = called("sandbox", "--accounts", "2", "--drop-rate", "0.5")
    assert refused.returncode == 2
