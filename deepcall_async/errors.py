"""The exception tree.

Plain attributes and text that is safe to print; all can be pickled. Nothing is parsed here: what
reaches these classes has already been redacted.
"""

from __future__ import annotations

# `Any` only: the candidates of an unknown outcome are models, and this module imports none.
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


class DeepCallError(Exception):
    """The root of everything this package raises about a call.

    Attributes:
        endpoint: which method was called, such as ``"groups.add"``; empty when no call was made.
        attempts: how many attempts the call had made when it failed.
    """

    endpoint: str = ""
    attempts: int = 0


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
