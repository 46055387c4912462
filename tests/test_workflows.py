"""What GitHub reads: workflows without more rights than they need, and guides that tell the truth."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
PROJECT_FILE = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PROJECT_FILE["project"]

PYTEST = PROJECT_FILE["tool"]["pytest"]["ini_options"]

# A path in this repository, wherever a command, a script or a guide names it.
PATH = re.compile(r"(?<![\w/.*-])((?:\.ci|\.github|benchmarks|deepcall_async|tests)/[\w./-]*\w/?)")
GUIDES = [GITHUB / "CONTRIBUTING.md", GITHUB / "SECURITY.md", ROOT / "README.md"]


def load(path):
    loaded = yaml.safe_load(path.read_text("utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def steps(path):
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def test_the_workflows_are_here():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "reference.yml", "release.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_right_is_given_to_all_jobs(path):
    workflow = load(path)
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        rights = job["permissions"]
        assert set(rights.items()) <= {("contents", "read"), ("id-token", "write")}, name
        assert job["timeout-minutes"] <= 60, name


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_with_their_version_beside(path):
    pins = re.findall(r"^\s*- uses: (.*)$", path.read_text("utf-8"), flags=re.MULTILINE)
    assert len(pins) == sum("uses" in step for step in steps(path)) > 0
    for pin in pins:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", pin), pin


def test_the_same_action_has_one_version_everywhere():
    pins = {step["uses"] for path in WORKFLOWS for step in steps(path) if "uses" in step}
    names = [pin.partition("@")[0] for pin in pins]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_checkouts_leave_no_token_behind(path):
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_commands_name_files_that_exist_and_paste_nothing_in(path):
    for step in steps(path):
        command = step.get("run", "")
        # An expression is pasted into the script as text; a variable of the environment is not.
        assert "${{" not in command
        for name in PATH.findall(command):
            assert (ROOT / name).is_file(), f"{command!r} names {name}"


def test_ci_runs_all_checks_on_linux_and_the_readmes_test_command_elsewhere():
    jobs = load(GITHUB / "workflows/ci.yml")["jobs"]
    assert [step.get("run") for step in jobs["linux"]["steps"]].count("bash .ci/run") == 1
    if os.name == "posix":
        assert os.access(ROOT / ".ci/run", os.X_OK)
        subprocess.run(["bash", "-n", ROOT / ".ci/run"], check=True, timeout=100)
    python = next(
        step["with"]["python-version"]
        for step in jobs["linux"]["steps"]
        if "with" in step and "python-version" in step["with"]
    )
    versions = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if ":: 3." in line]
    # Tested before it is promised.
    assert python.split() == [*versions, "3.14"]
    others = jobs["others"]
    assert others["strategy"]["matrix"]["os"] == ["macos-latest", "windows-latest"]
    commands = [step["run"] for step in others["steps"] if "run" in step]
    assert commands == ["pip install -e '.[test]' && pytest"]
    assert commands[0] in (ROOT / "README.md").read_text("utf-8").splitlines()


def test_an_archive_that_cannot_be_reached_fails_no_run():
    steps_on_linux = load(GITHUB / "workflows/ci.yml")["jobs"]["linux"]["steps"]
    installs = [step for step in steps_on_linux if "apt-get" in step.get("run", "")]
    assert installs
    for step in installs:
        assert step["continue-on-error"] is True
        assert step["timeout-minutes"] <= 10


def test_only_the_job_that_uploads_may_ask_for_a_token_and_it_runs_no_command():
    jobs = load(GITHUB / "workflows/release.yml")["jobs"]
    assert [name for name, job in jobs.items() if "id-token" in job["permissions"]] == ["publish"]
    publish = jobs["publish"]
    assert publish["needs"] == "build"
    assert publish["environment"]["name"] == "pypi"
    assert not any("run" in step for step in publish["steps"])
    # A secret given to the action would be used instead of trusted publishing.
    assert "with" not in publish["steps"][-1]
    assert publish["steps"][-1]["uses"].startswith("pypa/gh-action-pypi-publish@")


def test_what_is_built_is_what_is_uploaded():
    jobs = load(GITHUB / "workflows/release.yml")["jobs"]
    sent, fetched = jobs["build"]["steps"][-1]["with"], jobs["publish"]["steps"][0]["with"]
    assert (sent["name"], sent["path"]) == (fetched["name"], fetched["path"])


def test_dependabot_watches_the_actions_and_the_packages():
    settings = load(GITHUB / "dependabot.yml")
    assert settings["version"] == 2
    watched = {update["package-ecosystem"]: update["directory"] for update in settings["updates"]}
    assert watched == {"github-actions": "/", "pip": "/"}


def test_issue_forms_have_what_github_asks_for():
    forms = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.name for form in forms] == ["bug.yml", "config.yml", "idea.yml"]
    for form in forms:
        content = load(form)
        if form.name == "config.yml":
            assert content["blank_issues_enabled"] is False
            continue
        assert content["name"]
        assert content["description"]
        ids = [field["id"] for field in content["body"] if field["type"] != "markdown"]
        assert len(ids) == len(set(ids)) > 0
        assert all(field["attributes"] for field in content["body"])


@pytest.mark.parametrize(
    "path",
    [*sorted(GITHUB.rglob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md"],
    ids=lambda path: path.name,
)
def test_relative_links_lead_to_files(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            assert (path.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("path", [*GUIDES, ROOT / ".ci/run"], ids=lambda path: path.name)
def test_paths_that_are_named_exist(path):
    for name in PATH.findall(path.read_text("utf-8")):
        assert (ROOT / name).exists(), name


def test_the_guides_name_paths_and_a_wrong_one_is_seen():
    found = {guide.name: PATH.findall(guide.read_text("utf-8")) for guide in GUIDES}
    assert len(found["README.md"]) >= 8
    assert len(found["CONTRIBUTING.md"]) >= 12
    seen = PATH.findall("`tests/faults/`: see tests/no_such.py, or pytest tests/interop.")
    assert seen == ["tests/faults/", "tests/no_such.py", "tests/interop"]
    assert not PATH.findall("https://brand.example/tests/a.py and mytests/b.py")


def test_the_readme_says_where_the_folder_comes_from_before_it_is_installed():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    clone = lines.index(f"git clone {PROJECT['urls']['Homepage']} && cd {PROJECT['name']}")
    assert lines[clone + 1] == "pip install '.[cli]' && deepcall audit --sandbox"
    assert lines.count("pip install -e '.[test]' && pytest") == 1


def test_no_test_can_hang():
    assert 0 < PYTEST["timeout"] <= 120


def test_the_projects_home_is_one():
    home = PROJECT["urls"]["Source"]
    assert all(url.startswith(home) for url in PROJECT["urls"].values())
    for path in [*GITHUB.rglob("*.md"), *GITHUB.rglob("*.yml"), ROOT / "README.md"]:
        for url in re.findall(
            r"https://github\.com/deepcall-async[\w/.-]*", path.read_text("utf-8")
        ):
            assert url.removesuffix(".git").startswith(home), f"{path}: {url}"


def test_only_the_six_names_and_hidden_ones_stand_at_the_top():
    ignored = {"build", "dist", "PKG-INFO"}
    seen = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert seen - ignored - {n for n in seen if n.endswith(".egg-info")} == {
        "CHANGELOG.md",
        "README.md",
        "benchmarks",
        "deepcall_async",
        "pyproject.toml",
        "tests",
    }
