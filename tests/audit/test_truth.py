"""What an audit must never do: look better, worse, newer or more complete than what was read."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from deepcall_async.audit import (
    FORMATS,
    RULES,
    Context,
    Hit,
    Mute,
    Report,
    RunInfo,
    Snapshot,
    audit,
    diff,
    exit_code,
    read_jsonl,
    render,
    rule,
)
from deepcall_async.models import Agent, AgentRelation, Group, GroupAgentRelation
from tests.support.audit_accounts import (
    NOW,
    ROSTER,
    USER,
    account,
    agents,
    everyone,
    refused,
    relation,
)

DARK, FINE = relation(1, "NNNN"), relation(3, "YYYY")


def whole(*relations: GroupAgentRelation, **more: Any) -> Snapshot:
    return account(*everyone(*relations), **more)


def found(report: Report, rule_id: str) -> list[int | None]:
    return [finding.group_id for finding in report.findings if finding.rule == rule_id]


# --- the verdict


@pytest.mark.parametrize(
    ("snapshot", "says"),
    [
        (whole(DARK, FINE), "Callers to 1 group reach nobody. "),
        (whole(DARK, relation(2, "")), "Callers to 2 groups reach nobody. "),
        (whole(FINE), "Every active group has someone who receives calls. "),
        (whole(relation(1, status=0)), "No group is active. "),
        (
            account(relation(1, "YY", roster=agents(70))),
            "Callers to 1 group reach nobody. ",
        ),
        (
            whole(DARK, FINE, whole=False),
            "Callers to 1 of the 2 groups chosen reach nobody. ",
        ),
        (
            whole(FINE, relation(2), whole=False),
            "Every active group of the 2 groups chosen has someone who receives calls. ",
        ),
        (whole(relation(1, status=0), whole=False), "No group of those chosen is active. "),
        (whole(DARK, whole=False), "Callers to the one group chosen reach nobody. "),
        (whole(FINE, whole=False), "The one group chosen has someone who receives calls. "),
        (
            account(*everyone(DARK, FINE), failed={8: refused()}),
            "Incomplete: 1 of 3 groups could not be read. Callers to 1 of the 2 groups read reach nobody. ",
        ),
        (
            account(failed={8: refused(), 9: refused()}),
            "Incomplete: 2 of 2 groups could not be read. 2 findings",
        ),
        (account(), "The account has no groups. No findings."),
    ],
)
def test_the_verdict_claims_what_was_read(snapshot: Snapshot, says: str) -> None:
    assert audit(snapshot, now=NOW).verdict.startswith(says)


def test_no_choice_makes_dark_groups_fewer() -> None:
    dark = [relation(i, "NN" if i % 2 else "") for i in range(1, 9)]
    mutes = [Mute(rule="G002", group=i, reason="shut") for i in (1, 3, 5)]
    every = {
        "mutes": audit(whole(*dark), mutes=mutes, now=NOW),
        "rules": audit(whole(*dark), only=["N001"], now=NOW),
        "new": audit(whole(*dark), baseline=whole(*dark), new_only=True, now=NOW),
        "ignored": audit(whole(*dark), ignore=["G001", "G002"], now=NOW),
    }
    assert every.pop("mutes").verdict.startswith(
        "Callers to 8 groups reach nobody, 3 of them muted. "
    )
    for choice, report in every.items():
        assert report.verdict.startswith("Callers to 8 groups reach nobody. "), choice


def test_an_old_record_carries_its_date() -> None:
    fresh = audit(whole(FINE), now=NOW + timedelta(hours=23))
    assert "read on" not in fresh.verdict
    old = audit(whole(FINE), now=NOW + timedelta(days=180))
    assert "The account was read on 2026-06-01." in old.verdict
    resumed = replace(whole(FINE), run=RunInfo(started=NOW, resumed_from=NOW - timedelta(days=180)))
    assert "Some groups were read on 2025-12-03" in audit(resumed, now=NOW).verdict


# --- exit codes


def test_nothing_read_at_all_is_never_a_pass() -> None:
    for snapshot in (account(failed={1: refused()}), replace(account(), cut_short=True)):
        report = audit(snapshot, now=NOW)
        assert exit_code(report, fail_on="never", allow_partial=True) == 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"only": ["D001"]},
        {"rules": ()},
        {"ignore": [each.id for each in RULES]},
        {"only": ["A001"], "snapshot": account(FINE, whole=False)},
    ],
)
def test_no_rule_to_run_is_an_error(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no rule would run"):
        audit(arguments.pop("snapshot", account(FINE)), **arguments)


# --- formats


@pytest.fixture
def unread() -> Report:
    """39 of 40 lookups failed, and X001 was not among the rules chosen."""
    failed = {i: refused() for i in range(2, 41)}
    return audit(account(relation(1), failed=failed), only=["G002", "N001"], now=NOW)


def test_no_format_looks_clean_when_lookups_failed(unread: Report) -> None:
    for name in FORMATS:
        assert b"ncomplete" in render(unread, name) or b'"complete":false' in render(unread, name)


def test_junit_has_an_error_when_the_run_is_incomplete(unread: Report) -> None:
    root = ElementTree.fromstring(render(unread, "junit"))
    (case,) = root.findall(".//testcase[@name='the run is complete']")
    assert case.find("error") is not None
    assert int(root.attrib["errors"]) == 1
    complete = ElementTree.fromstring(render(audit(account(FINE), now=NOW), "junit"))
    (case,) = complete.findall(".//testcase[@name='the run is complete']")
    assert [each.tag for each in case] == ["system-out"]


def test_csv_has_a_row_when_the_run_is_incomplete(unread: Report) -> None:
    rows = list(csv.DictReader(StringIO(render(unread, "csv").decode(), newline="")))
    assert [row["rule"] for row in rows] == ["X001"]
    assert rows[0]["finding"].startswith("Incomplete: 39 of 40 groups could not be read")
    chosen = audit(account(relation(1), failed={2: refused()}), only=["X001"], now=NOW)
    rows = list(csv.DictReader(StringIO(render(chosen, "csv").decode(), newline="")))
    assert [row["group_id"] for row in rows] == ["2"]


# --- the baseline


def test_what_an_incomplete_baseline_had_not_read_is_not_called_new() -> None:
    now = whole(*(relation(i, "NN") for i in range(1, 41)))
    read = {i: each for i, each in now.relations.items() if i <= 27}
    failed = {i: refused() for i in range(28, 41)}
    before = Snapshot.of(now.groups, read, failed, run=now.run)
    report = audit(now, baseline=before, new_only=True, only=["G002", "A002"], now=NOW)
    assert report.findings == ()
    assert exit_code(report) == 0
    assert report.verdict.startswith("Callers to 40 groups reach nobody. No new findings")
    every = audit(now, baseline=before, only=["G002"], now=NOW)
    assert {f.new for f in every.findings if (f.group_id or 0) <= 27} == {False}
    assert {f.new for f in every.findings if (f.group_id or 0) > 27} == {None}


def test_a_group_that_appeared_since_a_whole_baseline_is_new() -> None:
    report = audit(whole(DARK, FINE), baseline=whole(FINE), only=["G002"], now=NOW)
    assert [f.new for f in report.findings] == [True]
    chosen = audit(whole(DARK, FINE), baseline=whole(FINE, whole=False), only=["G002"], now=NOW)
    assert [f.new for f in chosen.findings] == [None]


def test_a_cluster_is_new_only_where_all_of_it_was_read() -> None:
    same = [relation(i, name="Sales") for i in (1, 2, 3)]
    part = whole(*same[:2], whole=False)
    report = audit(whole(*same), baseline=part, only=["N001"], now=NOW)
    assert [f.new for f in report.findings] == [None]


OTHER = "https://other.example"


@pytest.mark.parametrize(
    ("earlier", "now", "says"),
    [
        ({"base_url": "https://one.example"}, {"base_url": OTHER}, "it was of https://one.example"),
        ({"base_url": OTHER, "sandbox": True}, {"base_url": OTHER}, "sandbox"),
    ],
)
def test_a_baseline_of_another_service_is_refused(
    earlier: dict[str, Any], now: dict[str, Any], says: str
) -> None:
    before, after = (
        replace(account(FINE), run=RunInfo(started=NOW, **run)) for run in (earlier, now)
    )
    with pytest.raises(ValueError, match=f"baseline is of another account.*{says}"):
        audit(after, baseline=before)
    with pytest.raises(ValueError, match="another account"):
        diff(before, after)


def test_the_sandbox_has_another_address_each_time() -> None:
    runs = [RunInfo(started=NOW, base_url=f"http://127.0.0.1:{i}", sandbox=True) for i in (1, 2)]
    before, after = (replace(account(FINE), run=run) for run in runs)
    assert audit(after, baseline=before).findings is not None


def test_a_baseline_of_another_user_is_refused() -> None:
    theirs = relation(1, user_id="999")
    rows = tuple(replace(row, user_id="999") for row in theirs.relations)
    before = account(replace(theirs, relations=rows))
    with pytest.raises(ValueError, match="belong to user 999, not to 29791451"):
        audit(account(FINE), baseline=before)
    # An account may have several users; two runs of chosen groups need not have any in common.
    part = replace(before, run=replace(before.run, whole_account=False))
    assert audit(account(FINE, whole=False), baseline=part) is not None


# --- drift


def test_a_retired_group_did_not_go_dark() -> None:
    before = whole(relation(1, "YYYY"), FINE)
    retired = audit(whole(relation(1, "", status=0), FINE), baseline=before, now=NOW)
    assert found(retired, "D001") == []
    (off,) = [f for f in retired.findings if f.rule == "D007"]
    assert off.severity == "high"
    assert exit_code(retired) == 1


def test_switching_off_a_group_that_nobody_answered_is_no_alarm() -> None:
    before, after = whole(relation(1, "NN"), FINE), whole(relation(1, "NN", status=0), FINE)
    report = audit(after, baseline=before, now=NOW)
    assert [f.severity for f in report.findings if f.rule == "D007"] == ["info"]


def test_swapped_members_are_told_by_name() -> None:
    before = whole(relation(1, {1: "Y", 2: "Y", 3: "Y"}))
    after = whole(relation(1, {4: "Y", 5: "Y", 6: "N"}))
    report = diff(before, after)
    (change,) = [f for f in report.findings if f.rule == "D005"]
    assert "Agent 4 (agent 4)" in change.message
    assert change.evidence["joined"] == [4, 5, 6]
    assert change.evidence["left"] == [1, 2, 3]


def test_a_muted_member_is_told_by_name() -> None:
    report = diff(whole(relation(1, "YYYYY")), whole(relation(1, "YYYYN")))
    (change,) = [f for f in report.findings if f.rule == "D005"]
    assert change.message == "Group B (1): Agent 5 (agent 5) no longer receives calls."


# --- what is one cause is one finding


def test_a_dark_group_is_named_once_in_what_to_do() -> None:
    report = audit(whole(DARK, FINE), baseline=whole(relation(1, "YYYY"), FINE), now=NOW)
    assert found(report, "G002") == found(report, "D001") == [1]
    rules = [action.rule.id for action in report.actions(20)]
    assert rules[0] == "G002"
    assert "D001" not in rules
    only = audit(
        whole(DARK, FINE), baseline=whole(relation(1, "YYYY"), FINE), only=["D001"], now=NOW
    )
    assert [action.rule.id for action in only.actions()] == ["D001"]


def test_rows_of_another_group_are_one_rules_business() -> None:
    stray = AgentRelation(group_id=9, agent_id=70, receive_call="?", user_id="5")
    report = audit(account(relation(1, "YYY", rows=(stray,))), now=NOW)
    assert [f.rule for f in report.findings if f.group_id == 1] == ["R002"]


def test_lower_case_flags_ring_and_are_one_finding() -> None:
    report = audit(whole(*(relation(i, "yyyy") for i in range(1, 6))), now=NOW)
    assert [f.rule for f in report.findings] == ["R006"]
    assert report.findings[0].message.startswith("The service writes y for Y throughout")
    assert exit_code(report) == 0


def test_a_shuffled_roster_is_the_same_roster() -> None:
    shuffled = [relation(i, roster=(*ROSTER[i:], *ROSTER[:i])) for i in range(1, 61)]
    snapshot = account(*shuffled)
    report = audit(snapshot, now=NOW)
    assert found(report, "X002") == []
    assert len(snapshot.rosters) == 1
    assert render(report, "jsonl").count(b'"type":"roster"') == 1


def test_groups_without_labels_do_not_drift() -> None:
    report = audit(account(*(relation(i, labels=[]) for i in range(1, 9))), now=NOW)
    assert found(report, "R004") == []


def test_a_flood_is_one_sentence_with_every_id() -> None:
    roster = agents(*range(1, 301))
    report = audit(account(relation(1, "YYY", roster=roster)), now=NOW)
    (flood,) = [f for f in report.findings if f.rule == "A001"]
    assert flood.message.startswith(
        "297 of 300 agents are in no group, such as Agent 4 (agent 4), "
    )
    assert flood.count == 297
    assert flood.evidence["agent_ids"] == list(range(4, 301))
    assert [action.count for action in report.actions() if action.rule.id == "A001"] == [297]
    ten = audit(account(relation(1, "YYY", roster=agents(*range(1, 14)))), now=NOW)
    assert len([f for f in ten.findings if f.rule == "A001"]) == 10


def test_high_findings_never_fold() -> None:
    report = audit(whole(*(relation(i, "Y") for i in range(1, 41))), now=NOW)
    assert len(found(report, "G003")) == 40


def test_folding_hides_neither_mutes_nor_news() -> None:
    roster = agents(*range(1, 31))
    old = account(relation(1, "YYY", roster=roster[:20]))
    new = account(relation(1, "YYY", roster=roster))
    mute = Mute(rule="A001", agent=9, reason="on leave")
    report = audit(new, baseline=old, mutes=[mute], now=NOW)
    counts = {f.new: f.count for f in report.findings if f.rule == "A001" and f.count > 1}
    assert counts == {False: 16}
    assert [f.agent_id for f in report.findings if f.rule == "A001" and f.new] == [*range(21, 31)]
    assert [m.finding.agent_id for m in report.muted] == [9]


def test_what_folds_in_a_users_rule_is_said_by_its_name() -> None:
    @rule("U001", "odd", "low", meaning="It is odd.", fix="Even it out.")
    def odd(context: Context) -> Iterator[Hit]:
        for view in context.groups.values():
            yield Hit(message=f"{view.label} is odd.", group_id=view.id)

    report = audit(whole(*(relation(i) for i in range(1, 31))), rules=(*RULES, odd), now=NOW)
    (flood,) = [f for f in report.findings if f.rule == "U001"]
    assert flood.message.startswith("30 findings of U001 (odd), such as Group B (1), ")


@pytest.mark.parametrize(
    "names",
    [
        ("Route 6", "Route 66"),
        ("Zone 4", "Zone 42", "Zone 45"),
        ("Team", "Team1", "Team2"),
    ],
)
def test_a_number_series_is_no_twin(names: tuple[str, ...]) -> None:
    made = [relation(i, name=name, create_date=1_700_000_000) for i, name in enumerate(names, 1)]
    assert found(audit(account(*made), now=NOW), "N002") == []


# --- rules of the user's


@rule("U001", "broken", "high", meaning="It raises.", fix="Mend it.")
def broken(context: Context) -> Iterator[Hit]:
    yield Hit(message="before it breaks")
    raise ZeroDivisionError(context)


@rule("U002", "not-json", "high", meaning="It yields what no format holds.", fix="Mend it.")
def not_json(context: Context) -> Iterator[Hit]:
    yield Hit(message="odd", evidence={"what": object()})


@rule("U003", "not-a-hit", "high", meaning="It yields something else.", fix="Mend it.")
def not_a_hit(_: Context) -> Iterator[Any]:
    yield "found"


@rule("U004", "nothing", "high", meaning="It gives nothing.", fix="Mend it.")
def nothing(_: Context) -> Any:
    return None


def test_a_rule_that_raises_is_a_finding_and_the_rest_stands() -> None:
    mine = (broken, not_json, not_a_hit, nothing)
    report = audit(whole(DARK, FINE), rules=(*RULES, *mine), now=NOW)
    assert found(report, "G002") == [1]
    failed = {f.evidence["rule"]: f.evidence["error"] for f in report.findings if f.rule == "X004"}
    assert failed["U001"] == "ZeroDivisionError"
    assert set(failed) == {"U001", "U002", "U003", "U004"}
    assert "before it breaks" in {f.message for f in report.findings}
    for name in FORMATS:
        assert render(report, name)


def test_a_rule_that_raises_is_told_whatever_rules_were_chosen() -> None:
    report = audit(whole(FINE), rules=(*RULES, broken), only=["U001"], now=NOW)
    assert [f.rule for f in report.findings] == ["U001", "X004"]
    assert report.rule("X004").name == "rule-failed"
    quiet = audit(
        whole(FINE), rules=(*RULES, broken), only=["U001"], ignore=["rule-failed"], now=NOW
    )
    assert [f.rule for f in quiet.findings] == ["U001"]


def test_a_mute_of_a_rule_that_did_not_run_is_not_stale() -> None:
    mutes = [Mute(rule="A004", agent=5, reason="known"), Mute(rule="N004", group=1, reason="known")]
    part = audit(account(relation(1), whole=False), mutes=mutes, now=NOW)
    assert found(part, "X003") == []
    every = audit(account(relation(1)), mutes=mutes, now=NOW)
    assert len(found(every, "X003")) == 2


def test_a_record_keeps_what_a_finding_stands_for() -> None:
    report = audit(account(relation(1, "YYY", roster=agents(*range(1, 301)))), now=NOW)
    record = render(report, "jsonl")
    assert b'"count":297' in record
    assert audit(read_jsonl(record), now=NOW).findings == report.findings


def test_the_users_of_a_snapshot() -> None:
    group = Group(unique_id=7, name="Seven", user_id="7")
    assert account(FINE, listed=[group]).user_ids == {USER, "7"}
    assert Snapshot.of(
        (), {1: GroupAgentRelation(Group(unique_id=1, name=""), (), ())}
    ).user_ids == (frozenset())
    assert Agent(unique_id=1, name="") is not None
