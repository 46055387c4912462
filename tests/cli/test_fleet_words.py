"""What ``deepcall fleet`` says of mutes that all accounts share, of damage, and of a certificate."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from deepcall_async.sandbox import Sandbox
from tests.support.command import called, deepcall, environment

MUTES = """
[[mute]]
rule = "G002"
group = 999_999
reason = "a group of another account"

[[mute]]
rule = "dark-group"
group = 5
reason = "closed in summer"
expires = 2020-01-01

[[mute]]
rule = "G0002"
group = 5
reason = "a slip of the pen"
"""


ACCOUNT = '[[account]]\nname = "acme"\ncredentials = "env:A"\n'


@pytest.fixture
def audit(tmp_path):
    """Audits a fleet of one account, which a sandbox has."""
    (tmp_path / "fleet.toml").write_text(ACCOUNT)

    def run(server, *more, by=called):
        login = {"A_USER_ID": server.user_id, "A_TOKEN": server.token}
        env = environment(DEEPCALL_BASE_URL=server.base_url, **login)
        words = ("--folder", tmp_path / "audits", "--progress", "none", "-o", "json:-")
        return by("fleet", "audit", tmp_path / "fleet.toml", *words, *more, env=env)

    return run


def account(done):
    return json.loads(done.stdout)["accounts"][0]


@pytest.mark.deepcall_sandbox(groups=30)
def test_a_mute_of_one_account_is_not_stale_in_the_others(audit, deepcall_sandbox, tmp_path):
    mutes, page = tmp_path / "mutes.toml", tmp_path / "fleet.html"
    before = account(audit(deepcall_sandbox))
    mutes.write_text(MUTES)
    done = audit(deepcall_sandbox, "--mutes", mutes, "--again", "-o", f"html:{page}")
    assert account(done)["findings"] == before["findings"]
    told = (tmp_path / "audits" / "accounts" / "acme.html").read_text()
    assert "X003" not in told
    # What can match in no account is told once.
    assert done.stderr.count("expired on 2020-01-01") == 1
    assert done.stderr.count("G0002 for group 5 names a rule that does not exist") == 1
    assert "999999" not in done.stderr
    # Who left that rule out by hand may go on so.
    again = audit(deepcall_sandbox, "--mutes", mutes, "--ignore", "X003")
    assert again.returncode == done.returncode


@pytest.mark.deepcall_sandbox(groups=1)
def test_the_page_of_a_first_night_advises_what_a_fleet_has(audit, deepcall_sandbox, tmp_path):
    audit(deepcall_sandbox, "-o", f"html:{tmp_path / 'fleet.html'}")
    told = (tmp_path / "audits" / "accounts" / "acme.html").read_text()
    assert "<code>deepcall fleet audit --again</code>" in told


@pytest.mark.anyio
async def test_an_unknown_authority_is_told_with_the_option_that_trusts_it(audit, tmp_path):
    async with Sandbox(groups=1, tls=True) as server:
        done = await asyncio.to_thread(audit, server)
        assert done.returncode == 3
        assert "--ca FILE" in account(done)["verdict"]
        (tmp_path / "ca.pem").write_text(server.ca_pem)
        mended = await asyncio.to_thread(audit, server, "--ca", tmp_path / "ca.pem")
    assert account(mended)["complete"]


@pytest.mark.deepcall_sandbox(groups=30)
def test_a_damaged_record_is_kept_aside_and_the_account_read(audit, deepcall_sandbox, tmp_path):
    page, record = f"html:{tmp_path / 'fleet.html'}", tmp_path / "audits/accounts/acme.jsonl"
    audit(deepcall_sandbox)
    lines = record.read_bytes().splitlines(keepends=True)
    lines[20] = bytes(len(lines[20]))
    record.write_bytes(b"".join(lines))
    # Tonight's findings were told before it was damaged; only its page needs what is lost.
    told = audit(deepcall_sandbox, "-o", page)
    assert account(told)["complete"]
    assert "acme.jsonl: line 21 is" in told.stderr
    assert "`deepcall fleet audit --again` reads it anew" in told.stderr

    again = audit(deepcall_sandbox, "-o", page, "--again")
    assert account(again)["complete"]
    assert account(again)["new_dark_groups"] is None  # there was nothing to compare with
    (aside,) = record.parent.glob("acme.jsonl.damaged-*")
    assert aside.read_bytes() == b"".join(lines)
    assert re.search(rf"acme.jsonl .*kept as {aside.name}.*: line 21 ", again.stderr)
    assert account(audit(deepcall_sandbox, "-o", page, "--again"))["new_dark_groups"] == 0


@pytest.mark.deepcall_sandbox(groups=30)
def test_a_record_of_a_newer_version_is_left_where_it_is(audit, deepcall_sandbox, tmp_path):
    record = tmp_path / "audits/accounts/acme.jsonl"
    audit(deepcall_sandbox)
    newer = record.read_bytes().replace(b'"schema":', b'"schema":99', 1)
    record.write_bytes(newer)
    found = account(audit(deepcall_sandbox, "--again"))
    assert not found["complete"]
    assert "upgrade deepcall-async" in found["verdict"]
    assert record.read_bytes() == newer


@pytest.mark.deepcall_sandbox(groups=1)
def test_what_is_wrong_with_the_words_is_no_bug_of_a_process(audit, deepcall_sandbox, tmp_path):
    done = audit(deepcall_sandbox, "--processes", "1", "--rules", "Z9", by=deepcall)
    assert done.returncode == 2
    assert "shard 0: no such rule: Z9" in done.stderr
    assert "bug" not in done.stderr
    assert "mend that, then run the same command again" in done.stderr
