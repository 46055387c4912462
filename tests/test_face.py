"""What the package shows to those who import it, and what importing it costs."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import deepcall_async

ROOT = Path(deepcall_async.__file__).parent
MODULES = sorted(
    each.name
    for each in pkgutil.walk_packages([str(ROOT)], "deepcall_async.")
    if not each.name.endswith(".__main__")
)


def ruff_order(name: str) -> tuple[int, str]:
    """How ruff sorts `__all__`: constants, then classes, then the rest."""
    if name.isupper() and len(name) > 1:
        return 0, name
    return (1, name) if name[:1].isupper() else (2, name)


@pytest.mark.parametrize("name", ["deepcall_async", *MODULES])
def test_all_is_sorted_and_every_name_in_it_is_there(name: str) -> None:
    module = importlib.import_module(name)
    public = getattr(module, "__all__", [])
    assert public == sorted(public, key=ruff_order)
    assert len(set(public)) == len(public)
    for each in public:
        assert hasattr(module, each), each


def test_the_face_shows_all_that_the_modules_below_offer() -> None:
    public = set(deepcall_async.__all__)
    for name in ("errors", "models", "credentials", "fanout"):
        offered = set(importlib.import_module(f"deepcall_async.{name}").__all__)
        assert offered <= public, offered - public
    assert {"DeepCall", "RetryPolicy", "Adaptive", "Stats", "__version__"} <= public
    namespace: dict[str, object] = {}
    exec("from deepcall_async import *", namespace)
    assert public <= set(namespace)


def test_endpoint_methods_are_declarations() -> None:
    (api,) = (
        node
        for node in ast.walk(ast.parse((ROOT / "client.py").read_text("utf-8")))
        if isinstance(node, ast.ClassDef) and node.name == "GroupsAPI"
    )
    methods = [each for each in api.body if isinstance(each, ast.AsyncFunctionDef)]
    assert len(methods) == 6
    for method in methods:
        body = [each for each in method.body if not isinstance(each, ast.Expr)]
        assert len(body) <= 3, method.name
        inside = {type(each) for each in ast.walk(method)}
        assert not inside & {ast.Try, ast.Dict, ast.While, ast.For}, method.name


def loaded_by(program: str) -> set[str]:
    program += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_importing_it_loads_only_what_it_needs() -> None:
    needed = loaded_by("import aiohttp, aiohttp.client, msgspec, anyio, aiolimiter, asyncio")
    more = loaded_by("import deepcall_async") - needed
    tops = {name.split(".")[0] for name in more}
    assert not tops & {"rich", "cyclopts", "jinja2", "pytest", "uvloop", "hypothesis"}
    assert not {name for name in more if name.startswith("aiohttp.web")}
    ours = {name for name in more if name.startswith("deepcall_async.")}
    assert ours
    for name in ("sandbox", "cli", "pytest_plugin", "audit"):
        assert f"deepcall_async.{name}" not in ours
    third = {top for top in tops if top not in sys.stdlib_module_names}
    assert third <= {"deepcall_async", "_distutils_hack"}
