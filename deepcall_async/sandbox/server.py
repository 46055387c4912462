"""A stateful DeepCall on a loopback port, for tests, demos and benchmarks.

Law: the server's side only. JSON is written by hand from the vendor's pages and nothing of the
package is imported but the demo data, so a misspelt field can never agree with itself.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from deepcall_async.sandbox.demo import OWNER, Agent, Group, Relation, demo_account

__all__ = ["Sandbox"]

_MESSAGES = {
    1000: "Invalid parameters",
    1009: "Something went wrong",
    1010: "Error in DB connect",
    1014: "Invalid or expired token",
    1015: "Permission denied",
    1020: "Token not found in the request",
    1032: "Internal server error",
    1039: "User account suspended",
    1047: "Request body is empty or malformed",
    1501: "The 'Name' field was not provided in the request",
    1502: "GroupId is required",
    1503: "Group not found or not authorized",
}
_LOWEST_CODE = 1000  # DeepCall's codes begin where HTTP's end
_JSON_HEADERS = {"Content-Type": "application/json; charset=utf-8"}
_NEVER_WAIT = 0.01  # seconds; aiohttp takes 0 for "wait for ever"

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class _Refused(Exception):
    """An answer of the API, not a failure of the sandbox."""

    def __init__(self, code: int) -> None:
        self.code = code


def _utf8(text: str) -> bytes:
    # A lone surrogate can be asked for in JSON's escapes and has no UTF-8.
    return text.encode("utf-8", "replace")


def _success(**fields: object) -> bytes:
    return _to_json({"status": "success", **fields, "code": 200}).encode()


def _error(code: int) -> bytes:
    message = _MESSAGES.get(code, "Something went wrong")
    return _to_json({"status": "error", "message": message, "code": code}).encode()


def _listing(groups: Iterable[Group], *, labels: bool = True) -> bytes:
    rows = ",".join([_group_json(group, labels=labels) for group in groups])
    return _utf8(f'{{"status":"success","response":[{rows}],"code":200}}')


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or not body:
        raise _Refused(1047)
    return body


def _number(value: object) -> int | None:
    # The pages show ids as strings in the tables and as numbers in the samples: both are ids.
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None


def _id_list(value: object) -> list[int]:
    numbers = [_number(item) for item in value] if isinstance(value, list) else [None]
    if None in numbers:
        raise _Refused(1000)
    return list(dict.fromkeys(number for number in numbers if number is not None))


def _required_name(body: Mapping[str, Any]) -> str:
    name = body.get("name")
    if name is None or name == "" or (isinstance(name, str) and not name.strip()):
        raise _Refused(1501)
    if not isinstance(name, str):
        raise _Refused(1000)
    return name


def _matches(group: Group, name: object) -> bool:
    # "When filtering groups by name, the search is case-insensitive": a search, so a part will do.
    return not name or str(name).casefold() in group.name.casefold()


def _group_json(group: Group, *, labels: bool = True) -> str:
    head = (
        f'{{"name":{_to_json(group.name)},"user_id":"{group.user_id}","create_by":"{OWNER}",'
        f'"unique_id":{group.unique_id},"status":{group.status},"create_date":{group.create_date}'
    )
    return f'{head},"agents":[{",".join(map(_to_json, group.labels))}]}}' if labels else head + "}"


def _relation_json(group: Group) -> str:
    rows = [
        f'{{"group_id":{group.unique_id if row.group_id is None else row.group_id},'
        f'"agent_id":{row.agent_id},"receive_call":"{row.receive_call}","user_id":"{row.user_id}"}}'
        for row in group.relations
    ]
    return f"[{','.join(rows)}]"


def _roster_json(roster: Iterable[Agent]) -> bytes:
    rows = [
        {"name": agent.name, "unique_id": agent.unique_id, "user_id": agent.user_id}
        for agent in roster
    ]
    return _to_json(rows).encode()


class Sandbox:
    """A DeepCall account with demo data, served over real HTTP by ``async with``.

    ``agentData`` in a relation reply is the roster of the group's ``user_id``. The demo account has
    two users. One is the login: the vendor's example group 28, groups 2 and 3 and every group added
    belong to it, and its roster is the 11 agents of the vendor's example. All other groups belong
    to a second user with the larger roster. So an audit sees two rosters in one account.

    Where the vendor's pages leave a choice: ``submitAssignGroupToAgent`` replaces the members and
    refuses agents outside that roster, ``update`` without a status activates the group, a relation
    without ``quick`` has the group and two empty arrays, and a filter that fits nothing gives an
    empty list, or 1503 for a relation.

    The knobs are plain attributes and may be changed while the server runs, from any thread. An
    injected error is answered instead of acting; a dropped or slow request has been acted upon.

    Args:
        groups: groups in the demo account. All planted faults are there from 32 on; 1 is the
            vendor's example group 28 alone, 0 an account without groups.
        agents: agents of the larger roster, at least 60. Many more than two groups for each
            agent make all of them overloaded.
        seed: data, credentials and faults follow from it.
        now: Unix seconds at which the account is looked at: create dates lie before it, and added
            groups get it. The real time by default.
        port: TCP port on 127.0.0.1; 0 takes a free one.
        latency: seconds between acting on a request and answering it.
        error_rate: probability of an injected error, by DeepCall code (1000 and above, in a reply
            with HTTP status 200) or by HTTP status (below 1000, without a DeepCall body).
        drop_rate: probability that the connection is closed without an answer.
        rate_limit: requests a second, and the size of a burst; beyond it HTTP 429 with
            ``Retry-After`` in whole seconds. None for no limit.
        ssid_lifetime: how many requests an ssid is good for, after which it is answered with 1014.
            None for ever.
        agent_to_agent_call: whether the account has the permission of that name.

    Attributes:
        user_id: the account's user id.
        token: its token, to be used with ``user_id``.
        ssid: the newest session id, to be used alone.
        planted: what is wrong with the demo account as built, by audit rule: group ids for G, N and
            R rules, agent ids for A rules.
        requests: how many requests came, by the endpoint's name in the URL, refused ones included.

    Raises:
        ValueError: ``groups`` is negative or ``agents`` is below 60.
    """

    def __init__(
        self,
        groups: int = 300,
        *,
        agents: int = 150,
        seed: int = 0,
        now: float | None = None,
        port: int = 0,
        latency: float = 0.0,
        error_rate: Mapping[int, float] | None = None,
        drop_rate: float = 0.0,
        rate_limit: float | None = None,
        ssid_lifetime: int | None = None,
        agent_to_agent_call: bool = True,
    ) -> None:
        account = demo_account(groups, agents, seed, int(time.time() if now is None else now))
        self.latency = latency
        self.error_rate: dict[int, float] = dict(error_rate or {})
        self.drop_rate = drop_rate
        self.rate_limit = rate_limit
        self.ssid_lifetime = ssid_lifetime
        self.agent_to_agent_call = agent_to_agent_call
        self.planted: dict[str, tuple[int, ...]] = account.planted
        self.requests: Counter[str] = Counter()

        self._groups = account.groups
        self._names = {(group.user_id, group.name) for group in account.groups.values()}
        self._last_suffix: dict[tuple[str, str], int] = {}
        self._last_id = max(account.groups, default=0)
        self._rosters = account.rosters
        # A roster goes into every relation reply of its user, so it is encoded once.
        self._roster_json = {
            user_id: _roster_json(roster) for user_id, roster in account.rosters.items()
        }
        self._listing: bytes | None = None
        self._now = now

        self._secrets = random.Random(f"secrets {seed}")  # noqa: S311 - a sandbox guards nothing
        self._faults = random.Random(f"faults {seed}")  # noqa: S311 - faults repeat by the seed
        self.user_id = OWNER
        self.token: str = self._new_secret()
        self._ssid_uses: dict[str, int] = {}
        self.ssid: str = self.new_ssid()
        self._allowance = math.inf
        self._allowance_at = 0.0

        self._port = port
        self._runner: web.ServerRunner | None = None
        actions: dict[str, Callable[[dict[str, Any]], bytes]] = {
            "add": self._add,
            "update": self._update,
            "delete": self._delete,
            "list": self._list,
            "getGroupAgentRelation": self._agent_relation,
            "submitAssignGroupToAgent": self._assign_agents,
        }
        # The tables give the path with a slash at its end, the samples without: both are served.
        self._routes = {
            f"/api/v2/Group/{verb}{slash}": (verb, action)
            for verb, action in actions.items()
            for slash in ("", "/")
        }

    async def __aenter__(self) -> Self:
        # A client that gives up cancels what is left of its request: only the waiting, by then.
        server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=_NEVER_WAIT)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        except OSError:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    @property
    def base_url(self) -> str:
        """The URL to give a client, without a path.

        Raises:
            RuntimeError: the sandbox is not running.
        """
        if self._runner is None:
            raise RuntimeError("the sandbox runs inside `async with` only")
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def new_ssid(self) -> str:
        """Log in again: return a fresh session id, kept as ``ssid``; older ones stay valid."""
        self.ssid = self._new_secret()
        self._ssid_uses[self.ssid] = 0
        return self.ssid

    def expire_ssid(self) -> None:
        """End every session: each ssid given out so far is answered with 1014 from now on."""
        self._ssid_uses.clear()

    def _new_secret(self) -> str:
        return f"{self._secrets.getrandbits(128):032x}"

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        route = self._routes.get(request.path)
        if route is None:
            return web.Response(status=404, text="Not found")
        if request.method != "POST":
            return web.Response(status=405, text="Use POST", headers={"Allow": "POST"})
        verb, action = route
        self.requests[verb] += 1
        response = self._answer(action, await request.read())
        # Decided with the action, so that the order of arrival alone says who is dropped.
        drop = self._faults.random() < self.drop_rate if self.drop_rate else False
        if self.latency:
            await asyncio.sleep(self.latency)
        if drop and request.transport is not None:
            request.transport.close()
        return response

    def _answer(self, action: Callable[[dict[str, Any]], bytes], raw: bytes) -> web.Response:
        wait = self._seconds_to_wait()
        if wait:
            return web.Response(status=429, text="", headers={"Retry-After": str(wait)})
        injected = self._injected_error()
        if injected is not None and injected < _LOWEST_CODE:
            return web.Response(status=injected, text=f"HTTP {injected}")
        try:
            reply = self._reply(action, raw) if injected is None else _error(injected)
        except _Refused as refused:
            reply = _error(refused.code)
        # The pages name no HTTP status for errors; every sample, good or bad, came with 200.
        return web.Response(body=reply, headers=_JSON_HEADERS)

    def _reply(self, action: Callable[[dict[str, Any]], bytes], raw: bytes) -> bytes:
        body = _parse(raw)
        self._authenticate(body)
        return action(body)

    def _seconds_to_wait(self) -> int:
        rate = self.rate_limit
        if not rate:
            return 0
        now = time.monotonic()
        earned = (now - self._allowance_at) * rate
        self._allowance = min(max(rate, 1.0), self._allowance + earned)
        self._allowance_at = now
        if self._allowance >= 1.0:
            self._allowance -= 1.0
            return 0
        return math.ceil((1.0 - self._allowance) / rate)

    def _injected_error(self) -> int | None:
        if self.error_rate:
            chance = self._faults.random()
            for code, probability in self.error_rate.copy().items():
                chance -= probability
                if chance < 0:
                    return code
        return None

    def _authenticate(self, body: Mapping[str, Any]) -> None:
        by_token = "userId" in body or "token" in body
        # "When userId and token are used, ssid should not be present in the request."
        if by_token and "ssid" in body:
            raise _Refused(1000)
        if by_token:
            if not body.get("userId") or not body.get("token"):
                raise _Refused(1020)
            if (str(body["userId"]), str(body["token"])) != (self.user_id, self.token):
                raise _Refused(1014)
            return
        if not body.get("ssid"):
            raise _Refused(1020)
        ssid = str(body["ssid"])
        uses = self._ssid_uses.get(ssid)
        if uses is None or (self.ssid_lifetime is not None and uses >= self.ssid_lifetime):
            raise _Refused(1014)
        self._ssid_uses[ssid] = uses + 1

    def _required_group(self, body: Mapping[str, Any]) -> Group:
        value = body.get("groupId")
        if value is None or value == "":
            raise _Refused(1502)
        group = self._groups.get(_number(value) or 0)
        if group is None:
            raise _Refused(1503)
        return group

    def _free_name(self, user_id: str, name: str) -> str:
        # "If a duplicate name is provided, a number will be appended to make it unique."
        number = self._last_suffix.get((user_id, name), 0)
        candidate = name
        while (user_id, candidate) in self._names:
            number += 1
            candidate = f"{name}{number}"
        self._last_suffix[user_id, name] = number
        return candidate

    def _add(self, body: dict[str, Any]) -> bytes:
        name = self._free_name(OWNER, _required_name(body))
        created = int(time.time() if self._now is None else self._now)
        self._last_id += 1
        self._groups[self._last_id] = Group(name, OWNER, self._last_id, 1, created)
        self._names.add((OWNER, name))
        self._listing = None
        return _success(groupId=self._last_id)

    def _update(self, body: dict[str, Any]) -> bytes:
        group = self._required_group(body)
        name = _required_name(body)
        # The table gives `status` a default of 1: without it an inactive group becomes active.
        status = _number(body.get("status", 1))
        if status is None:
            raise _Refused(1000)
        self._names.remove((group.user_id, group.name))
        group.name = self._free_name(group.user_id, name)
        group.status = status
        self._names.add((group.user_id, group.name))
        self._listing = None
        return _success(message="Group updated successfully")

    def _delete(self, body: dict[str, Any]) -> bytes:
        group = self._required_group(body)
        # "All associated agent-group relations are also removed": they live in the group.
        del self._groups[group.unique_id]
        self._names.remove((group.user_id, group.name))
        self._listing = None
        return _success(message="Group deleted successfully")

    def _list(self, body: dict[str, Any]) -> bytes:
        # "forward is used for permission checking. If false, it checks for AGENT_TO_AGENT_CALL."
        if body.get("forward") is not True and not self.agent_to_agent_call:
            raise _Refused(1015)
        # `groupid` in the table, `groupId` in the sample.
        wanted = body.get("groupid") or body.get("groupId")
        name, quick = body.get("name"), body.get("quick") is True
        if not wanted and not name and not quick:
            if self._listing is None:
                self._listing = _listing(self._groups.values())
            return self._listing
        groups: Iterable[Group] = self._groups.values()
        if wanted:
            group = self._groups.get(_number(wanted) or 0)
            groups = [] if group is None else [group]
        # `quick` is "a quicker response with potentially less detailed information".
        return _listing((g for g in groups if _matches(g, name)), labels=not quick)

    def _agent_relation(self, body: dict[str, Any]) -> bytes:
        if not self.agent_to_agent_call:
            raise _Refused(1015)
        group = self._required_group(body)
        # The page calls `name` a filter and does not say what is left when nothing matches it.
        if not _matches(group, body.get("name")):
            raise _Refused(1503)
        # "Must be set to true to receive data" while the group itself is always there: without it
        # the two arrays are empty, which is also how a forgotten `quick` would go unnoticed.
        quick = body.get("quick") is True
        return b"".join(
            (
                b'{"status":"success","response":{"groupData":',
                _utf8(_group_json(group)),
                b',"agentData":',
                self._roster_json[group.user_id] if quick else b"[]",
                b',"relationData":',
                _relation_json(group).encode() if quick else b"[]",
                b'},"code":200}',
            )
        )

    def _assign_agents(self, body: dict[str, Any]) -> bytes:
        group = self._required_group(body)
        members = _id_list(body.get("agent_unique_id"))
        receivers = set(_id_list(body.get("receive_call", [])))
        roster = {agent.unique_id: agent for agent in self._rosters[group.user_id]}
        if not roster.keys() >= set(members) or not receivers <= set(members):
            raise _Refused(1000)
        # The page does not say whether members are replaced or added to.
        group.relations = tuple(
            Relation(agent_id, "Y" if agent_id in receivers else "N", group.user_id)
            for agent_id in members
        )
        group.labels = tuple(roster[agent_id].label for agent_id in members)
        self._listing = None
        return _success(message="Group assigned to agent successfully")
