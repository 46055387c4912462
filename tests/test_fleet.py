"""`audit_fleet`: over real sockets, with every account's state in files."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
from collections import Counter
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from deepcall_async import Ok, UserToken, fan_out
from deepcall_async.audit import RULES, Hit, read_jsonl, rule
from deepcall_async.audit.mutes import Mute
from deepcall_async.client import DeepCall
from deepcall_async.errors import AuthenticationFailed
from deepcall_async.fleet import (
    Account,
    AuditPlan,
    FleetReport,
    audit_fleet,
    read_fleet,
)
from deepcall_async.fleet.account import AccountAudit
from deepcall_async.sandbox import SandboxFleet

pytestmark = pytest.mark.anyio

GROUPS = 32


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def service():
    async with SandboxFleet(4, groups=GROUPS) as server:
        yield server


@pytest.fixture
def fleet(service, monkeypatch):
    """The accounts of the service; their credentials are in the environment."""
    for number, account in enumerate(service.accounts):
        account.reset()
        monkeypatch.setenv(f"A{number}_USER_ID", account.user_id)
        monkeypatch.setenv(f"A{number}_TOKEN", account.token)
    monkeypatch.setenv("DEEPCALL_BASE_URL", service.base_url)
    return [Account(f"acme {number}", f"env:A{number}") for number in range(4)]


async def audited(accounts, folder, **options):
    return {each.name: each async for each in audit_fleet(accounts, folder=folder, **options)}


def requests(service):
    return sum(sum(each.requests.values()) for each in service.accounts)


def lookups(account):
    return [
        int(c.fields["groupId"]) for c in account.calls if c.endpoint == "getGroupAgentRelation"
    ]


async def test_each_account_is_read_once_and_the_second_run_asks_nothing(service, fleet, tmp_path):
    first = await audited(fleet, tmp_path)
    assert {each.complete for each in first.values()} == {True}
    asked = requests(service)
    assert asked > 4 * GROUPS
    assert sum(each.requests for each in first.values()) == asked  # nothing is told twice
    second = await audited(fleet, tmp_path)
    assert requests(service) == asked
    assert second == first
    assert read_fleet([tmp_path]) == FleetReport.of(first.values(), read_fleet([tmp_path]).started)
    for name in first:
        with (tmp_path / "accounts" / f"{name}.jsonl").open("rb") as lines:
            assert len(read_jsonl(lines).relations) == GROUPS
    assert sorted(path.suffix for path in (tmp_path / "accounts").iterdir()) == [".jsonl"] * 4


async def test_a_new_night_is_compared_with_the_last_whole_record(service, fleet, tmp_path):
    await audited(fleet, tmp_path)
    server = service.accounts[1]
    async with DeepCall(UserToken(server.user_id, server.token), base_url=service.base_url) as dc:
        await dc.groups.assign_agents(28, [3, 8, 2])
    again = await audited(fleet, tmp_path, again=True)
    assert {name: each.new_dark_groups for name, each in again.items()} == {
        "acme 0": 0, "acme 1": 1, "acme 2": 0, "acme 3": 0,
    }  # fmt: skip
    assert read_fleet([tmp_path]).accounts[0].name == "acme 1"
    # Without it, the night that has ended stands.
    asked = requests(service)
    assert (await audited(fleet, tmp_path))["acme 1"].new_dark_groups == 1
    assert requests(service) == asked


async def test_what_was_cut_off_is_gone_on_with_also_by_again(service, fleet, tmp_path):
    plan = AuditPlan(concurrency=1)
    for account in service.accounts:
        account.latency = 0.01
    async with aclosing(audit_fleet(fleet, folder=tmp_path, at_once=2, plan=plan)) as reports:
        names = [(await anext(reports)).name]
    known = [lookups(each) for each in service.accounts]
    report = read_fleet([tmp_path])
    assert len(report.unread) == 3
    for account in service.accounts:
        account.latency = 0
    rest = await audited(fleet, tmp_path, again=True)
    assert set(rest) == {each.name for each in fleet}
    assert rest[names[0]].complete
    for before, account in zip(known, service.accounts, strict=True):
        planted = account.planted["R004"]  # looked at once more, as the index behind it may lag
        asked = Counter(i for i in lookups(account) if i not in planted)
        in_flight = set(before[-1:])
        assert {i for i, number in asked.items() if number > 1} <= in_flight
        assert len(asked) == GROUPS - len(planted)


async def test_a_dead_account_is_unread_and_the_others_are_not_kept_waiting(
    service, fleet, tmp_path
):
    fleet += [
        Account("refused", "env:REFUSED"),
        Account("nobody", "env:NOBODY"),
        Account("no file", "file:no-such.env"),
        Account("away", "env:A0", base_url="http://127.0.0.1:9"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REFUSED_USER_ID", "1")
        patch.setenv("REFUSED_TOKEN", "wrong")
        found = await audited(fleet, tmp_path, plan=AuditPlan(patience=0.2))
    errors = {name: each.error.error for name, each in found.items() if each.error}
    assert errors == {
        "refused": "AuthenticationFailed",
        "nobody": "ValueError",
        "no file": "FileNotFoundError",
        "away": "ConnectFailed",
    }
    assert {each.complete for name, each in found.items() if name.startswith("acme")} == {True}
    report = read_fleet([tmp_path])
    assert {each.name for each in report.accounts[:4]} == set(errors)
    # Whoever was not read is asked again, and nobody else.
    asked = requests(service)
    await audited(fleet[:-1], tmp_path)
    assert requests(service) - asked <= 3


async def test_an_account_of_which_a_group_failed_stays_unfinished(service, fleet, tmp_path):
    server = service.accounts[2]
    server.fail_next("getGroupAgentRelation", 1, code=1015)
    first = (await audited(fleet, tmp_path))["acme 2"]
    assert not first.complete
    assert first.error is None
    assert first.verdict.startswith("Incomplete: 1 of 32 groups could not be read.")
    assert first.read == GROUPS - 1
    assert not (tmp_path / "accounts" / "acme 2.jsonl").exists()
    before = len(lookups(server))
    second = (await audited(fleet, tmp_path))["acme 2"]
    assert second.complete
    assert len(lookups(server)) - before <= 1 + len(server.planted["R004"])


async def test_a_night_that_was_not_whole_leaves_the_baseline(service, fleet, tmp_path):
    await audited(fleet, tmp_path)
    file = tmp_path / "accounts" / "acme 0.jsonl"
    whole = file.read_bytes()
    service.accounts[0].fail_next("getGroupAgentRelation", 1, code=1015)
    assert not (await audited(fleet, tmp_path, again=True))["acme 0"].complete
    assert file.read_bytes() == whole
    # The record of an unfinished night is not gone on with in the next.
    before = len(lookups(service.accounts[0]))
    found = (await audited(fleet, tmp_path, again=True))["acme 0"]
    assert found.complete
    assert found.new_dark_groups == 0
    assert len(lookups(service.accounts[0])) - before >= GROUPS


async def test_shards_divide_a_fleet_and_one_report_is_made_of_them(service, fleet, tmp_path):
    first = await audited(fleet, tmp_path, shard=(0, 2))
    assert sorted(first) == ["acme 0", "acme 2"]
    with pytest.raises(ValueError, match="no fleet was audited"):
        read_fleet([tmp_path / "accounts"])
    second = await audited(fleet, tmp_path, shard=(1, 2))
    report = read_fleet([tmp_path])
    assert report.complete
    assert {each.name for each in report.accounts} == {*first, *second}
    # Another division of the same night asks nothing.
    asked = requests(service)
    assert {each.complete for each in (await audited(fleet, tmp_path)).values()} == {True}
    assert requests(service) == asked
    with pytest.raises(ValueError, match="shard must be"):
        await audited(fleet, tmp_path, shard=(2, 2))


async def test_a_record_that_nobody_reported_is_told_all_the_same(service, fleet, tmp_path):
    await audited(fleet, tmp_path)
    log = tmp_path / "fleet.jsonl"
    header = log.read_bytes().splitlines(keepends=True)[0]
    log.write_bytes(header)  # killed between the record and its report
    report = read_fleet([tmp_path])
    assert report.complete
    assert len(report.accounts) == 4


@pytest.mark.parametrize("left", [b"", b'{"type":"run","sche'])
async def test_a_record_that_was_only_begun_is_begun_anew(fleet, tmp_path, left, caplog):
    (tmp_path / "accounts").mkdir()
    (tmp_path / "accounts" / "acme 0.jsonl.part").write_bytes(left)
    (tmp_path / "accounts" / "acme 1.jsonl").write_bytes(b"{}\n")
    found = await audited(fleet, tmp_path)
    assert found["acme 0"].complete
    # What is damaged otherwise is not thrown away, nor without a word.
    assert found["acme 1"].complete
    (aside,) = (tmp_path / "accounts").glob("acme 1.jsonl.damaged-*")
    assert aside.read_bytes() == b"{}\n"
    assert f"acme 1.jsonl is damaged, not used, and kept as {aside.name}: line 1" in caplog.text


async def test_two_runs_at_once_share_the_work(service, fleet, tmp_path, caplog):
    for account in service.accounts:
        account.latency = 0.002
    plan = AuditPlan(concurrency=4)
    one, two = await asyncio.gather(
        audited(fleet, tmp_path, plan=plan), audited(fleet, tmp_path, plan=plan)
    )
    assert one == two
    assert "another process audits these accounts too" in caplog.text
    for account in service.accounts:
        planted = account.planted["R004"]
        asked = Counter(i for i in lookups(account) if i not in planted)
        assert set(asked.values()) == {1}


async def test_rules_and_mutes_count_in_every_account(fleet, tmp_path):
    mute = Mute(rule="G002", group=5, reason="known")
    plan = AuditPlan(only=("G001", "G002"), mutes=(mute,))
    found = await audited(fleet, tmp_path, plan=plan)
    assert {each.findings.get("critical", 0) for each in found.values()} == {0}
    assert {each.dark_groups for each in found.values()} == {2}  # muted is not mended
    with pytest.raises(ValueError, match="no such rule"):
        await audited(fleet, tmp_path, plan=AuditPlan(only=("Z9",)))


async def test_no_secret_is_in_a_file_a_log_or_a_pickle(service, fleet, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    service.accounts[1].fail_next("list", 3, code=1032)
    service.accounts[2].fail_next("list", 9, code=1014)
    found = await audited(fleet, tmp_path)
    pickled = pickle.dumps(
        [fleet, found, AccountAudit(str(tmp_path), read_fleet([tmp_path]).started, AuditPlan())]
    )
    texts = [caplog.text, repr(fleet), repr(found), pickled.decode("latin-1")]
    texts += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    for account in service.accounts:
        assert not any(account.token in text for text in texts)
    names = {each.name for each in fleet}
    assert pickle.loads(pickled)[0] == fleet
    assert names == set(found)


async def test_two_tenants_share_connections_and_nothing_else(service):
    """Rosters, errors, requests and rates never meet."""
    north, south = service.accounts[:2]
    south.agent_to_agent_call = False
    async with DeepCall(UserToken(north.user_id, north.token), base_url=service.base_url) as dc:
        other = dc.with_options(credentials=UserToken(south.user_id, south.token), per_second=1000)
        one = await dc.groups.agent_relation(5)
        with pytest.raises(Exception, match="1015"):
            await other.groups.agent_relation(5)
        south.agent_to_agent_call = True
        two = await other.groups.agent_relation(5)
        assert one.agents != two.agents
        assert (await dc.groups.agent_relation(6)).agents is one.agents
        assert (await other.groups.agent_relation(6)).agents is two.agents
        mine, theirs = dc._session.account, other._session.account
        for name in ("source", "rosters", "budget", "gate"):
            assert getattr(mine, name) is not getattr(theirs, name)
        assert (mine.rate, mine.requests, theirs.requests) == (None, 2, 3)
        # One account's dead credentials are its own.
        north.expire_ssid()
        wrong = dc.with_options(credentials=UserToken(north.user_id, "wrong"))
        with pytest.raises(AuthenticationFailed):
            await wrong.groups.list()
        assert len(await dc.groups.list()) == GROUPS


async def test_an_engine_is_a_function_of_the_shape_of_fan_out(fleet, tmp_path):
    seen = []

    def engine(call, keys, **options):
        seen.append(options)

        async def there(key):
            return await pickle.loads(pickle.dumps(call))(pickle.loads(pickle.dumps(key)))

        return fan_out(there, keys, **options)

    found = await audited(fleet, tmp_path, fan_out=engine, at_once=3)
    assert {each.complete for each in found.values()} == {True}
    assert seen == [{"concurrency": 3, "patience": 0.0}]
    async with fan_out(asyncio.sleep, [0], patience=0) as outcomes:
        assert [isinstance(each, Ok) async for each in outcomes] == [True]


async def test_each_accounts_rate_is_its_own(service, fleet, tmp_path):
    limited = [Account(f"slow {i}", f"env:A{i}", per_second=40) for i in range(2)]
    began = asyncio.get_running_loop().time()
    found = await audited([*limited, *fleet[2:]], tmp_path)
    took = asyncio.get_running_loop().time() - began
    most = max(each.requests for each in found.values())
    assert took >= (most - 40) / 40  # at the rate of one of them at least
    assert found["slow 0"].seconds >= 0.3
    first = json.loads((tmp_path / "fleet.jsonl").read_text().splitlines()[0])
    assert first["names"] == ["slow 0", "slow 1", "acme 2", "acme 3"]


@rule("Z001", "shortest-name", "low", meaning="A rule of the user's.", fix="Nothing.")
def shortest_name(context):
    yield Hit(message="It is short.", group_id=min(context.groups))


async def test_rules_of_the_users_own_run_in_every_account(fleet, tmp_path):
    plan = AuditPlan(only=("Z001",))
    found = await audited(fleet, tmp_path, rules=(*RULES, shortest_name), plan=plan)
    assert [each.findings for each in found.values()] == [{"low": 1}] * 4
    with pytest.raises(ValueError, match="no such rule: Z001"):
        await audited(fleet, tmp_path, plan=plan)


def test_only_rules_that_are_not_ours_are_pickled():
    night = datetime.now(UTC)
    plain = pickle.dumps(AccountAudit("folder", night, AuditPlan()))
    assert len(plain) < 2_000
    assert pickle.loads(plain)._rules == RULES
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(AccountAudit("folder", night, AuditPlan(), (shortest_name,)))


async def test_a_record_under_another_name_is_a_baseline(service, fleet, tmp_path):
    await audited(fleet[:1], tmp_path)
    asked = requests(service)
    renamed = Account("acme renamed", "env:A0")
    (tmp_path / "accounts" / "acme 0.jsonl").rename(tmp_path / "accounts" / "acme renamed.jsonl")
    found = await audited([renamed], tmp_path)
    assert found["acme renamed"].complete
    assert found["acme renamed"].new_dark_groups == 0  # compared with what it was called before
    assert requests(service) == 2 * asked


async def test_files_of_one_account_that_cannot_be_used_cost_no_other(fleet, tmp_path):
    (tmp_path / "accounts" / "acme 1.jsonl").mkdir(parents=True)
    found = await audited(fleet, tmp_path)
    assert {name for name, each in found.items() if not each.complete} == {"acme 1"}
    assert "acme 1.jsonl: is a directory" in found["acme 1"].verdict


async def test_a_list_that_was_begun_as_power_was_lost_is_begun_anew(fleet, tmp_path):
    (tmp_path / "fleet.jsonl").write_bytes(b"")
    assert len(await audited(fleet, tmp_path)) == 4
    (tmp_path / "fleet.jsonl").write_bytes(b"garbage")
    with pytest.raises(ValueError, match=r"fleet\.jsonl: .*move that file away"):
        await audited(fleet, tmp_path)


async def test_what_a_record_was_compared_with_is_kept(service, fleet, tmp_path):
    account, baseline = fleet[:1], tmp_path / "baselines" / "acme 0.jsonl"
    await audited(account, tmp_path)
    assert not baseline.exists()
    record = tmp_path / "accounts" / "acme 0.jsonl"
    first = record.read_bytes()
    await audited(account, tmp_path, again=True)
    assert baseline.read_bytes() == first
    assert record.read_bytes() != first
    record.unlink()
    await audited(account, tmp_path, again=True)  # there was nothing to compare it with
    assert not baseline.exists()
