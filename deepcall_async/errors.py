"""The exception tree.

Plain attributes and text that is safe to print; all can be pickled. Nothing is parsed here: what
reaches these classes has already been redacted.
"""

from __future__ import annotations

from collections.abc import Mapping

# `Any`: the candidates of an unknown outcome are models, and this module imports none.
from typing import Any

__all__ = [
    "ApiError",
    "AuthenticationFailed",
    "BadRequest",
    "ClientClosed",
    "ConnectFailed",
    "ConnectionLost",
    "DeepCallError",
    "GroupUnavailable",
    "NoData",
    "OutcomeUnknown",
    "PermissionDenied",
    "RateLimited",
    "RequestTimeout",
    "ResponseTooLarge",
    "ServerFault",
    "TooManyFailures",
    "TransportError",
    "UnexpectedReply",
]


_PLAIN = (str, int, float, type(None))
"""What JSON can carry of an error's attributes."""
_ARGS: Any = BaseException.args


class DeepCallError(Exception):
    """The root of everything this package raises about a call.

    Its ``args`` are the message and, if there are any, the attributes that were set, as a dict: so
    they survive where an exception is rebuilt from its class and ``args``, as in Celery's JSON
    results. Pickling keeps ``__cause__`` too, when it is an error of this package.

    Attributes:
        endpoint: which method was called, such as ``"groups.add"``; empty when no call was made.
        attempts: how many attempts the call had made when it failed.
    """

    endpoint: str = ""
    attempts: int = 0

    def __init__(self, message: str = "", attributes: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        for name, value in (attributes or {}).items():
            # Nothing but what a class declares: the dict may come from a queue or a file.
            if name in _declared(type(self)):
                setattr(self, name, value)

    @property
    def args(self) -> tuple[Any, ...]:
        """The message and the attributes that were set."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, _PLAIN)}
        return (*_ARGS.__get__(self), *([plain] if plain else ()))

    @args.setter
    def args(self, given: tuple[Any, ...]) -> None:
        _ARGS.__set__(self, given[:1])

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(vars(self))
        # A foreign cause may be of a class that cannot be pickled.
        if isinstance(self.__cause__, DeepCallError):
            state["__cause__"] = self.__cause__
        return type(self), _ARGS.__get__(self), state


class TransportError(DeepCallError):
    """No answer arrived."""


class ConnectFailed(TransportError):
    """No connection could be made, so the request was surely not sent.

    Attributes:
        untrusted: the server's certificate cannot be trusted.
        fatal: it will not pass by itself, such as an untrusted certificate or a wrong proxy
            password; such a failure is never retried.
    """

    untrusted: bool = False
    fatal: bool = False


class RequestTimeout(TransportError):
    """The answer did not arrive within the attempt's timeout, or the call's deadline passed.

    Attributes:
        sent: False when the deadline passed before anything was sent.
    """

    sent: bool = True


class ConnectionLost(TransportError):
    """The connection ended before the whole answer had arrived.

    Attributes:
        stale: the connection had been idle in the pool, so it had most likely ended before.
    """

    stale: bool = False


class OutcomeUnknown(DeepCallError):
    """A change was sent but not answered: it may or may not have been applied.

    Only a ``delete`` was sent again. ``__cause__`` is the failure that hid the answer.

    Attributes:
        candidates: after ``groups.add(..., reconcile=True)``, the groups that may be the new one.
    """

    candidates: tuple[Any, ...] = ()


class UnexpectedReply(DeepCallError):
    """The server answered something that is not a DeepCall reply.

    Attributes:
        http_status: the status of the answer, or None when it had none that could be read.
    """

    http_status: int | None = None


class ResponseTooLarge(UnexpectedReply):
    """The answer was larger than ``max_response_bytes``."""


class ApiError(DeepCallError):
    """DeepCall said no. The base class itself stands for codes the vendor does not document.

    Attributes:
        code: DeepCall's error code, or None when only the HTTP status spoke.
        message: what the server said; redacted, escaped and shortened.
        http_status: the HTTP status, which is often 200.
        retry_after: seconds the server asked to wait, when it did so intelligibly.
    """

    code: int | None = None
    message: str = ""
    http_status: int | None = None
    retry_after: float | None = None


class BadRequest(ApiError):
    """The request was refused as invalid (1000, 1005, 1047, 1501, 1502)."""


class AuthenticationFailed(ApiError):
    """The credentials are wrong, missing or expired (1014, 1020)."""


class PermissionDenied(ApiError):
    """The account may not do this, or is suspended (1015, 1039)."""


class GroupUnavailable(ApiError):
    """The group does not exist or is not this account's; DeepCall does not say which (1503)."""


class NoData(ApiError):
    """There is nothing to give (1012).

    The vendor lists the code without saying where it is sent. An account without groups, or a
    filter without a match, is where it would come; ``groups.list`` turns it into an empty tuple.
    """


class RateLimited(ApiError):
    """Too many requests (HTTP 429).

    Attributes:
        of_change: it was a change that was refused, so nothing sends it again by itself.
    """

    of_change: bool = False


class ServerFault(ApiError):
    """The server failed in a way that usually passes (1009, 1010, 1032, HTTP 5xx)."""


class ClientClosed(DeepCallError):
    """The client was closed before or during the call.

    Attributes:
        sent: the request was in flight when the client was closed.
    """

    sent: bool = False


class TooManyFailures(DeepCallError):
    """A fan-out was stopped because more keys failed than ``max_failures`` allows.

    ``__cause__`` is the last failure.
    """


def _declared(kind: type[DeepCallError]) -> set[str]:
    return {name for each in kind.__mro__ for name in vars(each).get("__annotations__", ())}
