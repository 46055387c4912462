"""The page in a real browser: axe-core finds nothing, narrow or wide, light or dark.

It needs Chromium (`apt-get install chromium`) and axe-core (`npm install --global axe-core`).
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from deepcall_async.audit import Mute, Report, audit, render
from tests.support.audit_accounts import NOW, account, agents, hostile, refused, relation
from tests.support.rows import mostly_thorough

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@cache
def axe() -> Path | None:
    """Where axe-core's script is: installed beside the project, or for the whole machine."""
    found = [ROOT / "node_modules"]
    npm = shutil.which("npm")
    if npm is not None:
        run = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, check=False)
        found.append(Path(run.stdout.strip() or "/nowhere"))
    scripts = (folder / "axe-core/axe.min.js" for folder in found)
    return next((script for script in scripts if script.is_file()), None)


@pytest.fixture(scope="module")
def script() -> str:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    found = axe()
    if found is None:
        pytest.skip("there is no axe-core: npm install --global axe-core")
    return found.read_text("utf-8")


def dumped(page: str, script: str, folder: Path, *options: str) -> str:
    """The page's mark-up after a script has run in it."""
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    page = page.replace("</body>", f"<script>{script}</script></body>")
    file = folder / "page.html"
    file.write_text(page, "utf-8")
    headless = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    done = subprocess.run(
        [
            str(CHROMIUM),
            *headless,
            *options,
            "--virtual-time-budget=60000",
            "--dump-dom",
            str(file),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


def told(page: str, script: str, folder: Path, *options: str) -> object:
    """What a script that gives JSON says of the page."""
    tell = (
        f"Promise.resolve({script}).then(function (found) {{"
        "var told = document.createElement('pre'); told.id = 'told';"
        "told.textContent = JSON.stringify(found); document.body.appendChild(told)})"
    )
    dom = dumped(page, tell, folder, *options)
    (found,) = re.findall(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)
    return json.loads(html.unescape(found))


def full() -> Report:
    roster = agents(*range(1, 60))
    now = account(
        relation(1, "NNNN", name="Sales, EU", roster=roster),
        relation(2, "Y", roster=roster, name=" "),
        relation(3, "YY", roster=roster),
        relation(4, "YYYY", roster=roster),
        relation(5, "Y", roster=roster, status=0),
        failed={9: refused()},
    )
    before = account(*(relation(i, "YYYY", roster=roster) for i in range(1, 5)))
    mutes = [Mute(rule="G003", group=2, reason="a small team")]
    return audit(now, baseline=before, mutes=mutes, now=NOW)


REPORTS = {
    "full": full(),
    "empty": audit(account(), now=NOW),
    "hostile": hostile('</td><img src=x onerror="1">'),
}
SIZES = {
    "wide": ("--window-size=1280,900",),
    "phone": ("--window-size=390,844",),
    "dark": ("--window-size=1280,900", "--blink-settings=preferredColorScheme=0"),
}


@pytest.mark.parametrize(
    ("name", "size"),
    mostly_thorough(
        [
            *(("full", size) for size in SIZES),
            *((name, "wide") for name in REPORTS if name != "full"),
        ]
    ),
)
def test_axe_finds_nothing(name: str, size: str, script: str, tmp_path: Path) -> None:
    page = render(REPORTS[name], "html").decode()
    run = f"(function () {{ {script}; return axe.run() }})()"
    found = told(page, run, tmp_path, *SIZES[size])
    assert isinstance(found, dict)
    assert len(found["passes"]) > 10
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []


def test_axe_finds_what_is_wrong(script: str, tmp_path: Path) -> None:
    page = render(REPORTS["full"], "html").decode().replace('<html lang="en">', "<html>")
    run = f"(function () {{ {script}; return axe.run() }})()"
    found = told(page, run, tmp_path)
    assert isinstance(found, dict)
    assert [each["id"] for each in found["violations"]] == ["html-has-lang"]


def test_on_a_phone_nothing_is_cut_off(script: str, tmp_path: Path) -> None:
    page = render(REPORTS["full"], "html").decode()
    # In a frame, as a headless browser's window is never narrower than 500 pixels.
    measure = """new Promise(function (done) {
      var frame = document.createElement("iframe"), page = document.documentElement.outerHTML;
      frame.style.cssText = "width: 390px; height: 844px; border: 0";
      frame.srcdoc = page.replace(/<script[^]*?<[/]script>/g, "");
      frame.onload = function () {
        var inside = frame.contentDocument;
        done([frame.contentWindow.innerWidth, inside.documentElement.scrollWidth].concat(
          [".cover", ".found"].map(function (table) {
            return inside.querySelector(table).getBoundingClientRect().right;
          })))
      };
      document.body.appendChild(frame)
    })"""
    window, content, cover, found = told(page, measure, tmp_path)  # type: ignore[misc]
    assert window == 390
    assert content <= window  # the page itself never scrolls sideways
    assert max(cover, found) <= window  # and no table has to be


def test_links_and_sorting_do_what_they_say(script: str, tmp_path: Path) -> None:
    page = render(REPORTS["full"], "html").decode()
    click = """new Promise(function (done) {
      document.querySelector("a.rule[href='#G002']").click();
      var shown = Array.from(document.querySelectorAll("#found tbody tr")).filter(function (row) {
        return !row.hidden
      }).map(function (row) { return row.cells[1].textContent.trim() });
      var heads = document.querySelectorAll(".cover th button");
      heads[0].click(); heads[3].click();
      var cover = Array.from(document.querySelectorAll(".cover tbody tr")).map(function (row) {
        return row.className
      });
      document.querySelector("a[href='#g1']").click();
      setTimeout(function () {
        done([shown, cover, document.getElementById("g1").closest("details").open])
      }, 50)
    })"""
    shown, cover, opened = told(page, click, tmp_path)  # type: ignore[misc]
    assert shown == ["G002"]  # a link to a rule shows its findings and no others
    assert cover == ["lost", "dark", "one", "thin", "good", "off"]  # by how bad it is
    assert opened is True  # a group's link opens its members
