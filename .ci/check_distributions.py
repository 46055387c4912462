"""Looks into a folder with one wheel and one sdist, and says what is missing, odd or too much.

Standard library only: it runs before anything is installed, and before anything is uploaded.
"""

from __future__ import annotations

import argparse
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

PACKAGE = "deepcall_async"
ROOT = Path(__file__).parents[1]

# What the sdist needs besides the package, so that the tests run from it.
IN_SDIST = [
    ".ci/run",
    ".github/LICENSE",
    ".github/workflows/ci.yml",
    "CHANGELOG.md",
    "README.md",
    "benchmarks/run.py",
    "pyproject.toml",
    "tests/conftest.py",
]


def package_files() -> set[str]:
    """All files of the package in the source tree: modules, templates, styles, scripts, schemas."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / PACKAGE).rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".pyo"}
    }


def wheel_faults(path: Path) -> Iterable[str]:
    """What is wrong with the wheel."""
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        info = next((n.partition("/")[0] for n in names if n.endswith(".dist-info/METADATA")), "")
        if not info:
            yield "no METADATA"
            return
        metadata = archive.read(f"{info}/METADATA").decode()
    yield from (f"lacks {name}" for name in sorted(package_files() - names))
    yield from (
        f"holds {name}"
        for name in sorted(names - package_files())
        if not name.startswith(f"{info}/")
    )
    if f"{info}/licenses/.github/LICENSE" not in names:
        yield "lacks the licence"
    for line in ("License-Expression: MIT", "License-File: .github/LICENSE"):
        if line not in metadata.splitlines():
            yield f"has no metadata line {line!r}"
    for target in re.findall(r"\]\((?!https:|#)([^)\s]+)\)", metadata):
        yield f"has a link in its description that leads nowhere on PyPI: {target}"
    if "entry_points.txt" not in {n.removeprefix(f"{info}/") for n in names}:
        yield "has no entry points: neither the command nor the fixtures would be found"


def sdist_faults(path: Path) -> Iterable[str]:
    """What is wrong with the sdist."""
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    yield from (f"lacks {name}" for name in sorted((package_files() | set(IN_SDIST)) - names))
    yield from (f"holds {n}" for n in sorted(names) if re.search(r"(^|/)__pycache__/|\.pyc$", n))


def faults(folder: Path, tag: str | None) -> Iterable[str]:
    """What is wrong with the distributions in a folder."""
    versions = set()
    for kind, pattern, inspect in (
        ("wheel", "*.whl", wheel_faults),
        ("sdist", "*.tar.gz", sdist_faults),
    ):
        found = sorted(folder.glob(pattern))
        if len(found) != 1:
            yield f"{folder} holds {len(found)} files {pattern}, not one"
            continue
        version = re.match(rf"{PACKAGE}-([^-]+?)(-py3-none-any\.whl|\.tar\.gz)$", found[0].name)
        if version is None:
            yield f"{kind} has an odd name: {found[0].name}"
            continue
        versions.add(version[1])
        yield from (f"{kind} {fault}" for fault in inspect(found[0]))
    if len(versions) > 1:
        yield f"wheel and sdist have different versions: {', '.join(sorted(versions))}"
    if tag is not None and {tag.removeprefix("v")} != versions:
        yield f"the tag {tag} is not the version built: {', '.join(sorted(versions)) or 'none'}"


def main() -> int:
    """Print what was found; 1 when there is anything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder with the wheel and the sdist")
    parser.add_argument("--tag", help="the tag that names the version, such as v1.2.3")
    given = parser.parse_args()
    found = list(faults(given.folder, given.tag))
    for fault in found:
        print(fault, file=sys.stderr)
    if not found:
        print(f"{', '.join(sorted(path.name for path in given.folder.iterdir()))}: all there")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
