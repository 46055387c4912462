"""The reference pages: built from the docstrings without a warning, and with every public name."""

from __future__ import annotations

import re
import runpy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.thorough

pytest.importorskip("pdoc", reason="pdoc is not installed: extra `docs`")

SCRIPT = Path(__file__).parents[1] / ".ci/reference.py"


def test_every_public_name_has_its_place_and_no_other(tmp_path: Path) -> None:
    script: dict[str, Any] = runpy.run_path(str(SCRIPT))
    script["build"](tmp_path)
    pages = {
        each.relative_to(tmp_path).with_suffix("").as_posix().replace("/", "."): each
        for each in tmp_path.rglob("*.html")
    }
    modules = ["deepcall_async", *(f"deepcall_async.{name}" for name in script["PUBLIC"])]
    assert set(pages) == {"index", *modules}
    shown = {}
    for name in modules:
        page = pages[name].read_text("utf-8")
        shown[name] = page.partition("<main")[2].partition("</main>")[0]
        names = [each for each in import_module(name).__all__ if not each.startswith("__")]
        assert [each for each in names if f'id="{each}"' not in shown[name]] == []
        assert [each for each in modules if f'{each.rpartition(".")[2]}.html"' not in page] == []
    for html in shown.values():
        text = re.sub(r"<[^>]+>", "", re.sub(r"<a [^>]*>.*?</a>|<h1.*?</h1>", "", html))
        # What is no link leads nowhere: the name of something that no page shows, or raw markup.
        code = re.sub(r"<pre>.*?</pre>|<div class=\"pdoc-code.*?</div>", "", html, flags=re.DOTALL)
        assert re.findall(r"deepcall_async(?:\.\w+)+\b", re.sub(r"<a .*?</a>", "", code)) == []
        assert (
            re.findall(r"``|:(?:class|func|meth|mod|py):|::\s*$|Annotated\[", text, re.MULTILINE)
            == []
        )
    # The script names what it hides; a name that is gone hides nothing.
    homes = {each: import_module(name) for name in modules for each in import_module(name).__all__}
    for hidden in script["HIDDEN"]:
        owner, _, member = hidden.partition(".")
        assert hasattr(getattr(homes[owner], owner), member), hidden
