"""The pure step: when a change is told, when it waits, and that none is lost or told twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from deepcall_async.audit import Snapshot
from deepcall_async.audit.change import (
    Appeared,
    Blind,
    Change,
    FirstLook,
    Recovered,
    SightAgain,
    SwitchedOff,
    Thin,
    Vanished,
    WentDark,
    digest,
)
from deepcall_async.audit.watch import State, step
from deepcall_async.models import GroupAgentRelation
from tests.support.audit_accounts import NOW
from tests.support.watched import BLIND, Model, found, seen, told

EVERY = timedelta(minutes=5)


class Watched:
    """An account whose looks are five minutes apart."""

    def __init__(self, **limits: float) -> None:
        self.state = State()
        self.now = NOW
        self.limits = {"cooldown": 0} | limits

    def look(self, groups: Mapping[int, str] | Snapshot | str, **more: str) -> tuple[Change, ...]:
        """One look; a letter alone is group 1."""
        found = {1: groups} if isinstance(groups, str) else groups
        snapshot = found if isinstance(found, Snapshot) else seen(found)
        self.now += EVERY
        self.state, changes = step(self.state, snapshot, self.now, **self.limits, **more)  # type: ignore[arg-type]
        return changes

    def looks(self, letters: Iterable[str]) -> list[str]:
        """The kinds that come of looks at group 1, a word a look."""
        return [", ".join(told(change)[0] for change in self.look(letter)) for letter in letters]


@pytest.mark.parametrize(
    ("letters", "expected"),
    [
        ("gdd", ["FirstLook", "", "WentDark"]),
        ("gdgdgd", ["FirstLook", "", "", "", "", ""]),
        ("ddgg", ["FirstLook", "", "", "Recovered dark"]),
        ("ddtg", ["FirstLook", "", "", "Recovered dark"]),
        ("ddgdgd", ["FirstLook", "", "", "", "", ""]),
        ("gdudd", ["FirstLook", "", "", "WentDark", ""]),  # unread neither counts nor resets
        ("gddugg", ["FirstLook", "", "WentDark", "", "", "Recovered dark"]),
        ("gtt", ["FirstLook", "", "Thin"]),
        ("gdt", ["FirstLook", "", "Thin"]),  # at least as bad, twice
        ("gtdd", ["FirstLook", "", "", "WentDark"]),
        ("gttgg", ["FirstLook", "", "Thin", "", "Recovered thin"]),
        ("ttdd", ["FirstLook", "", "", "WentDark"]),
        ("goo", ["FirstLook", "", "SwitchedOff"]),
        ("ddoo", ["FirstLook", "", "", "SwitchedOff"]),
        ("oogg", ["FirstLook", "", "", "Recovered off"]),
        ("oodd", ["FirstLook", "", "", "WentDark"]),
        ("ddog", ["FirstLook", "", "", ""]),
        ("gxx".replace("x", "-"), ["FirstLook", "", "Vanished"]),
        ("g-g-g", ["FirstLook", "", "", "", ""]),
        ("-gg", ["FirstLook", "", "Appeared"]),
        ("-g-gg", ["FirstLook", "", "", "", "Appeared"]),
        ("-dddd", ["FirstLook", "", "Appeared", "WentDark", ""]),
        ("g--gg", ["FirstLook", "", "Vanished", "", "Appeared"]),
    ],
)
def test_a_group_alone(letters, expected):
    assert Watched().looks(letters) == expected


def test_one_look_is_enough_when_so_asked():
    assert Watched(confirm=1, clear=1).looks("gdgo-g")[1:] == [
        *("WentDark", "Recovered dark", "SwitchedOff", "Vanished", "Appeared")
    ]


def test_the_first_look_is_one_summary_that_names_what_is_dark():
    watched = Watched()
    (summary,) = watched.look({1: "d", 2: "g", 3: "t", 4: "o", 5: "u"})
    assert isinstance(summary, FirstLook)
    assert (summary.groups, summary.thin, summary.off, summary.unread) == (5, 1, 1, 1)
    assert [group.group_id for group in summary.dark] == [1]
    assert "Dark: Group B (1)." in str(summary)
    assert watched.look({1: "d", 2: "g", 3: "t", 4: "o", 5: "g"}) == ()


def test_a_group_that_the_first_look_could_not_read_is_told_when_it_is_dark():
    watched = Watched()
    watched.look({1: "g", 2: "u"})
    assert watched.look({1: "g", 2: "d"}) == ()
    (change,) = watched.look({1: "g", 2: "d"})
    assert told(change) == ("WentDark", 2)


def test_a_blind_look_before_the_first_is_no_first_look():
    watched = Watched()
    assert watched.look(BLIND) == ()
    assert watched.look({1: "u"}) == ()
    (summary,) = watched.look({1: "g"}, note="A note.")
    assert isinstance(summary, FirstLook)
    assert str(summary).endswith("A note.")


def test_an_account_without_groups_is_seen():
    (summary,) = Watched().look({})
    assert isinstance(summary, FirstLook)
    assert summary.groups == 0


def test_a_failed_list_changes_nothing_and_three_are_told():
    watched = Watched(cooldown=3600)
    watched.look("g")
    first = watched.now + EVERY
    assert [watched.look(BLIND, reason="the list\x1b failed") for _ in range(2)] == [(), ()]
    (blind,) = watched.look(BLIND, reason="the list\x1b failed")
    assert isinstance(blind, Blind)
    assert blind.since == first
    assert blind.reason == "the list\\x1b failed"
    assert watched.look(BLIND) == ()
    assert watched.state.groups[1].reads == "g"
    (again,) = watched.look("g")
    assert isinstance(again, SightAgain)
    assert again.since == first


def test_blindness_that_comes_and_goes_is_told_once_a_cooldown():
    watched = Watched(cooldown=3600)
    watched.look("g")
    kinds = []
    for _ in range(6):  # two hours
        kinds += [told(change)[0] for _ in range(3) for change in watched.look(BLIND)]
        kinds += [told(change)[0] for change in watched.look("g")]
    assert kinds == ["Blind", "SightAgain"] * 2


def test_a_look_where_no_lookup_worked_is_blind_and_says_why():
    watched = Watched()
    watched.look({1: "g", 2: "g"})
    assert watched.look({1: "u", 2: "u"}) == watched.look({1: "u", 2: "u"}) == ()
    (blind,) = watched.look({1: "u", 2: "u"})
    assert isinstance(blind, Blind)
    assert "RequestTimeout" in blind.reason


def test_gone_while_it_was_looked_up_is_gone():
    watched = Watched()
    watched.look({1: "g", 2: "g"})
    gone = replace(seen({1: "g"}), asked=(1, 2), gone=frozenset({2}))
    assert watched.look(gone) == ()
    (change,) = watched.look(gone)
    assert isinstance(change, Vanished)
    assert change.group_id == 2


def test_that_all_groups_were_gone_when_looked_up_is_no_blindness():
    watched = Watched()
    watched.look({1: "g"})
    gone = replace(seen({}), asked=(1,), gone=frozenset({1}))
    assert [type(change) for _ in range(2) for change in watched.look(gone)] == [Vanished]
    assert watched.state.blind_looks == 0


def test_groups_that_were_chosen_say_nothing_of_others():
    watched = Watched(confirm=1)
    watched.look({1: "g", 2: "g"})
    some = seen({1: "g"})
    assert watched.look(replace(some, run=replace(some.run, whole_account=False))) == ()


def test_a_rename_is_no_change_and_the_new_name_is_used():
    watched = Watched()
    watched.look("g")

    def renamed(letter: str) -> Snapshot:
        relation: GroupAgentRelation = found(1, letter, "Sales\u202eEU")
        return Snapshot(asked=(1,), relations={1: relation})

    assert watched.look(renamed("g")) == ()
    watched.look(renamed("d"))
    (change,) = watched.look(renamed("d"))
    assert isinstance(change, WentDark)
    assert change.name == "Sales\u202eEU"
    assert str(change).startswith("Sales\\u202eEU (1) went dark: none of its 2 agents")


def test_within_the_cooldown_nothing_is_told_and_after_it_what_still_holds():
    watched = Watched(cooldown=3600)
    assert watched.looks("gdd")[-1] == "WentDark"
    assert watched.looks("g" * 11) == [""] * 11
    assert watched.looks("g") == ["Recovered dark"]
    assert watched.looks("dd" + "g" * 20) == [""] * 22  # it was well again when it was time


def test_that_it_went_dark_does_not_wait_for_a_milder_message():
    watched = Watched(cooldown=3600)
    assert watched.looks("gttdd") == ["FirstLook", "", "Thin", "", "WentDark"]
    watched = Watched(cooldown=3600)
    assert watched.looks("-ddd") == ["FirstLook", "", "Appeared", "WentDark"]


def test_a_clock_that_is_set_back_silences_nothing():
    watched = Watched(cooldown=3600)
    watched.looks("gdd")
    watched.now -= timedelta(days=400)
    assert watched.looks("gg")[-1] == "Recovered dark"


def test_since_when():
    watched = Watched()
    watched.looks("ggd")
    dark_since = watched.now
    (dark,) = watched.look("d")
    assert isinstance(dark, WentDark)
    assert dark.since == dark_since
    watched.looks("dddg")
    well_since = watched.now
    (well,) = watched.look("g")
    assert isinstance(well, Recovered)
    assert (well.since, well.well_since, well.receivers) == (dark_since, well_since, 3)


def test_what_vanished_is_forgotten_after_the_cooldown():
    watched = Watched(cooldown=600)
    watched.looks("g--")
    assert 1 in watched.state.groups
    watched.looks("--")
    assert watched.state.groups == {}


def test_when_it_last_looked_saw_anything_and_saw_everything():
    watched = Watched()
    watched.look({1: "g", 2: "g"})
    whole = watched.now
    watched.look({1: "g", 2: "u"})
    partial = watched.now
    watched.look(BLIND)
    state = watched.state
    assert (state.last_whole, state.last_sight, state.last_look) == (whole, partial, watched.now)


def test_what_vanished_before_it_was_told_is_forgotten_at_once():
    watched = Watched()
    for groups in ({1: "g"}, {1: "g", 2: "d"}, {1: "g"}):
        watched.look(groups)
    assert [*watched.state.groups] == [1]


def test_a_digest_puts_the_worst_first_and_counts_a_flood():
    common = {"number": 1, "at": NOW, "name": "Sales"}
    dark = [WentDark(**common, group_id=i, members=2, since=NOW) for i in range(1, 301)]  # type: ignore[arg-type]
    well = Recovered(**common, group_id=9, was="dark", since=NOW, well_since=NOW, receivers=1)  # type: ignore[arg-type]
    title, body = digest([well, *dark])
    assert title == "300 groups went dark, 1 group recovered"
    lines = body.splitlines()
    assert len(lines) == 12
    assert lines[0] == (
        "Sales (1) went dark: none of its 2 agents receives calls, since 2026-06-01 12:00 UTC."
    )
    assert lines[10] == "… and 290 more groups went dark."
    assert lines[11] == (
        "Sales (9) recovered: 1 agent receives calls, since 2026-06-01 12:00 UTC;"
        " it was dark since 2026-06-01 12:00 UTC."
    )


def test_every_change_is_a_sentence_and_goes_through_json():
    common = {"number": 7, "at": NOW}
    group = common | {"group_id": 1, "name": "Sales\n"}
    changes = (
        WentDark(**group, members=0, since=NOW),
        WentDark(**group, members=1, since=NOW),
        Recovered(**group, was="off", since=NOW, well_since=NOW, receivers=2),
        Thin(**group, receivers=1, members=2),
        SwitchedOff(**group),
        Appeared(**group, receivers=0, active=False),
        Vanished(**group),
        Blind(**common, since=NOW, reason="no answer"),
        SightAgain(**common, since=NOW),
        FirstLook(**common, groups=1),
    )
    for change in changes:
        text = str(change)
        assert text.endswith(".")
        assert text.isprintable()
        assert msgspec.json.decode(msgspec.json.encode(change), type=Change) == change
        assert digest([change]).title.isprintable()


# A word a look, of a letter for each of three groups; a blank is a look that could not list them.
LOOKS = st.lists(
    st.one_of(st.just(""), st.text("gtdou-", min_size=3, max_size=3)), max_size=24
).map(lambda words: [dict(enumerate(word, 1)) if word else None for word in words])
LIMITS = st.fixed_dictionaries(
    {
        "confirm": st.integers(1, 3),
        "clear": st.integers(1, 3),
        "cooldown": st.sampled_from([0, 600, 3600]),
    }
)


def run(
    looks: Iterable[Mapping[int, str] | None], limits: dict[str, float], *, restart: bool = False
) -> tuple[State, list[tuple[datetime, Change]]]:
    state, now, out = State(), NOW, []
    for groups in looks:
        now += EVERY
        snapshot = BLIND if groups is None else seen(groups)
        state, changes = step(state, snapshot, now, **limits)  # type: ignore[arg-type]
        if restart:
            state = msgspec.json.decode(msgspec.json.encode(state), type=State)
        out += [(now, change) for change in changes]
    return state, out


@given(LOOKS, LIMITS)
def test_what_is_told_is_what_the_model_tells(looks, limits):
    model = Model(**limits)
    state, now = State(), NOW
    for groups in looks:
        now += EVERY
        snapshot = BLIND if groups is None else seen(groups)
        state, changes = step(state, snapshot, now, **limits)
        assert sorted(map(told, changes), key=str) == sorted(model.look(groups, now), key=str)


@given(LOOKS, LIMITS)
def test_a_restart_after_every_look_changes_nothing(looks, limits):
    assert run(looks, limits) == run(looks, limits, restart=True)


@given(LOOKS, LIMITS)
def test_numbers_count_and_no_group_is_told_twice_to_be_the_same(looks, limits):
    _, out = run(looks, limits)
    assert [change.number for _, change in out] == [*range(1, len(out) + 1)]
    of_group: dict[int, list[str]] = {}
    for _, change in out:
        kind, group_id = told(change)
        if group_id is not None:
            of_group.setdefault(group_id, []).append(kind)
    for kinds in of_group.values():
        for before, after in pairwise(kinds):
            # Recovered twice is dark to thin, then thin to good.
            assert before != after


@given(LOOKS, LIMITS, st.sampled_from("gtdo"))
def test_none_is_lost(looks, limits, letter):
    """However it went, once a group stays as it is, the last that was told of it is true."""
    settled = [{1: letter, 2: "g", 3: "g"}] * 20  # longer than any cooldown
    state, _ = run([*looks, *settled], limits)
    assert state.groups[1].told == letter
    assert {state.groups[2].told, state.groups[3].told} == {"g"}


@given(LOOKS, LIMITS)
def test_a_look_that_did_not_read_a_group_tells_nothing_of_it(looks, limits):
    state, now = State(), NOW
    for groups in looks:
        now += EVERY
        before = state
        snapshot = BLIND if groups is None else seen(groups)
        state, changes = step(state, snapshot, now, **limits)
        for group_id in (1, 2, 3):
            if groups is None or groups[group_id] == "u":
                assert group_id not in [told(change)[1] for change in changes]
                if before.last_sight is not None:
                    assert state.groups.get(group_id) == before.groups.get(group_id)


@given(st.text("gdu", min_size=60, max_size=60), LIMITS)
def test_a_coin_flip_group_sends_one_message_a_cooldown_at_most(letters, limits):
    _, out = run([{1: letter} for letter in letters], limits)
    times = [now for now, change in out if told(change)[1] == 1]
    assert all(
        later - earlier >= timedelta(seconds=limits["cooldown"])
        for earlier, later in pairwise(times)
    )


@given(st.text("gtdo-u", min_size=60, max_size=60), LIMITS)
def test_a_group_that_does_anything_sends_one_and_perhaps_one_that_it_went_dark(letters, limits):
    _, out = run([{1: letter} for letter in letters], limits)
    messages = [(now, change) for now, change in out if told(change)[1] == 1]
    for (earlier, before), (later, after) in pairwise(messages):
        soon = later - earlier < timedelta(seconds=limits["cooldown"])
        assert not soon or (isinstance(before, (Thin, Appeared)) and isinstance(after, WentDark))
