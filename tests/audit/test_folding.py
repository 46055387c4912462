"""Findings that fold are counted as they come, so that an account's size costs no memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from deepcall_async.audit import Context, Finding, Hit, Mute, Severity, audit, rule
from tests.support.audit_accounts import NOW, account, relation

HITS = 1_000


def living() -> int:
    return sum(type(each) is Finding for each in gc.get_objects())


@pytest.mark.parametrize(("severity", "new_only"), [("medium", False), ("info", True)])
def test_hits_beyond_those_shown_never_become_findings(severity: Severity, new_only: bool) -> None:
    alive: list[int] = []

    @rule("U001", "flood", severity, meaning="A flood.", fix="A dam.", many="groups are wet")
    def flood(_: Context) -> Iterator[Hit]:
        for group_id in range(1, HITS + 1):
            yield Hit(message=f"{group_id} is wet.", group_id=group_id)
        alive.append(living())

    before = living()
    snapshot = account(relation(1))
    baseline = account(relation(2)) if new_only else None
    report = audit(snapshot, baseline=baseline, rules=[flood], new_only=new_only, now=NOW)
    assert alive[-1] - before <= 10
    found = report.findings
    if new_only:  # the baseline had them all
        assert found == ()
    else:
        assert [(each.count, each.message) for each in found] == [
            (HITS, "1,000 groups are wet, such as Group B (1), group 2, group 3 and 997 more.")
        ]
        assert found[0].evidence["group_ids"] == [*range(1, HITS + 1)]


def test_what_is_muted_is_not_counted_and_severities_fold_apart() -> None:
    @rule("U001", "flood", "low", meaning="A flood.", fix="A dam.")
    def flood(_: Context) -> Iterator[Hit]:
        for number in range(1, 31):
            severity: Severity = ("low", "medium", "high")[number % 3]
            yield Hit(message=f"{number}.", group_id=number, agent_id=90, severity=severity)

    mute = Mute(rule="U001", group=3, reason="known")
    report = audit(account(relation(1)), rules=[flood], mutes=[mute], now=NOW)
    assert [each.finding.group_id for each in report.muted] == [3]
    counts = [(each.severity, each.count, each.group_id) for each in report.findings]
    # Ten of one severity are shown one by one, as nine of another.
    assert counts == [
        *[("high", 1, number) for number in range(2, 31, 3)],
        *[("medium", 1, number) for number in range(1, 31, 3)],
        *[("low", 1, number) for number in range(6, 31, 3)],
    ]
