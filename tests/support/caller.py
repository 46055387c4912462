"""Asks a sandbox as any HTTP client would, without this package's own."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from deepcall_async.sandbox import Sandbox

__all__ = ["Caller", "as_object", "refused"]


class Caller:
    """Asks one sandbox with its user id and token."""

    def __init__(self, http: aiohttp.ClientSession, server: Sandbox) -> None:
        self.http = http
        self.server = server

    async def raw(self, verb: str, body: bytes) -> bytes:
        url = f"{self.server.base_url}/api/v2/Group/{verb}"
        async with self.http.post(url, data=body) as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == "application/json; charset=utf-8"
            return await response.read()

    async def bytes_of(self, verb: str, **fields: Any) -> bytes:
        body = {"userId": self.server.user_id, "token": self.server.token, **fields}
        return await self.raw(verb, json.dumps(body).encode())

    async def bare(self, verb: str, **fields: Any) -> dict[str, Any]:
        return as_object(await self.raw(verb, json.dumps(fields).encode()))

    async def __call__(self, verb: str, **fields: Any) -> dict[str, Any]:
        return as_object(await self.bytes_of(verb, **fields))

    async def status_of(self, verb: str) -> int:
        url = f"{self.server.base_url}/api/v2/Group/{verb}"
        credentials = {"userId": self.server.user_id, "token": self.server.token}
        async with self.http.post(url, json=credentials) as response:
            await response.read()
            return response.status

    async def relation(self, group_id: int) -> dict[str, Any]:
        reply = await self("getGroupAgentRelation", groupId=group_id, quick=True)
        assert list(reply) == ["status", "response", "code"]
        assert (reply["status"], reply["code"]) == ("success", 200)
        return as_object(reply["response"])


def as_object(value: bytes | Any) -> dict[str, Any]:
    decoded = json.loads(value) if isinstance(value, bytes) else value
    assert isinstance(decoded, dict)
    return decoded


def refused(reply: dict[str, Any], code: int) -> bool:
    message = reply.get("message")
    assert message
    assert isinstance(message, str)
    return reply == {"status": "error", "message": message, "code": code}
