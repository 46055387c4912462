"""The house: every module imports from the floors below its own, and the face shows what it should."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import deepcall_async

ROOT = Path(deepcall_async.__file__).parent
README = ROOT.parent / "README.md"

FLOORS: dict[str, int] = {
    **dict.fromkeys(
        [
            "arguments",
            "credentials",
            "errors",
            "models",
            "plain",
            "redaction",
            "version",
        ],
        0,
    ),
    **dict.fromkeys(["foreign", "pacing", "retry", "settings", "signals", "wire"], 1),
    **dict.fromkeys(["link", "renewal"], 2),
    "exchange": 3,
    "public": 4,
    "session": 5,
    **dict.fromkeys(["fanout", "reconcile"], 6),
    "client": 7,
    **dict.fromkeys(["terminal", "audit.run", "audit"], 8),
    "files": 9,
    "cli": 10,
    "__main__": 11,
    "__init__": 11,
}
# Outside the house: the server's side, and what pytest loads.
APART: dict[str, set[str]] = {
    "sandbox": {"sandbox_data"},
    "sandbox_data": set(),
    "pytest_plugin": {"sandbox"},
}
AIOHTTPS_CLIENT = {"client", "exchange", "foreign", "link", "public", "session"}
ANYIO = {"fanout", "pytest_plugin"}
PURE_AUDIT = {"errors", "models"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below it; a package is named as such."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


MODULES = modules()


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


@cache
def imports(name: str) -> set[str]:
    """The full names of all that a module imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            assert node.module is not None
            # `from package import module` imports the module.
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            mine = {each for each in inner if each.removeprefix("deepcall_async.") in MODULES}
            found |= mine or {node.module}
    return found


def own_imports(name: str) -> set[str]:
    prefix = "deepcall_async"
    names = {each for each in imports(name) if each.split(".")[0] == prefix}
    return {each.removeprefix(prefix).removeprefix(".") or "__init__" for each in names}


def top_imports(name: str) -> set[str]:
    return {each.split(".")[0] for each in imports(name)}


def is_in_audit(name: str) -> bool:
    return name == "audit" or name.startswith("audit.")


def floor_of(name: str) -> int:
    return FLOORS["audit"] if is_in_audit(name) and name not in FLOORS else FLOORS[name]


def test_the_reader_of_imports_itself_sees_them() -> None:
    assert "retry" in own_imports("session")
    assert {"arguments", "models"} <= own_imports("wire")
    assert "sandbox" in own_imports("pytest_plugin")
    assert own_imports("version") == set()
    assert "aiohttp" in top_imports("exchange")


def test_every_module_has_its_place() -> None:
    placed = {name for name in MODULES if not is_in_audit(name) or name == "audit.run"} | {"audit"}
    assert placed == set(FLOORS) | set(APART)


@pytest.mark.parametrize("name", sorted(set(MODULES) - set(APART)))
def test_a_module_imports_from_floors_below_its_own(name: str) -> None:
    for used in own_imports(name):
        assert used not in APART or name == "cli", f"{name} imports {used}"
        if used in APART:
            continue
        if is_in_audit(name) and is_in_audit(used):
            continue
        assert floor_of(used) < floor_of(name), f"{name} imports {used}"


@pytest.mark.parametrize("name", sorted(APART))
def test_what_is_apart_stays_apart(name: str) -> None:
    assert own_imports(name) <= APART[name]


@pytest.mark.parametrize("name", sorted(name for name in MODULES if is_in_audit(name)))
def test_the_audit_is_pure_but_for_its_run(name: str) -> None:
    used = {each for each in own_imports(name) if not is_in_audit(each)}
    if name == "audit.run":
        return
    assert used <= PURE_AUDIT, f"{name} imports {used - PURE_AUDIT}"
    assert not top_imports(name) & {"aiohttp", "anyio", "asyncio", "socket", "time", "requests"}
    if name != "audit":
        assert "audit.run" not in own_imports(name)
    called = {
        node.func.id
        for node in ast.walk(parsed(name))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "print" not in called


@pytest.mark.parametrize("name", sorted(MODULES))
def test_foreign_libraries_are_used_where_they_belong(name: str) -> None:
    names = imports(name)
    aiohttp = {each for each in names if each.split(".")[0] == "aiohttp"}
    if name == "sandbox":
        assert aiohttp == {"aiohttp"}
    else:
        assert not aiohttp or name in AIOHTTPS_CLIENT, f"{name} imports {aiohttp}"
    tops = top_imports(name)
    assert "anyio" not in tops or name in ANYIO
    assert "rich" not in tops or name in {"cli", "terminal"}
    assert "cyclopts" not in tops or name == "cli"
    assert "jinja2" not in tops or name == "audit.html"
    assert "pytest" not in tops or name == "pytest_plugin"
    if floor_of_or_none(name) in (0, 1) and name not in {"foreign", "pacing"}:
        assert not tops & {"aiohttp", "asyncio", "socket", "yarl"}, f"{name} does I/O"


def floor_of_or_none(name: str) -> int | None:
    return None if name in APART else floor_of(name)


def test_the_client_and_the_session_take_only_a_type_from_aiohttp() -> None:
    for name in ("client", "session"):
        for node in ast.walk(parsed(name)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiohttp"):
                assert [alias.name for alias in node.names] == ["ClientSession"]
            if isinstance(node, ast.Import):
                assert "aiohttp" not in {alias.name.split(".")[0] for alias in node.names}


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"__init__"}))
def test_every_module_opens_with_its_law(name: str) -> None:
    docstring = ast.get_docstring(parsed(name))
    assert docstring
    assert "\nLaw: " in docstring


def test_endpoint_methods_are_declarations() -> None:
    (api,) = (
        node
        for node in ast.walk(parsed("client"))
        if isinstance(node, ast.ClassDef) and node.name == "GroupsAPI"
    )
    methods = [each for each in api.body if isinstance(each, ast.AsyncFunctionDef)]
    assert len(methods) == 6
    for method in methods:
        body = [each for each in method.body if not isinstance(each, ast.Expr)]
        assert len(body) <= 3, method.name
        inside = {type(each) for each in ast.walk(method)}
        assert not inside & {ast.Try, ast.Dict, ast.While, ast.For}, method.name


def test_the_readme_tells_the_same_floors() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| (`[^|]+`) \|", README.read_text(), re.MULTILINE)
    assert rows, "the table of floors is gone"
    told: dict[str, list[int]] = {}
    for numbers, names in rows:
        for name in re.findall(r"`(\w+)`", names):
            told[name] = [int(number) for number in numbers.split(",")]
    for name, numbers in told.items():
        assert FLOORS[name] in numbers, f"{name} is on floor {FLOORS[name]}"
    upper = {"__init__", "__main__", "audit.run"}
    assert set(told) == set(FLOORS) - upper


# The face.


def ruff_order(name: str) -> tuple[int, str]:
    """How ruff sorts `__all__`: constants, then classes, then the rest."""
    if name.isupper() and len(name) > 1:
        return 0, name
    return (1, name) if name[:1].isupper() else (2, name)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_all_is_sorted_and_every_name_in_it_is_there(name: str) -> None:
    if name == "__main__":
        return
    dotted = "deepcall_async" if name == "__init__" else f"deepcall_async.{name}"
    module = importlib.import_module(dotted)
    public = getattr(module, "__all__", [])
    assert public or name != "__init__"
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
    # pytest rewrites the asserts of a package that holds a plugin, under names of its own.
    names = [name for name in vars(deepcall_async) if name.isidentifier()]
    in_scope = {name for name in names if not name.startswith("_")}
    assert in_scope - set(MODULES) == public - {"__version__"}
    namespace: dict[str, object] = {}
    exec("from deepcall_async import *", namespace)
    assert public <= set(namespace)


def test_the_face_defines_nothing() -> None:
    for node in parsed("__init__").body:
        assert isinstance(node, (ast.Expr, ast.ImportFrom, ast.Assign))


def loaded_by(program: str) -> set[str]:
    program += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    flags = ["-W", "error", "-c", program]
    run = subprocess.run(
        [sys.executable, *flags], capture_output=True, text=True, check=True, timeout=60
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
    for name in ("sandbox", "sandbox_data", "cli", "pytest_plugin", "terminal", "audit"):
        assert f"deepcall_async.{name}" not in ours
    third = {top for top in tops if top not in sys.stdlib_module_names}
    assert third <= {"deepcall_async", "_distutils_hack"}
