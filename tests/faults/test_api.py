"""What the client makes of DeepCall's own words: codes, messages, and changes it cannot be sure of.

Real sockets and a ledger on the far side: every test says how often a request was sent, and
what took effect.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from deepcall_async import (
    AddedGroup,
    ApiError,
    AuthenticationFailed,
    BadRequest,
    ConnectionLost,
    DeepCallError,
    DeletedGroup,
    GroupUnavailable,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    RetryPolicy,
    ServerFault,
    UnexpectedReply,
)
from tests.support.clients import both_paths, client, quick
from tests.support.endpoints import (
    ADD,
    CHANGES,
    DELETE,
    ENDPOINTS,
    LIST,
    READS,
    RELATION,
    Endpoint,
    each_endpoint,
    over,
)
from tests.support.faultserver import (
    Commit,
    Delay,
    Early,
    FaultServer,
    Fin,
    Reaction,
    Received,
    Reset,
    Send,
    Stall,
    Step,
)
from tests.support.hazards import Certificates
from tests.support.replies import answer, error, group, reply, serve

pytestmark = pytest.mark.anyio


# Codes -------------------------------------------------------------------------------------------

FINAL: dict[int, type[ApiError]] = {
    1000: BadRequest,
    1014: AuthenticationFailed,
    1015: PermissionDenied,
    1020: AuthenticationFailed,
    1039: PermissionDenied,
    1047: BadRequest,
    1501: BadRequest,
    1502: BadRequest,
    1503: GroupUnavailable,
    # Not in the vendor's pages; the first means something under another of its APIs.
    1504: ApiError,
    9999: ApiError,
    0: ApiError,
    200: ApiError,
    -1: ApiError,
    429: ApiError,
    500: ApiError,
}
TRANSIENT = (1009, 1010, 1032)


@both_paths
@pytest.mark.parametrize("code", FINAL)
async def test_a_refusal_under_http_200(path: str, code: Any) -> None:
    async with (
        FaultServer([Send(error(code, "because"))]) as server,
        client(server.base_url, path) as dc,
    ):
        for endpoint in ENDPOINTS:
            failure = await endpoint.fails(dc, FINAL[code])
            assert (failure.code, failure.message) == (code, "because")
            assert failure.http_status == 200
            assert endpoint.name in str(failure)
            assert str(code) in str(failure)
            assert "because" in str(failure)
            assert len(server.received(endpoint.verb)) == 1


@both_paths
@pytest.mark.parametrize("code", TRANSIENT)
async def test_a_fault_that_may_pass(path: str, code: Any) -> None:
    async with (
        FaultServer([Send(error(code, "oops"))]) as server,
        client(server.base_url, path) as dc,
    ):
        for endpoint in ENDPOINTS:
            fault = await endpoint.fails_for_good(dc, ServerFault, attempts=3)
            assert isinstance(fault, ServerFault)
            assert (fault.code, fault.message, fault.http_status) == (code, "oops", 200)
            sends = 3 if endpoint.repeats(ServerFault) else 1
            assert len(server.received(endpoint.verb)) == sends


@both_paths
@over(*READS, DELETE)
@pytest.mark.parametrize("code", TRANSIENT)
async def test_a_fault_that_passed(endpoint: Endpoint, path: str, code: Any) -> None:
    async with (
        FaultServer([Send(error(code))], [Send(error(code))], serve) as server,
        client(server.base_url, path) as dc,
    ):
        await endpoint(dc)
        assert (len(server.ledger), server.connections) == (3, 1)


@both_paths
@each_endpoint
async def test_one_attempt_means_one(endpoint: Endpoint, path: str) -> None:
    async with (
        FaultServer([Send(error(1009))]) as server,
        client(server.base_url, path, retry=quick(attempts=1)) as dc,
    ):
        await endpoint.fails_for_good(dc, ServerFault, attempts=1)
        assert len(server.ledger) == 1


# Verdicts ----------------------------------------------------------------------------------------

STATUSES: list[Any] = ["pending", "Success", "success ", "", "ok", None, 1, True, ["success"], {}]


@both_paths
@pytest.mark.parametrize("status", STATUSES, ids=repr)
async def test_a_verdict_nobody_knows(path: str, status: Any) -> None:
    def undecided(request: Received) -> list[Step]:
        return [Commit(), Send(reply({**answer(request), "status": status, "code": 1009}))]

    async with FaultServer(undecided) as server, client(server.base_url, path) as dc:
        for endpoint in ENDPOINTS:
            await endpoint.fails(dc, UnexpectedReply)
            assert len(server.received(endpoint.verb)) == 1


@both_paths
async def test_no_verdict_at_all(path: str) -> None:
    def silent(request: Received) -> list[Step]:
        return [Send(reply({k: v for k, v in answer(request).items() if k != "status"}))]

    async with FaultServer(silent) as server, client(server.base_url, path) as dc:
        for endpoint in ENDPOINTS:
            await endpoint.fails(dc, UnexpectedReply)
            assert len(server.received(endpoint.verb)) == 1


@both_paths
@pytest.mark.parametrize("code", [1503, "1503", None, "x", -1, {"a": 1}], ids=repr)
async def test_a_success_is_one_whatever_its_code(path: str, code: Any) -> None:
    def odd(request: Received) -> list[Step]:
        return [Send(reply({**answer(request), "code": code}))]

    async with FaultServer(odd) as server, client(server.base_url, path) as dc:
        for endpoint in ENDPOINTS:
            await endpoint(dc)
        assert dc.stats.requests == len(ENDPOINTS)


@both_paths
async def test_an_error_is_one_whatever_comes_with_it(path: str) -> None:
    def both(request: Received) -> list[Step]:
        return [Send(reply({**answer(request), "status": "error", "code": 1015}))]

    async with FaultServer(both) as server, client(server.base_url, path) as dc:
        for endpoint in ENDPOINTS:
            await endpoint.fails(dc, PermissionDenied)


# Codes and messages as they should not be --------------------------------------------------------

CODES: list[tuple[bytes, type[ApiError], int | None]] = [
    (b'"1503"', GroupUnavailable, 1503),
    (b'" 1503 "', GroupUnavailable, 1503),
    (b"1503.0", GroupUnavailable, 1503),
    (b"-5", ApiError, -5),
    (b'"-5"', ApiError, -5),
    (b"null", ApiError, None),
    (b"true", ApiError, None),
    (b"1503.5", ApiError, None),
    (b'"x"', ApiError, None),
    (b'""', ApiError, None),
    (b"[1503]", ApiError, None),
    (b'{"code":1503}', ApiError, None),
    (b"1" + b"0" * 400, ApiError, None),
    (b'"1' + b"0" * 400 + b'"', ApiError, None),
    ('"\u0661\u0665\u0660\u0663"'.encode(), ApiError, None),
]


@both_paths
@pytest.mark.parametrize(("text", "kind", "code"), CODES, ids=lambda part: repr(part)[:12])
async def test_odd_codes(path: str, text: bytes, kind: type[Any], code: Any) -> None:
    body = b'{"status":"error","message":"because","code":%s}' % text
    async with FaultServer([Send(reply(body))]) as server, client(server.base_url, path) as dc:
        for endpoint in ENDPOINTS:
            failure = await endpoint.fails(dc, kind)
            assert (failure.code, failure.message) == (code, "because")
            assert len(server.received(endpoint.verb)) == 1


@both_paths
@pytest.mark.parametrize(("status", "kind"), [(200, ApiError), (401, AuthenticationFailed)])
async def test_an_error_with_nothing_but_its_verdict(
    path: str, status: Any, kind: type[Any]
) -> None:
    body = reply({"status": "error"}, status)
    async with FaultServer([Send(body)]) as server, client(server.base_url, path) as dc:
        for endpoint in ENDPOINTS:
            failure = await endpoint.fails(dc, kind)
            assert (failure.code, failure.message) == (None, "")


MESSAGES: dict[str, tuple[Any, str]] = {
    "null": (None, ""),
    "number": (5, "5"),
    "object": ({"name": ["is required"]}, "is required"),
    "array": (["first", "second"], "second"),
    "empty": ("", ""),
    "newlines": ("first\r\nsecond\x1b[31m", "first\\r\\nsecond\\x1b[31m"),
    "invisible": ("a\u202eb\u2028c\x00d", "a\\u202eb\\u2028c\\x00d"),
    "accents": ("gruppe fehlt: \u00e4", "gruppe fehlt: \u00e4"),
    "large": ("x" * 10_000_000, "x" * 50),
    "large-object": ({"x": "y" * 1_000_000}, "y" * 50),
    "deep": (json.loads("[" * 90 + "]" * 90), "[["),
}


@both_paths
@pytest.mark.parametrize(("message", "shown"), MESSAGES.values(), ids=MESSAGES.keys())
async def test_odd_messages(path: str, message: Any, shown: str) -> None:
    body = error(1000, message)
    async with FaultServer([Send(body)]) as server, client(server.base_url, path) as dc:
        for endpoint in (ADD, RELATION):
            failure = await endpoint.fails(dc, BadRequest)
            assert shown in failure.message
            assert failure.message in str(failure)
            for text in (failure.message, str(failure)):
                assert len(text) < 500
                assert text.isprintable()


@both_paths
@pytest.mark.parametrize("message", [5, None, {"a": 1}, ["a"]], ids=repr)
@pytest.mark.parametrize("verb", ["update", "delete", "submitAssignGroupToAgent"])
async def test_a_change_succeeds_whatever_its_message(path: str, verb: str, message: Any) -> None:
    endpoint = next(each for each in ENDPOINTS if each.verb == verb)
    body = reply({"status": "success", "message": message, "code": 200})
    async with FaultServer([Send(body)]) as server, client(server.base_url, path) as dc:
        result = await endpoint.call(dc, 28)
        assert isinstance(result.message if endpoint is DELETE else result, str)
        assert len(server.ledger) == 1


# An answer that was lost -------------------------------------------------------------------------

# What a server can do after it did what it was asked, and what the client then sees.
LOST: dict[str, tuple[Sequence[Step], type[DeepCallError]]] = {
    "reset": ([Commit(), Reset()], ConnectionLost),
    "fin": ([Commit(), Fin()], ConnectionLost),
    "half-an-answer": ([Commit(), Send(reply(b'{"st')[:-2]), Fin()], ConnectionLost),
    "silence": ([Commit(), Stall()], RequestTimeout),
    "code": ([Commit(), Send(error(1009))], ServerFault),
    "bad-gateway": ([Commit(), Send(reply(b"<html>", 502))], ServerFault),
    "unavailable": ([Commit(), Send(reply(b"", 503))], ServerFault),
    "not-implemented": ([Commit(), Send(reply(b"", 501))], ServerFault),
}


def each_row(names: str | tuple[str, ...], table: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Run a test for each row; where a timeout is waited for, on a clock that jumps."""
    rows = [
        pytest.param(
            *(row if isinstance(names, tuple) else (row,)),
            id=name,
            marks=pytest.mark.virtual_time if "Stall()" in repr(row) else (),
        )
        for name, row in table.items()
    ]
    return pytest.mark.parametrize(names, rows)


each_loss = each_row(("steps", "kind"), LOST)


@both_paths
@over(*CHANGES)
@each_loss
async def test_a_change_whose_answer_is_lost_is_sent_once(
    endpoint: Endpoint, path: str, steps: Sequence[Step], kind: type[Any]
) -> None:
    async with (
        FaultServer(steps, serve) as server,
        client(server.base_url, path) as dc,
    ):
        unknown = await endpoint.fails(dc, OutcomeUnknown)
        assert type(unknown.__cause__) is kind
        assert unknown.candidates == ()
        assert "groups.list" in str(unknown)
        assert (server.begun, len(server.committed)) == (1, 1)
        # Nor later, of its own accord: the next thing it sends is the next call.
        await endpoint(dc, 29)
        assert [r.body.get("groupId") or r.body["name"] for r in server.ledger] in (
            ["Sales 28", "Sales 29"], ["28", "29"]
        )  # fmt: skip


@over(*CHANGES)
async def test_a_change_refused_after_a_fault_on_the_way_is_still_refused(
    endpoint: Endpoint,
) -> None:
    """A broken handshake sent nothing, so what follows is the first and only answer."""
    certificates = Certificates()
    async with (
        FaultServer([Send(error(1503))], ssl=certificates.good, drop={1}) as server,
        client(server.base_url, "borrowed", tls=certificates.client()) as dc,
    ):
        await endpoint.fails(dc, GroupUnavailable, attempts=2)
        assert len(server.ledger) == 1


# Deleting ----------------------------------------------------------------------------------------

REPEATED = {name: each for name, each in LOST.items() if name != "not-implemented"}


@both_paths
@each_row(("steps", "kind"), REPEATED)
async def test_a_delete_whose_answer_is_lost_ends_when_the_group_is_gone(
    path: str, steps: Sequence[Step], kind: type[Any]
) -> None:
    async with (
        FaultServer(steps, [Send(error(1503))]) as server,
        client(server.base_url, path) as dc,
    ):
        assert (await dc.groups.delete(28)).already_absent
        assert [r.body["groupId"] for r in server.ledger] == ["28", "28"]
        assert len(server.committed) == 1


@both_paths
@each_row(("steps", "kind"), REPEATED)
async def test_a_delete_that_had_not_taken_effect_is_done_by_the_repeat(
    path: str, steps: Sequence[Step], kind: type[Any]
) -> None:
    lost = [step for step in steps if step != Commit()]
    async with (
        FaultServer(lost, serve) as server,
        client(server.base_url, path) as dc,
    ):
        assert await dc.groups.delete(28) == DeletedGroup(False, "delete 28")
        assert (len(server.ledger), len(server.committed)) == (2, 1)


@both_paths
@each_row(("steps", "kind"), REPEATED)
async def test_a_delete_that_is_never_answered_is_unknown(
    path: str, steps: Sequence[Step], kind: type[Any]
) -> None:
    async with (
        FaultServer(steps) as server,
        client(server.base_url, path, retry=quick(attempts=2)) as dc,
    ):
        unknown = await DELETE.fails(dc, OutcomeUnknown, attempts=2)
        assert type(unknown.__cause__) is kind
        assert server.begun == 2


@both_paths
async def test_a_group_that_was_never_there(path: str) -> None:
    async with (
        FaultServer([Send(error(1503, "no such group"))]) as server,
        client(server.base_url, path) as dc,
    ):
        gone = await DELETE.fails(dc, GroupUnavailable)
        assert gone.message == "no such group"
        assert len(server.ledger) == 1


async def test_a_group_that_was_never_there_behind_a_broken_handshake() -> None:
    """The first attempt sent nothing, so it cannot have deleted anything."""
    certificates = Certificates()
    async with (
        FaultServer([Send(error(1503))], ssl=certificates.good, drop={1, 2}) as server,
        client(server.base_url, "borrowed", tls=certificates.client()) as dc,
    ):
        await DELETE.fails(dc, GroupUnavailable, attempts=3)
        assert len(server.ledger) == 1


@both_paths
async def test_a_stale_connection_makes_a_delete_doubtful(path: str) -> None:
    """It may have been carried out before the connection ended: then "gone" means done."""
    async with (
        FaultServer(serve, Early(1, [Reset()]), [Send(error(1503))]) as server,
        client(server.base_url, path) as dc,
    ):
        await LIST(dc)
        await server.until(lambda s: s.idle_connections == 1)
        assert (await dc.groups.delete(28)).already_absent
        assert server.begun == 3


REFUSALS: dict[str, tuple[bytes, type[DeepCallError]]] = {
    "permission": (error(1015), PermissionDenied),
    "token": (error(1014), AuthenticationFailed),
    "throttled": (reply(b"", 429), RateLimited),
    "html": (reply(b"<html>"), UnexpectedReply),
    "new-code": (error(9999), ApiError),
}


@both_paths
@pytest.mark.parametrize(("refusal", "kind"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_delete_refused_on_its_repeat_is_unknown(
    path: str, refusal: bytes, kind: type[Any]
) -> None:
    """The refusal is about the repeat; the first may have gone through all the same."""
    async with (
        FaultServer([Commit(), Reset()], [Send(refusal)]) as server,
        client(server.base_url, path) as dc,
    ):
        unknown = await DELETE.fails(dc, OutcomeUnknown, attempts=2)
        assert type(unknown.__cause__) is kind
        assert (server.begun, len(server.committed)) == (2, 1)


@both_paths
async def test_a_throttled_delete_is_not_repeated(path: str) -> None:
    async with (
        FaultServer([Send(reply(b"", 429))], serve) as server,
        client(server.base_url, path) as dc,
    ):
        await DELETE.fails(dc, RateLimited)
        assert len(server.ledger) == 1


@both_paths
@each_endpoint
async def test_gone_means_done_for_a_delete_only(endpoint: Endpoint, path: str) -> None:
    async with (
        FaultServer([Reset()], [Send(error(1503))]) as server,
        client(server.base_url, path) as dc,
    ):
        if endpoint in READS:
            await endpoint.fails(dc, GroupUnavailable, attempts=2)
        elif endpoint is DELETE:
            assert await dc.groups.delete(28) == DeletedGroup(already_absent=True)
        else:
            await endpoint.fails(dc, OutcomeUnknown)


# Adding, and finding out what became of it -------------------------------------------------------


class _Account:
    """A server with groups: ``made`` are those an `add` makes, ``fate`` what then becomes of it."""

    def __init__(self, fate: Sequence[Step], made: Sequence[dict[str, Any]] = ()) -> None:
        self.groups = [group(1, "Sales"), group(2, "Support")]
        self.fate, self.made = fate, made

    def __call__(self, request: Received) -> Sequence[Step]:
        match request.verb:
            case "list":
                return [Send(reply({"status": "success", "response": self.groups, "code": 200}))]
            case "add":
                self.groups = [*self.groups, *self.made]
                return [*([Commit()] if self.made else []), *self.fate]
            case verb:
                raise AssertionError(f"{verb} was never asked for")


def _verbs(server: FaultServer) -> list[str]:
    return [request.verb for request in server.ledger]


HIDDEN: dict[str, Sequence[Step]] = {
    **{name: steps[1:] for name, (steps, _) in LOST.items()},
    "html": [Send(reply(b"<html>"))],
    "no-id": [Send(reply({"status": "success", "code": 200}))],
}
each_fate = each_row("fate", HIDDEN)


@both_paths
@each_fate
async def test_the_one_new_group_is_found(path: str, fate: Sequence[Step]) -> None:
    account = _Account(fate, [group(9, "Leads")])
    async with (
        FaultServer(account) as server,
        client(server.base_url, path) as dc,
    ):
        assert await dc.groups.add("Leads", reconcile=True) == AddedGroup(9)
        assert _verbs(server) == ["list", "add", "list"]


@both_paths
@pytest.mark.parametrize("name", ["Leads1", "Leads 2", "Leads_3", "Leads (4)", "LEADS", " Leads "])
async def test_the_new_group_is_found_under_the_name_it_was_given(path: str, name: str) -> None:
    account = _Account([Reset()], [group(9, name)])
    if any(char.isdigit() for char in name):
        account.groups.append(group(3, "leads"))
    async with FaultServer(account) as server, client(server.base_url, path) as dc:
        assert await dc.groups.add("Leads", reconcile=True) == AddedGroup(9)
        assert _verbs(server) == ["list", "add", "list"]


@both_paths
async def test_a_numbered_name_is_somebody_elses_where_the_bare_name_was_free(path: str) -> None:
    account = _Account([Reset()], [group(9, "Team 10")])
    async with FaultServer(account) as server, client(server.base_url, path) as dc:
        with pytest.raises(OutcomeUnknown) as caught:
            await dc.groups.add("Team 1", reconcile=True)
        assert caught.value.candidates == ()


@both_paths
async def test_the_deadline_spans_all_calls_of_a_reconciled_add(path: str) -> None:
    def slow(request: Received) -> Sequence[Step]:
        # Each list within the deadline, and both together beyond it.
        return [Delay(0.6 if request.verb == "list" else 0.0), *account(request)]

    account = _Account([Reset()], [group(9, "Leads")])
    retry = RetryPolicy(deadline=1.0)
    async with FaultServer(slow) as server, client(server.base_url, path, retry=retry) as dc:
        with pytest.raises(OutcomeUnknown, match="could not be listed afterwards"):
            await dc.groups.add("Leads", reconcile=True)
        assert _verbs(server)[:2] == ["list", "add"]


@both_paths
@each_fate
async def test_no_new_group_is_not_taken_for_a_failure(path: str, fate: Sequence[Step]) -> None:
    """It may still be on its way, so nothing is sent again and nothing is promised."""
    async with (
        FaultServer(_Account(fate)) as server,
        client(server.base_url, path) as dc,
    ):
        with pytest.raises(OutcomeUnknown) as caught:
            await dc.groups.add("Leads", reconcile=True)
        assert caught.value.candidates == ()
        assert caught.value.__cause__ is not None
        assert (caught.value.endpoint, caught.value.attempts) == ("groups.add", 1)
        assert _verbs(server) == ["list", "add", "list"]


@both_paths
async def test_several_new_groups_are_left_to_the_caller(path: str) -> None:
    made = [group(9, "Leads"), group(10, "Leads1"), group(11, "Other")]
    async with (
        FaultServer(_Account([Reset()], made)) as server,
        client(server.base_url, path) as dc,
    ):
        with pytest.raises(OutcomeUnknown) as caught:
            await dc.groups.add("Leads", reconcile=True)
        assert [each.unique_id for each in caught.value.candidates] == [9, 10]
        assert _verbs(server) == ["list", "add", "list"]


@both_paths
async def test_somebody_elses_new_group_is_not_taken_for_ours(path: str) -> None:
    account = _Account([Reset()], [group(9, "Leadership"), group(10, "My Leads")])
    async with FaultServer(account) as server, client(server.base_url, path) as dc:
        with pytest.raises(OutcomeUnknown) as caught:
            await dc.groups.add("Leads", reconcile=True)
        assert caught.value.candidates == ()


@both_paths
async def test_an_answered_add_is_not_looked_for(path: str) -> None:
    account = _Account([Send(reply({"status": "success", "groupId": 9, "code": 200}))])
    async with FaultServer(account) as server, client(server.base_url, path) as dc:
        assert await dc.groups.add("Leads", reconcile=True) == AddedGroup(9)
        assert _verbs(server) == ["list", "add"]


@both_paths
@pytest.mark.parametrize(
    ("refusal", "kind"),
    [(error(1015), PermissionDenied), (error(1501), BadRequest), (reply(b"", 429), RateLimited)],
    ids=["permission", "name", "throttled"],
)
async def test_a_refused_add_is_not_looked_for(path: str, refusal: bytes, kind: type[Any]) -> None:
    async with (
        FaultServer(_Account([Send(refusal)])) as server,
        client(server.base_url, path) as dc,
    ):
        with pytest.raises(kind):
            await dc.groups.add("Leads", reconcile=True)
        assert _verbs(server) == ["list", "add"]


@both_paths
async def test_nothing_is_added_when_the_first_look_fails(path: str) -> None:
    async with (
        FaultServer([Send(error(1015))], serve) as server,
        client(server.base_url, path) as dc,
    ):
        with pytest.raises(PermissionDenied):
            await dc.groups.add("Leads", reconcile=True)
        assert _verbs(server) == ["list"]


@both_paths
@pytest.mark.parametrize(
    "second",
    [[Send(error(1015))], [Send(error(1014))], [Reset()], [Send(reply(b"<html>"))]],
    ids=["permission", "token", "reset", "html"],
)
async def test_an_add_stays_unknown_when_the_second_look_fails(
    path: str, second: Sequence[Step]
) -> None:
    listing = [Send(reply({"status": "success", "response": [], "code": 200}))]
    async with (
        FaultServer(listing, [Commit(), Reset()], second) as server,
        client(server.base_url, path) as dc,
    ):
        with pytest.raises(OutcomeUnknown) as caught:
            await dc.groups.add("Leads", reconcile=True)
        assert caught.value.endpoint == "groups.add"
        assert caught.value.candidates == ()
        assert caught.value.__cause__ is not None
        assert _verbs(server)[:2] == ["list", "add"]
        assert _verbs(server).count("add") == 1


@both_paths
async def test_the_second_look_is_repeated_like_any_other(path: str) -> None:
    account = _Account([Reset()], [group(9, "Leads")])
    script: list[Reaction] = [account, account, [Send(error(1009))], account]
    async with FaultServer(*script) as server, client(server.base_url, path) as dc:
        assert await dc.groups.add("Leads", reconcile=True) == AddedGroup(9)
        assert _verbs(server) == ["list", "add", "list", "list"]


# Swaps -------------------------------------------------------------------------------------------


@both_paths
@each_endpoint
async def test_each_caller_gets_its_own_answer(endpoint: Endpoint, path: str) -> None:
    async with FaultServer(serve) as server, client(server.base_url, path) as dc:
        await asyncio.gather(*(endpoint(dc, number) for number in range(1, 21)))
        assert len(server.ledger) == 20
