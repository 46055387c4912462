"""Credentials: what they hide, what they refuse, and how expiring ones are renewed once for all."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from deepcall_async import (
    AuthenticationFailed,
    ClientClosed,
    CredentialProvider,
    DeepCall,
    DeepCallError,
    GroupUnavailable,
    Ok,
    OutcomeUnknown,
    RequestTimeout,
    RetryPolicy,
    SessionId,
    UserToken,
    collect,
    fan_out,
    renewal,
)
from deepcall_async.sandbox import Sandbox
from tests.support import clients
from tests.support.clients import both_paths
from tests.support.faultserver import FaultServer, Received, Reset, Send, Step, Wait
from tests.support.replies import error, serve

# One attempt, and the repeat after a renewal.
TWICE = RetryPolicy(attempts=2)
connect = partial(clients.connect, retry=TWICE)
Credentials = SessionId | UserToken


# What they are.


SECRET = "s3cr3t-canary"
BOTH = [SessionId(SECRET), UserToken(SECRET, SECRET)]


@pytest.mark.parametrize("credentials", BOTH)
def test_they_show_nothing_of_themselves(credentials: Credentials) -> None:
    for shown in (repr(credentials), str(credentials), f"{credentials}", f"{[credentials]}"):
        assert SECRET not in shown
        assert type(credentials).__name__ in shown


@pytest.mark.parametrize("credentials", BOTH)
@pytest.mark.parametrize(
    "copier",
    [
        pickle.dumps,
        lambda each: pickle.dumps(each, 0),
        lambda each: pickle.dumps(each, 2),
        copy.copy,
        copy.deepcopy,
    ],
)
def test_they_cannot_be_pickled_or_copied(
    credentials: Credentials, copier: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError, match="secret") as caught:
        copier(credentials)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("credentials", BOTH)
def test_they_cannot_be_changed(credentials: Credentials) -> None:
    for name in ("ssid", "token", "user_id", "_parts", "other"):
        with pytest.raises(AttributeError):
            setattr(credentials, name, "x")
    with pytest.raises((AttributeError, TypeError)):
        del credentials._parts
    assert not hasattr(credentials, "__dict__")


def test_they_compare_and_hash_by_value() -> None:
    assert SessionId("a") == SessionId("a") != SessionId("b")
    assert UserToken("7", "a") == UserToken("7", "a") != UserToken("7", "b")
    assert UserToken("7", "a") != UserToken("8", "a")
    assert SessionId("a") != UserToken("a", "a")
    assert SessionId("a") != "a"
    assert len({SessionId("a"), SessionId("a"), UserToken("7", "a"), UserToken("7", "a")}) == 2


def test_what_they_hold_is_asked_for_by_name() -> None:
    assert SessionId("a").ssid == "a"
    assert (UserToken("7", "a").user_id, UserToken("7", "a").token) == ("7", "a")


@pytest.mark.parametrize("bad", ["", " ", "\t", f"{SECRET}\n", f"{SECRET}\0", f"{SECRET}\ud800"])
def test_blank_or_unprintable_ones_are_refused_without_their_value(bad: str) -> None:
    for make in (
        SessionId,
        lambda value: UserToken("7", value),
        lambda value: UserToken(value, "t"),
    ):
        with pytest.raises(ValueError, match=r"ssid|token|user_id") as caught:
            make(bad)
        assert SECRET not in str(caught.value)
        assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("bad", [None, 7, True, b"bytes", ["a"]])
def test_ones_of_the_wrong_type_are_refused(bad: Any) -> None:
    for make in (
        SessionId,
        lambda value: UserToken("7", value),
        lambda value: UserToken(value, "t"),
    ):
        with pytest.raises(TypeError, match="must be a str"):
            make(bad)


@pytest.mark.parametrize("bad", [SECRET, 7, object(), ("7", SECRET), {"ssid": SECRET}])
def test_a_client_takes_no_bare_secrets(bad: Any) -> None:
    with pytest.raises(TypeError, match="SessionId") as caught:
        DeepCall(bad)
    assert SECRET not in str(caught.value)


def test_a_provider_is_known_by_its_methods() -> None:
    assert isinstance(Provider(), CredentialProvider)
    assert not isinstance(SessionId("a"), CredentialProvider)


# Renewal.


class Provider:
    """Gives session ids, counts how often it is asked, and does as told."""

    def __init__(self, *, fails: BaseException | None = None, gives: Any = None) -> None:
        self.logins = self.refreshes = self.running = self.most = 0
        self.rejected: list[Credentials] = []
        self.fails = fails
        self.gives = gives
        self.allowed = asyncio.Event()
        self.allowed.set()
        self.begun = asyncio.Event()
        self.cancelled = 0

    async def credentials(self) -> Credentials:
        self.logins += 1
        return await self._give("first")

    async def refresh(self, rejected: Credentials) -> Credentials:
        self.refreshes += 1
        self.rejected.append(rejected)
        if self.fails is not None:
            await asyncio.sleep(0)
            raise self.fails
        return await self._give(f"renewed {self.refreshes}")

    async def _give(self, ssid: str) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.set()
        try:
            await self.allowed.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return SessionId(ssid) if self.gives is None or ssid == "first" else self.gives


def only(*valid: str) -> Callable[[Received], Sequence[Step]]:
    """A server that knows these session ids."""

    def react(request: Received) -> Sequence[Step]:
        return serve(request) if request.body.get("ssid") in valid else [Send(error(1014))]

    return react


def sent(server: FaultServer) -> Counter[str]:
    return Counter(request.body.get("ssid") for request in server.ledger)


@pytest.mark.anyio
async def test_the_first_credentials_are_asked_for_once() -> None:
    async with connect(only("first"), credentials=Provider()) as (server, dc):
        provider: Any = dc._session.account.source._provider
        await asyncio.gather(*(dc.groups.list() for _ in range(20)))
        await dc.groups.list()
        assert (provider.logins, provider.refreshes) == (1, 0)
        assert sent(server) == {"first": 21}


@pytest.mark.anyio
@pytest.mark.parametrize("code", [1014, 1020])
async def test_one_refresh_for_all_calls_in_flight_and_one_repeat_of_each(code: int) -> None:
    provider, everyone = Provider(), asyncio.Event()

    def react(request: Received) -> Sequence[Step]:
        if request.body["ssid"] == "renewed 1":
            return serve(request)
        # All 50 are in flight before the first is told.
        if request.number == 50:
            everyone.set()
        return Wait(everyone), Send(error(code))

    async with connect(react, credentials=provider, max_connections=50) as (server, dc):
        done = await asyncio.gather(*(dc.groups.agent_relation(n) for n in range(1, 51)))
        assert [relation.group.unique_id for relation in done] == list(range(1, 51))
        assert (provider.logins, provider.refreshes, provider.most) == (1, 1, 1)
        assert provider.rejected == [SessionId("first")]
        assert sent(server) == {"first": 50, "renewed 1": 50}
        each = Counter(request.body["groupId"] for request in server.ledger)
        assert set(each.values()) == {2}
        assert dc.stats.requests == 100


@pytest.mark.anyio
async def test_stragglers_rejected_after_the_refresh_cause_no_second_one() -> None:
    provider, late = Provider(), asyncio.Event()

    def react(request: Received) -> Sequence[Step]:
        if request.body["ssid"] != "first":
            return serve(request)
        if request.body["groupId"] == 2:
            return Wait(late), Send(error(1014))
        return (Send(error(1014)),)

    async with connect(react, credentials=provider) as (_, dc):
        straggler = asyncio.ensure_future(dc.groups.agent_relation(2))
        await dc.groups.agent_relation(1)
        late.set()
        assert (await straggler).group.unique_id == 2
        assert provider.refreshes == 1


@pytest.mark.anyio
@pytest.mark.parametrize("verb", ["add", "delete", "update", "assign_agents"])
async def test_a_change_is_repeated_too_for_it_was_refused(verb: str) -> None:
    async with connect(only("renewed 1"), credentials=Provider()) as (server, dc):
        calls = {
            "add": lambda: dc.groups.add("Sales 5"),
            "delete": lambda: dc.groups.delete(5),
            "update": lambda: dc.groups.update(5, name="A"),
            "assign_agents": lambda: dc.groups.assign_agents(5, [1]),
        }
        await calls[verb]()
        assert len(server.ledger) == 2
        assert len(server.committed) == 1


@pytest.mark.anyio
async def test_a_sandbox_session_that_expires_again_and_again() -> None:
    async with Sandbox(groups=40, ssid_lifetime=9) as server:

        class Login:
            refreshes = 0

            async def credentials(self) -> SessionId:
                return SessionId(server.ssid)

            async def refresh(self, rejected: Credentials) -> SessionId:
                self.refreshes += 1
                return SessionId(server.new_ssid())

        login = Login()
        async with DeepCall(login, base_url=server.base_url, retry=TWICE) as dc:
            ids = [group.unique_id for group in await dc.groups.list()]
            batch = await collect(dc.groups.agent_relation, ids, concurrency=4)
        assert len(batch.ok) == 40
        assert 4 <= login.refreshes <= 12


@pytest.mark.anyio
@pytest.mark.parametrize("fails", [LookupError("no"), TimeoutError(), AuthenticationFailed("no")])
async def test_a_failing_refresh_fails_all_and_for_five_seconds_nobody_asks_again(
    fails: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = Provider(fails=fails)
    async with connect(only(), credentials=provider) as (server, dc):
        done = await asyncio.gather(*(dc.groups.list() for _ in range(50)), return_exceptions=True)
        assert {type(each) for each in done} == {AuthenticationFailed}
        assert len({id(each) for each in done}) == 50
        assert all(
            each.endpoint == "groups.list" for each in done if isinstance(each, DeepCallError)
        )
        requests = len(server.ledger)
        assert provider.refreshes == 1
        for _ in range(5):
            with pytest.raises(AuthenticationFailed) as caught:
                await dc.groups.add("A")
            assert caught.value.attempts == 0
        assert (provider.logins, provider.refreshes, len(server.ledger)) == (1, 1, requests)
        assert renewal.FAILURE_HOLDS == 5.0
        # The five seconds pass.
        monkeypatch.setattr(renewal, "FAILURE_HOLDS", 0.0)
        provider.fails = None
        with pytest.raises(AuthenticationFailed, match="1014"):
            await dc.groups.list()
        # Once in place of what was rejected before, and once for this call's own rejection.
        assert provider.refreshes == 3


@pytest.mark.anyio
async def test_renewed_credentials_that_are_rejected_too_end_it() -> None:
    provider = Provider()
    async with connect(only(), credentials=provider) as (server, dc):
        with pytest.raises(AuthenticationFailed, match="1014") as caught:
            await dc.groups.list()
        assert caught.value.attempts == 2
        assert sent(server) == {"first": 1, "renewed 1": 1}
        for _ in range(3):
            with pytest.raises(AuthenticationFailed):
                await dc.groups.list()
        assert provider.refreshes == 1
        assert len(server.ledger) == 2


@pytest.mark.anyio
async def test_after_the_hold_a_working_login_works_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "FAILURE_HOLDS", 0.05)
    provider = Provider(fails=LookupError("no"))
    async with connect(only("renewed 2"), credentials=provider) as (_, dc):
        with pytest.raises(AuthenticationFailed):
            await dc.groups.list()
        provider.fails = None
        with pytest.raises(AuthenticationFailed):
            await dc.groups.list()
        assert provider.refreshes == 1
        await asyncio.sleep(0.06)
        assert (await dc.groups.agent_relation(7)).group.unique_id == 7
        assert provider.refreshes == 2


@pytest.mark.anyio
async def test_fixed_credentials_are_not_renewed_and_not_repeated() -> None:
    async with connect(only(), credentials=SessionId("fixed")) as (server, dc):
        for _ in range(2):
            with pytest.raises(AuthenticationFailed) as caught:
                await dc.groups.list()
            assert caught.value.attempts == 1
            assert caught.value.code == 1014
        assert len(server.ledger) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("status", [401, 200])
async def test_an_http_401_is_a_rejection_like_any_other(status: int) -> None:
    def react(request: Received) -> Sequence[Step]:
        if request.body["ssid"] == "first":
            return (Send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n" if status == 401
                    else error(1014)),)  # fmt: skip
        return serve(request)

    provider = Provider()
    async with connect(react, credentials=provider) as (_, dc):
        await dc.groups.list()
        assert provider.refreshes == 1


@pytest.mark.anyio
@pytest.mark.parametrize("rubbish", ["bare", b"bytes", 7, {"ssid": "x"}, Provider, object()])
@pytest.mark.parametrize("when", ["first", "renewed"])
async def test_a_provider_that_gives_rubbish(rubbish: Any, when: str) -> None:
    class Rubbish(Provider):
        async def credentials(self) -> Credentials:
            if when == "first":
                self.logins += 1
                return rubbish  # type: ignore[no-any-return]
            return await super().credentials()

    provider = Rubbish(gives=rubbish)
    async with connect(only(), credentials=provider) as (server, dc):
        for _ in range(3):
            with pytest.raises(AuthenticationFailed) as caught:
                await dc.groups.list()
            assert "bare" not in str(caught.value)
        assert provider.logins == 1
        assert provider.refreshes == (0 if when == "first" else 1)
        assert len(server.ledger) == (0 if when == "first" else 1)


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["credentials", "refresh"])
async def test_a_provider_whose_methods_are_not_coroutines(method: str) -> None:
    class Plain:
        async def credentials(self) -> Credentials:
            return SessionId("first")

        async def refresh(self, rejected: Credentials) -> Credentials:
            return SessionId("renewed")

    provider: Any = Plain()
    setattr(provider, method, lambda *_: SessionId("plain"))
    async with connect(only(), credentials=provider) as (_, dc):
        with pytest.raises(AuthenticationFailed, match="TypeError"):
            await dc.groups.list()


@pytest.mark.anyio
async def test_a_provider_whose_own_task_was_cancelled_cancels_nobody() -> None:
    provider = Provider(fails=asyncio.CancelledError())
    async with connect(only(), credentials=provider) as (_, dc):
        done = await asyncio.gather(*(dc.groups.list() for _ in range(5)), return_exceptions=True)
        assert {type(each) for each in done} == {AuthenticationFailed}
        assert provider.refreshes == 1


@pytest.mark.virtual_time
@pytest.mark.anyio
@pytest.mark.parametrize("when", ["first", "renewed"])
async def test_a_provider_that_hangs_is_given_the_timeout(when: str) -> None:
    provider = Provider()
    if when == "first":
        provider.allowed.clear()

    def react(request: Received) -> Sequence[Step]:
        provider.allowed.clear()
        return (Send(error(1014)),)

    async with connect(react, credentials=provider, timeout=0.15) as (server, dc):
        started = time.monotonic()
        done = await asyncio.gather(*(dc.groups.list() for _ in range(9)), return_exceptions=True)
        assert time.monotonic() - started == pytest.approx(0.15, abs=0.01)
        assert {type(each) for each in done} == {AuthenticationFailed}
        assert provider.cancelled == 1
        assert provider.running == 0
        assert len(server.ledger) == (0 if when == "first" else 9)


@pytest.mark.virtual_time
@pytest.mark.anyio
@pytest.mark.parametrize("when", ["first", "renewed"])
async def test_waiting_for_credentials_keeps_the_deadline(when: str) -> None:
    provider = Provider()
    if when == "first":
        provider.allowed.clear()

    def react(request: Received) -> Sequence[Step]:
        provider.allowed.clear()
        return (Send(error(1014)),)

    policy = RetryPolicy(attempts=2, deadline=0.2)
    async with connect(react, credentials=provider, retry=policy) as (_, dc):
        started = time.monotonic()
        with pytest.raises(RequestTimeout):
            await dc.groups.list()
        assert time.monotonic() - started == pytest.approx(0.2, abs=0.01)


@pytest.mark.anyio
@both_paths
@pytest.mark.parametrize("who", ["client", "sibling", "parent"])
@pytest.mark.parametrize("when", ["first", "renewed"])
async def test_closing_while_renewing_ends_the_renewal_and_sends_nothing(
    path: str, who: str, when: str
) -> None:
    provider = Provider()
    if when == "first":
        provider.allowed.clear()

    def react(request: Received) -> Sequence[Step]:
        provider.allowed.clear()
        return (Send(error(1014)),)

    async with (
        connect(react, path, credentials=SessionId("x")) as (server, dc),
        contextlib.AsyncExitStack() as stack,
    ):
        before = asyncio.all_tasks()
        mine = dc.with_options(credentials=provider)
        if who == "client":
            mine = await stack.enter_async_context(
                clients.client(server, path, credentials=provider, retry=TWICE)
            )
        calls = [asyncio.ensure_future(mine.groups.list()) for _ in range(3)]
        calls.append(asyncio.ensure_future(mine.groups.add("A")))
        if when == "first":
            await provider.begun.wait()
        else:
            async with asyncio.timeout(2):
                while provider.refreshes == 0 or provider.running == 0:
                    await asyncio.sleep(0)
            await server.until(lambda s: len(s.ledger) == 4)
            for _ in range(20):
                await asyncio.sleep(0)
        requests = len(server.ledger)
        async with asyncio.timeout(1):
            await (dc if who == "parent" else mine).aclose()
            done = await asyncio.gather(*calls, return_exceptions=True)
        # An `add` that was told 1014 was refused, not left unanswered.
        assert {type(each) for each in done} == {ClientClosed}
        assert provider.cancelled == 1
        provider.allowed.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(server.ledger) == requests
        await server.until(lambda s: s.idle_connections == s.open_connections)
        left = asyncio.all_tasks() - before
        assert not [task for task in left if "_serve" not in repr(task.get_coro())]


@pytest.mark.anyio
async def test_closing_a_sibling_leaves_the_renewal_it_shares() -> None:
    provider = Provider()
    provider.allowed.clear()
    async with connect(serve, credentials=provider) as (_, dc):
        sibling = dc.with_options(timeout=9.0)
        call = asyncio.ensure_future(dc.groups.list())
        await provider.begun.wait()
        await sibling.aclose()
        provider.allowed.set()
        assert len(await call) == 1
        assert provider.cancelled == 0


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["first", "renewed"])
async def test_a_cancelled_caller_does_not_take_the_renewal_from_the_others(when: str) -> None:
    provider = Provider()
    if when == "first":
        provider.allowed.clear()

    def react(request: Received) -> Sequence[Step]:
        if request.body["ssid"] == "first" and when == "renewed":
            provider.allowed.clear()
            return (Send(error(1014)),)
        return serve(request)

    async with connect(react, credentials=provider) as (server, dc):
        calls = [asyncio.ensure_future(dc.groups.agent_relation(n)) for n in range(1, 6)]
        async with asyncio.timeout(2):
            while provider.running == 0 or (when == "renewed" and provider.refreshes == 0):
                await asyncio.sleep(0)
        if when == "renewed":
            await server.until(lambda s: len(s.ledger) == 5)
        for _ in range(20):
            await asyncio.sleep(0)
        # The first is the one that asked.
        calls[0].cancel()
        calls[3].cancel()
        done = await asyncio.gather(calls[0], calls[3], return_exceptions=True)
        assert {type(each) for each in done} == {asyncio.CancelledError}
        provider.allowed.set()
        rest = await asyncio.gather(calls[1], calls[2], calls[4])
        assert [relation.group.unique_id for relation in rest] == [2, 3, 5]
        assert provider.logins == 1
        assert provider.refreshes == (0 if when == "first" else 1)
        assert provider.cancelled == 0
        asked = Counter(request.body["groupId"] for request in server.ledger)
        assert asked[1] == asked[4] == (0 if when == "first" else 1)


@pytest.mark.anyio
async def test_when_all_callers_are_cancelled_nothing_is_left_after_close() -> None:
    provider = Provider()
    provider.allowed.clear()
    before = asyncio.all_tasks()
    async with connect(serve, credentials=provider) as (server, dc):
        calls = [asyncio.ensure_future(dc.groups.list()) for _ in range(3)]
        await provider.begun.wait()
        for call in calls:
            call.cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(each) for each in done} == {asyncio.CancelledError}
        await dc.aclose()
        assert not server.ledger
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


@pytest.mark.anyio
@pytest.mark.parametrize("through", ["fan_out", "collect"])
async def test_a_failing_refresh_ends_a_fan_out_at_once(through: str) -> None:
    provider = Provider(fails=LookupError("no"))

    def react(request: Received) -> Sequence[Step]:
        return serve(request) if request.number <= 40 else [Send(error(1014))]

    async with connect(react, credentials=provider) as (server, dc):
        seen = []
        with pytest.raises(AuthenticationFailed):
            if through == "collect":
                await collect(dc.groups.agent_relation, range(1, 10_000), concurrency=8)
            else:
                async with fan_out(
                    dc.groups.agent_relation, range(1, 10**7), concurrency=8
                ) as outcomes:
                    async for outcome in outcomes:
                        seen.append(outcome)
        assert provider.refreshes == 1
        assert len(server.ledger) <= 40 + 2 * 8
        assert all(isinstance(outcome, Ok) for outcome in seen)


@pytest.mark.anyio
async def test_two_siblings_with_two_providers_do_not_mix() -> None:
    north, south = Provider(), Provider()

    class South(Provider):
        async def credentials(self) -> Credentials:
            self.logins += 1
            return UserToken("south", "t0ken")

    south = South()

    def react(request: Received) -> Sequence[Step]:
        good = request.body.get("ssid") == "renewed 1" or request.body.get("userId") == "south"
        return serve(request) if good else [Send(error(1014))]

    async with connect(react, credentials=north) as (server, dc):
        other = dc.with_options(credentials=south)
        await asyncio.gather(dc.groups.list(), other.groups.list(), dc.groups.list())
        assert (north.refreshes, south.refreshes) == (1, 0)
        for request in server.ledger:
            assert ("ssid" in request.body) != ("token" in request.body)


@pytest.mark.anyio
async def test_a_refusal_after_the_renewal_is_what_it_says() -> None:
    def react(request: Received) -> Sequence[Step]:
        known = request.body["ssid"] != "first"
        return [Send(error(1503 if known else 1014))]

    async with connect(react, credentials=Provider()) as (_, dc):
        # Rejected credentials delete nothing, so a group gone afterwards was gone before.
        with pytest.raises(GroupUnavailable):
            await dc.groups.delete(5)


@pytest.mark.anyio
async def test_a_change_lost_after_the_renewal_is_an_unknown_outcome() -> None:
    def react(request: Received) -> Sequence[Step]:
        return [Reset()] if request.body["ssid"] != "first" else [Send(error(1014))]

    async with connect(react, credentials=Provider()) as (server, dc):
        with pytest.raises(OutcomeUnknown):
            await dc.groups.add("A")
        assert len(server.ledger) == 2


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks begin eagerly since Python 3.12")
def test_renewal_goes_on_where_tasks_begin_eagerly() -> None:
    class AtOnce:
        asked = 0

        async def credentials(self) -> SessionId:
            return SessionId("s0")

        async def refresh(self, rejected: Credentials) -> SessionId:
            self.asked += 1
            return SessionId(f"s{self.asked}")

    async def scene() -> None:
        def react(request: Received) -> Sequence[Step]:
            return [Send(error(1014))] if request.number % 2 else serve(request)

        async with connect(react, credentials=provider) as (_, dc):
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            for _ in range(3):
                await dc.groups.list()

    provider = AtOnce()
    # Not on uvloop, which cannot begin tasks so.
    asyncio.run(scene())
    assert provider.asked == 3
