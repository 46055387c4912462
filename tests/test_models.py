"""The models: the vendor's own reply joined on ids, labels, dates, and structs that keep still."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepcall_async import (
    AddedGroup,
    Agent,
    AgentLabel,
    AgentRelation,
    DeletedGroup,
    Group,
    GroupAgentRelation,
    Member,
    SessionId,
    replies,
    wire,
)

SAMPLE = (Path(__file__).parent / "data" / "agent_relation.json").read_bytes()
LONG = 2**63 - 1


@pytest.fixture(scope="module")
def relation() -> GroupAgentRelation:
    call = wire.agent_relation(28, quick=True, name=None)
    identity = wire.Identity(SessionId("s3ssion"))
    decoded = wire.decode(call, 200, {}, SAMPLE, identity, replies.Rosters(), lambda: 0.0)
    assert isinstance(decoded, GroupAgentRelation), decoded
    return decoded


# The vendor's example.


def test_the_vendors_reply_is_as_published() -> None:
    assert len(SAMPLE) == 1084


def test_the_vendors_reply_has_three_members_of_eleven_agents(
    relation: GroupAgentRelation,
) -> None:
    assert len(relation.agents) == 11
    assert len(relation.members) == 3
    assert [member.agent_id for member in relation.members] == [3, 8, 2]
    assert relation.receivers == relation.members
    assert relation.unknown_agent_ids == ()


def test_members_are_joined_on_ids_for_names_are_shared(relation: GroupAgentRelation) -> None:
    names = [agent.name for agent in relation.agents]
    assert names.count("bhawesh") == 3
    assert names.count("Manoj Kumar111") == 3
    for member in relation.members:
        assert member.agent is not None
        assert member.agent.unique_id == member.agent_id
        assert member.agent in relation.agents
    assert [member.agent.name for member in relation.members if member.agent] == [
        "bhawesh",
        "manoj",
        "bhawesh",
    ]


def test_the_vendors_group(relation: GroupAgentRelation) -> None:
    group = relation.group
    assert (group.unique_id, group.name, group.status) == (28, "Mahipal singh", 1)
    assert (group.user_id, group.create_by) == ("29791451", "29791451")
    assert group.active
    assert group.created_at == datetime(2024, 11, 16, 8, 38, 38, tzinfo=UTC)
    assert group.agents == ("#3 bhawesh", "#8 manoj", "#2 bhawesh")
    assert group.agent_labels == (
        AgentLabel(3, "bhawesh"),
        AgentLabel(8, "manoj"),
        AgentLabel(2, "bhawesh"),
    )


# Joining.


def related(*rows: tuple[int, int, str], agents: tuple[int, ...] = (1, 2, 3)) -> GroupAgentRelation:
    return GroupAgentRelation(
        Group(unique_id=28, name="Sales"),
        tuple(Agent(unique_id=each, name="same") for each in agents),
        tuple(AgentRelation(group_id=g, agent_id=a, receive_call=yes) for g, a, yes in rows),
    )


def test_rows_of_other_groups_are_no_members() -> None:
    assert [each.agent_id for each in related((28, 1, "Y"), (29, 2, "Y")).members] == [1]


def test_an_agent_listed_twice_is_one_member_who_receives_if_any_row_says_so() -> None:
    found = related((28, 2, "N"), (28, 1, "N"), (28, 2, "Y"), (28, 1, "N"))
    assert [(each.agent_id, each.receives_calls) for each in found.members] == [
        (2, True),
        (1, False),
    ]
    assert [each.agent_id for each in found.receivers] == [2]


def test_an_agent_that_the_roster_lacks_is_a_member_without_a_name() -> None:
    found = related((28, 9, "Y"), (28, 1, "Y"))
    assert found.members == (
        Member(9, None, True),
        Member(1, Agent(unique_id=1, name="same"), True),
    )
    assert found.unknown_agent_ids == (9,)


def test_an_agent_that_the_roster_lists_twice_is_one_member() -> None:
    found = related((28, 1, "Y"), agents=(1, 1, 2))
    assert len(found.members) == 1


def test_an_empty_group_has_no_members() -> None:
    empty = related()
    assert (empty.members, empty.receivers, empty.unknown_agent_ids) == ((), (), ())


@pytest.mark.parametrize(("word", "yes"), [("Y", True), ("N", False), ("y", False), ("", False)])
def test_who_receives_calls(word: str, yes: bool) -> None:
    assert related((28, 1, word)).members[0].receives_calls is yes


@given(
    st.lists(st.tuples(st.integers(27, 29), st.integers(1, 6), st.sampled_from(["Y", "N"]))),
    st.sets(st.integers(1, 6)),
)
def test_members_follow_from_the_rows_alone(
    rows: list[tuple[int, int, str]], roster: set[int]
) -> None:
    found = related(*rows, agents=tuple(roster))
    mine = [(agent, word) for group, agent, word in rows if group == 28]
    assert [each.agent_id for each in found.members] == list(dict.fromkeys(a for a, _ in mine))
    receivers = {agent for agent, word in mine if word == "Y"}
    assert {each.agent_id for each in found.receivers} == receivers
    assert set(found.unknown_agent_ids) == {agent for agent, _ in mine} - roster
    for member in found.members:
        assert (member.agent is None) == (member.agent_id not in roster)


# Labels.


@pytest.mark.parametrize(
    ("label", "agent_id", "name"),
    [
        ("#3 bhawesh", 3, "bhawesh"),
        ("#10 Manoj Kumar111", 10, "Manoj Kumar111"),
        ("#3 ", 3, ""),
        ("#3", 3, ""),
        ("#3  two spaces", 3, " two spaces"),
        ("#007 bond", 7, "bond"),
        ("3 bhawesh", None, "3 bhawesh"),
        ("#x y", None, "#x y"),
        ("#-3 x", None, "#-3 x"),
        ("#٣ x", None, "#٣ x"),
        ("#² x", None, "#² x"),
        ("#" + "9" * 40 + " x", None, "#" + "9" * 40 + " x"),
        ("", None, ""),
        ("#", None, "#"),
        ("# 3", None, "# 3"),
        ("bhawesh", None, "bhawesh"),
    ],
)
def test_labels_parse_to_id_and_name(label: str, agent_id: int | None, name: str) -> None:
    (parsed,) = Group(unique_id=1, name="x", agents=(label,)).agent_labels
    assert parsed == AgentLabel(agent_id, name)


@given(st.text())
def test_no_label_raises(label: str) -> None:
    (parsed,) = Group(unique_id=1, name="x", agents=(label,)).agent_labels
    assert parsed.agent_id is None or label.startswith("#")


# Dates and states.


def created(seconds: int | None) -> datetime | None:
    return Group(unique_id=1, name="x", create_date=seconds).created_at


def test_dates_are_aware_and_in_utc() -> None:
    assert created(0) == datetime(1970, 1, 1, tzinfo=UTC)
    found = created(1731746318)
    assert found is not None
    assert found.tzinfo is UTC
    assert found.utcoffset() is not None
    assert found.isoformat() == "2024-11-16T08:38:38+00:00"


@pytest.mark.parametrize("seconds", [None, 1731746318000, LONG, -LONG - 1, 10**15])
def test_dates_that_no_calendar_holds_are_none(seconds: int | None) -> None:
    assert created(seconds) is None


@given(st.integers(-LONG - 1, LONG))
def test_no_date_raises(seconds: int) -> None:
    found = created(seconds)
    assert found is None or found.tzinfo is UTC


@pytest.mark.parametrize(("status", "active"), [(1, True), (0, False), (2, False), (None, False)])
def test_only_status_one_is_active(status: int | None, active: bool) -> None:
    assert Group(unique_id=1, name="x", status=status).active is active


# Structs.


AGENT = Agent(unique_id=1, name="a", user_id="7")
EVERY: list[Any] = [
    AGENT,
    AgentLabel(3, "x"),
    AgentRelation(group_id=1, agent_id=1, receive_call="Y"),
    Group(unique_id=1, name="g", agents=("#1 a",)),
    Member(1, AGENT, True),
    related((28, 1, "Y")),
    AddedGroup(7),
    DeletedGroup(True, "gone"),
]
every_struct = pytest.mark.parametrize("struct", EVERY, ids=lambda each: type(each).__name__)


@every_struct
def test_structs_are_frozen(struct: msgspec.Struct) -> None:
    for name in struct.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(struct, name, None)
    with pytest.raises(AttributeError):
        struct.other = 1  # type: ignore[attr-defined]


@every_struct
def test_structs_are_hashable_and_compare_by_value(struct: Any) -> None:
    again = pickle.loads(pickle.dumps(struct))
    assert again == struct
    assert hash(again) == hash(struct)
    assert {struct: 1}[again] == 1
    assert repr(again) == repr(struct)


def test_the_vendors_reply_pickles_whole(relation: GroupAgentRelation) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(relation, protocol))
        assert again == relation
        assert again.members == relation.members


def test_structs_show_their_fields() -> None:
    assert repr(AddedGroup(7)) == "AddedGroup(group_id=7)"
    assert repr(AGENT) == "Agent(unique_id=1, name='a', user_id='7')"
