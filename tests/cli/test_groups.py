"""All six endpoints: what is listed and how, and that nothing is changed without being said first."""

from __future__ import annotations

import csv
import io
import json
import os
import sys

import pytest

from tests.support.command import called as deepcall
from tests.support.command import environment, started
from tests.support.rows import mostly_thorough

pytestmark = pytest.mark.deepcall_sandbox(groups=40)


@pytest.fixture
def env(deepcall_sandbox):
    return environment(deepcall_sandbox)


@pytest.mark.parametrize("command", [("groups", "list"), ("groups", "show", "28"), ("rules",)])
def test_every_listing_in_every_format(command, env):
    table = deepcall(*command, env=env)
    as_json = json.loads(deepcall(*command, "-o", "json", env=env).stdout)
    as_csv = list(csv.DictReader(io.StringIO(deepcall(*command, "-o", "csv", env=env).stdout)))
    assert table.returncode == 0
    assert len(as_json) == len(as_csv) >= 3
    assert [*map(str.casefold, as_json[0])] == [name.replace(" ", "_") for name in as_csv[0]]


def test_show_tells_ids_as_numbers_and_flags_as_truth_values(env):
    found = json.loads(deepcall("groups", "show", "28", "-o", "json", env=env).stdout)
    assert found[0] == {"agent": 3, "name": "bhawesh", "receives_calls": True}


def test_a_name_is_no_formula_in_a_spreadsheet(env):
    assert deepcall("groups", "add", "=HYPERLINK(1)", "--yes", env=env).returncode == 0
    done = deepcall("groups", "list", "--name", "hyperlink", "-o", "csv", env=env)
    assert "'=HYPERLINK(1)" in done.stdout


def test_a_group_from_its_beginning_to_its_end(env, deepcall_sandbox):
    added = deepcall("groups", "add", "Sales", "--yes", "-o", "json", env=env)
    assert added.returncode == 0
    group = str(json.loads(added.stdout)["group_id"])
    updated = deepcall(
        "groups", "update", group, "--name", "Sales EU", "--status", "0", "-y", env=env
    )
    assert updated.returncode == 0
    assert "name: Sales -> Sales EU" in updated.stderr
    assert "status: 1 -> 0" in updated.stderr
    assigned = deepcall("groups", "assign", group, "3", "8", "--receive", "3", "--yes", env=env)
    assert assigned.returncode == 0
    assert "add  agent 3 bhawesh: receives calls" in assigned.stderr
    again = deepcall("groups", "assign", group, "3", "2", "--receive", "2", "--dry-run", env=env)
    assert "keep agent 3 bhawesh: does not receive calls (now does)" in again.stderr
    assert "not named: 8; the service may remove them, or leave them" in again.stderr
    shown = deepcall("groups", "show", group, env=env).stdout
    assert "Sales EU" in shown
    assert "inactive" in shown
    assert "1 of 2 receive calls" in shown
    deleted = deepcall("groups", "delete", group, "--yes", env=env)
    assert deleted.returncode == 0
    assert f"delete group {group}, Sales EU" in deleted.stderr
    assert deepcall("groups", "show", group, env=env).returncode == 2


CHANGES = [
    ("add", ("add", "Sales")),
    ("update", ("update", "28", "--name", "Sales")),
    ("delete", ("delete", "28")),
    ("submitAssignGroupToAgent", ("assign", "28", "3")),
]


@pytest.mark.parametrize(("verb", "arguments"), CHANGES)
def test_nothing_is_changed_without_yes_or_by_a_dry_run(verb, arguments, env, deepcall_sandbox):
    done = deepcall("groups", *arguments, env=env)
    assert done.returncode == 2
    assert "Will " in done.stderr
    assert "give --yes" in done.stderr
    done = deepcall("groups", *arguments, "--dry-run", "--yes", env=env)
    assert done.returncode == 0
    assert "Nothing was changed" in done.stderr
    assert done.stdout == ""
    assert deepcall_sandbox.requests[verb] == 0
    assert deepcall("groups", *arguments, "--yes", env=env).returncode == 0
    assert deepcall_sandbox.requests[verb] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")
@pytest.mark.parametrize(
    ("answer", "code"), mostly_thorough([(b"y\n", 0), (b"\n", 2), (b"n\n", 2), (b"\x04", 2)], but=2)
)
def test_it_asks_on_a_terminal(answer, code, env, deepcall_sandbox):
    import pty

    ours, theirs = pty.openpty()
    shown = b""
    with started("groups", "delete", "28", stdin=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        while b"[y/N]" not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, answer)
        assert process.wait(20) == code
    os.close(ours)
    assert b"delete group 28, Mahipal singh" in shown
    assert deepcall_sandbox.requests["delete"] == (1 if code == 0 else 0)


def test_a_name_that_is_taken_is_told(env):
    done = deepcall("groups", "add", "mahipal SINGH", "--dry-run", env=env)
    assert "the name is taken (group 28): the service will append a number" in done.stderr


def test_an_answer_that_is_lost_is_not_taken_for_done(env, deepcall_sandbox):
    deepcall_sandbox.fail_next("add", drop=True)
    lost = deepcall("groups", "add", "Sales", "--yes", env=env)
    assert lost.returncode == 3
    assert lost.stdout == ""
    assert "may or may not" in lost.stderr
    deepcall_sandbox.fail_next("add", drop=True)
    found = deepcall("groups", "add", "Sales", "--reconcile", "--yes", "-o", "json", env=env)
    assert found.returncode == 0
    assert json.loads(found.stdout) == {"group_id": 42}
    assert deepcall_sandbox.requests["add"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "987654"), "1503"),
        (("delete", "987654", "--yes"), "1503"),
        (("update", "28", "--name", " ", "--yes"), "name is blank"),
        (("add", "", "--yes"), "name is blank"),
        (("assign", "28", "3", "--receive", "8", "--yes"), "--receive 8"),
        (("assign", "28", "3", "--receive", "x", "--yes"), "--receive"),
        (("assign", "28", "424242", "--yes"), "1000"),
        (("assign", "28", "--yes"), "name the agents"),
        (("show", "1.5"), "1.5"),
        (("update", "28"), "--name"),
    ],
)
def test_what_cannot_be_done_is_said(arguments, said, env):
    done = deepcall("groups", *arguments, env=env)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
