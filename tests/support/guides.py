"""What users read, and copy from: the README, and the guides that stand in packages' docstrings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "deepcall_async"

README = (ROOT / "README.md").read_text("utf-8")


def guide(package: str) -> str:
    """A package's docstring, read without importing it."""
    source = (PACKAGE / package / "__init__.py").read_text("utf-8")
    return ast.get_docstring(ast.parse(source)) or ""


def blocks(text: str) -> list[tuple[str, str]]:
    """The fenced blocks of a text: language and content."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


GUIDES = {"README.md": README} | {
    each.parent.name: guide(each.parent.name) for each in sorted(PACKAGE.glob("*/__init__.py"))
}
