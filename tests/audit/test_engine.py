"""The report around the findings: verdict, mutes, baseline, exit code, settings."""

from __future__ import annotations

import tomllib
from datetime import date, timedelta
from typing import Literal

import pytest
from msgspec.structs import replace

from deepcall_async.audit import (
    SEVERITIES,
    Mute,
    Settings,
    Severity,
    Snapshot,
    SnapshotBuilder,
    Thresholds,
    audit,
    diff,
    exit_code,
    read_settings,
)
from deepcall_async.errors import ConnectionLost, UnexpectedReply
from deepcall_async.models import Agent, Group, GroupAgentRelation
from tests.support.audit_accounts import NOW, account, everyone, refused, relation

DARK = relation(1, "NNNN")
SOLE = relation(2, "Y")
FINE = relation(3, "YYYY")


def _clean(*relations: GroupAgentRelation) -> Snapshot:
    return account(*everyone(*relations))


def test_findings_come_gravest_first_and_in_a_stable_order() -> None:
    snapshot = account(relation(5, "N"), relation(4, "N"), relation(3, "", name=" "), SOLE)
    report = audit(snapshot, now=NOW)
    ranks = [SEVERITIES.index(finding.severity) for finding in report.findings]
    assert ranks == sorted(ranks)
    assert [f.group_id for f in report.findings if f.rule == "G002"] == [4, 5]
    assert report.worst == "critical"
    assert sum(report.counts.values()) == len(report.findings)
    assert list(report.counts) == list(SEVERITIES)


def test_the_verdict_says_incomplete_first() -> None:
    snapshot = account(FINE, failed={8: refused(), 9: refused()})
    report = audit(snapshot, now=NOW)
    assert not report.complete
    assert report.verdict.startswith("Incomplete: 2 of 3 groups could not be read. ")
    assert "Every active group that was read has someone" in report.verdict
    assert (report.groups, report.read_count, report.failed, report.pending) == (3, 1, 2, 0)


def test_the_verdict_says_what_was_not_looked_up() -> None:
    listed = [Group(unique_id=i, name=f"G{i}") for i in (7, 8)]
    both = audit(account(FINE, listed=listed, failed={9: refused()}), now=NOW)
    assert both.verdict.startswith(
        "Incomplete: 1 of 4 groups could not be read and 2 were not looked up."
    )
    assert both.pending == 2
    rest = audit(account(FINE, listed=listed[:1]), now=NOW)
    assert rest.verdict.startswith("Incomplete: 1 of 2 groups was not looked up.")
    cut = audit(replace(account(), cut_short=True), now=NOW)
    assert cut.verdict.startswith("Incomplete: the groups were not listed.")


def test_the_verdict_claims_no_more_than_was_seen() -> None:
    assert audit(_clean(DARK, FINE), now=NOW).verdict.startswith("Callers to 1 group reach nobody.")
    empty = audit(account(), now=NOW)
    assert empty.verdict == "The account has no groups. No findings."
    unasked = audit(_clean(DARK, FINE), only=["N001"], now=NOW)
    assert unasked.verdict == "Callers to 1 group reach nobody. No findings."
    muted = audit(_clean(DARK, FINE), mutes=[Mute(rule="G002", group=1, reason="shut")], now=NOW)
    assert "Every active group" not in muted.verdict
    assert muted.verdict.endswith("1 finding muted.")


def test_no_failed_lookup_can_look_clean() -> None:
    report = audit(account(FINE, failed={9: refused()}), ignore=["X001"], now=NOW)
    assert "X001" not in {finding.rule for finding in report.findings}
    assert report.verdict.startswith("Incomplete")
    assert exit_code(report, fail_on="never") == 3


@pytest.mark.parametrize(
    ("relations", "fail_on", "expected"),
    [
        ([DARK], "critical", 1),
        ([DARK], "never", 0),
        ([SOLE], "critical", 0),
        ([SOLE], "high", 1),
        ([relation(1, "YY")], "high", 0),
        ([relation(1, "YY")], "medium", 0),
        ([relation(1, "YY")], "low", 1),
        ([FINE], "info", 0),
    ],
)
def test_exit_codes(
    relations: list[GroupAgentRelation],
    fail_on: Severity | Literal["never"],
    expected: int,
) -> None:
    report = audit(_clean(*relations), now=NOW)
    assert exit_code(report, fail_on=fail_on) == expected


def test_an_incomplete_run_passes_only_when_allowed() -> None:
    report = audit(account(*everyone(FINE), failed={9: refused()}), now=NOW)
    assert report.worst == "high"
    assert exit_code(report) == 3
    assert exit_code(report, allow_partial=True) == 0
    worse = audit(account(*everyone(FINE, SOLE), failed={9: refused()}), now=NOW)
    assert exit_code(worse, allow_partial=True) == 1


def test_a_failed_lookup_tells_its_class_and_code() -> None:
    lost = ConnectionLost("the connection ended")
    lost.attempts = 3
    report = audit(account(failed={28: refused(), 29: lost}), now=NOW)
    messages = [f.message for f in report.findings if f.rule == "X001"]
    assert messages == [
        "group 28 could not be read: ApiError (code 1009) after 4 attempts: Something went wrong.",
        "group 29 could not be read: ConnectionLost after 3 attempts: the connection ended.",
    ]
    page = UnexpectedReply("not DeepCall's")
    page.http_status = 404
    report = audit(account(failed={28: page}), now=NOW)
    assert report.findings[0].evidence["http_status"] == 404


def test_a_mute_takes_out_just_what_it_names() -> None:
    snapshot = account(DARK, relation(2, "NN"))
    mutes = [Mute(rule="G002", group=1, reason="closed in summer", expires=date(2026, 9, 1))]
    report = audit(snapshot, mutes=mutes, now=NOW)
    assert [f.group_id for f in report.findings if f.rule == "G002"] == [2]
    assert [(m.finding.group_id, m.reason) for m in report.muted] == [(1, "closed in summer")]
    late = audit(snapshot, mutes=mutes, now=NOW + timedelta(days=365))
    assert [f.group_id for f in late.findings if f.rule == "G002"] == [1, 2]
    assert "expired on 2026-09-01" in next(f.message for f in late.findings if f.rule == "X003")


def test_a_mute_of_a_pair_needs_both() -> None:
    snapshot = account(relation(1, {1: "Y", 99: "Y", 98: "Y"}), relation(2, {2: "Y", 99: "Y"}))

    def unknown(*mutes: Mute) -> list[tuple[int | None, int | None]]:
        found = audit(snapshot, mutes=mutes, now=NOW).findings
        return [(f.group_id, f.agent_id) for f in found if f.rule == "R001"]

    assert unknown() == [(1, 98), (1, 99), (2, 99)]
    assert unknown(Mute(rule="R001", agent=99, reason="left")) == [(1, 98)]
    assert unknown(Mute(rule="R001", group=1, agent=99, reason="left")) == [(1, 98), (2, 99)]
    assert unknown(Mute(rule="R001", group=1, reason="left")) == [(2, 99)]


def test_new_only_shows_what_the_baseline_lacked() -> None:
    old, new = _clean(DARK, FINE), _clean(DARK, FINE, SOLE)
    whole = audit(new, baseline=old, now=NOW)
    by_rule = {(f.rule, f.group_id): f.new for f in whole.findings}
    assert by_rule[("G002", 1)] is False
    assert by_rule[("G003", 2)] is True
    assert by_rule[("D003", 2)] is True
    report = audit(new, baseline=old, new_only=True, now=NOW)
    assert {f.rule for f in report.findings} == {"G003", "D003"}
    assert "since the baseline" in report.verdict
    with pytest.raises(ValueError, match="give one"):
        audit(new, new_only=True)


def test_what_was_seen_before_is_seen_by_content_not_by_count() -> None:
    old, new = _clean(relation(1, "YNNN")), _clean(relation(1, "YNNNN"))
    report = audit(new, baseline=old, new_only=True, now=NOW)
    # The agent who joined is news; that the group is mostly muted is not.
    assert {f.rule for f in report.findings} == {"D003", "D005", "A002"}


def test_a_finding_that_got_graver_is_new() -> None:
    doubled = relation(1, [(1, "Y"), (1, "Y"), (2, "Y"), (3, "Y")])
    torn = relation(1, [(1, "Y"), (1, "N"), (2, "Y"), (3, "Y")])
    report = audit(_clean(torn), baseline=_clean(doubled), now=NOW)
    assert [f.new for f in report.findings if f.rule == "R003"] == [True]


def test_a_third_group_of_one_name_is_new() -> None:
    two = [relation(i, "YYYY", name="Sales") for i in (1, 2)]
    three = [*two, relation(3, "YYYY", name="sales")]
    report = audit(_clean(*three), baseline=_clean(*two), new_only=True, now=NOW)
    assert "N001" in {f.rule for f in report.findings}


def test_failed_lookups_are_always_news() -> None:
    same = account(FINE, failed={9: refused()})
    report = audit(same, baseline=same, new_only=True, now=NOW)
    assert [f.rule for f in report.findings] == ["X001"]


def test_resolved_findings_are_counted_only_on_a_whole_account() -> None:
    assert audit(_clean(FINE), baseline=_clean(FINE, SOLE), now=NOW).resolved == 1
    assert audit(_clean(FINE), now=NOW).resolved is None
    partial = account(*everyone(FINE), failed={9: refused()})
    assert audit(partial, baseline=_clean(FINE, DARK), now=NOW).resolved is None


def test_an_incomplete_baseline_is_mentioned() -> None:
    report = audit(_clean(FINE), baseline=account(*everyone(FINE), failed={9: refused()}), now=NOW)
    assert report.verdict.endswith("The baseline is incomplete.")


def test_diff_runs_the_comparing_rules_only() -> None:
    report = diff(_clean(relation(1, "YYYY"), FINE), _clean(DARK, FINE))
    assert [f.rule for f in report.findings] == ["D001", "D005"]
    assert report.verdict == ("Callers to 1 group reach nobody. 2 findings: 1 critical, 1 info.")
    same = diff(_clean(FINE), _clean(FINE)).verdict
    assert same == "Every active group has someone who receives calls. No findings."


def test_actions_are_the_gravest_first_then_the_most_useful() -> None:
    snapshot = account(DARK, *(relation(i, "Y") for i in (2, 3, 4)), relation(5, ""))
    actions = audit(snapshot, now=NOW).actions()
    assert [(a.rule.id, len(a.findings)) for a in actions][:3] == [
        ("G002", 1),
        ("G003", 3),
        ("G001", 1),
    ]
    assert len(actions) == 5
    assert audit(snapshot, now=NOW).actions(1) == actions[:1]


def test_settings_are_read_from_toml() -> None:
    text = """
        [[mute]]
        rule = "G002"
        group = 28
        reason = "closed in winter"
        expires = 2026-12-31

        [[mute]]
        rule = "never-receives"
        agent = 7
        reason = "a manager"

        [thresholds]
        min_receivers = 2
        muted_share = 0.25
    """
    settings = read_settings(tomllib.loads(text))
    assert settings.mutes == (
        Mute(rule="G002", group=28, reason="closed in winter", expires=date(2026, 12, 31)),
        Mute(rule="never-receives", agent=7, reason="a manager"),
    )
    assert settings.thresholds == Thresholds(min_receivers=2, muted_share=0.25)
    assert read_settings({}) == Settings()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[mute]]\ngroup = 1\nreason = "x"', r"missing required field `rule` \(at mute\[0\]\)"),
        ('[[mute]]\nrule = "G1"\ngroup = 1', "missing required field `reason`"),
        ('[[mute]]\nrule = "G1"\nreason = "x"', "needs a group or an agent"),
        ('[[mute]]\nrule = "G1"\ngroup = 1\nreason = " "', "not blank"),
        ('[[mute]]\nrule = "G1"\ngroup = "1"\nreason = "x"', r"Expected `int.*mute\[0\]\.group"),
        ('[[mute]]\nrule = "G1"\ngroup = 1\nreason = "x"\nexpiry = 1', "`expiry`"),
        ("[[mutes]]\nrule = 1", "unknown field `mutes`"),
        ("[thresholds]\nmin_receiver = 1", "unknown field `min_receiver`"),
        ("[thresholds]\nmin_receivers = 0", "min_receivers must be a number above 0"),
        ("[thresholds]\nmuted_share = 1.5", "at most 1"),
        ("[thresholds]\nstale_days = inf", "above 0"),
    ],
)
def test_wrong_settings_say_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"^audit settings: .*{says}"):
        read_settings(tomllib.loads(text))


def test_a_builder_holds_equal_rosters_once() -> None:
    builder = SnapshotBuilder()
    for group_id in (1, 2, 3):
        roster = tuple(Agent(unique_id=i, name=f"Agent {i}") for i in range(5))
        builder.add_relation(group_id, relation(group_id, "Y", roster=roster))
    assert len(builder.snapshot().rosters) == 1


def test_the_list_fills_in_what_a_relation_leaves_out() -> None:
    listed = Group(unique_id=1, name="Old name", status=0, create_date=77, user_id="5")
    found = GroupAgentRelation(Group(unique_id=1, name="New name", status=1), (), ())
    snapshot = Snapshot.of([listed], {1: found})
    (group,) = snapshot.groups
    assert (group.name, group.status, group.create_date, group.user_id) == ("New name", 1, 77, "5")


def test_a_snapshot_says_what_is_missing() -> None:
    groups = [Group(unique_id=i, name=f"G{i}") for i in (1, 2, 3)]
    snapshot = Snapshot.of(groups, {1: relation(1)}, {2: refused()})
    assert snapshot.pending == (3,)
    assert not snapshot.complete
    assert [group.unique_id for group in snapshot.groups] == [1, 2, 3]
    assert Snapshot.of(groups[:1], {1: relation(1)}).complete


def test_large_accounts_are_shown_in_few_words() -> None:
    """A task shows its result, and before Python 3.13 `asyncio.run` shows its task every time."""
    snapshot = account(*(relation(i, "Y" * 50) for i in range(1, 100)), failed={200: refused()})
    report = audit(snapshot, now=NOW)
    assert repr(snapshot) == "Snapshot(100 groups: 99 read, 1 failed)"
    assert repr(report) == f"Report({report.verdict!r})"
    assert len(repr(report)) < 500
