"""The sandbox's server: HTTP, authentication, and the faults it makes on request."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

from deepcall_async.sandbox.account import OWNER, Account, Refused
from deepcall_async.sandbox.demo import demo_account

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

_READS = frozenset({"list", "getGroupAgentRelation"})

_Action = Callable[[Mapping[str, Any]], Mapping[str, object]]
_encode = msgspec.json.encode


def _success(fields: Mapping[str, object]) -> bytes:
    return _encode({"status": "success", **fields, "code": 200})


def _error(code: int) -> bytes:
    message = _MESSAGES.get(code, "Something went wrong")
    return _encode({"status": "error", "message": message, "code": code})


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or not body:
        raise Refused(1047)
    return body


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
        demo = demo_account(groups, agents, seed, int(time.time() if now is None else now))
        self.latency = latency
        self.error_rate: dict[int, float] = dict(error_rate or {})
        self.drop_rate = drop_rate
        self.rate_limit = rate_limit
        self.ssid_lifetime = ssid_lifetime
        self.agent_to_agent_call = agent_to_agent_call
        self.planted: dict[str, tuple[int, ...]] = demo.planted
        self.requests: Counter[str] = Counter()

        self._account = Account(demo.groups, demo.rosters)
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
        actions: dict[str, _Action] = {
            "add": lambda body: self._account.add(body, self._unix_time()),
            "update": self._account.update,
            "delete": self._account.delete,
            "list": self._account.list,
            "getGroupAgentRelation": self._account.agent_relation,
            "submitAssignGroupToAgent": self._account.assign_agents,
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
        response = self._answer(verb, action, await request.read())
        # Decided with the action, so that the order of arrival alone says who is dropped.
        drop = self._faults.random() < self.drop_rate if self.drop_rate else False
        if self.latency:
            await asyncio.sleep(self.latency)
        if drop and request.transport is not None:
            request.transport.close()
        return response

    def _answer(self, verb: str, action: _Action, raw: bytes) -> web.Response:
        wait = self._seconds_to_wait()
        if wait:
            return web.Response(status=429, text="", headers={"Retry-After": str(wait)})
        injected = self._injected_error()
        if injected is not None and injected < _LOWEST_CODE:
            return web.Response(status=injected, text=f"HTTP {injected}")
        try:
            reply = self._reply(verb, action, raw) if injected is None else _error(injected)
        except Refused as refused:
            reply = _error(refused.code)
        # The pages name no HTTP status for errors; every sample, good or bad, came with 200.
        return web.Response(body=reply, headers=_JSON_HEADERS)

    def _reply(self, verb: str, action: _Action, raw: bytes) -> bytes:
        body = _parse(raw)
        self._authenticate(body)
        # "forward is used for permission checking. If false, it checks for AGENT_TO_AGENT_CALL."
        forward = verb == "list" and body.get("forward") is True
        if verb in _READS and not forward and not self.agent_to_agent_call:
            raise Refused(1015)
        return _success(action(body))

    def _unix_time(self) -> int:
        return int(time.time() if self._now is None else self._now)

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
            raise Refused(1000)
        if by_token:
            if not body.get("userId") or not body.get("token"):
                raise Refused(1020)
            if (str(body["userId"]), str(body["token"])) != (self.user_id, self.token):
                raise Refused(1014)
            return
        if not body.get("ssid"):
            raise Refused(1020)
        ssid = str(body["ssid"])
        uses = self._ssid_uses.get(ssid)
        if uses is None or (self.ssid_lifetime is not None and uses >= self.ssid_lifetime):
            raise Refused(1014)
        self._ssid_uses[ssid] = uses + 1
