"""The sandbox as a test double: own data, planned faults, calls, reset, and its clock."""

from __future__ import annotations

import asyncio
import io
import json
import math
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from deepcall_async.sandbox import Call, Sandbox
from tests.support.caller import Caller, refused

pytestmark = pytest.mark.anyio

NOW = 1_790_000_000
ENDPOINTS = {
    "add": {"name": "Sales"},
    "update": {"groupId": 28, "name": "Sales"},
    "delete": {"groupId": 28},
    "list": {},
    "getGroupAgentRelation": {"groupId": 28, "quick": True},
    "submitAssignGroupToAgent": {"groupId": 28, "agent_unique_id": [9]},
}


# Own agents and groups.


async def test_own_agents_and_groups_are_all_there_is(http: aiohttp.ClientSession) -> None:
    server = Sandbox(groups=0, now=NOW)
    asha, ravi = server.add_agent("Asha"), server.add_agent("Ravi")
    sales = server.add_group("Sales", members={ravi: "Y", asha: "N"})
    async with server:
        closed = server.add_group("Closed", status=0)
        assert (asha, ravi, sales, closed) == (1, 2, 1, 2)
        call = Caller(http, server)
        owner = server.user_id
        assert await call.relation(sales) == {
            "groupData": {
                "name": "Sales",
                "user_id": owner,
                "create_by": owner,
                "unique_id": sales,
                "status": 1,
                "create_date": NOW,
                "agents": ["#2 Ravi", "#1 Asha"],
            },
            "agentData": [
                {"name": "Asha", "unique_id": asha, "user_id": owner},
                {"name": "Ravi", "unique_id": ravi, "user_id": owner},
            ],
            "relationData": [
                {"group_id": sales, "agent_id": ravi, "receive_call": "Y", "user_id": owner},
                {"group_id": sales, "agent_id": asha, "receive_call": "N", "user_id": owner},
            ],
        }
        listed = (await call("list"))["response"]
        assert [(group["name"], group["status"]) for group in listed] == [
            ("Sales", 1),
            ("Closed", 0),
        ]
        # What is added later is seen at once, by replies that were encoded before too.
        server.add_group("Sales")
        late = server.add_agent("Zoë")
        assert (await call("list"))["response"][-1]["name"] == "Sales1"
        assert (await call.relation(sales))["agentData"][-1]["name"] == "Zoë"
        assigned = await call("submitAssignGroupToAgent", groupId=closed, agent_unique_id=[late])
        assert assigned["status"] == "success"
        assert server.planted == {}


async def test_own_data_goes_beside_the_demo_data(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=40, agents=60) as server:
        call = Caller(http, server)
        agent = server.add_agent("Asha")
        assert agent == 161, "above the ids of both rosters"
        group = server.add_group("Sales", {agent: "Y", 3: "N"})
        assert group == 41
        relation = await call.relation(group)
        assert relation["groupData"]["agents"] == ["#161 Asha", "#3 bhawesh"]
        assert len(relation["agentData"]) == 12
        assert len((await call.relation(4))["agentData"]) == 60


@pytest.mark.parametrize(
    ("add", "wrong"),
    [
        (lambda s: s.add_agent(""), "name"),
        (lambda s: s.add_agent(None), "name"),
        (lambda s: s.add_group(5), "name"),
        (lambda s: s.add_group("A", {99: "Y"}), "no agent 99 .* add_agent"),
        (lambda s: s.add_group("A", {"1": "Y"}), "no agent '1'"),
        (lambda s: s.add_group("A", {1: "y"}), "'y'"),
        (lambda s: s.add_group("A", {1: ["Y"]}), "receive_call"),
        (lambda s: s.add_group("A", [1]), "members"),
        (lambda s: s.add_group("A", status="on"), "status"),
        (lambda s: s.add_group("A", status=10**30), "status"),
    ],
)
def test_wrong_own_data_is_refused_and_changes_nothing(
    add: Callable[[Any], object], wrong: str
) -> None:
    server = Sandbox(groups=0)
    server.add_agent("Asha")
    with pytest.raises(ValueError, match=wrong):
        add(server)
    assert server.add_group("A", {1: "Y"}) == 1
    assert server.add_agent("Ravi") == 2


async def test_an_empty_account_says_no_data_found(http: aiohttp.ClientSession) -> None:
    async with Sandbox(empty=True) as server:
        call = Caller(http, server)
        reply = await call("list")
        assert reply == {"status": "error", "message": "No data found", "code": 1012}
        for fields in ({"quick": True}, {"name": "x"}, {"groupId": 28}):
            assert refused(await call("list", **fields), 1012)
        group = (await call("add", name="Sales"))["groupId"]
        assert [each["name"] for each in (await call("list"))["response"]] == ["Sales"]
        assert refused(await call("list", name="other"), 1012)
        await call("delete", groupId=group)
        assert refused(await call("list"), 1012)
        server.agent_to_agent_call = False
        assert refused(await call("list"), 1015), "the permission comes first"
    async with Sandbox(groups=0) as server:
        assert (await Caller(http, server)("list"))["response"] == []


def test_an_empty_account_with_groups_is_a_contradiction() -> None:
    with pytest.raises(ValueError, match="groups=40"):
        Sandbox(40, empty=True)
    Sandbox(0, empty=True)


# Planned faults.


@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_a_planned_error_is_answered_instead_of_acting(
    http: aiohttp.ClientSession, endpoint: str
) -> None:
    async with Sandbox(groups=1) as server:
        call = Caller(http, server)
        before = await call("list")
        server.fail_next(endpoint, times=2, code=1009)
        server.fail_next(endpoint, http_status=503)
        for _ in range(2):
            assert refused(await call(endpoint, **ENDPOINTS[endpoint]), 1009)
        if endpoint != "list":
            assert await call("list") == before, "other endpoints are as they were"
        assert await call.status_of(endpoint) == 503
        assert await call("list") == before
        assert (await call(endpoint, **ENDPOINTS[endpoint]))["status"] == "success"


async def test_a_code_comes_under_a_status_if_both_are_given(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=1) as server:
        server.fail_next("list", code=1015, http_status=403)
        url = f"{server.base_url}/api/v2/Group/list"
        async with http.post(url, json={}) as response:
            assert response.status == 403
            assert refused(await response.json(), 1015)


async def test_a_planned_drop_has_acted(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0) as server:
        call = Caller(http, server)
        server.fail_next("add", drop=True)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await call("add", name="lost")
        assert [group["name"] for group in (await call("list"))["response"]] == ["lost"]
        assert (await call("add", name="kept"))["status"] == "success"
        assert server.calls[0] == Call("add", {"name": "lost"}, http_status=None, code=200)


async def test_a_planned_delay_is_for_one_request_and_may_have_an_error(
    http: aiohttp.ClientSession,
) -> None:
    async with Sandbox(groups=0) as server:
        call = Caller(http, server)
        server.fail_next("list", delay=30)
        server.fail_next("list", delay=0.01, code=1032)
        slow = asyncio.create_task(call("list"))
        while not server.calls:
            await asyncio.sleep(0.001)
        assert refused(await call("list"), 1032)
        assert (await call("list"))["status"] == "success"
        assert not slow.done()
        slow.cancel()


async def test_a_plan_goes_before_rate_and_chance(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0, rate_limit=1e-6, error_rate={500: 1.0}) as server:
        call = Caller(http, server)
        assert await call.status_of("list") == 500
        assert await call.status_of("list") == 429
        server.fail_next("list", code=1010)
        assert refused(await call("list"), 1010)
        assert await call.status_of("list") == 429


@pytest.mark.parametrize("status", [200, 204, 205, 302, 304, 400, 404, 413, 429, 502, 599])
async def test_any_final_status_can_be_planned(http: aiohttp.ClientSession, status: int) -> None:
    async with Sandbox(groups=0) as server:
        server.fail_next("list", http_status=status)
        url = f"{server.base_url}/api/v2/Group/list"
        for expected in (status, 200):
            async with http.post(url, json={}, allow_redirects=False) as response:
                assert response.status == expected
                await response.read()
        assert [call.http_status for call in server.calls] == [status, 200]


@pytest.mark.parametrize(
    ("arguments", "options", "wrong"),
    [
        (("agent_relation",), {"code": 1009}, "getGroupAgentRelation"),
        (("/api/v2/Group/list",), {"code": 1009}, "no endpoint"),
        ((["list"],), {"code": 1009}, "endpoint"),
        (("list",), {}, "code, http_status, drop or delay"),
        (("list",), {"delay": 0}, "code, http_status, drop or delay"),
        (("list", 0), {"code": 1009}, "times"),
        (("list", 1.5), {"code": 1009}, "times"),
        (("list", True), {"code": 1009}, "times"),
        (("list",), {"code": 999}, "code"),
        (("list",), {"code": "1009"}, "code"),
        (("list",), {"code": 10**30}, "code"),
        (("list",), {"http_status": 99}, "http_status"),
        (("list",), {"http_status": 100}, "http_status"),
        (("list",), {"http_status": 600}, "http_status"),
        (("list",), {"drop": 1}, "drop"),
        (("list",), {"drop": True, "code": 1009}, "dropped"),
        (("list",), {"delay": -1}, "delay"),
        (("list",), {"delay": math.nan}, "delay"),
    ],
)
def test_a_wrong_plan_is_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(ValueError, match=wrong):
        Sandbox(groups=0).fail_next(*arguments, **options)


# Calls.


async def test_calls_tell_what_came_and_how_it_was_answered(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=1) as server:
        call = Caller(http, server)
        await call("add", name="Sales")
        await call.bare("list", ssid="wrong", name="x")
        await call("delete", groupId=99)
        await call.raw("list", b"[1]")
        await call.raw("list", b"{")
        server.fail_next("list", http_status=503)
        await call.status_of("list")
        assert server.calls == (
            Call("add", {"name": "Sales"}, 200, 200),
            Call("list", {"name": "x"}, 200, 1014),
            Call("delete", {"groupId": 99}, 200, 1503),
            Call("list", {}, 200, 1047),
            Call("list", {}, 200, 1047),
            Call("list", {}, 503, None),
        )


async def test_a_request_that_is_too_large_is_a_call_too(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0) as server:
        url = f"{server.base_url}/api/v2/Group/add"
        async with http.post(url, data=io.BytesIO(b" " * 2_000_000)) as response:
            assert response.status == 413
        assert server.calls == (Call("add", {}, 413, None),)
        assert server.requests == {"add": 1}


async def test_no_credential_is_kept_however_it_was_spelled(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0) as server:
        call = Caller(http, server)
        secret = "s3cr3t"
        for name in ("ssid", "token", "userId", "SSID", "Token", "user_id", "userid"):
            await call.bare("list", **{name: secret}, groupId=5)
        assert {tuple(each.fields) for each in server.calls} == {("groupId",)}
        assert secret not in repr(server.calls)


async def test_the_calls_kept_are_the_last_ones(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0) as server:
        for _ in range(10_000):
            server._calls.record("list", {}, 200, 200)
        await Caller(http, server)("add", name="A")
        assert len(server.calls) == 10_000
        assert server.calls[-1].endpoint == "add"


# The clock.


async def test_a_clock_that_stands_dates_groups_and_is_moved(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0, now=NOW) as server:
        call = Caller(http, server)
        server.add_group("A")
        server.advance(60)
        await call("add", name="B")
        server.advance(0.5)
        server.advance(0.5)
        server.add_group("C")
        dates = [group["create_date"] - NOW for group in (await call("list"))["response"]]
        assert dates == [0, 60, 61]


async def test_the_clock_fills_the_rate_limit(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0, rate_limit=0.001) as server:
        call = Caller(http, server)
        assert [await call.status_of("list") for _ in range(2)] == [200, 429]
        server.advance(900)
        assert await call.status_of("list") == 429
        server.advance(100)
        assert [await call.status_of("list") for _ in range(2)] == [200, 429]


async def test_sessions_that_live_for_a_time_end_by_the_clock(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0, ssid_lifetime=timedelta(hours=1)) as server:
        call = Caller(http, server)
        old = server.ssid
        server.advance(1800)
        assert (await call.bare("list", ssid=old))["status"] == "success"
        new = server.new_ssid()
        server.advance(1800)
        assert refused(await call.bare("list", ssid=old), 1014)
        assert (await call.bare("list", ssid=new))["status"] == "success"
        server.ssid_lifetime = None
        assert (await call.bare("list", ssid=old))["status"] == "success"


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, "1", None, True])
def test_the_clock_does_not_go_back(seconds: Any) -> None:
    with pytest.raises(ValueError, match="seconds"):
        Sandbox(groups=0).advance(seconds)


# The rate limit.


@pytest.mark.parametrize("said", [True, False])
async def test_a_refusal_by_rate_says_when_to_come_again_or_not(
    http: aiohttp.ClientSession, said: bool
) -> None:
    async with Sandbox(groups=0, rate_limit=0.01, retry_after=said) as server:
        url = f"{server.base_url}/api/v2/Group/list"
        for status in (200, 429):
            async with http.post(url, json={"ssid": server.ssid}) as response:
                assert response.status == status
        assert ("Retry-After" in response.headers) is said
        server.retry_after = not said
        async with http.post(url, json={"ssid": server.ssid}) as response:
            assert ("Retry-After" in response.headers) is not said


# Back to how it was made.


async def test_reset_puts_everything_back(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=3, now=NOW, ssid_lifetime=50, error_rate={500: 1e-9}) as server:
        call = Caller(http, server)
        as_made = server.settings()
        base_url, token, ssid, planted = server.base_url, server.token, server.ssid, server.planted

        async def seen() -> list[bytes]:
            ids = [group["unique_id"] for group in (await call("list"))["response"]]
            asked = [
                await call.bytes_of("getGroupAgentRelation", groupId=i, quick=True) for i in ids
            ]
            return [await call.bytes_of("list"), *asked]

        before = await seen()
        server.add_group("mine", {server.add_agent("Asha"): "Y"})
        await call("delete", groupId=28)
        await call("update", groupId=1, name="Other")
        await call("submitAssignGroupToAgent", groupId=2, agent_unique_id=[9])
        server.fail_next("list", times=5, code=1009)
        server.change({"latency": 60, "drop_rate": 1.0, "rate_limit": 0.001, "retry_after": False})
        server.error_rate = {1009: 1.0}
        server.ssid_lifetime = None
        server.agent_to_agent_call = False
        server.expire_ssid()
        server.new_ssid()
        server.advance(86_400)
        assert server.calls

        server.reset()
        assert (server.base_url, server.token, server.ssid, server.planted) == (
            base_url,
            token,
            ssid,
            planted,
        )
        assert server.settings() == as_made
        assert server.calls == ()
        assert not server.requests
        assert await seen() == before
        assert (await call.bare("list", ssid=ssid))["status"] == "success"
        assert (await call("add", name="Sales"))["groupId"] == 29, "ids begin anew"
        assert (await call("list", groupId=29))["response"][0]["create_date"] == NOW
        assert server.add_agent("Asha") == 251


async def test_faults_by_chance_repeat_after_a_reset(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0, error_rate={500: 0.5}) as server:
        call = Caller(http, server)
        first = [await call.status_of("list") for _ in range(30)]
        assert {*first} == {200, 500}
        server.reset()
        assert [await call.status_of("list") for _ in range(30)] == first


# Settings.

WRONG: list[tuple[str, Any]] = [
    ("latency", -0.1),
    ("latency", math.inf),
    ("latency", math.nan),
    ("latency", "1"),
    ("latency", None),
    ("latency", True),
    ("latency", 10**400),
    ("error_rate", {"429": 1}),
    ("error_rate", {99: 1}),
    ("error_rate", {0: 1}),
    ("error_rate", {-1009: 1}),
    ("error_rate", {100: 1}),
    ("error_rate", {600: 1}),
    ("error_rate", {999: 1}),
    ("error_rate", {10**30: 1}),
    ("error_rate", {True: 1}),
    ("error_rate", {429.0: 1}),
    ("error_rate", {429: 1.1}),
    ("error_rate", {429: -0.1}),
    ("error_rate", {429: math.nan}),
    ("error_rate", {429: None}),
    ("error_rate", {429: 0.6, 1009: 0.6}),
    ("error_rate", 0.5),
    ("error_rate", [429]),
    ("drop_rate", 1.01),
    ("drop_rate", -1),
    ("drop_rate", None),
    ("rate_limit", 0),
    ("rate_limit", -5),
    ("rate_limit", math.inf),
    ("rate_limit", math.nan),
    ("rate_limit", "10"),
    ("retry_after", 5),
    ("retry_after", None),
    ("ssid_lifetime", -1),
    ("ssid_lifetime", 2.5),
    ("ssid_lifetime", timedelta(seconds=-1)),
    ("ssid_lifetime", "1h"),
    ("agent_to_agent_call", "yes"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_setting_is_a_value_error_when_given_and_when_assigned(
    name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=name):
        Sandbox(groups=0, **{name: value})
    server = Sandbox(groups=0)
    before = server.settings()
    with pytest.raises(ValueError, match=name):
        setattr(server, name, value)
    with pytest.raises(ValueError, match=name):
        server.change({"latency": 1, name: value})
    assert server.settings() == before, "all of a change or nothing"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("groups", -1),
        ("groups", 1.5),
        ("groups", "3"),
        ("groups", True),
        ("agents", 59),
        ("agents", None),
        ("seed", "x"),
        ("seed", None),
        ("now", -1),
        ("now", "today"),
        ("port", -1),
        ("port", 65_536),
        ("port", "8080"),
        ("tls", 1),
        ("empty", None),
    ],
)
def test_a_wrong_argument_is_a_value_error(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Sandbox(**{name: value})


def test_a_mapping_of_errors_is_copied_and_cannot_be_changed_in_place() -> None:
    given = {1009: 0.5}
    server = Sandbox(groups=0, error_rate=given)
    given[1009] = 7.0
    assert server.error_rate == {1009: 0.5}
    in_place: Any = server.error_rate
    with pytest.raises(TypeError):
        in_place["429"] = 1
    server.error_rate = {}
    assert server.error_rate == {}


def test_an_unknown_setting_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'latancy'.*latency, error_rate"):
        Sandbox(groups=0).change({"latancy": 1})


async def test_other_threads_may_change_everything_while_it_serves(
    http: aiohttp.ClientSession,
) -> None:
    async with Sandbox(groups=0) as server:
        call = Caller(http, server)
        agents: list[int] = []
        groups: list[int] = []
        start = threading.Barrier(4)

        def work() -> None:
            start.wait()
            for number in range(100):
                agents.append(server.add_agent(f"agent {number}"))
                groups.append(server.add_group("Team", {agents[-1]: "Y"}))
                server.fail_next("update", code=1009)
                server.latency = number % 2 / 1000
                server.advance(1)
                assert len(server.calls) <= len(server.calls)
                server.new_ssid()

        threads = [asyncio.create_task(asyncio.to_thread(work)) for _ in range(3)]
        await asyncio.to_thread(start.wait)
        while not all(thread.done() for thread in threads):
            assert (await call("add", name="Team"))["status"] == "success"
            assert (await call("list"))["status"] == "success"
        await asyncio.gather(*threads)
        assert len({*agents}) == len({*groups}) == 300
        listed = (await call("list"))["response"]
        assert len({group["name"] for group in listed}) == len(listed) >= 300
        for _ in range(300):
            assert refused(await call("update"), 1009)
        assert refused(await call("update"), 1502)


# The same for other languages.


class Control:
    """Asks the routes under ``/_sandbox/``."""

    def __init__(self, http: aiohttp.ClientSession, server: Sandbox) -> None:
        self.http, self.server = http, server

    async def raw(self, method: str, route: str, body: bytes = b"") -> tuple[int, Any]:
        url = f"{self.server.base_url}/_sandbox/{route}"
        async with self.http.request(method, url, data=body) as response:
            assert response.content_type == "application/json"
            return response.status, json.loads(await response.read())

    async def __call__(self, route: str, **arguments: Any) -> Any:
        status, reply = await self.raw("POST", route, json.dumps(arguments).encode())
        assert status == 200, reply
        assert reply.keys() == {"result"}
        return reply["result"]


async def test_another_language_can_do_the_same(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0, now=NOW) as server:
        ask, call = Control(http, server), Caller(http, server)
        agent = await ask("add_agent", name="Asha")
        group = await ask("add_group", name="Sales", members={str(agent): "Y"}, status=1)
        assert (await call.relation(group))["groupData"]["agents"] == ["#1 Asha"]
        assert await ask("add_group", name="Empty") == 2
        assert await ask("fail_next", endpoint="list", times=2, code=1009, delay=0.001) is None
        for _ in range(2):
            assert refused(await call("list"), 1009)
        assert await ask("advance", seconds=60) is None
        await call("add", name="Later")
        assert (await call("list", groupId=3))["response"][0]["create_date"] == NOW + 60
        ssid = await ask("new_ssid")
        assert ssid == server.ssid
        assert (await call.bare("list", ssid=ssid))["status"] == "success"
        await ask("expire_ssid")
        assert refused(await call.bare("list", ssid=ssid), 1014)

        status, reply = await ask.raw("GET", "calls")
        assert status == 200
        assert reply["result"] == [json.loads(json.dumps(each._asdict())) for each in server.calls]
        assert reply["result"][0] == {
            "endpoint": "getGroupAgentRelation",
            "fields": {"groupId": 1, "quick": True},
            "http_status": 200,
            "code": 200,
        }

        settings = await ask(
            "settings", error_rate={"1009": 0.5}, ssid_lifetime={"seconds": 90}, latency=0.001
        )
        assert server.error_rate == {1009: 0.5}
        assert server.ssid_lifetime == timedelta(seconds=90)
        assert settings == {
            "latency": 0.001,
            "error_rate": {"1009": 0.5},
            "drop_rate": 0.0,
            "rate_limit": None,
            "retry_after": True,
            "ssid_lifetime": {"seconds": 90.0},
            "agent_to_agent_call": True,
        }
        assert await ask("settings", **settings) == settings, "what it says, it takes"
        status, state = await ask.raw("GET", "")
        assert state["result"] == {
            "user_id": server.user_id,
            "token": server.token,
            "ssid": server.ssid,
            "planted": {},
            "requests": dict(server.requests),
            "settings": settings,
        }

        for url in ("/_sandbox", "/_sandbox/calls/"):
            async with http.get(server.base_url + url) as response:
                assert response.status == 200

        assert await ask("reset") is None
        assert (await call("list"))["response"] == []
        assert [each.endpoint for each in server.calls] == ["list"], "control is no call"


@pytest.mark.parametrize(
    ("method", "route", "body", "status", "says"),
    [
        ("POST", "", b"", 404, "GET /_sandbox/"),
        ("GET", "nothing", b"", 404, "POST /_sandbox/add_agent"),
        ("GET", "reset", b"", 404, "no such route"),
        ("POST", "calls", b"", 404, "GET /_sandbox/calls"),
        ("POST", "__init__", b"", 404, "no such route"),
        ("POST", "add_agent", b"", 400, "add_agent: missing a required argument: 'name'"),
        ("POST", "add_agent", b'{"name": ""}', 400, "name"),
        ("POST", "add_agent", b'{"name": "A", "age": 5}', 400, "'age'"),
        ("POST", "add_agent", b'["A"]', 400, "JSON object"),
        ("POST", "add_agent", b"\xff", 400, "JSON object"),
        ("POST", "add_agent", b"[" * 100_000, 400, "JSON object"),
        ("POST", "add_group", b'{"name": "A", "members": {"x": "Y"}}', 400, "members"),
        ("POST", "add_group", b'{"name": "A", "members": ["x"]}', 400, "members"),
        ("POST", "add_group", b'{"name": "A", "members": {"7": "Y"}}', 400, "no agent 7"),
        ("POST", "fail_next", b'{"endpoint": ["list"], "code": 1009}', 400, "endpoint"),
        ("POST", "fail_next", b'{"endpoint": "list"}', 400, "code, http_status, drop or delay"),
        ("POST", "advance", b'{"seconds": "5"}', 400, "seconds"),
        ("POST", "settings", b'{"latancy": 5}', 400, "latency"),
        ("POST", "settings", b'{"error_rate": {"x": 1}}', 400, "error_rate"),
        ("POST", "settings", b'{"error_rate": {"99": 1}}', 400, "error_rate"),
        ("POST", "settings", b'{"error_rate": 1}', 400, "error_rate"),
        ("POST", "settings", b'{"rate_limit": 0}', 400, "rate_limit"),
        ("POST", "settings", b'{"ssid_lifetime": {"secs": 1}}', 400, "ssid_lifetime"),
        ("POST", "settings", b'{"ssid_lifetime": {"seconds": 1e300}}', 400, "ssid_lifetime"),
        ("POST", "settings", b'{"ssid_lifetime": {"seconds": -1}}', 400, "ssid_lifetime"),
    ],
)
async def test_a_mistake_is_told_in_json(
    http: aiohttp.ClientSession, method: str, route: str, body: bytes, status: int, says: str
) -> None:
    async with Sandbox(groups=0) as server:
        ask = Control(http, server)
        before = await ask.raw("GET", "")
        found, reply = await ask.raw(method, route, body)
        assert found == status
        assert reply.keys() == {"error"}
        assert says in reply["error"]
        assert await ask.raw("GET", "") == before


async def test_calls_with_odd_fields_can_be_told_too(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0) as server:
        body = b'{"name": "half a \\ud83d pair", "groupId": 123456789012345678901234567890}'
        await Caller(http, server).raw("list", body)
        status, reply = await Control(http, server).raw("GET", "calls")
        assert status == 200
        assert reply["result"][0]["fields"] == json.loads(body)


async def test_planted_rows_of_another_group_are_rows_only(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=300) as server:
        call = Caller(http, server)
        assert server.planted["R002"]
        for group_id in server.planted["R002"]:
            relation = await call.relation(group_id)
            assert relation["groupData"]["unique_id"] == group_id
            assert {row["group_id"] for row in relation["relationData"]} > {group_id}
        for group_id in range(1, 301):
            assert (await call.relation(group_id))["groupData"]["unique_id"] == group_id
