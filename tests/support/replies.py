"""The bytes of replies, good and bad, written by hand from the vendor's pages.

Pure functions that give bytes or a fault server's steps; nothing from the package.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from tests.support.faultserver import Commit, Received, Send, Step

Framing: TypeAlias = Literal["length", "chunked", "close", "none"]


def reply(
    body: object = b"",
    status: int = 200,
    headers: Iterable[tuple[str, str]] = (("Content-Type", "application/json"),),
    *,
    framing: Framing = "length",
    connection: str | None = None,
    version: str = "1.1",
) -> bytes:
    """A whole HTTP reply. A body that is not bytes becomes JSON.

    ``framing`` says how its end is told: by length, in chunks, by closing, or not at all.
    """
    content = body if isinstance(body, bytes) else as_json(body)
    lines = [f"HTTP/{version} {status} Reason", *(f"{name}: {value}" for name, value in headers)]
    if framing == "length":
        lines.append(f"Content-Length: {len(content)}")
    elif framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        content = chunk(content) + b"0\r\n\r\n"
    if connection or framing == "close":
        lines.append(f"Connection: {connection or 'close'}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; nothing for no data, which would end the body."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def zipped(body: object, status: int = 200, *, framing: Framing = "length") -> bytes:
    """A reply whose body is compressed with gzip."""
    content = gzip.compress(body if isinstance(body, bytes) else as_json(body))
    headers = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")]
    return reply(content, status, headers, framing=framing)


def as_json(body: object) -> bytes:
    """JSON as DeepCall writes it, without spaces."""
    return json.dumps(body, separators=(",", ":")).encode()


def error(code: object, message: object = "no", status: int = 200) -> bytes:
    """DeepCall's own kind of refusal."""
    return reply({"status": "error", "message": message, "code": code}, status)


def group(number: int, name: str = "Sales") -> dict[str, Any]:
    """A group as a reply describes it."""
    return {"name": name, "unique_id": number, "user_id": "7", "create_by": "7", "status": 1,
            "create_date": 1731746318, "agents": ["#3 bhawesh"]}  # fmt: skip


def answer(request: Received) -> dict[str, Any]:
    """A good reply's JSON. It names the group that was asked for, so a swap shows."""
    body: Mapping[str, Any] = request.body
    number = int(body.get("groupId") or body.get("groupid") or 28)
    match request.verb:
        case "add":
            # "Sales 7" becomes group 7.
            number = int("".join(re.findall(r"\d+$", body["name"])) or 28)
            return {"status": "success", "groupId": number, "code": 200}
        case "list":
            return {"status": "success", "response": [group(number)], "code": 200}
        case "getGroupAgentRelation":
            agents = [
                {"name": f"agent {each}", "unique_id": each, "user_id": "7"} for each in (3, 8)
            ]
            rows = [{"group_id": number, "agent_id": 3, "receive_call": "Y", "user_id": "7"}]
            relation = {"groupData": group(number), "agentData": agents, "relationData": rows}
            return {"status": "success", "response": relation, "code": 200}
        case verb:
            return {"status": "success", "message": f"{verb} {number}", "code": 200}


def success(request: Received) -> bytes:
    """A good reply to any of the six verbs."""
    return reply(answer(request))


def serve(request: Received) -> Sequence[Step]:
    """The reaction of a server in good health."""
    return Commit(), Send(success(request))
