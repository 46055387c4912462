"""Checks of what a test gives to the sandbox: each returns the value or raises a ValueError."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["boolean", "integer", "json_object", "mapping", "number", "text"]


def boolean(name: str, value: object) -> bool:
    """Take True and False."""
    if value is not True and value is not False:
        raise ValueError(f"{name} must be True or False, not {value!r}")
    return value


def integer(name: str, value: object, lowest: int, highest: int | None = None) -> int:
    """Take an int that is no bool, within the bounds."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < lowest
        or (highest is not None and value > highest)
    ):
        bounds = f"at least {lowest}" if highest is None else f"from {lowest} to {highest}"
        raise ValueError(f"{name} must be a whole number, {bounds}, not {value!r}")
    return value


def number(name: str, value: object, highest: float = 1e12) -> float:
    """Take a number from 0 to the highest; the default leaves out what no clock can add up."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= highest:
        raise ValueError(f"{name} must be a number from 0 to {highest:g}, not {value!r}")
    return float(value)


def mapping(name: str, value: Any) -> dict[Any, Any]:
    """Take whatever a dict can be made of, and return a dict of its own."""
    try:
        return dict(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a mapping, not {value!r}") from None


def text(name: str, value: object) -> str:
    """Take text that is not empty."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be text and not empty, not {value!r}")
    return value


def json_object(raw: bytes) -> dict[str, Any] | None:
    """Decode a JSON object; None for anything else."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None
