"""Who may call the sandbox, and what: its user, token and session ids, and the permission."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from deepcall_async.sandbox.account import OWNER, Refused
from deepcall_async.sandbox.clock import Clock
from deepcall_async.sandbox.faults import Settings

__all__ = ["Login"]

_INVALID_PARAMETERS = 1000
_TOKEN_INVALID = 1014
_PERMISSION_DENIED = 1015
_TOKEN_MISSING = 1020
_BODY_EMPTY = 1047

_READS = frozenset({"list", "getGroupAgentRelation"})


class Login:
    """The account's credentials, and the check of a request's.

    Args:
        seed: user id, token and session ids follow from it.
        clock: measures how old a session id is.
    """

    def __init__(self, seed: int, clock: Clock) -> None:
        self._seed = seed
        self._clock = clock
        self.user_id = OWNER
        self.reset()

    def reset(self) -> None:
        """Begin anew, with the same token and the same first session id."""
        self._secrets = random.Random(f"secrets {self._seed}")  # noqa: S311 - guards nothing
        self.token: str = self._new_secret()
        self._uses: dict[str, int] = {}
        self._given_at: dict[str, float] = {}
        self.ssid: str = self.new_ssid()

    def new_ssid(self) -> str:
        """Give out a fresh session id; older ones stay valid."""
        self.ssid = self._new_secret()
        self._uses[self.ssid] = 0
        self._given_at[self.ssid] = self._clock.monotonic()
        return self.ssid

    def expire_ssids(self) -> None:
        """End every session."""
        self._uses.clear()
        self._given_at.clear()

    def check(self, endpoint: str, body: Mapping[str, Any], settings: Settings) -> None:
        """Count a session id's use, or raise `Refused`.

        Args:
            endpoint: its name in the URL.
            body: the request's fields.
            settings: how long a session id is good for, and whether there is the permission.
        """
        if not body:
            raise Refused(_BODY_EMPTY)
        self._identify(body, settings.ssid_lifetime)
        # "forward is used for permission checking. If false, it checks for AGENT_TO_AGENT_CALL."
        forward = endpoint == "list" and body.get("forward") is True
        if endpoint in _READS and not forward and not settings.agent_to_agent_call:
            raise Refused(_PERMISSION_DENIED)

    def _identify(self, body: Mapping[str, Any], lifetime: int | timedelta | None) -> None:
        by_token = "userId" in body or "token" in body
        # "When userId and token are used, ssid should not be present in the request."
        if by_token and "ssid" in body:
            raise Refused(_INVALID_PARAMETERS)
        if by_token:
            if not body.get("userId") or not body.get("token"):
                raise Refused(_TOKEN_MISSING)
            if (str(body["userId"]), str(body["token"])) != (self.user_id, self.token):
                raise Refused(_TOKEN_INVALID)
            return
        if not body.get("ssid"):
            raise Refused(_TOKEN_MISSING)
        ssid = str(body["ssid"])
        uses = self._uses.get(ssid)
        if uses is None or self._has_expired(ssid, uses, lifetime):
            raise Refused(_TOKEN_INVALID)
        self._uses[ssid] = uses + 1

    def _has_expired(self, ssid: str, uses: int, lifetime: int | timedelta | None) -> bool:
        if isinstance(lifetime, timedelta):
            age = self._clock.monotonic() - self._given_at[ssid]
            return age >= lifetime.total_seconds()
        return lifetime is not None and uses >= lifetime

    def _new_secret(self) -> str:
        return f"{self._secrets.getrandbits(128):032x}"
