"""Checks of arguments and settings, made before anything is sent.

Pure functions that return the value to use, or raise ValueError or TypeError saying what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from operator import index
from typing import TypeGuard, TypeVar

__all__ = [
    "agent_ids",
    "flag",
    "group_id",
    "headers",
    "is_int",
    "name",
    "number_or_text",
    "of_type",
    "positive_int",
    "positive_number",
    "status",
]

T = TypeVar("T")

LONGEST_NAME = 255
LONGEST_ID = 64
_LARGEST_ID = 2**63 - 1

_OWN_HEADERS = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length"),
        *("content-type", "expect", "host", "keep-alive", "proxy-authorization", "te", "trailer"),
        *("transfer-encoding", "upgrade", "user-agent"),
    }
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"|[!-~]([\t -~]*[!-~])?")


def is_int(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number; a bool, which is an int to Python, is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def positive_int(argument: str, value: int) -> int:
    """A whole number above zero."""
    if not is_int(value):
        raise TypeError(f"{argument} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{argument} must be at least 1")
    return value


def positive_number(argument: str, value: float) -> float:
    """A finite number above zero."""
    if not is_int(value) and not isinstance(value, float):
        raise TypeError(f"{argument} must be a number, not {type(value).__name__}")
    if not 0 < value < float("inf"):
        raise ValueError(f"{argument} must be a finite number above 0")
    return float(value)


def of_type(argument: str, value: T, kind: type[T]) -> T:
    """A setting that is an object of a class."""
    if not isinstance(value, kind):
        raise TypeError(f"{argument} must be a {kind.__name__}, not {type(value).__name__}")
    return value


def group_id(value: int | str) -> str:
    """A group's id as text."""
    return _identifier("group_id", value)


def number_or_text(group_id: int | str) -> int | str:
    """A group's id as a number when it is one or is written as one: ``"28"`` but not ``"028"``."""
    if type(group_id) is int and 0 <= group_id <= _LARGEST_ID:
        return group_id
    identifier = _identifier("group_id", group_id)
    if identifier.isascii() and identifier.isdigit() and str(int(identifier)) == identifier:
        return int(identifier)
    return identifier


def agent_ids(argument: str, values: Iterable[int | str]) -> list[str]:
    """Agents' ids as text, in the order given."""
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{argument} must be a list of ids, not one {type(values).__name__}")
    return [_identifier(argument, value) for value in values]


def name(value: str) -> str:
    """A group's name, or a part of one to look for."""
    if not isinstance(value, str):
        raise TypeError(f"name must be a str, not {type(value).__name__}")
    if not value.strip():
        raise ValueError("name is blank")
    if len(value) > LONGEST_NAME:
        raise ValueError(f"name has {len(value)} characters; at most {LONGEST_NAME} are sent")
    if _unsendable(value):
        raise ValueError("name holds control characters or lone surrogates")
    return str.__str__(value)


def status(value: int) -> int:
    """A group's status number."""
    if not is_int(value):
        raise TypeError(f"status must be an int, not {type(value).__name__}")
    if not 0 <= value <= _LARGEST_ID:
        raise ValueError("status must not be negative or larger than 63 bits")
    return value


def flag(argument: str, value: bool) -> bool:
    """A switch."""
    if not isinstance(value, bool):
        raise TypeError(f"{argument} must be True or False, not {type(value).__name__}")
    return value


def headers(given: Mapping[str, str] | None) -> dict[str, str]:
    """Headers to add to every request."""
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"headers must be a mapping of str to str, not {type(given).__name__}")
    found = dict(given or {})
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("headers must be a mapping of str to str")
        if not _TOKEN.fullmatch(name):
            raise ValueError("headers: a name is not one that HTTP allows")
        if name.lower() in _OWN_HEADERS:
            raise ValueError(f"headers: {name} is set by this package and cannot be replaced")
        if not _FIELD_VALUE.fullmatch(value):
            raise ValueError(f"headers: the value of {name} is not printable ASCII")
    return found


def _identifier(argument: str, value: int | str) -> str:
    if not isinstance(value, str):
        value = _integer(argument, value)
        if not 0 <= value <= _LARGEST_ID:
            raise ValueError(f"{argument}: an id must not be negative or larger than 63 bits")
        return int.__repr__(value)
    if not value.strip():
        raise ValueError(f"{argument}: an id is blank")
    if len(value) > LONGEST_ID:
        raise ValueError(f"{argument}: an id has {len(value)} characters, more than {LONGEST_ID}")
    if _unsendable(value) or value != value.strip():
        raise ValueError(f"{argument}: an id holds spaces at its ends or control characters")
    if value.startswith("-"):
        raise ValueError(f"{argument}: an id must not be negative")
    return str.__str__(value)


def _integer(argument: str, value: object) -> int:
    """An id that is a number, also one of another library's, such as numpy's."""
    if not isinstance(value, bool):
        with suppress(TypeError):
            return int(index(value))  # type: ignore[arg-type]  # the error says what it is not
    raise TypeError(f"{argument}: an id must be an int or a str, not {type(value).__name__}")


def _unsendable(text: str) -> bool:
    return any(
        code < 0x20 or 0x7F <= code <= 0x9F or 0xD800 <= code <= 0xDFFF for code in map(ord, text)
    )
