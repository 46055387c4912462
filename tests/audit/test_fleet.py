"""Accounts, their reports, ranking, merging and formats: pure, without a service."""

from __future__ import annotations

import csv
import io
import json
import pickle
from datetime import timedelta
from pathlib import Path

import pytest

from deepcall_async.audit import FailedLookup, Thresholds, audit
from deepcall_async.audit.accounts import read_accounts
from deepcall_async.audit.fleet import (
    AccountReport,
    FleetReport,
    account_report,
    fleet_exit_code,
)
from deepcall_async.audit.fleet_parts import EndLine, FleetLine, FleetPart, merged, read_part
from deepcall_async.audit.formats.fleet import FLEET_FORMATS, fleet_rows, render_fleet
from deepcall_async.errors import AuthenticationFailed, ConnectFailed
from tests.support.audit_accounts import NOW, account, refused, relation

HERE = Path("/etc/deepcall")


def told(name, **more):
    return AccountReport(
        **({"name": name, "complete": True, "verdict": "Fine.", "read": 5, "groups": 5} | more)
    )


def part(names, *reports, started=NOW, shard=(0, 1), ended=True):
    line = FleetLine(schema=1, started=started, names=tuple(names), shard=shard)
    return FleetPart(line=line, accounts={each.name: each for each in reports}, ended=ended)


def test_an_account_is_read_and_its_paths_are_absolute() -> None:
    acme, other = read_accounts(
        {"account": [
            {"name": "acme", "credentials": "file:secrets/acme.env", "per_second": 5},
            {"name": "Ōsaka & Söhne", "credentials": "env:OTHER", "base_url": "https://o.example/"},
        ]},
        HERE,
    )  # fmt: skip
    assert acme.credentials == "file:/etc/deepcall/secrets/acme.env"
    assert acme.per_second == 5
    assert other.credentials == "env:OTHER"
    assert pickle.loads(pickle.dumps(acme)) == acme


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "no accounts"),
        ({"accounts": []}, "[[account]] tables only"),
        ({"account": {"name": "a", "credentials": "env:A"}}, "give [[account]] tables"),
        ({"account": [{"name": "a"}]}, "credentials"),
        ({"account": [{"name": "a", "credentials": "env:A", "token": "s3cret"}]}, "no such key as `token`"),
        ({"account": [{"name": "a", "credentials": "s3cret"}]}, "account a: credentials must be"),
        ({"account": [{"name": "../a", "credentials": "env:A"}]}, "file's name"),
        ({"account": [{"name": "..", "credentials": "env:A"}]}, "file's name"),
        ({"account": [{"name": "NUL", "credentials": "env:A"}]}, "Windows"),
        ({"account": [{"name": "a\nb", "credentials": "env:A"}]}, "control characters"),
        ({"account": [{"name": "a" * 101, "credentials": "env:A"}]}, "longer than"),
        ({"account": [{"name": n, "credentials": "env:A"} for n in ("Acme", "acme")]}, "two accounts"),
        ({"account": [{"name": "a", "credentials": f"env:{n}"} for n in "AB"]}, "two accounts"),
        ({"account": [{"name": n, "credentials": "env:A"} for n in "ab"]}, "a and b have the same credentials"),
        ({"account": [{"name": "a", "credentials": "env:A", "base_url": "http://a.example"}]}, "use https://"),
        ({"account": [{"name": "a", "credentials": "env:A", "per_second": 0}]}, "per_second"),
        ({"account": [{"name": "a", "credentials": "env:A", "proxy": "http://u:s3cret@p:1"}]}, "password"),
        ({"account": [{"name": "a", "credentials": "env:A", "proxy": "socks5://p:1"}]}, "account a: proxy must be an HTTP proxy"),
    ],
)  # fmt: skip
def test_a_wrong_fleet_is_refused_without_a_secret(table, said) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the message is compared)
        read_accounts(table, HERE)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_report_counts_dark_groups_and_which_of_them_are_new() -> None:
    before = account(relation(1, "YYY"), relation(2, "NN"), relation(3, "YYY"))
    now = account(relation(1, "NNN"), relation(2, "NN"), relation(3, "YYY"), relation(4, "NN"))
    found = account_report("acme", audit(now, baseline=before, now=NOW))
    assert (found.dark_groups, found.new_dark_groups) == (3, 2)  # 1 went dark, 4 is new
    assert account_report("acme", audit(now, now=NOW)).new_dark_groups is None
    assert found.complete
    assert found.findings["critical"] == 4


def test_a_group_that_the_baseline_had_not_read_is_no_news() -> None:
    before = account(relation(1, "YYY"), failed={2: refused()})
    now = account(relation(1, "YYY"), relation(2, "NN"))
    assert account_report("acme", audit(now, baseline=before, now=NOW)).new_dark_groups == 0


def test_unread_comes_first_then_new_dark_groups_then_old_then_findings() -> None:
    reports = [
        told("fine"),
        told("critical", findings={"critical": 1}),
        told("old", dark_groups=9, new_dark_groups=0, findings={"critical": 9}),
        told("new", dark_groups=2, new_dark_groups=1),
        told("partial", complete=False, dark_groups=3),
        AccountReport.unread("dead", ConnectFailed("no answer")),
    ]
    for order in (reports, reports[::-1]):
        ranked = [each.name for each in FleetReport.of(order).accounts]
        assert ranked == ["dead", "partial", "new", "old", "critical", "fine"]


def test_the_verdict_says_what_is_missing_first() -> None:
    fleet = FleetReport.of([
        told("a", dark_groups=2, new_dark_groups=1, findings={"critical": 2}),
        told("b"),
        AccountReport.unread("c", AuthenticationFailed("token expired")),
        AccountReport.unread("d"),
    ])  # fmt: skip
    assert fleet.verdict == (
        "Incomplete: 2 of 4 accounts could not be read whole, 1 because of refused credentials."
        " Callers to 2 groups of 1 account reach nobody, 1 of them since the last time."
        " 2 findings: 2 critical."
    )
    fine = FleetReport.of([told("a"), told("b")])
    assert fine.verdict == "Every active group has someone who receives calls."
    stale = FleetReport.of([told("a", started=NOW), told("b", started=NOW - timedelta(days=2))])
    assert stale.verdict.startswith("1 account was last read on 2026-05-30 or before. Every")
    unread = FleetReport.of([AccountReport.unread("a")])
    assert "Every" not in unread.verdict
    assert repr(fine) == f"FleetReport({fine.verdict!r})"


@pytest.mark.parametrize(
    ("reports", "options", "code"),
    [
        ([told("a")], {}, 0),
        ([told("a", findings={"medium": 1})], {}, 0),
        ([told("a", findings={"high": 1})], {}, 1),
        ([told("a", findings={"high": 1})], {"fail_on": "critical"}, 0),
        ([told("a", findings={"critical": 1})], {"fail_on": "never"}, 0),
        ([told("a", findings={"high": 1}), AccountReport.unread("b")], {}, 3),
        ([told("a"), AccountReport.unread("b")], {"allow_partial": True}, 0),
        ([AccountReport.unread("b")], {"allow_partial": True}, 3),
        ([told("a"), AccountReport.unread("b", AuthenticationFailed("no"))], {}, 3),
        ([AccountReport.unread(n, AuthenticationFailed("no")) for n in "ab"], {}, 4),
        ([AccountReport.unread("a", AuthenticationFailed("no")), AccountReport.unread("b")], {}, 3),
    ],
)
def test_the_exit_code(reports, options, code) -> None:
    assert fleet_exit_code(FleetReport.of(reports), **options) == code


def test_parts_are_merged_and_who_has_no_report_is_unread() -> None:
    first = part("abc", told("a"), shard=(0, 2))
    second = part("abc", told("b"), shard=(1, 2))
    report = merged([[first, second]])
    assert [(each.name, each.complete) for each in report.accounts] == [
        ("c", False), ("a", True), ("b", True),
    ]  # fmt: skip
    assert report.accounts[0].verdict == "Not audited yet."
    # A shard that was never begun has no file, and its accounts are not forgotten.
    assert [each.name for each in merged([[first]]).unread] == ["b", "c"]


def test_the_newest_division_of_a_folder_counts() -> None:
    old = part(["a", "gone"], told("a", dark_groups=1), told("gone"))
    later = NOW + timedelta(days=1)
    new = [part("ab", told(n), started=later, shard=(i, 2)) for i, n in enumerate("ab")]
    report = merged([[old, *new]])
    assert [each.name for each in report.accounts] == ["a", "b"]
    assert not report.summary.dark_groups
    # In two folders, what was told last counts.
    both = merged([new, [part(["b"], told("b", dark_groups=1))]])
    assert [each.dark_groups for each in both.accounts] == [0, 0]


def test_what_was_written_is_read_up_to_a_torn_line() -> None:
    import msgspec

    line = FleetLine(schema=1, started=NOW, names=("a", "b"))
    lines = [
        msgspec.json.encode(each) + b"\n"
        for each in (line, told("a"), told("b"), EndLine(accounts=2))
    ]
    whole = read_part(lines)
    assert whole.ended
    assert set(whole.accounts) == {"a", "b"}
    torn = read_part([*lines[:2], lines[2][:-9]])
    assert not torn.ended
    assert set(torn.accounts) == {"a"}
    with pytest.raises(ValueError, match="empty"):
        read_part([])
    with pytest.raises(ValueError, match="beginning of a fleet"):
        read_part([b'{"type":"run","schema":1}\n'])
    with pytest.raises(ValueError, match="upgrade"):
        read_part([b'{"type":"fleet","schema":2}\n'])


HOSTILE = '=<b>|`@x`"&'


def hostile_fleet():
    error = FailedLookup(error="ServerFault", message=HOSTILE)
    return FleetReport.of([
        told("a&b <c>", verdict=HOSTILE, dark_groups=1),
        told("plain"),
        AccountReport(name="dead", complete=False, verdict=f"Not read: {HOSTILE}", error=error),
    ])  # fmt: skip


@pytest.mark.parametrize("kind", FLEET_FORMATS)
def test_every_format_has_every_account_and_is_no_mark_up(kind) -> None:
    page = render_fleet(hostile_fleet(), kind).decode()
    assert "plain" in page
    if kind != "csv":
        assert "Incomplete: 1 of 3" in page
    if kind in ("html", "md"):
        assert "<b>|" not in page
        assert "<c>" not in page


def test_json_and_csv_are_for_programs() -> None:
    document = json.loads(render_fleet(hostile_fleet(), "json"))
    assert document["summary"]["unread"] == 1
    assert document["summary"]["accounts"] == 3
    assert [each["name"] for each in document["accounts"]] == ["dead", "a&b <c>", "plain"]
    assert document["accounts"][0]["error"]["error"] == "ServerFault"
    rows = list(csv.DictReader(io.StringIO(render_fleet(hostile_fleet(), "csv").decode())))
    assert [row["complete"] for row in rows] == ["no", "yes", "yes"]
    assert rows[1]["verdict"] == f"'{HOSTILE}"  # no formula
    with pytest.raises(ValueError, match="no such format"):
        render_fleet(hostile_fleet(), "junit")  # type: ignore[arg-type]


def test_the_page_of_10_000_accounts_is_under_2_mb_and_none_of_the_urgent_is_left_out() -> None:
    verdict = "Callers to 12 groups reach nobody. 132 findings: 4 critical, 36 high, 40 medium, 40 low, 12 info."
    accounts = [
        told(f"customer-{i:05}", verdict=verdict, dark_groups=i % 3, findings={"critical": i % 3})
        for i in range(10_000)
    ]
    fleet = FleetReport.of([*accounts, AccountReport.unread("the dead one")])
    pages = {each.name: f"audits/accounts/{each.name}.html" for each in fleet.accounts}
    page = render_fleet(fleet, "html", pages=pages)
    assert len(page) < 2_000_000
    text = page.decode()
    assert text.index("the dead one") < text.index("customer-")
    assert text.count('<a href="audits/accounts/') > 9_000
    # The link is a path, whatever the name holds.
    odd = render_fleet(
        FleetReport.of([told("a #?%")]), "html", pages={"a #?%": "accounts/a #?%.html"}
    )
    assert b'href="accounts/a%20%23%3F%25.html"' in odd


def test_rows_for_a_terminal() -> None:
    rows = list(fleet_rows(hostile_fleet()))
    assert rows[0][:4] == ("dead", "no", "", "")
    assert rows[1][:4] == ("a&b <c>", "whole", "1", "")


def test_thresholds_travel() -> None:
    from deepcall_async.fleet import AuditPlan

    plan = AuditPlan(thresholds=Thresholds(min_receivers=2))
    assert pickle.loads(pickle.dumps(plan)) == plan
