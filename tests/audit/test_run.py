"""An audit of a live account, over real HTTP against the sandbox."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from deepcall_async import (
    AuthenticationFailed,
    DeepCall,
    DeepCallError,
    PermissionDenied,
    Progress,
    RetryPolicy,
    SessionId,
    UserToken,
)
from deepcall_async.audit import (
    RULES,
    Context,
    Hit,
    Report,
    read_jsonl,
    render,
    rule,
    run_audit,
)
from deepcall_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

GROUPS = 60
LIVE = [rule.id for rule in RULES if rule.id[0] in "GNAR"]
"""Rules that an account can break by itself, without a baseline or a failing run."""


@asynccontextmanager
async def demo(
    groups: int = GROUPS, *, attempts: int = 1, **knobs: Any
) -> AsyncIterator[tuple[Sandbox, DeepCall]]:
    async with (
        Sandbox(groups=groups, **knobs) as server,
        DeepCall(
            UserToken(server.user_id, server.token),
            base_url=server.base_url,
            retry=RetryPolicy(attempts=attempts),
        ) as dc,
    ):
        yield server, dc


def _ids_by_rule(report: Report) -> dict[str, set[int | None]]:
    found: defaultdict[str, set[int | None]] = defaultdict(set)
    for finding in report.findings:
        found[finding.rule] |= {finding.group_id, finding.agent_id}
        found[finding.rule].update(finding.evidence.get("group_ids", ()))
        found[finding.rule].update(finding.evidence.get("agent_ids", ()))
    return found


async def test_every_fault_planted_in_the_demo_account_is_found() -> None:
    async with demo() as (server, dc):
        report = await run_audit(dc)
    assert report.complete
    assert sorted(server.planted) == sorted(LIVE)
    found = _ids_by_rule(report)
    for rule_id, planted in server.planted.items():
        assert set(planted) <= found[rule_id], rule_id
    assert set(found) == set(server.planted)


async def test_healthy_groups_have_no_findings_of_their_own() -> None:
    async with demo() as (server, dc):
        report = await run_audit(dc)
    broken = {i for rule_id, ids in server.planted.items() if rule_id[0] in "GNR" for i in ids}
    own = {f.group_id for f in report.findings if f.rule[0] in "GR"}
    assert own <= broken
    assert len(broken) < GROUPS


async def test_the_record_is_the_report() -> None:
    lines: list[bytes] = []
    progress: list[Progress] = []
    async with demo() as (server, dc):
        report = await run_audit(
            dc, on_line=lines.append, progress=progress.append, base_url=server.base_url
        )
        secrets = [server.token, server.ssid]
    assert read_jsonl(lines) == report.snapshot
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    assert sorted(lines) == sorted(render(report, "jsonl").splitlines(keepends=True))
    assert json.loads(lines[0])["type"] == "run"
    assert json.loads(lines[-1])["type"] == "summary"
    assert len(progress) == GROUPS
    assert (progress[-1].done, progress[-1].total) == (GROUPS, GROUPS)
    # The list, every group, and once more those whose labels differ from their relations.
    assert report.health.requests == 1 + GROUPS + len(server.planted["R004"])
    assert report.health.retries == 0
    for secret in secrets:
        for text in (*lines, render(report, "html"), render(report, "json")):
            assert secret.encode() not in text


async def test_lines_come_as_lookups_land() -> None:
    async with demo(latency=0.005) as (server, dc):
        asked_for = []

        def note(line: bytes) -> None:
            if line.startswith(b'{"type":"group"'):
                asked_for.append(server.requests["getGroupAgentRelation"])

        await run_audit(dc, on_line=note, concurrency=4)
    assert len(asked_for) == GROUPS
    # The first line is there long before the last question is asked.
    assert asked_for[0] <= 16


async def test_failed_lookups_make_the_report_incomplete_and_resume_asks_only_for_them() -> None:
    lines: list[bytes] = []
    async with demo() as (server, dc):
        server.error_rate = {1009: 0.2}
        while True:
            try:
                report = await run_audit(dc, on_line=lines.append)
                break
            except Exception:  # the list itself met the injected error
                lines.clear()
        assert not report.complete
        assert report.verdict.startswith(f"Incomplete: {report.failed} of {GROUPS} groups")
        assert 0 < report.failed < GROUPS
        failed = {f.group_id: f.evidence["code"] for f in report.findings if f.rule == "X001"}
        assert set(failed.values()) == {1009}
        assert len(failed) == report.failed

        server.error_rate = {}
        before = server.requests["getGroupAgentRelation"]
        again: list[bytes] = []
        resumed = await run_audit(dc, resume=read_jsonl(lines), on_line=again.append)
        asked = server.requests["getGroupAgentRelation"] - before
        assert asked == len(failed) + len(server.planted["R004"])
    assert resumed.complete
    assert read_jsonl(again) == resumed.snapshot
    assert resumed.snapshot.run.resumed_from == report.snapshot.run.started


async def test_a_run_that_was_killed_loses_only_what_was_in_flight() -> None:
    lines: list[bytes] = []

    class Killed(BaseException):
        pass

    def write(line: bytes) -> None:
        if len(lines) == 30:
            raise Killed
        lines.append(line)

    async with demo() as (server, dc):
        with pytest.raises(Killed):
            await run_audit(dc, on_line=write)
        record = b"".join(lines) + b'{"type":"group","group_id":'
        earlier = read_jsonl(record)
        assert not earlier.complete
        assert 20 < len(earlier.relations) < 30
        report = await run_audit(dc, resume=earlier)
    assert report.complete
    # The list, what is missing, and once more those whose labels differ from their relations.
    missing = GROUPS - len(earlier.relations)
    assert report.health.requests == 1 + missing + len(server.planted["R004"])


async def test_too_many_failures_end_the_run_with_a_report() -> None:
    async with demo(groups=300) as (server, dc):

        def fail_from_now_on(line: bytes) -> None:
            if line.startswith(b'{"type":"asked"'):
                server.error_rate = {500: 1.0}

        report = await run_audit(dc, max_failures=3, concurrency=2, on_line=fail_from_now_on)
    assert not report.complete
    assert 4 <= report.failed < 10
    assert report.failed + report.pending + report.read_count == report.groups == 300
    assert "were not looked up" in report.verdict


async def test_a_group_that_is_gone_is_no_failure() -> None:
    lines: list[bytes] = []
    async with demo() as (server, dc):

        def delete_behind_its_back(line: bytes) -> None:
            lines.append(line)
            if line.startswith(b'{"type":"asked"'):
                server._account.delete({"groupId": 40})

        report = await run_audit(dc, on_line=delete_behind_its_back)
    assert report.complete
    assert report.snapshot.gone == {40}
    assert [f.group_id for f in report.findings if f.rule == "X002"] == [40]
    assert read_jsonl(lines) == report.snapshot


async def test_chosen_groups_are_looked_up_without_the_list() -> None:
    async with demo() as (server, dc):
        report = await run_audit(dc, [28, 5, 28])
        assert dict(server.requests) == {"getGroupAgentRelation": 2}
    assert report.complete
    assert {f.rule for f in report.findings if f.group_id == 5} == {"G002"}
    # Of agents in none of two groups nobody can say that they are in no group.
    assert "A001" not in {f.rule for f in report.findings}


async def test_a_chosen_group_that_does_not_exist_is_a_failed_lookup() -> None:
    async with demo() as (_, dc):
        report = await run_audit(dc, [28, 99_999])
    assert not report.complete
    (found,) = [f for f in report.findings if f.rule == "X001"]
    assert found.group_id == 99_999
    assert "GroupUnavailable (code 1503)" in found.message


async def test_a_baseline_shows_what_changed() -> None:
    async with demo() as (_, dc):
        before = await run_audit(dc)
        await dc.groups.assign_agents(28, [3, 8, 2], receive_call=[])
        await dc.groups.delete(45)
        added = await dc.groups.add("Night desk")
        report = await run_audit(dc, baseline=before.snapshot, new_only=True)
    found = {(f.rule, f.group_id) for f in report.findings}
    assert {("D001", 28), ("G002", 28), ("D003", 45), ("D003", added.group_id)} <= found
    assert ("G002", 5) not in found


async def test_lost_credentials_end_the_run_and_keep_what_landed() -> None:
    lines: list[bytes] = []
    async with Sandbox(groups=GROUPS, ssid_lifetime=25) as server:
        async with DeepCall(SessionId(server.ssid), base_url=server.base_url) as dc:
            with pytest.raises(AuthenticationFailed):
                await run_audit(dc, on_line=lines.append, concurrency=4)
        landed = read_jsonl(lines)
        assert 10 < len(landed.relations) < 25
        server.ssid_lifetime = None
        async with DeepCall(SessionId(server.new_ssid()), base_url=server.base_url) as dc:
            report = await run_audit(dc, resume=landed)
    assert report.complete


async def test_a_list_that_is_refused_is_raised() -> None:
    async with demo(agent_to_agent_call=False) as (_, dc):
        with pytest.raises(PermissionDenied):
            await run_audit(dc)


async def test_cancelling_propagates() -> None:
    lines: list[bytes] = []
    async with demo(latency=0.05) as (_, dc):
        task = asyncio.create_task(run_audit(dc, on_line=lines.append, concurrency=4))
        while not any(line.startswith(b'{"type":"group"') for line in lines):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not read_jsonl(lines).complete


async def test_wrong_arguments_are_refused_before_anything_is_sent() -> None:
    async with demo(groups=1) as (server, dc):
        with pytest.raises(ValueError, match="no such rule"):
            await run_audit(dc, only=["G0"])
        with pytest.raises(ValueError, match="baseline"):
            await run_audit(dc, new_only=True)
        other = (await run_audit(dc, base_url="https://one.example")).snapshot
        server.requests.clear()
        with pytest.raises(ValueError, match=f"not of {server.base_url}"):
            await run_audit(dc, resume=other)
        with pytest.raises(TypeError, match="group_ids"):
            await run_audit(dc, ["28"])  # type: ignore[list-item]
        with pytest.raises(ValueError, match=r"was of https://one\.example"):
            await run_audit(dc, resume=other, base_url="https://two.example")
        assert not server.requests
        await run_audit(dc, resume=other, base_url="https://one.example")


async def test_an_empty_account() -> None:
    async with demo(groups=0) as (_, dc):
        report = await run_audit(dc)
    assert report.complete
    assert report.verdict == "The account has no groups. No findings."


async def test_what_failed_for_a_passing_reason_is_looked_up_once_more() -> None:
    lines: list[bytes] = []
    async with demo(groups=200) as (server, dc):

        def note(line: bytes) -> None:
            lines.append(line)
            # The second half of the lookups meets a fault that is gone when they are over.
            if sum(each.startswith(b'{"type":"group"') for each in lines) == 100:
                server.error_rate = {500: 1.0}

        def recover(progress: Progress) -> None:
            if progress.done == progress.total:
                server.error_rate = {}

        report = await run_audit(dc, on_line=note, progress=recover, concurrency=4)
        assert server.requests["getGroupAgentRelation"] > 250
    assert report.complete
    assert report.read_count == 200
    # One line a group: no failure was recorded that the second pass took back.
    groups = [json.loads(line)["group_id"] for line in lines if b'"type":"group"' in line[:20]]
    assert len(groups) == len(set(groups)) == 200


async def test_a_service_that_answers_nothing_is_not_asked_twice() -> None:
    async with demo(groups=60) as (server, dc):

        def fail_from_now_on(line: bytes) -> None:
            if line.startswith(b'{"type":"asked"'):
                server.error_rate = {500: 1.0}

        report = await run_audit(dc, on_line=fail_from_now_on, patience=0)
        assert server.requests["getGroupAgentRelation"] <= 1.1 * 60 + 10
    assert report.failed == 60
    assert report.read_count == 0


@pytest.mark.parametrize("fault", [{"http_status": 503}, {"drop": True}])
async def test_a_service_that_is_away_when_the_groups_are_listed_is_waited_for(
    fault: dict[str, Any],
) -> None:
    async with demo(groups=3) as (server, dc):
        server.fail_next("list", times=5, **fault)
        assert (await run_audit(dc)).complete
        server.fail_next("list", times=100, **fault)
        with pytest.raises(DeepCallError):
            await run_audit(dc, patience=0)


async def test_labels_that_caught_up_by_the_end_are_no_finding() -> None:
    lines: list[bytes] = []
    async with demo() as (server, dc):
        lagging, differing = server.planted["R004"]

        def catch_up(line: bytes) -> None:
            lines.append(line)
            if sum(each.startswith(b'{"type":"group"') for each in lines) == GROUPS:
                group = server._account._groups[lagging]
                labels = tuple(f"#{row.agent_id} x" for row in group.relations)
                server._account._put(group._replace(labels=labels))

        report = await run_audit(dc, on_line=catch_up)
    assert [f.group_id for f in report.findings if f.rule == "R004"] == [differing]
    assert read_jsonl(lines) == report.snapshot
    status = report.snapshot.relations[lagging].group.status
    assert status == 1  # what only the list said is kept


async def test_a_resumed_run_looks_again_at_groups_whose_listing_changed() -> None:
    async with demo() as (server, dc):
        earlier = (await run_audit(dc)).snapshot
        await dc.groups.update(40, name="Night desk", status=1)
        await dc.groups.delete(45)
        before = server.requests["getGroupAgentRelation"]
        report = await run_audit(dc, resume=earlier)
        asked = server.requests["getGroupAgentRelation"] - before
        assert asked == 1 + len(server.planted["R004"])
    assert report.snapshot.relations[40].group.name == "Night desk"
    assert 45 not in report.snapshot.asked


async def test_chosen_groups_keep_what_the_resumed_record_holds() -> None:
    lines: list[bytes] = []
    async with demo() as (server, dc):
        earlier = (await run_audit(dc, [5, 6])).snapshot
        before = server.requests["getGroupAgentRelation"]
        report = await run_audit(dc, [6, 7], resume=earlier, on_line=lines.append)
        assert server.requests["getGroupAgentRelation"] - before == 1
    assert sorted(report.snapshot.relations) == [5, 6, 7]
    assert sorted(read_jsonl(lines).relations) == [5, 6, 7]


async def test_another_accounts_record_is_refused_before_the_lookups() -> None:
    async with demo() as (server, dc):
        snapshot = (await run_audit(dc)).snapshot
        theirs = replace(
            snapshot,
            relations={
                group_id: replace(
                    found,
                    group=replace(found.group, user_id="7"),
                    relations=tuple(replace(row, user_id="7") for row in found.relations),
                )
                for group_id, found in snapshot.relations.items()
            },
        )
        elsewhere = replace(snapshot, run=replace(snapshot.run, base_url="https://a.example"))
        server.requests.clear()
        for role in ("baseline", "resume"):
            with pytest.raises(ValueError, match="another account"):
                await run_audit(dc, **{role: elsewhere})
            assert not server.requests
            with pytest.raises(ValueError, match="belong to user 7"):
                await run_audit(dc, **{role: theirs})
            assert dict(server.requests) == {"list": 1}
            server.requests.clear()
        with pytest.raises(ValueError, match="sandbox"):
            await run_audit(dc, baseline=snapshot, sandbox=True)


async def test_no_rule_to_run_is_refused_before_anything_is_sent() -> None:
    async with demo() as (server, dc):
        with pytest.raises(ValueError, match="no rule would run"):
            await run_audit(dc, only=["D001"])
        with pytest.raises(ValueError, match="no rule would run"):
            await run_audit(dc, [1, 2], only=["A001"])
        assert not server.requests


async def test_a_rule_that_raises_loses_no_lookup() -> None:
    @rule("U001", "broken", "low", meaning="It raises.", fix="Mend it.")
    def broken(context: Context) -> Iterator[Hit]:
        raise LookupError(context)

    lines: list[bytes] = []
    async with demo() as (_, dc):
        report = await run_audit(dc, rules=(*RULES, broken), on_line=lines.append)
    assert report.complete
    assert [f.evidence["rule"] for f in report.findings if f.rule == "X004"] == ["U001"]
    assert read_jsonl(lines) == report.snapshot


async def test_concurrency_follows_the_service_when_none_is_given() -> None:
    async with demo(groups=300, rate_limit=200) as (_, dc):
        report = await run_audit(dc)
    assert report.complete
