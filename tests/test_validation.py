"""Arguments: what is refused, before anything is sent, and what is sent instead of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepcall_async import DeepCall, RetryPolicy, UserToken, validation
from tests.support.faultserver import FaultServer
from tests.support.replies import serve

LARGEST = 2**63 - 1
CONTROLS = ["\0", "\n", "\r", "\t", "\x1f", "\x7f", "\x85", "\x9f"]

NO_IDS: list[Any] = [
    *(pytest.param(each, ValueError, id=repr(each)) for each in (-1, -(2**70), 2**63, 10**30)),
    *(
        pytest.param(each, ValueError, id=repr(each))
        for each in ("", " ", "\t", " 28", "28 ", "-1")
    ),
    *(pytest.param(f"2{each}8", ValueError, id=repr(each)) for each in CONTROLS),
    pytest.param("\ud800", ValueError, id="lone surrogate"),
    pytest.param("x" * 65, ValueError, id="65 characters"),
    *(
        pytest.param(each, TypeError, id=repr(each))
        for each in (True, False, 28.0, b"28", [28], float("nan"), object)
    ),
]
NO_NAMES: list[Any] = [
    *(pytest.param(each, ValueError, id=repr(each)) for each in ("", " ", "\t\n")),
    *(pytest.param(f"a{each}b", ValueError, id=repr(each)) for each in CONTROLS),
    pytest.param("\ud800", ValueError, id="lone surrogate"),
    pytest.param("a\udfffb", ValueError, id="lone low surrogate"),
    pytest.param("x" * 256, ValueError, id="256 characters"),
    pytest.param("x" * 2**20, ValueError, id="a megabyte"),
    *(pytest.param(each, TypeError, id=repr(each)) for each in (7, True, b"Sales", ["a"])),
]

Make = Callable[[DeepCall, Any], Awaitable[Any]]


async def refused(make: Make, value: Any, kind: type[Exception], match: str) -> None:
    async with (
        FaultServer(serve) as server,
        DeepCall(
            UserToken("7", "t0ken"), base_url=server.base_url, retry=RetryPolicy(attempts=1)
        ) as dc,
    ):
        with pytest.raises(kind, match=match) as caught:
            await make(dc, value)
        assert type(caught.value) is kind
        assert len(str(caught.value)) < 200
        assert (server.connections, dc.stats.requests) == (0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize(("value", "kind"), NO_IDS)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda dc, value: dc.groups.agent_relation(value), id="agent_relation"),
        pytest.param(lambda dc, value: dc.groups.delete(value), id="delete"),
        pytest.param(lambda dc, value: dc.groups.update(value, name="A"), id="update"),
        pytest.param(lambda dc, value: dc.groups.assign_agents(value, [1]), id="assign_agents"),
        pytest.param(lambda dc, value: dc.groups.list(group_id=value), id="list"),
    ],
)
async def test_what_is_no_group_id(make: Make, value: Any, kind: type[Exception]) -> None:
    await refused(make, value, kind, "group_id")


@pytest.mark.anyio
@pytest.mark.parametrize(("value", "kind"), NO_IDS)
async def test_what_is_no_agent_id(value: Any, kind: type[Exception]) -> None:
    await refused(lambda dc, v: dc.groups.assign_agents(1, [2, v]), value, kind, "agent_ids")
    await refused(
        lambda dc, v: dc.groups.assign_agents(1, [2], receive_call=[v]), value, kind, "receive_call"
    )


@pytest.mark.anyio
async def test_none_is_an_argument_only_where_it_may_be_left_out() -> None:
    for make in (
        lambda dc, v: dc.groups.agent_relation(v),
        lambda dc, v: dc.groups.delete(v),
        lambda dc, v: dc.groups.update(v, name="A"),
        lambda dc, v: dc.groups.update(1, name=v),
        lambda dc, v: dc.groups.add(v),
        lambda dc, v: dc.groups.assign_agents(v, [1]),
        lambda dc, v: dc.groups.assign_agents(1, [v]),
    ):
        await refused(make, None, TypeError, "name|id")
    async with FaultServer(serve) as server:
        async with DeepCall(UserToken("7", "t0ken"), base_url=server.base_url) as dc:
            await dc.groups.list(name=None, group_id=None, quick=None, forward=None)
            await dc.groups.agent_relation(1, name=None)
            await dc.groups.update(1, name="A", status=None)
        assert len(server.ledger) == 3


@pytest.mark.anyio
@pytest.mark.parametrize("value", ["123", b"123", 7, None])
async def test_what_is_no_list_of_agents(value: Any) -> None:
    match = "list of ids|iterable"
    await refused(lambda dc, v: dc.groups.assign_agents(1, v), value, TypeError, match)
    await refused(
        lambda dc, v: dc.groups.assign_agents(1, [2], receive_call=v), value, TypeError, match
    )


@pytest.mark.anyio
@pytest.mark.parametrize(("value", "kind"), NO_NAMES)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda dc, value: dc.groups.add(value), id="add"),
        pytest.param(lambda dc, value: dc.groups.add(value, reconcile=True), id="reconcile"),
        pytest.param(lambda dc, value: dc.groups.update(1, name=value), id="update"),
        pytest.param(lambda dc, value: dc.groups.list(name=value), id="list"),
        pytest.param(lambda dc, value: dc.groups.agent_relation(1, name=value), id="relation"),
    ],
)
async def test_what_is_no_name(make: Make, value: Any, kind: type[Exception]) -> None:
    await refused(make, value, kind, "name")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("value", "kind"),
    [(-1, ValueError), (2**63, ValueError), (True, TypeError), ("1", TypeError), (1.0, TypeError)],
)
async def test_what_is_no_status(value: Any, kind: type[Exception]) -> None:
    await refused(lambda dc, v: dc.groups.update(1, name="A", status=v), value, kind, "status")


@pytest.mark.anyio
@pytest.mark.parametrize("value", [1, 0, "true", "", [], object()])
async def test_what_is_no_switch(value: Any) -> None:
    await refused(lambda dc, v: dc.groups.list(quick=v), value, TypeError, "quick")
    await refused(lambda dc, v: dc.groups.list(forward=v), value, TypeError, "forward")
    await refused(lambda dc, v: dc.groups.agent_relation(1, quick=v), value, TypeError, "quick")


# What passes.


@given(st.integers(0, LARGEST))
def test_every_whole_number_from_zero_is_an_id(number: int) -> None:
    assert validation.group_id(number) == str(number)
    assert validation.number_or_text(number) == number
    assert validation.agent_ids("agent_ids", [number, str(number)]) == [str(number)] * 2


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("28", 28),
        ("0", 0),
        ("028", "028"),
        ("abc", "abc"),
        ("٢٨", "٢٨"),
        ("28x", "28x"),
        ("²", "²"),
    ],
)
def test_text_that_is_a_number_is_sent_as_one_where_numbers_are(text: str, sent: int | str) -> None:
    assert validation.number_or_text(text) == sent
    assert validation.group_id(text) == text


@given(st.text() | st.integers() | st.floats() | st.booleans() | st.none() | st.binary())
def test_checks_pass_or_raise_what_they_say(value: Any) -> None:
    for check in (
        validation.group_id,
        validation.number_or_text,
        validation.name,
        validation.status,
        lambda each: validation.agent_ids("agent_ids", [each]),
        lambda each: validation.flag("quick", each),
    ):
        try:
            passed = check(value)
        except (ValueError, TypeError) as error:
            # What was wrong is named, never quoted.
            assert not isinstance(error, UnicodeError)
            assert str(error).isprintable()
            if isinstance(value, str) and len(value) > 20:
                assert value not in str(error)
        else:
            str(passed).encode()


def test_names_may_be_anything_printable() -> None:
    for name in (
        "Sales",
        " Sales ",
        "Продажи",
        "営業 👩‍👧",
        "a" * 255,
        'quote " and \\',
        "É\u0301",
    ):
        assert validation.name(name) == name


def test_ids_may_come_from_any_iterable() -> None:
    assert validation.agent_ids("agent_ids", iter([3, "8"])) == ["3", "8"]
    assert validation.agent_ids("agent_ids", ()) == []
    assert validation.agent_ids("agent_ids", {3: "x"}) == ["3"]


class Team(int, Enum):
    SALES = 28


class Name(str, Enum):  # noqa: UP042  (a StrEnum would be shown as its value anyway)
    SALES = "Sales"


@pytest.mark.anyio
async def test_members_of_enumerations_are_sent_as_their_values() -> None:
    credentials = UserToken("7", "t0ken")
    async with FaultServer(serve) as server, DeepCall(credentials, base_url=server.base_url) as dc:
        await dc.groups.update(Team.SALES, name=Name.SALES)
        await dc.groups.assign_agents(Team.SALES, [Name.SALES])
        update, assign = (request.body for request in server.ledger)
    assert (update["groupId"], update["name"]) in (("28", "Sales"), (28, "Sales"))
    assert "Sales" in str(assign)
    assert "Team" not in f"{update}{assign}"
    assert "Name" not in f"{update}{assign}"
