"""The examples of docstrings, run against the sandbox and compared with what they show."""

from __future__ import annotations

import ast
import asyncio
import doctest
import inspect
import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest

import deepcall_async
from deepcall_async import DeepCall, UserToken, audit, sandbox
from deepcall_async.sandbox import Sandbox
from tests.support.guides import PACKAGE

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node) or ""
                if found := doctest.DocTestParser().get_examples(text):
                    name = getattr(node, "name", "")
                    yield pytest.param(found, id=f"{path.relative_to(PACKAGE)}:{name}")


FOUND = list(examples())


async def work(found, names):
    for example in found:
        # As at an asyncio prompt: "await" may stand at the top, and an expression shows its value.
        code = compile(
            example.source, "<example>", "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
        )
        shown = io.StringIO()
        with redirect_stdout(shown):
            result = eval(code, names)
            if inspect.iscoroutine(result):
                await result
        right = doctest.OutputChecker().check_output(example.want, shown.getvalue(), FLAGS)
        assert right, f"{example.source}\nshows {shown.getvalue()}\nnot   {example.want}"


@pytest.mark.parametrize("found", FOUND)
def test_an_example_shows_what_it_says(found, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    async def main():
        async with Sandbox() as server:
            user_id, token = server.user_id, server.token
            monkeypatch.setenv("DEEPCALL_BASE_URL", server.base_url)
            monkeypatch.setenv("DEEPCALL_USER_ID", user_id)
            monkeypatch.setenv("DEEPCALL_TOKEN", token)
            names = {
                **{each: getattr(sandbox, each) for each in sandbox.__all__},
                **{each: getattr(audit, each) for each in audit.__all__},
                **{each: getattr(deepcall_async, each) for each in deepcall_async.__all__},
                "asyncio": asyncio,
                "Path": Path,
                "server": server,
                "user_id": user_id,
                "token": token,
            }
            async with DeepCall(UserToken(user_id, token), base_url=server.base_url) as dc:
                await work(found, names | {"dc": dc})

    asyncio.run(main())


def test_a_wrong_example_is_seen():
    found = doctest.DocTestParser().get_examples(">>> 1 + 1\n3\n")
    with pytest.raises(AssertionError, match="shows 2"):
        asyncio.run(work(found, {}))
    assert len(FOUND) > 15
