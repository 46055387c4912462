"""The reference pages: built from the docstrings without a warning, and with every public name."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

import deepcall_async
import deepcall_async.audit
import deepcall_async.otel
import deepcall_async.sandbox

pytestmark = pytest.mark.thorough

pytest.importorskip("pdoc", reason="pdoc is not installed: extra `docs`")

SCRIPT = Path(__file__).parents[1] / ".ci/reference.py"


def test_every_public_name_has_its_place(tmp_path: Path) -> None:
    runpy.run_path(str(SCRIPT))["build"](tmp_path)
    pages = {
        each.relative_to(tmp_path).with_suffix("").as_posix().replace("/", "."): each
        for each in tmp_path.rglob("deepcall_async*/**/*.html")
    } | {"deepcall_async": tmp_path / "deepcall_async.html"}
    modules = (
        deepcall_async,
        deepcall_async.audit,
        deepcall_async.otel,
        deepcall_async.sandbox,
    )
    assert set(pages) == {each.__name__ for each in modules}
    for module in modules:
        text = pages[module.__name__].read_text("utf-8")
        missing = [
            name
            for name in module.__all__
            if f'id="{name}"' not in text and not name.startswith("__")
        ]
        assert missing == []
