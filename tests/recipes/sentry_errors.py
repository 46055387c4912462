"""Sentry: errors with what DeepCall said as tags, and nothing of a request.

Sentry sends the local variables of every frame. Those of this package hide credentials in their
``repr``, so no secret goes along.
"""

import sentry_sdk
from sentry_sdk.types import Event, Hint

from deepcall_async import ApiError, DeepCallError


def tag(event: Event, hint: Hint) -> Event:
    error = hint["exc_info"][1] if "exc_info" in hint else None
    if isinstance(error, DeepCallError):
        tags = {"deepcall.endpoint": error.endpoint, "deepcall.attempts": str(error.attempts)}
        if isinstance(error, ApiError):
            tags["deepcall.code"] = str(error.code)
        event["tags"] = dict(event.get("tags") or {}) | tags
        # One issue for each kind of error, not for each group's id in a message.
        event["fingerprint"] = [type(error).__name__, error.endpoint]
    return event


def configure(dsn: str) -> None:
    sentry_sdk.init(dsn, before_send=tag)
