"""The sandbox's server: HTTP, and what a test reads and changes while it runs."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from deepcall_async.sandbox import replies
from deepcall_async.sandbox.account import Account, Refused
from deepcall_async.sandbox.calls import Call, Calls
from deepcall_async.sandbox.checks import boolean, integer, json_object, number, text
from deepcall_async.sandbox.clock import Clock
from deepcall_async.sandbox.control import control, is_control
from deepcall_async.sandbox.demo import demo_account
from deepcall_async.sandbox.faults import Fault, Faults, Settings, planned_fault
from deepcall_async.sandbox.listener import HOST, serve
from deepcall_async.sandbox.login import Login
from deepcall_async.sandbox.tls import Certificates

__all__ = ["Sandbox"]

_DEFAULT_GROUPS = 300


class Sandbox(Settings):
    """A DeepCall account with demo data, served over real HTTP by ``async with``.

    ``agentData`` in a relation reply is the roster of the group's ``user_id``. The demo account has
    two users. One is the login: the vendor's example group 28, groups 2 and 3 and every group added
    belong to it, and its roster is the 11 agents of the vendor's example. All other groups belong
    to a second user with the larger roster. So an audit sees two rosters in one account.

    Where the vendor's pages leave a choice: ``submitAssignGroupToAgent`` replaces the members and
    refuses agents outside that roster, ``update`` without a status activates the group, a relation
    without ``quick`` has the group and two empty arrays, and a filter that fits nothing gives an
    empty list, or 1503 for a relation.

    All methods may be called, and all settings assigned, from any thread while the server runs.
    Programs in other languages do the same over HTTP, under ``/_sandbox/``.

    An injected error is answered instead of acting. A dropped or slow request has been acted upon.

    Args:
        groups: groups in the demo account. All planted faults are there from 32 on; 1 is the
            vendor's example group 28 alone. 0 is an account without groups and agents, to be
            filled by `add_agent` and `add_group`.
        agents: agents of the larger roster, at least 60. Many more than two groups for each
            agent make all of them overloaded.
        seed: data, credentials and faults follow from it.
        now: Unix seconds at which the account is looked at: create dates lie before it, and the
            clock stands there until `advance` is called. By default the clock is the real one.
        port: TCP port on 127.0.0.1; 0 takes a free one.
        latency: seconds between acting on a request and answering it.
        error_rate: probability of an injected error, by DeepCall code (1000 and above, in a reply
            with HTTP status 200) or by HTTP status (200 to 599, without a DeepCall body).
        drop_rate: probability that the connection is closed without an answer.
        rate_limit: requests a second, and the size of a burst; beyond it HTTP 429. None for no
            limit.
        retry_after: whether that 429 says in ``Retry-After`` how many whole seconds to wait.
        ssid_lifetime: how long an ssid is good for, after which it is answered with 1014: a number
            of requests, or a `datetime.timedelta` on the sandbox's clock. None for ever.
        agent_to_agent_call: whether the account has the permission of that name.
        tls: serve HTTPS, with a certificate of a private authority made for this sandbox; see
            `ssl_context`. It needs the extra ``sandbox-tls``.
        empty: an account as ``groups=0``, but a list that finds nothing is refused with 1012, "no
            data found". DeepCall's pages list that code and do not say where it comes.

    Attributes:
        user_id: the account's user id.
        token: its token, to be used with ``user_id``.
        ssid: the newest session id, to be used alone.
        planted: what is wrong with the demo account as built, by audit rule: group ids for G, N and
            R rules, agent ids for A rules.
        requests: how many requests came, by the endpoint's name in the URL, refused ones included.

    Raises:
        ValueError: an argument is wrong; later, a setting is assigned a wrong value.
        ModuleNotFoundError: ``tls`` without its extra.
    """

    def __init__(
        self,
        groups: int = _DEFAULT_GROUPS,
        *,
        agents: int = 150,
        seed: int = 0,
        now: float | None = None,
        port: int = 0,
        latency: float = 0.0,
        error_rate: Mapping[int, float] | None = None,
        drop_rate: float = 0.0,
        rate_limit: float | None = None,
        retry_after: bool = True,
        ssid_lifetime: int | timedelta | None = None,
        agent_to_agent_call: bool = True,
        tls: bool = False,
        empty: bool = False,
    ) -> None:
        self.change(
            {
                "latency": latency,
                "error_rate": error_rate,
                "drop_rate": drop_rate,
                "rate_limit": rate_limit,
                "retry_after": retry_after,
                "ssid_lifetime": ssid_lifetime,
                "agent_to_agent_call": agent_to_agent_call,
            }
        )
        self._first_settings = self.settings()
        self._port = integer("port", port, 0, 65535)
        if boolean("empty", empty):
            if groups not in {0, _DEFAULT_GROUPS}:
                raise ValueError(f"an empty account has no groups: leave out groups={groups!r}")
            groups = 0
        self._clock = Clock(None if now is None else number("now", now))
        demo = demo_account(groups, agents, integer("seed", seed, 0), self._clock.unix())
        self.planted: dict[str, tuple[int, ...]] = demo.planted
        self.requests: Counter[str] = Counter()
        self._account = Account(demo.groups, demo.rosters, self._clock, empty_is_no_data=empty)
        self._faults = Faults(seed, self._clock)
        self._login = Login(seed, self._clock)
        self._calls = Calls()
        self._certificates = Certificates(HOST, "localhost") if boolean("tls", tls) else None
        # Requests are carried out one at a time, and not while another thread changes something.
        self._lock = threading.Lock()
        self._runner: web.ServerRunner | None = None
        # The tables give the path with a slash at its end, the samples without: both are served.
        self._routes = {
            f"/api/v2/Group/{endpoint}{slash}": endpoint
            for endpoint in self._account.actions
            for slash in ("", "/")
        }

    async def __aenter__(self) -> Self:
        if self._runner is not None:
            raise RuntimeError("this sandbox is running already: make another one")
        context = self._certificates.server_context if self._certificates else None
        self._runner = await serve(self.answer, self._port, context)
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
            connections = runner.server.connections if runner.server is not None else []
            transports = [each.transport for each in connections]
            await runner.cleanup()
            # Closing over TLS waits for the peer's close_notify, longer than the loop lives.
            for transport in transports:
                if transport is not None:
                    transport.abort()
            await asyncio.sleep(0)

    @property
    def base_url(self) -> str:
        """The URL to give a client, without a path.

        Raises:
            RuntimeError: the sandbox is not running.
        """
        if self._runner is None:
            raise RuntimeError("the sandbox runs inside `async with` only")
        scheme = "https" if self._certificates else "http"
        return f"{scheme}://{HOST}:{self._runner.addresses[0][1]}"

    @property
    def user_id(self) -> str:
        """The account's user id."""
        return self._login.user_id

    @property
    def token(self) -> str:
        """The account's token, to be used with ``user_id``."""
        return self._login.token

    @property
    def ssid(self) -> str:
        """The newest session id, to be used alone."""
        return self._login.ssid

    @property
    def ca_pem(self) -> str:
        """The certificate of the authority that signed the server's, in PEM.

        Raises:
            RuntimeError: the sandbox was made without ``tls``.
        """
        if self._certificates is None:
            raise RuntimeError("this sandbox has no certificate: make it with tls=True")
        return self._certificates.ca_pem

    def ssl_context(self) -> ssl.SSLContext:
        """Make what a client needs to trust this sandbox: its argument ``ssl``.

        Raises:
            RuntimeError: the sandbox was made without ``tls``.
        """
        return ssl.create_default_context(cadata=self.ca_pem)

    @property
    def calls(self) -> tuple[Call, ...]:
        """The last 10,000 requests, oldest first, and how each was answered."""
        with self._lock:
            return self._calls.kept()

    def new_ssid(self) -> str:
        """Log in again: return a fresh session id, kept as ``ssid``; older ones stay valid."""
        with self._lock:
            return self._login.new_ssid()

    def expire_ssid(self) -> None:
        """End every session: each ssid given out so far is answered with 1014 from now on."""
        with self._lock:
            self._login.expire_ssids()

    def add_agent(self, name: str) -> int:
        """Put an agent on the roster of the login's own groups.

        Args:
            name: the agent's name; names need not be unique.

        Returns:
            The agent's id.

        Raises:
            ValueError: the name is not text, or empty.
        """
        with self._lock:
            return self._account.add_agent(name)

    def add_group(
        self, name: str, members: Mapping[int, str] | None = None, status: int = 1
    ) -> int:
        """Add a group to the login's own.

        Args:
            name: the group's name. A name in use gets a number, as DeepCall does it.
            members: "Y" for agents who receive calls and "N" for those who do not, by the id that
                `add_agent` gave; in a demo account 1 to 11 are there, from the vendor's example.
            status: 1 for active, 0 for inactive.

        Returns:
            The group's id.

        Raises:
            ValueError: the name is empty, an agent is unknown, or a flag is neither "Y" nor "N".

        Example:
            >>> asha = server.add_agent("Asha")
            >>> sales = server.add_group("Sales", members={asha: "Y"})
            >>> (await dc.groups.agent_relation(sales)).receivers[0].agent.name
            'Asha'
        """
        with self._lock:
            return self._account.add_group(name, members or {}, status)

    def fail_next(
        self,
        endpoint: str,
        times: int = 1,
        *,
        code: int | None = None,
        http_status: int | None = None,
        drop: bool = False,
        delay: float = 0.0,
    ) -> None:
        """Plan what the next requests of one endpoint meet, whatever the settings say.

        Plans of one endpoint queue up. Errors are answered instead of acting.

        Args:
            endpoint: its name in the URL, such as ``getGroupAgentRelation``.
            times: how many requests.
            code: answer with this DeepCall error, 1000 or above.
            http_status: answer with this HTTP status, 200 to 599: with a text that is not
                DeepCall's, or as the status of ``code``.
            drop: act, then close the connection without an answer.
            delay: seconds to wait before the answer, besides ``latency``.

        Raises:
            ValueError: an argument is wrong, or nothing would happen.

        Example:
            >>> server.fail_next("list", times=2, http_status=503)
            >>> groups = await dc.groups.list()
            >>> dc.stats.retries
            2
        """
        endpoints = self._account.actions
        if text("endpoint", endpoint) not in endpoints:
            raise ValueError(f"no endpoint {endpoint!r}; there are {', '.join(endpoints)}")
        fault = planned_fault(code, http_status, drop, delay)
        with self._lock:
            self._faults.plan(endpoint, [fault] * integer("times", times, 1, 1_000_000))

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock on.

        The clock dates groups that are added, fills up the rate limit, and ends sessions whose
        ``ssid_lifetime`` is a `datetime.timedelta`. What waits for ``latency`` or ``delay`` waits
        in real time.

        Args:
            seconds: how far, 0 or more.

        Raises:
            ValueError: ``seconds`` is negative or no number.
        """
        step = number("seconds", seconds)
        with self._lock:
            self._clock.advance(step)

    def reset(self) -> None:
        """Put all back as it was when the sandbox was made, for the next test.

        That is the groups and agents, the settings, the credentials, the clock, and what was
        planned or recorded. The address and the token stay the same.
        """
        with self._lock:
            self.change(self._first_settings)
            self._clock.reset()
            self._account.reset()
            self._faults.reset()
            self._login.reset()
            self._calls.clear()
            self.requests.clear()

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, as the server of this sandbox does."""
        endpoint = self._routes.get(request.path)
        if endpoint is None:
            if not is_control(request.path):
                return web.Response(status=404, text="Not found")
            status, reply = control(self, request.method, request.path, await request.read())
            # The standard library encodes whatever it has decoded, also what has no UTF-8.
            body = json.dumps(reply)
            return web.Response(status=status, text=body, content_type="application/json")
        if request.method != "POST":
            return web.Response(status=405, text="Use POST", headers={"Allow": "POST"})
        self.requests[endpoint] += 1
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge as refused:
            with self._lock:
                self._calls.record(endpoint, {}, refused.status, None)
            raise
        with self._lock:
            fault, response = self._answer(endpoint, json_object(raw) or {})
        delay = self.latency + fault.delay
        if delay:
            await asyncio.sleep(delay)
        if fault.drop and request.transport is not None:
            request.transport.close()
        return response

    def _answer(self, endpoint: str, body: dict[str, Any]) -> tuple[Fault, web.Response]:
        # Decided with the action, so that the order of arrival alone says who meets which fault.
        fault = self._faults.next(endpoint, self)
        code = fault.code
        if fault.http_status is not None and code is None:
            said = "" if fault.http_status == 429 else f"HTTP {fault.http_status}"
            response = web.Response(status=fault.http_status, text=said)
            if fault.retry_after is not None:
                response.headers["Retry-After"] = str(fault.retry_after)
        else:
            if code is None:
                code, reply = self._reply(endpoint, body)
            else:
                reply = replies.error(code)
            # The pages name no HTTP status for errors; every sample, good or bad, came with 200.
            status = fault.http_status or 200
            response = web.Response(status=status, body=reply, headers=replies.JSON_HEADERS)
        self._calls.record(endpoint, body, None if fault.drop else response.status, code)
        return fault, response

    def _reply(self, endpoint: str, body: dict[str, Any]) -> tuple[int, bytes]:
        try:
            self._login.check(endpoint, body, self)
            return 200, replies.success(self._account.actions[endpoint](body))
        except Refused as refused:
            return refused.code, replies.error(refused.code)
