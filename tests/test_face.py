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
from tests.support.rows import mostly_thorough

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
    if name == "deepcall_async.engines.dask":
        pytest.importorskip("distributed", reason="pip install 'deepcall-async[dask]'")
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


def test_nothing_is_loaded_before_a_public_name_is_used() -> None:
    bare = loaded_by("")
    for program in ("import deepcall_async", "import deepcall_async as d; d.__all__; dir(d)"):
        more = loaded_by(program) - bare
        ours = {name for name in more if name.startswith("deepcall_async")}
        assert ours == {"deepcall_async", "deepcall_async.version"}
        assert not more & {"aiohttp", "anyio", "asyncio", "msgspec"}


@pytest.mark.parametrize(
    "program",
    mostly_thorough(
        [
            "import deepcall_async; deepcall_async.DeepCall; deepcall_async.errors.ApiError",
            "from deepcall_async import DeepCall; import deepcall_async; deepcall_async.fan_out",
            "from deepcall_async import *; DeepCall, fan_out, RetryPolicy, __version__",
            "import deepcall_async.retry; from deepcall_async import wire; deepcall_async.Stats, wire.add",
            "import deepcall_async; assert {*dir(deepcall_async)} >= {*deepcall_async.__all__, '__doc__'}",
            "import pickle; v = pickle.loads(b'cdeepcall_async\\nUserToken\\n.'); v('1', 't')",
            "import pickle, deepcall_async as d; pickle.loads(pickle.dumps(d.RetryPolicy(attempts=2)))",
            "import deepcall_async as d; assert not hasattr(d, 'Typo') and not hasattr(d, '__wrapped__')",
            "import inspect, deepcall_async as d; assert dict(inspect.getmembers(d))['Ok'] is d.Ok",
        ],
    ),
)
def test_each_way_of_taking_a_name_works_first(program: str) -> None:
    assert "deepcall_async" in loaded_by(program)


def test_a_name_that_is_not_there_is_an_attribute_error_as_usual() -> None:
    with pytest.raises(AttributeError, match="module 'deepcall_async' has no attribute 'Typo'"):
        deepcall_async.Typo  # noqa: B018 - reading it is the test
    with pytest.raises(ImportError, match="cannot import name 'Typo' from 'deepcall_async'"):
        exec("from deepcall_async import Typo")


def test_type_checkers_and_python_see_the_same_names() -> None:
    (seen,) = (
        node
        for node in ast.parse((ROOT / "__init__.py").read_text("utf-8")).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imports = [node for node in seen.body if isinstance(node, ast.ImportFrom)]
    names = {alias.name: f"{node.module}" for node in imports for alias in node.names}
    assert {*names, "__version__"} == set(deepcall_async.__all__)
    assert {*names.values()} == {f"deepcall_async.{each}" for each in deepcall_async._MODULES}
    for name, module in names.items():
        assert getattr(importlib.import_module(module), name) is getattr(deepcall_async, name)


def test_using_it_loads_only_what_it_needs() -> None:
    needed = loaded_by("import aiohttp, aiohttp.client, msgspec, anyio, asyncio")
    more = loaded_by("import deepcall_async; deepcall_async.DeepCall") - needed
    tops = {name.split(".")[0] for name in more}
    assert not tops & {"rich", "cyclopts", "jinja2", "pytest", "uvloop", "hypothesis"}
    assert not {name for name in more if name.startswith("aiohttp.web")}
    ours = {name for name in more if name.startswith("deepcall_async.")}
    assert ours
    for name in ("sandbox", "cli", "pytest_plugin", "audit"):
        assert f"deepcall_async.{name}" not in ours
    third = {top for top in tops if top not in sys.stdlib_module_names}
    assert third <= {"deepcall_async", "_distutils_hack"}
