"""Every format: well-formed whatever the names are, and true to the report."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from datetime import date
from html.parser import HTMLParser
from io import StringIO
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from deepcall_async.audit import (
    FORMATS,
    RULES,
    TABLE_COLUMNS,
    Context,
    Format,
    Health,
    Hit,
    Mute,
    Report,
    Snapshot,
    audit,
    render,
    rule,
    table_rows,
)
from deepcall_async.models import Agent, AgentRelation, Group, GroupAgentRelation
from tests.support.audit_accounts import NOW, account, hostile, refused, relation

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><script>alert(1)</script>",
    "=1+1",
    "@SUM(A1)",
    "a|b`c*d_e[f](javascript:g)",
    "{{ 7*7 }}{% raw %}",
    "\x1b[31mred\x00\r\nnext",
    "]]>&amp;&#60;",
    "@everyone https://evil.example",
    "\ufffe\uffff",
]


@pytest.fixture(scope="module")
def report() -> Report:
    snapshot = account(
        relation(1, "NNNN", name="Sales, EU"),
        relation(2, "Y", name="=cmd()"),
        relation(3, "YYYY"),
        failed={9: refused()},
    )
    mute = Mute(rule="G009", group=2, reason="known", expires=date(2027, 1, 1))
    odd = replace(snapshot.relations[2], group=replace(snapshot.relations[2].group, create_date=0))
    snapshot = replace(snapshot, relations=snapshot.relations | {2: odd})
    return audit(snapshot, mutes=[mute], now=NOW, health=Health(seconds=2.5, requests=9, retries=1))


class _Page(HTMLParser):
    """What a browser would make of a page: its tags and what it shows."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[str] = []
        self._hidden = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.shown.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())


def _html(report: Report) -> str:
    return render(report, "html").decode()


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_writes_utf8(format_name: Format, report: Report) -> None:
    assert render(report, format_name).decode()


def test_an_unknown_format_is_refused(report: Report) -> None:
    with pytest.raises(ValueError, match="no such format: pdf; there are table, json"):
        render(report, "pdf")  # type: ignore[arg-type]  # what is tested


# --- table


def test_the_table_has_the_verdict_first_and_a_line_per_finding(report: Report) -> None:
    lines = render(report, "table").decode().splitlines()
    assert lines[0] == report.verdict
    assert lines[0].startswith("Incomplete")
    assert lines[2].split("  ")[0] == TABLE_COLUMNS[0]
    assert len(lines) == 3 + len(report.findings)
    assert lines[3].startswith("critical  G002  Sales, EU (1) has 4 agents")


def test_the_rows_are_the_findings(report: Report) -> None:
    rows = list(table_rows(report))
    assert [row[1] for row in rows] == [finding.rule for finding in report.findings]
    assert all(len(row) == len(TABLE_COLUMNS) for row in rows)


@pytest.mark.parametrize("name", HOSTILE)
def test_the_table_is_safe_for_a_terminal(name: str) -> None:
    for line in render(hostile(name), "table").decode().splitlines():
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e]", line)


def test_a_clean_report_is_its_verdict() -> None:
    clean = audit(account(), now=NOW)
    assert render(clean, "table").decode() == clean.verdict + "\n"


# --- CSV


def test_csv_has_the_findings(report: Report) -> None:
    text = render(report, "csv").decode()
    assert text.count("\r\n") == len(report.findings) + 1
    rows = list(csv.DictReader(StringIO(text, newline="")))
    assert [row["rule"] for row in rows] == [finding.rule for finding in report.findings]
    dark = next(row for row in rows if row["rule"] == "G002")
    assert (dark["group_id"], dark["group"], dark["name"]) == ("1", "Sales, EU", "nobody-receives")
    assert json.loads(dark["evidence"]) == {"members": 4}
    alone = next(row for row in rows if row["rule"] == "G003")
    assert alone["group"] == "'=cmd()"


@given(st.text(max_size=30))
@example("=1+1")
@example("\t=1+1")
@example("-1")
@example('a"b,c\r\nd')
def test_no_cell_is_a_formula_and_none_is_lost(name: str) -> None:
    report = hostile(name)
    rows = list(csv.reader(StringIO(render(report, "csv").decode(), newline="")))
    assert len(rows) == len(report.findings) + 1
    for row in rows:
        assert len(row) == len(rows[0])
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in row)
    if name.isprintable() and name:
        shown = {row[rows[0].index("group")].removeprefix("'") for row in rows[1:]}
        assert name.removeprefix("'") in shown


# --- Markdown


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_cells_mean_themselves(name: str) -> None:
    text = render(hostile(name), "md").decode()
    assert text.startswith("# Group audit\n\n**Incomplete")
    assert "<" not in text
    assert "@" not in text
    assert "://" not in text
    for line in text[text.index("## Findings") :].splitlines()[4:]:
        bare = re.sub(r"\\.", "", line)
        assert bare.count("|") == 4
        assert not re.search(r"[`\[\]]", bare)


def test_markdown_says_how_many_more_there_are() -> None:
    many = audit(Snapshot.of((), {i: relation(i, "") for i in range(1, 1200)}), now=NOW)
    text = render(many, "md").decode()
    assert len(text) < 65_536
    assert f"{len(many.findings) - 500:,} more findings" in text


# --- JUnit


def test_junit_counts_what_it_holds(report: Report) -> None:
    root = ElementTree.fromstring(render(report, "junit"))
    cases = root.findall(".//testcase")
    found = {kind: len(root.findall(f".//{kind}")) for kind in ("error", "failure", "skipped")}
    grave = [f for f in report.findings if f.severity in ("critical", "high")]
    # The lookup that failed, and that the run is not complete.
    assert found == {"error": 2, "failure": len(grave) - 1, "skipped": 1}
    counts = {"tests": len(cases), "errors": 2, "failures": found["failure"]}
    assert sum(int(suite.attrib["skipped"]) for suite in root) == 1
    assert {name: int(root.attrib[name]) for name in counts} == counts
    names = [suite.attrib["name"] for suite in root]
    assert names == ["deepcall audit", *(f"{rule.id} {rule.name}" for rule in report.rules)]
    for suite in root:
        assert int(suite.attrib["tests"]) == len(suite) > 0
    keys = [(case.attrib["classname"], case.attrib["name"]) for case in cases]
    assert len(keys) == len(set(keys))


@given(st.text(max_size=30))
@example("\x00\x0b\ufffe]]>")
def test_junit_is_always_well_formed(name: str) -> None:
    report = hostile(name)
    root = ElementTree.fromstring(render(report, "junit"))
    told = [*root.iter("failure"), *root.iter("error"), *root.iter("system-out")]
    assert len(told) == 1 + len(report.findings)


# --- HTML


# All elements that the page may have, with their attributes.
SHAPES = {
    *(("b",), ("br",), ("code",), ("dd",), ("div",), ("dl",), ("dt",), ("h1",), ("head",)),
    *(("header",), ("html",), ("li",), ("main",), ("p",), ("script",), ("span",), ("style",)),
    *(("table",), ("tbody",), ("td",), ("thead",), ("title",), ("tr",), ("ul",)),
    *(("a", "class", "href"), ("body",), ("caption",), ("footer",), ("html", "lang")),
    *(("div", "aria-label", "class", "role", "tabindex"), ("div", "class")),
    *(("div", "class", "hidden", "id"), ("div", "class", "role"), ("dl",), ("h2", "id")),
    *(("h2", "id", "tabindex"), ("input", "autocomplete", "id", "placeholder", "type")),
    *(("label",), ("li", "class"), ("meta", "charset"), ("meta", "content", "http-equiv")),
    *(("meta", "content", "name"), ("ol", "class"), ("option",), ("option", "value")),
    *(("output", "for", "id"), ("p", "class"), ("rect", "class", "height", "width", "x")),
    *(("section", "aria-labelledby"), ("section", "aria-labelledby", "class"), ("select", "id")),
    *(("span", "class"), ("svg", "aria-hidden", "class", "preserveaspectratio", "viewbox")),
    *(("table", "class"), ("table", "class", "data-sort"), ("table", "class", "data-sort", "id")),
    *(("td", "class"), ("th", "scope"), ("tr", "class"), ("ul", "aria-label", "class")),
    *(
        ("ul", "class"),
        ("a", "href"),
        ("details",),
        ("summary",),
        ("p", "id"),
        ("tr", "class", "id"),
    ),
    ("dl", "class"),
}


@given(st.text(max_size=40))
@example(HOSTILE[0])
@example(HOSTILE[1])
@example(HOSTILE[2])
@example(HOSTILE[6])
def test_names_are_text(name: str) -> None:
    page = _Page(_html(hostile(name)))
    shapes = {(tag, *sorted(attrs)) for tag, attrs in page.tags}
    assert shapes <= SHAPES, shapes - SHAPES
    assert len(page.named("script")) == len(page.named("style")) == 1
    for _, attrs in page.tags:
        for value in attrs.values():
            assert value is None or len(name) < 12 or name not in value


def test_a_script_for_a_name_is_shown_as_it_is() -> None:
    page = _html(hostile("<script>alert(1)</script>"))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert(1)</script> (1)" in _Page(page).text


def test_the_page_loads_nothing_and_allows_nothing(report: Report) -> None:
    page = _html(report)
    parsed = _Page(page)
    for _, attrs in parsed.tags:
        assert not {"src", "style", "onclick", "onload", "onerror", "action"} & attrs.keys()
        assert (attrs.get("href") or "#").startswith("#")
    assert "@import" not in page
    assert "url(" not in page
    (policy,) = [
        attrs["content"]
        for attrs in parsed.named("meta")
        if attrs.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        (body,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_page_says_the_verdict_first(report: Report) -> None:
    page = _Page(_html(report))
    assert report.verdict.startswith("Incomplete")
    assert page.text.index(report.verdict) < page.text.index("What to do first")
    assert "does not cover everything" in page.text
    whole = _Page(_html(audit(account(relation(1, "NN")), now=NOW)))
    assert "does not cover everything" not in whole.text


def test_the_page_reads_without_scripts(report: Report) -> None:
    page = _html(report)
    parsed = _Page(page)
    for finding in report.findings:
        assert finding.message in parsed.text
    assert parsed.named("button") == []
    (tools,) = [attrs for tag, attrs in parsed.tags if attrs.get("id") == "tools"]
    assert "hidden" in tools


def test_the_page_is_sound_for_assistive_technology(report: Report) -> None:
    parsed = _Page(_html(report))
    assert parsed.named("html") == [{"lang": "en"}]
    assert all(attrs.get("scope") in ("col", "row") for attrs in parsed.named("th"))
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for _, attrs in parsed.tags:
        if "aria-labelledby" in attrs:
            assert attrs["aria-labelledby"] in ids
        if (attrs.get("href") or "").startswith("#"):
            assert str(attrs["href"])[1:] in ids
        if "tabindex" in attrs and attrs["tabindex"] == "0":
            assert attrs["aria-label"]
            assert attrs["role"] == "region"
    assert len(parsed.named("h1")) == 1


def test_the_page_shows_drift_against_a_baseline() -> None:
    old = account(relation(1, "YYYY"), relation(2, "YYYY"))
    new = account(relation(1, "NNNN"), relation(3, "YYYY"))
    text = _Page(_html(audit(new, baseline=old, now=NOW))).text
    assert "Compared with the run of 2026-06-01 12:00 UTC" in text
    assert "had 4 agents receiving calls and now has none" in text
    assert "Groups that ring nobody 0 1 +1" in text
    alone = _Page(_html(audit(new, now=NOW))).text
    assert "No earlier run was given" in alone


def _large(groups: int, name: str) -> Report:
    roster = tuple(Agent(unique_id=i, name=name) for i in range(1, 150))
    relations = {
        group_id: GroupAgentRelation(
            Group(unique_id=group_id, name=f"{group_id} {name}", status=1, create_date=0),
            roster,
            tuple(
                AgentRelation(
                    group_id=group_id,
                    agent_id=(group_id * 7 + i) % 320,
                    receive_call="XNY"[(i + group_id) % 3],
                )
                for i in range(group_id % 9)
            ),
        )
        for group_id in range(1, groups + 1)
    }
    return audit(Snapshot.of((), relations), now=NOW)


@pytest.mark.parametrize("name", ["Sales team", "\"<&>'" * 12, "漢" * 200])
def test_the_page_stays_under_half_a_megabyte(name: str) -> None:
    report = _large(2_000, name)
    assert len(report.findings) > 3_000
    page = _html(report)
    assert len(page.encode()) < 500_000
    parsed = _Page(page)
    (number,) = re.findall(r"The ([\d,]+) most severe of", parsed.text)
    shown = int(number.replace(",", ""))
    assert 300 < shown <= 2_000
    assert f"The other {len(report.findings) - shown:,} stand in the JSONL report." in parsed.text


def test_each_thing_to_do_leads_to_its_findings(report: Report) -> None:
    page = _html(report)
    parsed = _Page(page)
    links = {str(attrs["href"]) for attrs in parsed.named("a") if attrs.get("class") == "rule"}
    assert "#G002" in links
    for link in links:
        (row,) = re.findall(rf"<tr class=\w id={link[1:]}>(.*)", page)
        assert f"<td>{link[1:]}<td>" in row


def test_a_users_rule_cannot_break_the_links() -> None:
    @rule('x y" onload=1', "odd", "high", meaning="It is odd.", fix="Even it out.")
    def odd(context: Context) -> Iterator[Hit]:
        yield Hit(message="odd")

    parsed = _Page(_html(audit(account(relation(1)), rules=(*RULES, odd), now=NOW)))
    assert all("onload" not in attrs for _, attrs in parsed.tags)
    assert "odd" in parsed.text


def test_the_page_tells_who_is_in_the_groups_with_findings(report: Report) -> None:
    page = _html(report)
    text = _Page(page).text
    assert "Sales, EU (1): 0 of 4 receive calls Receive calls: nobody." in text
    assert "Do not receive calls: Agent 1 (1), Agent 2 (2), Agent 3 (3) and Agent 4 (4)." in text
    assert "=cmd() (2): 1 of 1 receive calls" in text
    assert "Group D (3): 4 of 4" not in text  # nothing was found in it
    assert "<a href=#g1>1</a>" in page
    assert page.count("id=g1>") == 1


def test_the_page_explains_its_words(report: Report) -> None:
    parsed = _Page(_html(report))
    for word in ("Group", "Agent", "Receives calls", "Cover", "thin is fewer than 3"):
        assert word in parsed.text
    assert {"href": "#glossary"} in parsed.named("a")


def test_the_heat_map_shows_the_groups_at_risk() -> None:
    safe = [relation(i, "YYYY") for i in range(3, 8)]
    page = _html(audit(account(relation(1, "NN"), relation(2, "YN"), *safe), now=NOW))
    heat = page[page.index('id="heat"') : page.index('id="drift"')]
    assert "Groups at risk" in heat
    assert re.findall(r"<th scope=col><span>(.*?)</span>", heat) == ["Group B (1)", "Group C (2)"]
    calm = _Page(_html(audit(account(*safe), now=NOW))).text
    assert "No group that has agents is at risk; these are the largest: 5 of 5" in calm


def test_the_heat_map_is_no_larger_than_sixty_by_sixty() -> None:
    page = _html(_large(400, "x"))
    heat = page[page.index('id="heat"') : page.index('id="drift"')]
    assert heat.count("<th scope=row>") == 60
    assert heat.count("<th scope=col>") == 60


def test_the_page_says_what_cover_each_group_has() -> None:
    snapshot = account(
        *(relation(1, "NN"), relation(2, "YN"), relation(3, "YYN"), relation(4, "YYY")),
        *(relation(5, "Y", status=0),),
        failed={6: refused()},
    )
    text = _Page(_html(audit(snapshot, now=NOW))).text
    for words in ("0 2 rings nobody 1", "1 2 one agent 2", "2 3 thin 3", "3 3 good 4"):
        assert words in text
    assert "1 1 inactive 5" in text
    assert "not read 6" in text
    assert (
        "(no name) 0 0 rings nobody 7"
        in _Page(_html(audit(account(relation(7, "", name=" ")), now=NOW))).text
    )


def test_only_the_page_needs_jinja() -> None:
    code = (
        "import sys; sys.modules['jinja2'] = None\n"
        "from deepcall_async.audit import FORMATS, Snapshot, audit, render\n"
        "report = audit(Snapshot())\n"
        "for name in FORMATS:\n"
        "    try: render(report, name)\n"
        "    except ImportError as error: print(name, error)\n"
        "assert 'rich' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ("html the HTML report needs Jinja2: pip install 'deepcall-async[cli]'\n")


def test_every_rule_can_be_rendered() -> None:
    assert len(RULES) == 35
    for name in FORMATS:
        assert render(audit(Snapshot(), now=NOW), name)
