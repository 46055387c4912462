"""What was asked of the sandbox, for tests to look at. No credential is kept."""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Call", "Calls"]

_KEPT = 10_000
_CREDENTIALS = frozenset({"ssid", "token", "userid"})


class Call(NamedTuple):
    """A request that came, and how it was answered.

    Attributes:
        endpoint: the endpoint's name in the URL, such as ``add``.
        fields: the body's fields, credentials left out; empty if the body was no JSON object.
        http_status: the answer's HTTP status; None if the connection was closed without an answer.
        code: DeepCall's code, 200 for success. A request with any other, or with None, was not
            carried out.
    """

    endpoint: str
    fields: dict[str, Any]
    http_status: int | None
    code: int | None


class Calls:
    """The last 10,000 calls, oldest first."""

    def __init__(self) -> None:
        self._kept: deque[Call] = deque(maxlen=_KEPT)

    def record(
        self, endpoint: str, body: Mapping[str, Any], http_status: int | None, code: int | None
    ) -> None:
        """Keep a call without the credentials in its body, however these are spelled."""
        fields = {
            name: value
            for name, value in body.items()
            if name.replace("_", "").casefold() not in _CREDENTIALS
        }
        self._kept.append(Call(endpoint, fields, http_status, code))

    def kept(self) -> tuple[Call, ...]:
        """Return the calls as they are now."""
        return tuple(self._kept)

    def clear(self) -> None:
        """Forget all calls."""
        self._kept.clear()
