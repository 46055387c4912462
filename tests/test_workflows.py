"""What GitHub reads: workflows without more rights than they need, and links that lead somewhere."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

# A folder or a hidden folder, then a path: what a command of a workflow names in this repository.
PATH_IN_COMMAND = re.compile(r"(?<![\w/.*])(?:\./)?((?:\.ci|\.github|tests|benchmarks)/[\w./-]+)")


def load(path):
    loaded = yaml.safe_load(path.read_text("utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def steps(path):
    return [step for job in load(path)["jobs"].values() for step in job["steps"]]


def test_both_workflows_are_here():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]


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
        for name in PATH_IN_COMMAND.findall(command):
            assert (ROOT / name).is_file(), f"{command!r} names {name}"


def test_ci_runs_all_checks_on_linux_and_the_readmes_test_command_elsewhere():
    jobs = load(GITHUB / "workflows/ci.yml")["jobs"]
    assert [step.get("run") for step in jobs["linux"]["steps"]].count(".ci/run") == 1
    if os.name == "posix":
        assert os.access(ROOT / ".ci/run", os.X_OK)
    python = next(
        step["with"]["python-version"]
        for step in jobs["linux"]["steps"]
        if "with" in step and "python-version" in step["with"]
    )
    versions = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if ":: 3." in line]
    assert python.split() == versions
    others = jobs["others"]
    assert others["strategy"]["matrix"]["os"] == ["macos-latest", "windows-latest"]
    commands = [step["run"] for step in others["steps"] if "run" in step]
    assert commands == ["pip install -e '.[test]' && pytest"]
    assert commands[0] in (ROOT / "README.md").read_text("utf-8").splitlines()


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


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md", "pull_request_template.md"])
def test_paths_in_the_guides_exist(name):
    text = (GITHUB / name).read_text("utf-8")
    paths = re.findall(r"`((?:\.ci|\.github|deepcall_async|tests|benchmarks)/[\w./-]*)`", text)
    for path in paths:
        assert (ROOT / path).exists(), path


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
