"""The sandbox's replies as JSON: success, and DeepCall's errors with their messages."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = ["JSON_HEADERS", "error", "success"]

JSON_HEADERS = {"Content-Type": "application/json; charset=utf-8"}

_MESSAGES = {
    1000: "Invalid parameters",
    1005: "Invalid contact number",
    1009: "Something went wrong",
    1010: "Error in DB connect",
    1012: "No data found",
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


def success(fields: Mapping[str, object]) -> bytes:
    """Encode a success reply with an action's fields."""
    return msgspec.json.encode({"status": "success", **fields, "code": 200})


def error(code: int) -> bytes:
    """Encode an error reply; a code that DeepCall does not document is one too."""
    message = _MESSAGES.get(code, "Something went wrong")
    return msgspec.json.encode({"status": "error", "message": message, "code": code})
