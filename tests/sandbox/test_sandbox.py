"""The sandbox, asked over real HTTP by a plain aiohttp session."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from deepcall_async.sandbox import Sandbox
from deepcall_async.sandbox.demo import demo_account
from tests.support.caller import Caller, as_object, refused

pytestmark = pytest.mark.anyio

NOW = 1_790_000_000
DAY = 86_400
VENDOR_REPLY = Path(__file__).parents[1] / "data" / "agent_relation.json"


# ---------------------------------------------------------------- replies


async def test_the_vendors_example_is_equal_byte_for_byte(http: aiohttp.ClientSession) -> None:
    for groups in (1, 300):
        async with Sandbox(groups=groups, seed=groups) as server:
            url = f"{server.base_url}/api/v2/Group/getGroupAgentRelation"
            # The request as the vendor's page words it.
            body = (
                f'{{"userId": "{server.user_id}","token":"{server.token}","quick":true,'
                '"groupId":28}'
            )
            async with http.post(url, data=body) as response:
                assert await response.read() == VENDOR_REPLY.read_bytes()
                assert response.headers["Content-Length"] == "1084"


async def test_both_kinds_of_credentials_work(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=1) as server:
        call = Caller(http, server)
        assert (await call.bare("list", ssid=server.ssid))["status"] == "success"
        by_token = await call.bare("list", userId=server.user_id, token=server.token)
        assert by_token["status"] == "success"
        as_number = await call.bare("list", userId=int(server.user_id), token=server.token)
        assert as_number["status"] == "success"


async def test_add_gives_an_active_group_with_a_create_date(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=300, now=NOW) as server:
        call = Caller(http, server)
        assert await call("add", name="Zürich") == {
            "status": "success",
            "groupId": 301,
            "code": 200,
        }
        assert (await call("list", groupId=301))["response"] == [
            {
                "name": "Zürich",
                "user_id": server.user_id,
                "create_by": server.user_id,
                "unique_id": 301,
                "status": 1,
                "create_date": NOW,
                "agents": [],
            }
        ]
        raw = await call.bytes_of("list", groupId=301)
        assert '"name":"Zürich","'.encode() in raw, "compact, and UTF-8 as it is"


async def test_a_name_comes_back_as_it_was_sent(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0) as server:
        call = Caller(http, server)
        for name in (
            '"quoted"',
            "back\\slash",
            "new\nline",
            "\x00\x1f",
            "電話 ☎️",
            "{},[]",
            "</script>",
        ):
            group_id = (await call("add", name=name))["groupId"]
            assert (await call.relation(group_id))["groupData"]["name"] == name
        await call("add", name="half a \ud83d pair")
        assert (await call("list"))["response"][-1]["name"] == "half a ? pair"


async def test_the_create_date_is_the_real_time_by_default(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0) as server:
        call = Caller(http, server)
        before = int(time.time())
        await call("add", name="A")
        (group,) = (await call("list"))["response"]
        assert before <= group["create_date"] <= time.time()


async def test_a_name_in_use_gets_a_number(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0) as server:
        call = Caller(http, server)
        ids = [(await call("add", name="Sales"))["groupId"] for _ in range(3)]
        assert ids == [1, 2, 3]
        other = (await call("add", name="Support"))["groupId"]
        await call("update", groupId=other, name="Sales")
        names = [group["name"] for group in (await call("list"))["response"]]
        assert names == ["Sales", "Sales1", "Sales2", "Sales3"]
        await call("update", groupId=1, name="Sales")
        assert (await call("list", groupid="1"))["response"][0]["name"] == "Sales"
        await call("delete", groupId=2)
        await call("add", name="Sales1")
        assert (await call("list", groupid="5"))["response"][0]["name"] == "Sales1"


async def test_update_sets_name_and_status(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=1) as server:
        call = Caller(http, server)
        reply = await call("update", groupId="28", name="Sales EU", status=0)
        assert list(reply) == ["status", "message", "code"]
        assert (reply["status"], reply["code"]) == ("success", 200)
        group = (await call.relation(28))["groupData"]
        assert (group["name"], group["status"]) == ("Sales EU", 0)
        await call("update", groupId=28, name="Sales EU")
        assert (await call.relation(28))["groupData"]["status"] == 1, "the documented default"


async def test_delete_removes_the_group_and_its_relations(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=1) as server:
        call = Caller(http, server)
        reply = await call("delete", groupId=28)
        assert list(reply) == ["status", "message", "code"]
        assert (reply["status"], reply["code"]) == ("success", 200)
        assert (await call("list"))["response"] == []
        assert refused(await call("delete", groupId=28), 1503)
        assert refused(await call("getGroupAgentRelation", groupId=28, quick=True), 1503)
        added = await call("add", name="Mahipal singh")
        assert added["groupId"] == 29, "an id is never used again"
        relation = await call.relation(29)
        assert relation["groupData"]["name"] == "Mahipal singh", "the name is free again"
        assert relation["relationData"] == []


async def test_assign_agents_replaces_the_members(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=1) as server:
        call = Caller(http, server)
        reply = await call(
            "submitAssignGroupToAgent",
            groupId="28",
            agent_unique_id=["9", 5, "9"],
            receive_call=["5"],
        )
        assert list(reply) == ["status", "message", "code"]
        assert (reply["status"], reply["code"]) == ("success", 200)
        relation = await call.relation(28)
        assert relation["groupData"]["agents"] == ["#9 Sumit", "#5 Brijendra"]
        user_id = server.user_id
        assert relation["relationData"] == [
            {"group_id": 28, "agent_id": 9, "receive_call": "N", "user_id": user_id},
            {"group_id": 28, "agent_id": 5, "receive_call": "Y", "user_id": user_id},
        ]
        assert (await call("list"))["response"][0]["agents"] == ["#9 Sumit", "#5 Brijendra"]
        assert len(relation["agentData"]) == 11


async def test_a_list_shows_every_change_at_once(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=1, now=NOW) as server:
        call = Caller(http, server)
        seen = [(await call("list"))["response"]]
        changes: list[tuple[str, dict[str, Any]]] = [
            ("add", {"name": "Sales"}),
            ("update", {"groupId": 29, "name": "Sales EU"}),
            ("submitAssignGroupToAgent", {"groupId": 29, "agent_unique_id": [9]}),
            ("delete", {"groupId": 28}),
        ]
        for verb, fields in changes:
            assert (await call(verb, **fields))["status"] == "success"
            seen.append((await call("list"))["response"])
            assert seen[-1] != seen[-2], verb
        (left,) = seen[-1]
        assert (left["name"], left["agents"]) == ("Sales EU", ["#9 Sumit"])


async def test_list_filters_by_id_and_by_part_of_a_name(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=40) as server:
        call = Caller(http, server)
        everything = (await call("list"))["response"]
        assert [group["unique_id"] for group in everything] == list(range(1, 41))
        for field, value in (("groupid", "28"), ("groupId", "28"), ("groupId", 28)):
            (found,) = (await call("list", **{field: value}))["response"]
            assert found["name"] == "Mahipal singh"
        for name in ("mahipal", "SINGH", "Mahipal singh"):
            (found,) = (await call("list", name=name))["response"]
            assert found["unique_id"] == 28
        assert (await call("list", groupId=28, name="sales"))["response"] == []
        assert (await call("list", groupId=999))["response"] == []


async def test_quick_means_less_in_a_list_and_all_in_a_relation(
    http: aiohttp.ClientSession,
) -> None:
    async with Sandbox(groups=1) as server:
        call = Caller(http, server)
        (full,) = (await call("list"))["response"]
        (quick,) = (await call("list", quick=True))["response"]
        assert full.keys() - quick.keys() == {"agents"}
        relation = (await call("getGroupAgentRelation", groupId=28))["response"]
        assert relation == {"groupData": full, "agentData": [], "relationData": []}


async def test_a_relation_filters_by_name(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=1) as server:
        call = Caller(http, server)
        matching = await call.bytes_of(
            "getGroupAgentRelation", groupId=28, quick=True, name="MAHIPAL"
        )
        assert matching == VENDOR_REPLY.read_bytes()
        other = await call("getGroupAgentRelation", groupId=28, quick=True, name="other")
        assert refused(other, 1503)


async def test_the_path_may_end_in_a_slash(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=1) as server:
        call = Caller(http, server)
        assert await call("list/") == await call("list")
        assert server.requests == {"list": 2}


async def test_other_paths_and_methods_are_not_found(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0) as server:
        for path in ("/", "/add", "/api/v2/Group/Add", "/api/v2/Group/add//"):
            async with http.post(server.base_url + path) as response:
                assert response.status == 404
        async with http.get(f"{server.base_url}/api/v2/Group/list") as response:
            assert response.status == 405
        assert not server.requests


# ---------------------------------------------------------------- codes


VERBS = ("add", "update", "delete", "list", "getGroupAgentRelation", "submitAssignGroupToAgent")


@pytest.mark.parametrize("verb", VERBS)
async def test_credentials_and_body_are_checked_everywhere(
    http: aiohttp.ClientSession, verb: str
) -> None:
    async with Sandbox(groups=1) as server:
        call = Caller(http, server)
        pair = {"userId": server.user_id, "token": server.token}
        for body in (b"", b"{}", b"[]", b"null", b'"x"', b"{", b"\xff", b"[" * 100_000):
            assert refused(as_object(await call.raw(verb, body)), 1047), body
        missing: list[dict[str, Any]] = [
            {"name": "x"},
            {"ssid": ""},
            {"userId": server.user_id},
            {"token": server.token},
            {"userId": server.user_id, "token": ""},
        ]
        for fields in missing:
            assert refused(await call.bare(verb, **fields), 1020), fields
        for fields in ({"ssid": "wrong"}, pair | {"token": "wrong"}, pair | {"userId": "1"}):
            assert refused(await call.bare(verb, **fields), 1014), fields
        assert refused(await call.bare(verb, ssid=server.ssid, **pair), 1000)
        assert refused(await call.bare(verb, ssid=server.ssid, token=server.token), 1000)
        assert server.requests[verb] == 18


@pytest.mark.parametrize("verb", ["add", "update"])
async def test_a_name_is_required(http: aiohttp.ClientSession, verb: str) -> None:
    async with Sandbox(groups=1) as server:
        call = Caller(http, server)
        for fields in ({}, {"name": ""}, {"name": "  "}, {"name": None}):
            assert refused(await call(verb, groupId=28, **fields), 1501), fields
        assert refused(await call(verb, groupId=28, name=5), 1000)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in {"add", "list"}])
async def test_a_known_group_is_required(http: aiohttp.ClientSession, verb: str) -> None:
    async with Sandbox(groups=1) as server:
        call = Caller(http, server)
        rest: dict[str, Any] = {"name": "x", "agent_unique_id": []}
        for fields in ({}, {"groupId": ""}, {"groupId": None}):
            assert refused(await call(verb, **rest, **fields), 1502), fields
        for group_id in (27, "27", 0, -28, "x", "2_8", True, 28.5, "9" * 5000, [28]):
            assert refused(await call(verb, **rest, groupId=group_id), 1503), group_id


async def test_update_takes_a_number_for_status(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=1) as server:
        call = Caller(http, server)
        for status in ("on", True, None):
            assert refused(await call("update", groupId=28, name="x", status=status), 1000)
        assert await call.bytes_of("getGroupAgentRelation", groupId=28, quick=True) == (
            VENDOR_REPLY.read_bytes()
        )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"agent_unique_id": "3"},
        {"agent_unique_id": ["x"]},
        {"agent_unique_id": [3], "receive_call": "3"},
        {"agent_unique_id": [3], "receive_call": [8]},
        {"agent_unique_id": [3, 101], "receive_call": [3]},
    ],
    ids=["missing", "no array", "no id", "receivers no array", "not a member", "other roster"],
)
async def test_assign_agents_refuses_ids_it_cannot_use(
    http: aiohttp.ClientSession, fields: dict[str, Any]
) -> None:
    async with Sandbox(groups=2) as server:
        call = Caller(http, server)
        assert refused(await call("submitAssignGroupToAgent", groupId=28, **fields), 1000)
        assert len((await call.relation(28))["relationData"]) == 3


async def test_reading_needs_the_permission(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=1, agent_to_agent_call=False) as server:
        call = Caller(http, server)
        assert refused(await call("list"), 1015)
        assert refused(await call("list", forward=False), 1015)
        assert refused(await call("getGroupAgentRelation", groupId=28, quick=True), 1015)
        assert len((await call("list", forward=True))["response"]) == 1
        assert (await call("add", name="x"))["status"] == "success"
        server.agent_to_agent_call = True
        assert (await call("list"))["status"] == "success"


# ---------------------------------------------------------------- knobs


async def test_latency_delays_the_answer_but_not_the_action(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0, latency=0.2) as server:
        call = Caller(http, server)
        start = time.perf_counter()
        await call("list")
        assert time.perf_counter() - start > 0.19
        server.latency = 60
        together = [asyncio.create_task(call("list")) for _ in range(20)]
        while server.requests["list"] < 21:
            await asyncio.sleep(0.001)
        assert not any(each.done() for each in together)
        for each in together:
            each.cancel()
        url = f"{server.base_url}/api/v2/Group/add"
        body = {"userId": server.user_id, "token": server.token, "name": "late"}
        with pytest.raises(TimeoutError):
            await http.post(url, json=body, timeout=aiohttp.ClientTimeout(total=0.3))
        server.latency = 0
        assert [group["name"] for group in (await call("list"))["response"]] == ["late"]


async def outcomes(http: aiohttp.ClientSession, seed: int) -> list[int]:
    """What 200 requests in a row are answered with: an HTTP status or a code."""
    seen = []
    async with Sandbox(groups=0, seed=seed, error_rate={1009: 0.2, 503: 0.1}) as server:
        body = {"userId": server.user_id, "token": server.token, "name": "x"}
        for _ in range(200):
            async with http.post(f"{server.base_url}/api/v2/Group/add", json=body) as response:
                is_json = response.content_type == "application/json"
                assert is_json == (response.status == 200)
                seen.append((await response.json())["code"] if is_json else response.status)
        server.error_rate = {}
        made = (await Caller(http, server)("list"))["response"]
        assert len(made) == seen.count(200), "an injected error is answered instead of acting"
    return seen


async def test_errors_come_at_their_rate_and_repeat_by_the_seed(
    http: aiohttp.ClientSession,
) -> None:
    first = await outcomes(http, seed=1)
    assert first == await outcomes(http, seed=1)
    assert first != await outcomes(http, seed=2)
    count = Counter(first)
    assert count.keys() == {200, 1009, 503}
    assert 20 <= count[1009] <= 60
    assert 8 <= count[503] <= 35


async def test_any_code_can_be_injected(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0) as server:
        call = Caller(http, server)
        for code in (1000, 1009, 1010, 1014, 1015, 1020, 1032, 1039, 1047, 1501, 1502, 1503, 1999):
            server.error_rate = {code: 1.0}
            assert refused(await call("list"), code)
        for status in (400, 429, 500, 502, 503, 504):
            server.error_rate = {status: 1.0}
            assert await call.status_of("list") == status


async def test_a_dropped_request_was_acted_upon(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0, drop_rate=1.0) as server:
        call = Caller(http, server)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await call("add", name="lost")
        server.drop_rate = 0.0
        assert [group["name"] for group in (await call("list"))["response"]] == ["lost"]
        assert server.requests == {"add": 1, "list": 1}


async def test_a_drop_rate_below_one_lets_some_through(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0, drop_rate=0.5) as server:
        call = Caller(http, server)
        replies = [
            (await asyncio.gather(call("list"), return_exceptions=True))[0] for _ in range(40)
        ]
        dropped = sum(isinstance(reply, aiohttp.ServerDisconnectedError) for reply in replies)
        assert 8 <= dropped <= 32
        assert sum(isinstance(reply, dict) for reply in replies) == 40 - dropped


async def test_the_rate_limit_says_when_to_come_again(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0, rate_limit=0.01) as server:
        url = f"{server.base_url}/api/v2/Group/list"
        body = {"userId": server.user_id, "token": server.token}
        async with http.post(url, json=body) as response:
            assert response.status == 200
        async with http.post(url, json=body) as response:
            assert response.status == 429
            assert 1 < int(response.headers["Retry-After"]) <= 100
        server.advance(50)
        async with http.post(url, json=body) as response:
            assert int(response.headers["Retry-After"]) <= 50
        server.rate_limit = None
        async with http.post(url, json=body) as response:
            assert response.status == 200
        assert server.requests["list"] == 4


async def test_the_rate_limit_allows_a_burst_and_then_its_rate(
    http: aiohttp.ClientSession,
) -> None:
    async with Sandbox(groups=0, rate_limit=5) as server:
        call = Caller(http, server)
        start = time.monotonic()
        statuses = [await call.status_of("list") for _ in range(20)]
        earned = (time.monotonic() - start) * 5
        assert statuses[:5] == [200] * 5
        assert statuses.count(200) <= 5 + earned
        assert statuses.count(429) == 20 - statuses.count(200)
        server.advance(1)  # as long as Retry-After asks for
        assert await call.status_of("list") == 200


async def test_an_ssid_expires_after_its_requests(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0, ssid_lifetime=2) as server:
        call = Caller(http, server)
        first = server.ssid
        for _ in range(2):
            assert (await call.bare("list", ssid=first))["status"] == "success"
        assert refused(await call.bare("list", ssid=first), 1014)
        assert server.new_ssid() == server.ssid != first
        assert (await call.bare("list", ssid=server.ssid))["status"] == "success"
        assert refused(await call.bare("list", ssid=first), 1014)


async def test_a_session_can_be_ended(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=0) as server:
        call = Caller(http, server)
        old = server.ssid
        server.new_ssid()
        assert (await call.bare("list", ssid=old))["status"] == "success"
        server.expire_ssid()
        for ssid in (old, server.ssid):
            assert refused(await call.bare("list", ssid=ssid), 1014)
        assert (await call("list"))["status"] == "success", "the token is no session"
        assert (await call.bare("list", ssid=server.new_ssid()))["status"] == "success"


# ---------------------------------------------------------------- start and stop


async def test_the_url_is_known_while_it_runs_only() -> None:
    sandbox = Sandbox(groups=0)
    with pytest.raises(RuntimeError, match="async with"):
        sandbox.base_url  # noqa: B018 - reading it is the test
    async with sandbox as server:
        assert server is sandbox
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.base_url)
        port = int(server.base_url.rpartition(":")[2])
        with pytest.raises(OSError, match=str(port)):
            await Sandbox(groups=0, port=port).__aenter__()
    with pytest.raises(RuntimeError, match="async with"):
        sandbox.base_url  # noqa: B018 - as above
    async with Sandbox(groups=0, port=port) as again:
        assert again.base_url.endswith(f":{port}")


async def test_it_stops_at_once_with_requests_waiting(http: aiohttp.ClientSession) -> None:
    async with asyncio.timeout(5):
        async with Sandbox(groups=0, latency=60) as server:
            call = Caller(http, server)
            waiting = [asyncio.create_task(call("list")) for _ in range(3)]
            while server.requests["list"] < 3:
                await asyncio.sleep(0.001)
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, aiohttp.ClientConnectionError) for result in results)


@pytest.mark.parametrize(("groups", "agents"), [(-1, 60), (1, 59)])
def test_impossible_sizes_are_refused(groups: int, agents: int) -> None:
    with pytest.raises(ValueError, match="must"):
        Sandbox(groups=groups, agents=agents)


# ---------------------------------------------------------------- the demo account


async def replies_of(http: aiohttp.ClientSession, server: Sandbox) -> dict[int, bytes]:
    call = Caller(http, server)
    listed = (await call("list"))["response"]
    ids = [group["unique_id"] for group in listed]
    bodies = await asyncio.gather(
        *(call.bytes_of("getGroupAgentRelation", groupId=i, quick=True) for i in ids)
    )
    relations = dict(zip(ids, bodies, strict=True))
    for group in listed:
        body = as_object(relations[group["unique_id"]])
        assert body["response"]["groupData"] == group, "list and relation agree"
    return relations


async def test_seed_and_time_decide_every_byte(http: aiohttp.ClientSession) -> None:
    found = []
    for seed, now in ((3, NOW), (3, NOW), (4, NOW), (3, NOW + 1)):
        async with Sandbox(groups=60, seed=seed, now=now) as server:
            found.append((await replies_of(http, server), server.token, server.ssid))
    assert found[0] == found[1]
    assert found[0][1:] != found[2][1:]
    assert found[0][0] != found[2][0] != found[3][0] != found[0][0]


@pytest.mark.parametrize(
    ("groups", "ids"),
    [(0, []), (1, [28]), (3, [1, 2, 28]), (28, [*range(1, 29)]), (40, [*range(1, 41)])],
)
async def test_an_account_has_as_many_groups_as_asked_for(
    http: aiohttp.ClientSession, groups: int, ids: list[int]
) -> None:
    async with Sandbox(groups=groups) as server:
        listed = (await Caller(http, server)("list"))["response"]
        assert [group["unique_id"] for group in listed] == ids


Pair = tuple[dict[str, Any], dict[str, Any]]


def audit_alone(relations: Iterable[dict[str, Any]], now: int) -> dict[str, tuple[int, ...]]:
    """The audit's rules, written a second time and without regard to speed."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    relations = list(relations)
    rosters = {agent["unique_id"]: agent for r in relations for agent in r["agentData"]}
    own: dict[int, list[dict[str, Any]]] = {}
    receivers: dict[int, frozenset[int]] = {}
    groups = {r["groupData"]["unique_id"]: r["groupData"] for r in relations}

    for relation in relations:
        group, rows = relation["groupData"], relation["relationData"]
        group_id, active = group["unique_id"], group["status"] == 1
        own[group_id] = rows_here = [row for row in rows if row["group_id"] == group_id]
        members = {row["agent_id"] for row in rows_here}
        on = frozenset(row["agent_id"] for row in rows_here if row["receive_call"] == "Y")
        receivers[group_id] = on
        roster = {agent["unique_id"]: agent for agent in relation["agentData"]}
        labelled = {int(label[1:].split(" ")[0]) for label in group["agents"]}
        flags = defaultdict(list)
        for row in rows_here:
            flags[row["agent_id"]].append(row["receive_call"])
        facts = {
            "G001": active and not members,
            "G002": active and bool(members) and not on,
            "G003": active and len(on) == 1,
            "G004": active and len(on) == 2,
            "G005": active and len(members) >= 4 and 0 < len(on) < len(members) / 2,
            "G006": not active and bool(members),
            "G007": len(members) > 50,
            "G008": not members and group["create_date"] < now - 90 * DAY,
            "G009": not 0 < group["create_date"] <= now,
            "N003": group["name"].strip() != group["name"] or not group["name"].isprintable(),
            "R001": not members <= roster.keys(),
            "R002": rows_here != rows,
            "R003": any(len(each) > 1 for each in flags.values()),
            "R004": labelled != members,
            "R005": any(
                row["user_id"] != roster[row["agent_id"]]["user_id"]
                for row in rows
                if row["agent_id"] in roster
            ),
            "R006": any(row["receive_call"] not in {"Y", "N"} for row in rows),
        }
        for rule, fires in facts.items():
            if fires:
                found[rule].add(group_id)

    def twins(a: dict[str, Any], b: dict[str, Any]) -> bool:
        suffix = b["name"].removeprefix(a["name"])
        near = abs(a["create_date"] - b["create_date"]) <= 600
        return bool(near and suffix != b["name"] and suffix.strip().isdecimal())

    def same_receivers(a: dict[str, Any], b: dict[str, Any]) -> bool:
        on = receivers[a["unique_id"]]
        return a["status"] == b["status"] == 1 and len(on) > 1 and on == receivers[b["unique_id"]]

    pair_rules: dict[str, Callable[[dict[str, Any], dict[str, Any]], bool]] = {
        "N001": lambda a, b: a["name"].strip().casefold() == b["name"].strip().casefold(),
        "N002": twins,
        "N004": same_receivers,
    }
    for a in groups.values():
        for b in groups.values():
            for rule, fires_on in pair_rules.items():
                if a is not b and fires_on(a, b):
                    found[rule] |= {a["unique_id"], b["unique_id"]}

    for agent_id, agent in rosters.items():
        in_groups = [i for i, rows in own.items() if any(r["agent_id"] == agent_id for r in rows)]
        on_in = [i for i, on in receivers.items() if agent_id in on]
        alone = [i for i in on_in if len(receivers[i]) == 1 and groups[i]["status"] == 1]
        named = [other for other in rosters.values() if other["name"] == agent["name"]]
        facts = {
            "A001": not in_groups,
            "A002": bool(in_groups) and not on_in,
            "A003": len(on_in) > 10,
            "A004": len(alone) > 1,
            "A005": len(named) > 1,
        }
        for rule, fires in facts.items():
            if fires:
                found[rule].add(agent_id)
    return {rule: tuple(sorted(ids)) for rule, ids in found.items()}


EVERY_RULE = {
    *(f"A{n:03}" for n in range(1, 6)),
    *(f"G{n:03}" for n in range(1, 10)),
    *(f"N{n:03}" for n in range(1, 5)),
    *(f"R{n:03}" for n in range(1, 7)),
}


@pytest.mark.parametrize(("groups", "seed"), [(1, 0), (2, 0), (16, 3), (32, 0), (40, 1), (300, 0)])
async def test_what_is_planted_is_what_a_reader_finds(
    http: aiohttp.ClientSession, groups: int, seed: int
) -> None:
    async with Sandbox(groups=groups, seed=seed, now=NOW) as server:
        replies = await replies_of(http, server)
        relations = [as_object(body)["response"] for body in replies.values()]
        assert audit_alone(relations, NOW) == server.planted
    if groups >= 32:
        assert server.planted.keys() == EVERY_RULE
    if groups == 300:
        faulty = {i for rule, ids in server.planted.items() if rule[0] != "A" for i in ids}
        assert len(faulty) <= 0.2 * groups, "most groups are healthy"
        assert all(len(server.planted[rule]) == 1 for rule in ("A001", "A002", "A003", "A004"))


async def test_conflicting_and_equal_doubles_are_both_there(http: aiohttp.ClientSession) -> None:
    async with Sandbox() as server:
        call = Caller(http, server)
        kinds = set()
        for group_id in server.planted["R003"]:
            flags = defaultdict(list)
            for row in (await call.relation(group_id))["relationData"]:
                flags[row["agent_id"]].append(row["receive_call"])
            kinds |= {"".join(each) for each in flags.values() if len(each) > 1}
        assert kinds == {"YY", "YN"}


async def test_an_account_has_two_rosters(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=50, agents=70) as server:
        rosters = defaultdict(set)
        for body in (await replies_of(http, server)).values():
            response = as_object(body)["response"]
            rosters[response["groupData"]["user_id"]].add(json.dumps(response["agentData"]))
        assert [len(each) for each in rosters.values()] == [1, 1]
        sizes = {user: len(json.loads(next(iter(each)))) for user, each in rosters.items()}
        assert sizes.pop(server.user_id) == 11
        assert list(sizes.values()) == [70]


def test_no_two_teams_are_the_same_by_chance() -> None:
    account = demo_account(groups=10_000, agents=60, seed=0, now=NOW)
    teams = Counter(
        frozenset(row.agent_id for row in group.relations if row.receive_call == "Y")
        for group in account.groups.values()
    )
    assert [n for team, n in teams.items() if n > 1 and len(team) > 1] == [2]
    assert account.planted["N004"] == (22, 23)


async def test_a_large_account_is_built_and_served(http: aiohttp.ClientSession) -> None:
    async with Sandbox(groups=5_000, agents=2_000) as server:
        call = Caller(http, server)
        relation = await call.relation(5_000)
        assert len(relation["agentData"]) == 2_000
        assert len((await call("list"))["response"]) == 5_000
