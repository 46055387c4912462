"""The fleet's page in a real browser: axe-core finds nothing; filter and sorting do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepcall_async.audit.fleet import AccountReport, FleetReport
from deepcall_async.audit.formats.fleet import render_fleet
from deepcall_async.errors import ConnectFailed
from tests.audit.test_page_in_browser import SIZES, script, told

pytestmark = pytest.mark.thorough

__all__ = ["script"]  # a fixture


def page(accounts: int) -> str:
    reports = [
        AccountReport(
            name=f"customer-{i}",
            complete=True,
            verdict=f"Callers to {i} groups reach nobody." if i else "All is well.",
            groups=9,
            read=9,
            dark_groups=i % 12,
            new_dark_groups=i % 2,
            findings={"critical": i % 12},
        )
        for i in range(accounts)
    ]
    partly = AccountReport(name="partly", complete=False, verdict="Incomplete.", groups=9, read=3)
    dead = AccountReport.unread("dead", ConnectFailed("no answer"))
    fleet = FleetReport.of([*reports, partly, dead])
    pages = {each.name: f"accounts/{each.name}.html" for each in reports}
    return render_fleet(fleet, "html", pages=pages).decode()


def test_axe_finds_nothing_and_nothing_is_cut_off(script: str, tmp_path: Path) -> None:
    run = f"""(function () {{ {script}; return axe.run().then(function (found) {{
      return [found.violations.map(function (each) {{ return each.id }}), found.passes.length,
        document.documentElement.scrollWidth, innerWidth]
    }}) }})()"""
    for size in ("dark", "phone"):
        violations, passes, content, window = told(page(12), run, tmp_path, *SIZES[size])  # type: ignore[misc]
        assert violations == []
        assert passes > 10
        assert content <= window


def test_filter_and_sorting(script: str, tmp_path: Path) -> None:
    run = """(function () {
      var began = performance.now(), names = function () {
        return Array.from(document.querySelectorAll("#found tbody tr")).filter(function (row) {
          return !row.hidden
        }).map(function (row) { return row.cells[1].textContent.trim() })
      };
      var first = names(), words = document.getElementById("words");
      words.value = "customer-1999"; words.dispatchEvent(new Event("input"));
      var found = names();
      words.value = ""; words.dispatchEvent(new Event("input"));
      var read = document.getElementById("severity");
      read.value = "!whole"; read.dispatchEvent(new Event("change"));
      var unread = names();
      read.value = ""; read.dispatchEvent(new Event("change"));
      document.querySelectorAll(".fleet th button")[1].click();
      return [first.length, first[0], found, unread, names()[0]]
    })()"""
    shown, worst, found, unread, sorted_first = told(page(2_000), run, tmp_path)  # type: ignore[misc]
    assert shown == 2_002
    assert worst == "dead"
    assert found == ["customer-1999"]
    assert unread == ["dead", "partly"]
    assert sorted_first == "customer-0"
