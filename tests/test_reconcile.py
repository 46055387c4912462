"""Adding with reconciliation: what became of a group whose reply was lost, without a second send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import groupby
from typing import Any

import pytest

from deepcall_async import (
    AddedGroup,
    AuthenticationFailed,
    BadRequest,
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    DeepCall,
    DeepCallError,
    OutcomeUnknown,
    RequestTimeout,
    RetryPolicy,
    ServerFault,
    SessionId,
    UnexpectedReply,
)
from deepcall_async.sandbox import Sandbox
from tests.support import clients
from tests.support.clients import both_paths
from tests.support.faultserver import Commit, FaultServer, Received, Reset, Send, Stall, Step
from tests.support.hazards import refused_port
from tests.support.replies import error, group, reply

pytestmark = pytest.mark.anyio

QUICK = RetryPolicy(attempts=2, base_delay=0.0)


class Service:
    """A list of groups that grows by `made` when a group is added, and may lose the reply."""

    def __init__(self, *made: dict[str, Any], lost: Sequence[Step] = (Reset(),)) -> None:
        self.groups = [group(1, "Sales"), group(2, "EU")]
        self.made = made
        self.lost = lost
        self.lists: list[Sequence[Step]] = []

    def __call__(self, request: Received) -> Sequence[Step]:
        if request.verb == "list":
            steps = self.lists.pop(0) if self.lists else ()
            body = {"status": "success", "response": self.groups, "code": 200}
            return steps or [Send(reply(body))]
        assert request.verb == "add", "nothing but lists and one add is ever sent"
        self.groups = [*self.groups, *self.made]
        return Commit(), *self.lost


@contextlib.asynccontextmanager
async def connect(
    service: Callable[[Received], Sequence[Step]], path: str = "direct", **options: Any
) -> AsyncIterator[tuple[FaultServer, DeepCall]]:
    options = {"credentials": SessionId("s3ssion"), "retry": QUICK, "timeout": 0.2} | options
    async with clients.connect(service, path, **options) as (server, dc):
        yield server, dc
        verbs = [request.verb for request in server.ledger]
        assert verbs.count("add") <= 1, "an add was sent twice"
        assert set(verbs) <= {"add", "list"}, "something else was sent"


def verbs(server: FaultServer) -> list[str]:
    """What was asked for in turn; a list that was asked for again (it may be) counts once."""
    return [verb for verb, _ in groupby(request.verb for request in server.ledger)]


@both_paths
async def test_with_an_answer_it_is_an_add_after_a_list(path: str) -> None:
    good = reply({"status": "success", "groupId": 77, "code": 200})
    async with connect(Service(lost=[Send(good)]), path) as (server, dc):
        assert await dc.groups.add("Sales", reconcile=True) == AddedGroup(77)
        assert verbs(server) == ["list", "add"]


LOSSES: dict[str, Sequence[Step]] = {
    "reset": (Reset(),),
    "half a reply": (Send(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"), Reset()),
    "no answer": (Stall(),),
    "a transient code": (Send(error(1009)),),
    "a 502": (Send(reply(b"", 502)),),
    "a page": (Send(reply(b"<html>", headers=[("Content-Type", "text/html")])),),
    "another shape": (Send(reply({"status": "success", "code": 200})),),
}


@both_paths
@pytest.mark.parametrize("loss", LOSSES)
async def test_a_group_that_was_made_is_found_in_the_list(loss: str, path: str) -> None:
    service = Service(group(31, "North"), lost=LOSSES[loss])
    async with connect(service, path) as (server, dc):
        assert await dc.groups.add("North", reconcile=True) == AddedGroup(31)
        assert verbs(server) == ["list", "add", "list"]


@both_paths
@pytest.mark.parametrize("loss", LOSSES)
async def test_a_group_that_was_not_made_is_an_unknown_outcome(loss: str, path: str) -> None:
    async with connect(Service(lost=LOSSES[loss]), path) as (server, dc):
        with pytest.raises(OutcomeUnknown, match="0 new groups") as caught:
            await dc.groups.add("North", reconcile=True)
        assert caught.value.candidates == ()
        assert caught.value.endpoint == "groups.add"
        assert isinstance(caught.value.__cause__, (OutcomeUnknown, UnexpectedReply))
        assert verbs(server) == ["list", "add", "list"]


async def test_two_that_fit_are_given_as_candidates() -> None:
    made = group(31, "North"), group(32, "North1"), group(33, "South")
    async with connect(Service(*made)) as (server, dc):
        with pytest.raises(OutcomeUnknown, match="2 new groups") as caught:
            await dc.groups.add("North", reconcile=True)
        assert [each.unique_id for each in caught.value.candidates] == [31, 32]
        assert "31" in str(caught.value)
        assert "32" in str(caught.value)
        assert verbs(server) == ["list", "add", "list"]


@pytest.mark.parametrize(
    "name", ["Sales", "Sales1", "Sales 2", "Sales_3", "Sales-4", "Sales (5)", "SALES", " Sales "]
)
async def test_a_number_that_the_server_appended_is_its_own_doing(name: str) -> None:
    async with connect(Service(group(31, name))) as (_, dc):
        assert await dc.groups.add("Sales", reconcile=True) == AddedGroup(31)


@pytest.mark.parametrize("name", ["Sales EU", "Sale", "xSales", "Sales1x", "Sales 1 2", "North"])
async def test_another_name_is_somebody_elses_group(name: str) -> None:
    async with connect(Service(group(31, name))) as (_, dc):
        with pytest.raises(OutcomeUnknown) as caught:
            await dc.groups.add("Sales", reconcile=True)
        assert caught.value.candidates == ()


async def test_a_name_is_no_pattern() -> None:
    async with connect(Service(group(31, "abc"), group(32, "a.c (x)*"))) as (_, dc):
        assert await dc.groups.add("a.c (x)*", reconcile=True) == AddedGroup(32)


async def test_a_group_that_was_there_before_is_no_candidate() -> None:
    service = Service()
    service.groups.append(group(9, "North"))
    async with connect(service) as (_, dc):
        with pytest.raises(OutcomeUnknown, match="0 new groups"):
            await dc.groups.add("North", reconcile=True)


@pytest.mark.parametrize("how", ["reset", "page", "refused", "throttled", "never"])
async def test_when_the_second_list_fails_it_is_still_an_unknown_outcome(how: str) -> None:
    steps: dict[str, Sequence[Step]] = {
        "reset": [Reset()],
        "page": [Send(reply(b"<html>"))],
        "refused": [Send(error(1015))],
        "throttled": [Send(reply(b"", 429))],
        "never": [Stall()],
    }
    service = Service(group(31, "North"))
    service.lists = [(), *[steps[how]] * 5]
    async with connect(service) as (server, dc):
        with pytest.raises(OutcomeUnknown) as caught:
            await dc.groups.add("North", reconcile=True)
        assert caught.value.candidates == ()
        assert caught.value.endpoint == "groups.add"
        assert isinstance(caught.value.__cause__, OutcomeUnknown)
        assert isinstance(caught.value.__cause__.__cause__, ConnectionLost)
        assert verbs(server).count("add") == 1


async def test_when_the_second_list_fails_once_it_is_repeated() -> None:
    service = Service(group(31, "North"))
    service.lists = [(), [Send(error(1009))]]
    async with connect(service) as (server, dc):
        assert await dc.groups.add("North", reconcile=True) == AddedGroup(31)
        assert verbs(server) == ["list", "add", "list"]
        assert len(server.ledger) >= 4


@pytest.mark.parametrize(
    ("steps", "kind"),
    [
        ([Reset()], ConnectionLost),
        ([Send(error(1014))], AuthenticationFailed),
        ([Send(reply(b"", 503))], ServerFault),
        ([Stall()], RequestTimeout),
    ],
)
async def test_when_the_first_list_fails_nothing_is_added(
    steps: Sequence[Step], kind: type[DeepCallError]
) -> None:
    service = Service()
    service.lists = [steps] * 5
    async with connect(service) as (server, dc):
        with pytest.raises(kind) as caught:
            await dc.groups.add("North", reconcile=True)
        assert caught.value.endpoint == "groups.list"
        assert "add" not in verbs(server)


@pytest.mark.parametrize(("code", "kind"), [(1501, BadRequest), (1014, AuthenticationFailed)])
async def test_a_refusal_is_a_refusal(code: int, kind: type[DeepCallError]) -> None:
    async with connect(Service(lost=[Send(error(code))])) as (server, dc):
        with pytest.raises(kind):
            await dc.groups.add("North", reconcile=True)
        assert verbs(server) == ["list", "add"]


async def test_without_reconcile_nothing_is_listed() -> None:
    async with connect(Service(group(31, "North"))) as (server, dc):
        with pytest.raises(OutcomeUnknown):
            await dc.groups.add("North")
        assert verbs(server) == ["add"]


async def test_an_unreachable_server_is_just_that() -> None:
    with refused_port() as port:
        async with DeepCall(
            SessionId("s3ssion"), base_url=f"http://127.0.0.1:{port}", retry=QUICK
        ) as dc:
            with pytest.raises(ConnectFailed):
                await dc.groups.add("North", reconcile=True)


@both_paths
async def test_closing_while_the_answer_is_awaited(path: str) -> None:
    async with connect(Service(lost=[Stall()]), path, timeout=10.0) as (server, dc):
        task = asyncio.ensure_future(dc.groups.add("North", reconcile=True))
        await server.until(lambda s: len(s.ledger) == 2)
        await dc.aclose()
        with pytest.raises(OutcomeUnknown) as caught:
            await task
        cause = caught.value.__cause__
        assert isinstance(cause, OutcomeUnknown)
        assert isinstance(cause.__cause__, ClientClosed)
        assert verbs(server) == ["list", "add"]


async def test_over_the_sandbox_with_every_reply_at_risk() -> None:
    async with Sandbox(groups=5, seed=3, drop_rate=0.3) as server:
        options = {"base_url": server.base_url, "retry": RetryPolicy(attempts=9, base_delay=0.0)}
        made, unknown = [], 0
        async with DeepCall(SessionId(server.ssid), **options) as dc:  # type: ignore[arg-type]
            for number in range(40):
                try:
                    added = await dc.groups.add(f"New {number:02}x", reconcile=True)
                except DeepCallError:
                    unknown += 1
                else:
                    made.append((number, added.group_id))
            server.drop_rate = 0.0
            groups = {each.unique_id: each.name for each in await dc.groups.list()}
        names = [name for name in groups.values() if name.startswith("New")]
        assert len(names) == len(set(names)) == server.requests["add"]
        assert {groups[key] for _, key in made} == {f"New {number:02}x" for number, _ in made}
        assert server.requests["delete"] == 0
        assert len(made) > 20
