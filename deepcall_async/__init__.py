"""An asyncio client for DeepCall's Group API.

Start with `DeepCall`. Its methods are those of `GroupsAPI`, and each may raise any
`DeepCallError`. `fan_out` and `collect` look many groups up at once. `Observer` is what wants to
be told of calls.

The other pages:

- `deepcall_async.audit`: which callers would reach nobody, and what else is wrong in an account.
- `deepcall_async.fleet`: the audits of many accounts.
- `deepcall_async.watch`: reports within minutes that a group went dark.
- `deepcall_async.cli`: the command ``deepcall``, its credentials and exit codes.
- `deepcall_async.otel`: spans and metrics for OpenTelemetry.
- `deepcall_async.sandbox`: a DeepCall for tests and demos, and pytest's fixtures.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from deepcall_async.version import __version__

if TYPE_CHECKING:
    from deepcall_async.client import DeepCall, GroupsAPI
    from deepcall_async.credentials import CredentialProvider, SessionId, UserToken
    from deepcall_async.errors import (
        ApiError,
        AuthenticationFailed,
        BadRequest,
        ClientClosed,
        ConnectFailed,
        ConnectionLost,
        DeepCallError,
        GroupUnavailable,
        NoData,
        OutcomeUnknown,
        PermissionDenied,
        RateLimited,
        RequestTimeout,
        ResponseTooLarge,
        ServerFault,
        TooManyFailures,
        TransportError,
        UnexpectedReply,
    )
    from deepcall_async.events import AttemptEnded, AttemptStarted, CallEnded, Observer, Stats
    from deepcall_async.fanout import Batch, Failed, FanOut, Ok, Outcome, Progress, collect, fan_out
    from deepcall_async.models import (
        AddedGroup,
        Agent,
        AgentLabel,
        AgentRelation,
        DeletedGroup,
        Group,
        GroupAgentRelation,
        Member,
    )
    from deepcall_async.pacing import Adaptive
    from deepcall_async.retry import RetryPolicy

__all__ = [
    "Adaptive",
    "AddedGroup",
    "Agent",
    "AgentLabel",
    "AgentRelation",
    "ApiError",
    "AttemptEnded",
    "AttemptStarted",
    "AuthenticationFailed",
    "BadRequest",
    "Batch",
    "CallEnded",
    "ClientClosed",
    "ConnectFailed",
    "ConnectionLost",
    "CredentialProvider",
    "DeepCall",
    "DeepCallError",
    "DeletedGroup",
    "Failed",
    "FanOut",
    "Group",
    "GroupAgentRelation",
    "GroupUnavailable",
    "GroupsAPI",
    "Member",
    "NoData",
    "Observer",
    "Ok",
    "Outcome",
    "OutcomeUnknown",
    "PermissionDenied",
    "Progress",
    "RateLimited",
    "RequestTimeout",
    "ResponseTooLarge",
    "RetryPolicy",
    "ServerFault",
    "SessionId",
    "Stats",
    "TooManyFailures",
    "TransportError",
    "UnexpectedReply",
    "UserToken",
    "__version__",
    "collect",
    "fan_out",
]

# The modules that hold the names above. They are loaded on first use: the pytest plugin and the
# sandbox live in this package too, and must not pay for the client.
_MODULES = ("client", "credentials", "errors", "events", "fanout", "models", "pacing", "retry")

# Type checkers see the imports above instead: with a `__getattr__` they would accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:  # PEP 562
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        for each in _MODULES:
            module = import_module(f"{__name__}.{each}")
            globals().update({key: vars(module)[key] for key in module.__all__ if key in __all__})
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
