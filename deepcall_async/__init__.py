"""An asyncio client for DeepCall's Group API.

The public names are gathered here, and none is defined here.
"""

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
from deepcall_async.pool import Stats
from deepcall_async.retry import RetryPolicy
from deepcall_async.version import __version__

__all__ = [
    "Adaptive",
    "AddedGroup",
    "Agent",
    "AgentLabel",
    "AgentRelation",
    "ApiError",
    "AuthenticationFailed",
    "BadRequest",
    "Batch",
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
