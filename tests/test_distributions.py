"""The wheel and the sdist hold what they should; CI and the release look with the same script."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[1]


def build(source: Path, target: Path, *options: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", target, *options],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=100,
    )


def check(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / ".ci/check_distributions.py", folder, *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture(scope="module")
def built_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    build(ROOT, folder)
    return folder


@pytest.fixture
def built(built_once, tmp_path):
    """A wheel and an sdist that the test may change."""
    return shutil.copytree(built_once, tmp_path / "dist")


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_they_hold_what_they_should(built):
    done = check(built)
    assert done.returncode == 0, done.stderr
    assert "all there" in done.stdout


def test_the_sdist_builds_the_same_wheel(built, tmp_path):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    build(next((tmp_path / "unpacked").iterdir()), tmp_path / "again", "-t", "wheel")
    (first,), (second,) = built.glob("*.whl"), (tmp_path / "again").glob("*.whl")
    assert contents(first) == contents(second)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("deepcall_async/py.typed", "wheel lacks deepcall_async/py.typed"),
        ("deepcall_async/audit/formats/schema.json", "wheel lacks deepcall_async/audit/formats/"),
        ("LICENSE", "wheel lacks the licence"),
        ("entry_points.txt", "wheel has no entry points"),
    ],
)
def test_what_a_wheel_lacks_is_said(built, name, said):
    (wheel,) = built.glob("*.whl")
    rest = {at: data for at, data in contents(wheel).items() if not at.endswith(name)}
    with zipfile.ZipFile(wheel, "w") as archive:
        for at, data in rest.items():
            archive.writestr(at, data)
    done = check(built)
    assert done.returncode == 1
    assert said in done.stderr


def test_what_a_wheel_has_too_much_is_said(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tests/conftest.py", "")
    done = check(built)
    assert done.returncode == 1
    assert done.stderr == "wheel holds tests/conftest.py\n"


def test_a_link_that_leads_nowhere_on_pypi_is_said(built):
    (wheel,) = built.glob("*.whl")
    files = contents(wheel)
    (at,) = [name for name in files if name.endswith(".dist-info/METADATA")]
    files[at] += b"\n[benchmarks](benchmarks/README.md)\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    done = check(built)
    assert done.returncode == 1
    assert "leads nowhere on PyPI: benchmarks/README.md" in done.stderr


def test_a_tag_of_another_version_and_a_missing_sdist_are_said(built):
    (sdist,) = built.glob("*.tar.gz")
    version = sdist.name.removeprefix("deepcall_async-").removesuffix(".tar.gz")
    assert check(built, "--tag", f"v{version}").returncode == 0
    sdist.unlink()
    done = check(built, "--tag", "v0.0.0")
    assert done.returncode == 1
    assert "holds 0 files *.tar.gz, not one" in done.stderr
    assert f"the tag v0.0.0 is not the version built: {version}" in done.stderr
