"""Every rule: a case in which it fires, and a near miss in which it does not."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from deepcall_async.audit import (
    RULES,
    Context,
    Hit,
    Mute,
    Report,
    Snapshot,
    SnapshotBuilder,
    Thresholds,
    audit,
    rule,
)
from deepcall_async.models import Agent, AgentRelation, Group, GroupAgentRelation
from tests.support.audit_accounts import (
    DAY,
    NOW,
    RECENT,
    ROSTER,
    SECONDS,
    USER,
    account,
    agents,
    everyone,
    refused,
    relation,
)


def _gone(*group_ids: int) -> Snapshot:
    builder = SnapshotBuilder()
    builder.add_groups(Group(unique_id=i, name=f"Group {i}") for i in group_ids)
    for group_id in group_ids:
        builder.add_gone(group_id)
    return builder.snapshot()


def _since(old: Snapshot, new: Snapshot) -> dict[str, object]:
    return {"snapshot": new, "baseline": old}


def _row(
    group_id: int, agent_id: int, flag: str = "Y", user_id: str | None = USER
) -> AgentRelation:
    return AgentRelation(group_id=group_id, agent_id=agent_id, receive_call=flag, user_id=user_id)


def _named(*names: str) -> tuple[Agent, ...]:
    return tuple(Agent(unique_id=i, name=name, user_id=USER) for i, name in enumerate(names, 1))


def _twins(first: str, second: str, apart: int, **more: str) -> Snapshot:
    return account(
        relation(1, name=first, create_date=RECENT),
        relation(2, name=second, create_date=RECENT + apart),
        *(relation(3, name=name, create_date=RECENT) for name in more.values()),
    )


def _hub(groups: int, flag: str = "Y") -> Snapshot:
    """One agent in that many groups, none of which hangs on them."""
    return account(
        *(relation(i, {80: flag, i: "Y", i + 20: "Y", i + 40: "Y"}) for i in range(1, groups + 1))
    )


def _labelled(found: GroupAgentRelation, *labels: str) -> GroupAgentRelation:
    return replace(found, group=replace(found.group, agents=labels))


@rule("U001", "broken", "low", meaning="It raises.", fix="Mend it.")
def _broken(context: Context) -> Iterator[Hit]:
    raise LookupError(context)


@rule("U001", "sound", "low", meaning="It does not raise.", fix="Nothing.")
def _sound(context: Context) -> Iterator[Hit]:
    yield Hit(message="sound")


MUTED = relation(1, "NNNN")


def _mute(**about: Any) -> Mute:
    return Mute(rule="G002", reason="closed for the season", **about)


# rule, fires, near miss; each a snapshot or the arguments of `audit`.
CASES: dict[str, list[tuple[Any, Any]]] = {
    "G001": [
        (relation(1, ""), relation(1, "", status=0)),
        (relation(1, "", status=None), relation(1, "Y", status=None)),
    ],
    "G002": [
        (MUTED, relation(1, "NNNY")),
        (relation(1, "N", rows=(_row(2, 9),)), relation(1, "NN", status=0)),
        (relation(1, "x"), relation(1, "y")),
        # The roster lists none of those who should receive calls.
        (
            relation(1, {1: "Y", 2: "N"}, roster=agents(2)),
            relation(1, {1: " y "}, roster=agents(1)),
        ),
    ],
    "G003": [
        (relation(1, "YNN"), relation(1, "YYN")),
        (relation(1, {5: "Y"}.items()), relation(1, "Y", status=0)),
        (relation(1, [(5, "Y"), (5, "Y")]), relation(1, [(5, "Y"), (6, "Y")])),
    ],
    "G004": [
        (relation(1, "YY"), relation(1, "YYY")),
        (relation(1, "YYN"), relation(1, "YNN")),
    ],
    "G005": [
        (relation(1, "YNNN"), relation(1, "YNN")),
        (relation(1, "YYYNNNN"), relation(1, "YYYNNN")),
        (relation(1, "YNNNN"), relation(1, "NNNNN")),
    ],
    "G006": [
        (relation(1, "Y", status=0), relation(1, "", status=0)),
        (relation(1, "N", status=2), relation(1, "N", status=1)),
    ],
    "G007": [
        (
            relation(1, dict.fromkeys(range(1, 52), "Y")),
            relation(1, [(i % 50 + 1, "Y") for i in range(51)]),
        ),
    ],
    "G008": [
        (
            relation(1, "", create_date=SECONDS - 91 * DAY),
            relation(1, "", create_date=SECONDS - 89 * DAY),
        ),
        (
            relation(1, "", status=0, create_date=(SECONDS - 91 * DAY) * 1000),
            relation(1, "", create_date=0),
        ),
        (
            relation(1, "", create_date=SECONDS - 400 * DAY),
            relation(1, "Y", create_date=SECONDS - 400 * DAY),
        ),
    ],
    "G009": [
        (relation(1, create_date=0), relation(1, create_date=1)),
        (relation(1, create_date=SECONDS + 1), relation(1, create_date=SECONDS)),
        (relation(1, create_date=SECONDS * 1000), relation(1, create_date=SECONDS - 1)),
        (relation(1, create_date=-1), relation(1, create_date=RECENT)),
    ],
    "N001": [
        (
            account(relation(1, name="Sales"), relation(2, name=" SALES ")),
            account(relation(1, name="Sales"), relation(2, name="Sales EU")),
        ),
        (
            account(relation(1, name="Straße"), relation(2, name="STRASSE")),
            account(relation(1, name=""), relation(2, name=" ")),
        ),
        (
            account(relation(1, name="Sales  EU"), relation(2, name="Sales\u200b\u00a0EU")),
            account(relation(1, name="Sales EU"), relation(2, name="SalesEU")),
        ),
    ],
    "N002": [
        (_twins("Sales", "Sales1", 600), _twins("Sales", "Sales1", 601)),
        (_twins("Sales", "Sales12", -600), _twins("Sales", "SalesX", 0)),
        (_twins("Sales", "sales1", 0), _twins("Line 1", "Line 11", 5)),
        (_twins("Sales\u200b EU", "sales  eu1", 9), _twins("Sales", "Sales2", 9, between="Sales1")),
        (_twins("Desk", "Desk7", 0), _twins("", "7", 0)),
        (_twins("Desk", "Desk1", 0), _twins("Desk", "Desk01", 0)),
        (_twins("Desk", "Desk1", 0), _twins("Desk", "Desk" + "1" * 5000, 0)),
        (_twins("Route", "Route6", 0), _twins("Route 6", "Route 66", 0)),
        (_twins("Zone", "Zone4", 0), _twins("Zone 4", "Zone 42", 0, third="Zone 45")),
    ],
    "N003": [
        (relation(1, name="  "), relation(1, name="Sales EU")),
        (relation(1, name=" Sales"), relation(1, name="Sales-1")),
        (relation(1, name="Sa\tles"), relation(1, name="बिक्री\u200d दल")),
        (relation(1, name="Sa\u202eles"), relation(1, name="Ventes à l'étranger")),
        (relation(1, name="Sa\u2028les"), relation(1, name="Sales\u3000\U0001fae9 \ue000")),
    ],
    "N004": [
        (
            account(relation(1, {1: "Y", 2: "Y"}), relation(2, {2: "Y", 1: "Y", 3: "N"})),
            account(relation(1, {1: "Y", 2: "Y"}), relation(2, {1: "Y", 2: "Y", 3: "Y"})),
        ),
        (
            account(*(relation(i, {1: "Y", 2: "Y"}) for i in (1, 2, 3))),
            account(relation(1, {1: "Y"}), relation(2, {1: "Y"})),
        ),
        (
            account(relation(1, {1: "Y", 2: "Y"}), relation(2, {1: "Y", 2: "Y"})),
            account(relation(1, {1: "Y", 2: "Y"}), relation(2, {1: "Y", 2: "Y"}, status=0)),
        ),
        (
            account(relation(1, {1: "Y", 2: "Y"}), relation(2, {1: "Y", 2: "Y"})),
            account(relation(1, {1: "Y", 2: "Y"}), relation(2, {1: "Y", 2: "Y"}), whole=False),
        ),
    ],
    "A001": [
        (
            account(relation(1, {1: "Y"}, roster=agents(1, 2))),
            account(relation(1, {1: "Y"}, roster=agents(1))),
        ),
        (
            account(relation(1, {1: "Y"}, roster=agents(1, 2), rows=(_row(9, 2),))),
            account(relation(1, {1: "Y"}, roster=agents(1, 2)), whole=False),
        ),
        (
            account(relation(1, {1: "Y"}, roster=agents(1, 2))),
            account(relation(1, {1: "Y"}, roster=agents(1, 2)), failed={7: refused()}),
        ),
    ],
    "A002": [
        (
            account(relation(1, {1: "N", 2: "Y"}), relation(2, {1: "N"})),
            account(relation(1, {1: "N", 2: "Y"}), relation(2, {1: "Y"})),
        ),
        (relation(1, "YYN"), relation(1, "YYy")),
        (relation(1, "YYN"), relation(1, "YY?")),
        # Whom the roster lacks is R001's, whatever the flag.
        (relation(1, "YN"), relation(1, "YN", roster=agents(1))),
        (relation(1, "YN"), relation(1, {1: "Y", 2: "Y"}, roster=agents(1))),
        (account(relation(1, "YYN")), account(relation(1, "YYN"), whole=False)),
        (account(relation(1, "YYN")), account(relation(1, "YYN"), failed={9: refused()})),
    ],
    "A003": [(_hub(11), _hub(10)), (_hub(12), _hub(12, "N"))],
    "A004": [
        (
            account(relation(1, {5: "Y", 6: "N"}), relation(2, {5: "Y"})),
            account(relation(1, {5: "Y", 6: "N"}), relation(2, {5: "Y", 6: "Y"})),
        ),
        (
            account(relation(1, {5: "Y"}), relation(2, {5: "Y"})),
            account(relation(1, {5: "Y"}), relation(2, {5: "Y"}, status=0)),
        ),
        (
            account(relation(1, {5: "Y"}), relation(2, {5: "Y"})),
            account(relation(1, {5: "Y"}), relation(2, {5: "Y"}), whole=False),
        ),
    ],
    "A005": [
        (
            relation(1, "YYY", roster=_named("bhawesh", "Bhawesh ", "Asha")),
            relation(1, "YYY", roster=_named("bhawesh", "bhavesh", "Asha")),
        ),
        (relation(1, roster=_named("A", "B", "A")), relation(1, roster=_named("", " ", "A"))),
    ],
    "R001": [
        (
            relation(1, {1: "Y", 2: "Y", 9: "N"}, roster=agents(1, 2)),
            relation(1, {1: "Y", 2: "Y"}, roster=agents(1, 2, 9)),
        ),
    ],
    "R002": [
        (relation(1, rows=(_row(2, 5),)), relation(1, rows=(_row(1, 5),))),
        (
            Snapshot.of((), {1: relation(2)}),
            Snapshot.of((), {2: relation(2)}),
        ),
    ],
    "R003": [
        (relation(1, [(1, "Y"), (1, "Y"), (2, "Y")]), relation(1, [(1, "Y"), (2, "Y")])),
        (relation(1, [(1, "Y"), (1, "N")]), relation(1, "YY", rows=(_row(2, 1),))),
    ],
    "R004": [
        (relation(1, "YY", labels=[1, 2, 3]), relation(1, "YY", labels=[2, 1])),
        (relation(1, "YY", labels=[1]), relation(1, [(1, "Y"), (1, "Y")], labels=[1])),
        (relation(1, "", labels=[1]), relation(1, "", labels=[])),
        # A group whose reply has no labels, or some that cannot be read, says nothing of its agents.
        (relation(1, "YY", labels=[3]), relation(1, "YY", labels=[])),
        (relation(1, "YY", labels=[3]), _labelled(relation(1, "YY"), "#3 C", "somebody")),
    ],
    "R005": [
        (
            relation(1, "YY", rows=(_row(1, 70, user_id="29791466"),)),
            relation(1, "YY", rows=(_row(1, 70, user_id=None),)),
        ),
        (
            relation(1, {1: "Y"}, roster=(Agent(unique_id=1, name="A", user_id="5"),)),
            relation(1, {1: "Y"}, roster=(Agent(unique_id=1, name="A"),)),
        ),
        (
            relation(1, rows=(_row(1, 70, user_id="29791466"),)),
            relation(1, rows=(_row(2, 70, user_id="29791466"),)),
        ),
    ],
    "R006": [
        (relation(1, "YYy"), relation(1, "YYN")),
        (relation(1, {1: "Y", 2: ""}), relation(1, "Y", rows=(_row(2, 5, flag="?"),))),
        (account(relation(1, "yyn"), relation(2, "y")), relation(1, "NNN")),
    ],
    "D001": [
        (
            _since(account(relation(1, "YNN")), account(relation(1, "NNN"))),
            _since(account(relation(1, "NNN")), account(relation(1, "NNN"))),
        ),
        (
            _since(account(relation(1, "Y")), account(relation(1, ""))),
            _since(account(relation(1, "Y")), account(failed={1: refused()})),
        ),
        (
            _since(account(relation(1, "Y")), account(relation(1, "N", status=None))),
            _since(account(relation(1, "Y")), account(relation(1, "N", status=0))),
        ),
    ],
    "D002": [
        (
            _since(account(relation(1, "YYY")), account(relation(1, "YYN"))),
            _since(account(relation(1, "YYYY")), account(relation(1, "YYYN"))),
        ),
        (
            _since(account(relation(1, "YYYY")), account(relation(1, "YNNN"))),
            _since(account(relation(1, "YNN")), account(relation(1, "YYN"))),
        ),
        (
            _since(account(relation(1, "Y" * 8)), account(relation(1, "YYYYNNNN"))),
            _since(account(relation(1, "Y" * 8)), account(relation(1, "YYYYYNNN"))),
        ),
        (
            _since(account(relation(1, "YYN")), account(relation(1, "YNN"))),
            _since(account(relation(1, "YYYY")), account(relation(1, "YNNN", status=0))),
        ),
        (
            _since(account(relation(1, "YYYY")), account(relation(1, "YY"))),
            _since(account(relation(1, "YYYY")), account(relation(1, "NNNN"))),
        ),
    ],
    "D003": [
        (
            _since(account(relation(1)), account(relation(1), relation(2))),
            _since(account(relation(1), whole=False), account(relation(1), relation(2))),
        ),
        (
            _since(account(relation(1), relation(2)), account(relation(1))),
            _since(account(relation(1), relation(2)), account(relation(1), whole=False)),
        ),
        (
            _since(account(*everyone(relation(1, "YYY"))), account(*everyone(relation(1, "YYYY")))),
            _since(account(relation(1, "YYY")), account(relation(1, "YYYY"))),
        ),
        (
            _since(account(relation(1), relation(2)), account(relation(1))),
            _since(account(relation(1), relation(2)), account(relation(1), failed={2: refused()})),
        ),
        (
            _since(account(*everyone(relation(1, "YYYY"))), account(*everyone(relation(1, "YYY")))),
            _since(
                account(*everyone(relation(1, "YYYY")), listed=[Group(unique_id=9, name="Nine")]),
                account(*everyone(relation(1, "YYY")), failed={9: refused()}),
            ),
        ),
    ],
    "D004": [
        (
            _since(account(relation(1, name="Sales")), account(relation(1, name="Sales EU"))),
            _since(account(relation(1, name="Sales")), account(relation(1, name="Sales"))),
        ),
        (
            _since(account(relation(1, status=0)), account(relation(1))),
            _since(account(relation(1)), account(relation(1, status=None))),
        ),
    ],
    "D005": [
        (
            _since(account(relation(1, "YYY")), account(relation(1, {30: "Y", 31: "Y", 32: "Y"}))),
            _since(account(relation(1, "YYN")), account(relation(1, "YYN"))),
        ),
        (
            _since(account(relation(1, "YYN")), account(relation(1, "YYY"))),
            _since(account(relation(1, "YYy")), account(relation(1, "YYY"))),
        ),
    ],
    "D006": [
        (
            _since(
                account(relation(1, roster=_named("A", "B"))),
                account(relation(1, roster=_named("A", "C"))),
            ),
            _since(
                account(relation(1, roster=_named("A", "B"))),
                account(relation(1, roster=_named("A", "B", "C"))),
            ),
        ),
    ],
    "D007": [
        (
            _since(account(relation(1)), account(relation(1, status=0))),
            _since(account(relation(1, status=0)), account(relation(1, status=0))),
        ),
        (
            _since(account(relation(1, "N")), account(relation(1, "N", status=2))),
            _since(account(relation(1)), account(relation(1, status=None))),
        ),
    ],
    "X001": [
        (account(relation(1), failed={2: refused()}), account(relation(1))),
        (account(relation(1), listed=[Group(unique_id=2, name="Two")]), _gone(2)),
        (replace(account(relation(1)), cut_short=True), account()),
    ],
    "X002": [
        (_gone(1), account(relation(1))),
        (
            account(relation(1, roster=ROSTER[:70]), relation(2, roster=ROSTER[:60])),
            account(relation(1, roster=ROSTER), relation(2, roster=agents(*range(1, 81)))),
        ),
        (
            account(relation(1, roster=ROSTER[:70]), relation(2, roster=ROSTER[:60])),
            account(
                relation(1, roster=ROSTER[:70]), relation(2, roster=ROSTER[:60], user_id="other")
            ),
        ),
        (
            account(relation(1, roster=ROSTER[:70]), relation(2, roster=ROSTER[:60])),
            account(relation(1, roster=ROSTER), relation(2, roster=ROSTER[::-1])),
        ),
        (
            account(relation(1, roster=ROSTER[:70]), relation(2, roster=ROSTER[:60])),
            # Replies that list the group's own agents only.
            account(relation(1, "YY", roster=agents(1, 2)), relation(2, "Y", roster=agents(9))),
        ),
    ],
    "X003": [
        (
            {"snapshot": account(MUTED), "mutes": [_mute(group=2)]},
            {"snapshot": account(MUTED), "mutes": [_mute(group=1)]},
        ),
        (
            {
                "snapshot": account(MUTED),
                "mutes": [_mute(group=1, expires=(NOW - timedelta(days=1)).date())],
            },
            {"snapshot": account(MUTED), "mutes": [_mute(group=1, expires=NOW.date())]},
        ),
        (
            {
                "snapshot": account(MUTED),
                "mutes": [Mute(rule="G999", reason="a slip", group=1)],
            },
            {
                "snapshot": account(MUTED),
                "mutes": [Mute(rule="nobody-receives", reason="by its name", group=1)],
            },
        ),
        (
            {"snapshot": account(MUTED), "mutes": [_mute(group=2)]},
            # Group 2 was not read, so nobody knows.
            {"snapshot": account(MUTED, failed={2: refused()}), "mutes": [_mute(group=2)]},
        ),
        (
            {"snapshot": account(MUTED), "mutes": [_mute(agent=5)]},
            {"snapshot": account(MUTED, whole=False), "mutes": [_mute(agent=5)]},
        ),
        (
            {"snapshot": account(MUTED), "mutes": [Mute(rule="G001", reason="no", group=1)]},
            {
                "snapshot": account(MUTED),
                "mutes": [Mute(rule="G001", reason="no", group=1)],
                "ignore": ["G001"],
            },
        ),
        (
            {"snapshot": account(MUTED), "mutes": [Mute(rule="G001", reason="no", group=1)]},
            {"snapshot": account(MUTED), "mutes": [Mute(rule="D001", reason="no", group=1)]},
        ),
    ],
    "X004": [
        (
            {"snapshot": account(MUTED), "rules": (*RULES, _broken)},
            {"snapshot": account(MUTED), "rules": (*RULES, _sound)},
        ),
    ],
}


def _report(case: Any) -> Report:
    if isinstance(case, GroupAgentRelation):
        case = account(case)
    arguments = dict(case) if isinstance(case, dict) else {"snapshot": case}
    return audit(arguments.pop("snapshot"), now=NOW, **arguments)


def _ids(report: Report) -> list[str]:
    return [finding.rule for finding in report.findings]


def test_the_table_of_cases_is_the_table_of_rules() -> None:
    assert list(CASES) == [rule.id for rule in RULES]


@pytest.mark.parametrize(
    ("rule_id", "case"),
    [(rule_id, pair[0]) for rule_id, pairs in CASES.items() for pair in pairs],
)
def test_it_fires(rule_id: str, case: Any) -> None:
    assert rule_id in _ids(_report(case))


@pytest.mark.parametrize(
    ("rule_id", "case"),
    [(rule_id, pair[1]) for rule_id, pairs in CASES.items() for pair in pairs],
)
def test_a_near_miss_does_not_fire(rule_id: str, case: Any) -> None:
    assert rule_id not in _ids(_report(case))


def test_a_healthy_account_has_no_findings() -> None:
    relations = [relation(i, "YYYY") for i in range(1, 9)]
    for count in (1, 8):
        report = _report(account(*everyone(*relations[:count])))
        assert _ids(report) == []
    assert report.complete
    assert report.verdict == "Every active group has someone who receives calls. No findings."


def test_every_rule_has_its_words() -> None:
    for found in RULES:
        assert found.meaning.endswith(".")
        assert found.fix.endswith(".")
        assert found.name == found.name.lower()
    assert len({found.name for found in RULES}) == len(RULES)


def test_a_finding_says_who_and_what() -> None:
    report = _report(relation(28, {3: "N", 8: "N"}, name="Mahipal singh"))
    (found,) = [finding for finding in report.findings if finding.rule == "G002"]
    assert found.message == "Mahipal singh (28) has 2 agents, and no one receives calls."
    assert (found.severity, found.group_id, found.agent_id) == ("critical", 28, None)
    assert found.evidence == {"members": 2}


def test_conflicting_duplicates_are_graver() -> None:
    plain = _report(relation(1, [(1, "Y"), (1, "Y"), (2, "Y"), (3, "Y")]))
    torn = _report(relation(1, [(1, "Y"), (1, "N"), (2, "Y"), (3, "Y")]))
    assert {f.severity for f in plain.findings if f.rule == "R003"} == {"medium"}
    assert {f.severity for f in torn.findings if f.rule == "R003"} == {"high"}


def test_a_milliseconds_date_is_said_to_be_one() -> None:
    report = _report(relation(1, create_date=SECONDS * 1000))
    (found,) = [finding for finding in report.findings if finding.rule == "G009"]
    assert found.evidence["odd"] == "in milliseconds"


def test_rules_about_one_group_name_it_and_no_other() -> None:
    report = _report(account(relation(1, "NNN"), relation(2, "YYYY")))
    assert [f.group_id for f in report.findings if f.rule == "G002"] == [1]


def test_a_name_cannot_put_control_characters_into_a_message() -> None:
    hostile = "\x1b]0;pwned\x07\r\nSales\u202e"
    report = _report(relation(1, "NN", name=hostile))
    assert report.findings
    for finding in report.findings:
        assert finding.message.isprintable()
    long = _report(relation(1, "NN", name="x" * 10_000))
    assert all(len(finding.message) < 300 for finding in long.findings)


def test_thresholds_move_the_lines() -> None:
    snapshot = account(relation(1, "YYYYNN"))
    assert "G004" not in _ids(audit(snapshot, now=NOW))
    strict = Thresholds(min_receivers=5, oversized=5, muted_share=0.9)
    assert {"G004", "G005", "G007"} <= set(_ids(audit(snapshot, thresholds=strict, now=NOW)))


def test_without_a_time_nothing_is_old_or_in_the_future() -> None:
    old = account(relation(1, "", create_date=1), relation(2, create_date=SECONDS * 10))
    assert {"G008", "G009"} <= set(_ids(audit(old, now=NOW)))
    timeless = replace(old, run=replace(old.run, started=None))
    assert {"G008", "G009"}.isdisjoint(_ids(audit(timeless)))


def test_the_time_may_be_given_in_seconds() -> None:
    snapshot = account(relation(1, "", create_date=SECONDS - 91 * DAY))
    assert "G008" in _ids(audit(snapshot, now=float(SECONDS)))
    assert "G008" not in _ids(audit(snapshot, now=float(SECONDS - 5 * DAY)))


def test_a_users_own_rule() -> None:
    @rule("U001", "night-shift", "low", meaning="It is a night group.", fix="Sleep.")
    def night(context: Context) -> Iterator[Hit]:
        for view in context.groups.values():
            if "night" in view.group.name:
                yield Hit(message=f"{view.label} works at night.", group_id=view.id)

    report = audit(account(relation(1, name="night desk"), relation(2)), rules=(*RULES, night))
    assert ("U001", "low", 1) in [(f.rule, f.severity, f.group_id) for f in report.findings]
    muted = Mute(rule="night-shift", group=1, reason="known")
    report = audit(account(relation(1, name="night desk")), rules=(*RULES, night), mutes=[muted])
    assert {"U001", "X003"}.isdisjoint(_ids(report))
    assert [m.finding.rule for m in report.muted] == ["U001"]


def test_only_and_ignore_take_ids_and_names() -> None:
    snapshot = account(relation(1, "NNNN", name=" "))
    assert set(_ids(audit(snapshot, only=["G002", "name-hygiene"]))) == {"G002", "N003"}
    assert "G002" not in _ids(audit(snapshot, ignore=["g002"]))
    with pytest.raises(ValueError, match="no such rule: g0ne; there are G001"):
        audit(snapshot, only=["g0ne"])
    for typo, meant in (("G0O2", "G002"), ("g02", "G002"), ("duplicatename", "duplicate-name")):
        with pytest.raises(ValueError, match=f"no such rule: {typo}; did you mean {meant}"):
            audit(snapshot, ignore=[typo])
    with pytest.raises(ValueError, match="two rules have the id G001"):
        audit(snapshot, rules=(*RULES, RULES[0]))


def test_many_groups_of_one_name_are_no_quadratic_work() -> None:
    def seconds(count: int) -> float:
        relations = {
            i: relation(i, "", name="Sales" + "1" * (i % 2), create_date=RECENT)
            for i in range(1, count + 1)
        }
        snapshot = Snapshot.of((), relations)
        return min(_timed(lambda: audit(snapshot, now=NOW)) for _ in range(3))

    assert seconds(4_000) < 12 * seconds(1_000)


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def test_rules_are_pure_functions_of_the_context() -> None:
    snapshot = account(relation(1, "NNNN"), relation(2, "Y"), failed={3: refused()})
    first, second = (audit(snapshot, baseline=snapshot, now=NOW) for _ in range(2))
    assert first.findings == second.findings
    for found in RULES:
        assert list(inspect.signature(found.check).parameters) == ["context"]


def test_a_date_in_the_future_is_told_as_a_date() -> None:
    ahead = relation(1, create_date=SECONDS + 40 * DAY)
    (hit,) = [each for each in audit(account(ahead), now=NOW).findings if each.rule == "G009"]
    assert hit.message == "Group B (1) has a create date that is in the future: 2026-07-11."
    assert hit.evidence == {"create_date": SECONDS + 40 * DAY, "odd": "in the future"}
