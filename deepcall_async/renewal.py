"""Which credentials calls go out under, and their renewal when they expire.

One renewal at a time serves all calls, and a failed one is remembered for a few seconds. The
provider is the user's code: whatever it raises counts as failed authentication.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Protocol
from weakref import WeakSet

from deepcall_async.credentials import CredentialProvider, SessionId, UserToken
from deepcall_async.errors import AuthenticationFailed, ClientClosed, DeepCallError
from deepcall_async.wire import Identity

__all__ = ["IdentitySource"]

log: logging.Logger = logging.getLogger("deepcall_async")

FAILURE_HOLDS = 5.0
"""Seconds for which a failed renewal answers for all calls, so that a login is not hammered."""


class IdentityUser(Protocol):
    """Whoever sends under an identity."""

    closed: bool


class IdentitySource:
    """The identity of a client: fixed, or renewed through a provider.

    Args:
        credentials: fixed credentials, or where they come from; only the latter are ``renewable``.
        timeout: seconds the provider may take.

    Attributes:
        identity: the identity to call under; None while it is not known or is being renewed, so
            that no request goes out under one that was rejected.
    """

    def __init__(
        self, credentials: SessionId | UserToken | CredentialProvider, *, timeout: float
    ) -> None:
        self.identity: Identity | None = None
        self.renewable: bool = False
        self._provider: CredentialProvider | None = None
        self._timeout = timeout
        self._rejected: Identity | None = None
        self._task: asyncio.Task[Identity | DeepCallError] | None = None
        self._failure: str | None = None
        self._failed_at = 0.0
        self._closed = False
        # Weakly: a backend may make a sibling for every request it serves.
        self.users: WeakSet[IdentityUser] = WeakSet()
        if isinstance(credentials, (SessionId, UserToken)):
            self.identity = Identity(credentials)
        else:
            self._provider, self.renewable = credentials, True

    async def get(self) -> Identity | DeepCallError:
        """The identity to call under."""
        return self._recent_failure() or self.identity or await self._ask()

    async def renew(self, rejected: Identity) -> Identity | DeepCallError:
        """A new identity in place of one that was rejected; one request for all who ask."""
        if self.identity is rejected:
            self.identity, self._rejected = None, rejected
        return await self.get()

    def give_up(self, rejected: Identity) -> None:
        """Remember that even the renewed identity was rejected."""
        if self.identity is rejected:
            self.identity, self._rejected = None, rejected
            self._fail("the renewed credentials were rejected too")

    def close_if_unused(self) -> None:
        """End a renewal in flight when all who call under this identity are closed."""
        if all(user.closed for user in self.users):
            self.close()

    def close(self) -> None:
        """End a renewal in flight."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    def forget_loop(self) -> None:
        """Begin anew on another event loop."""
        self._task = self._failure = None

    async def _ask(self) -> Identity | DeepCallError:
        # One that is done stands here only where tasks begin eagerly: it ended in `create_task`.
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._renew(self._rejected))
        # Shielded: one call that is cancelled must not take the renewal from all the others.
        outcome = await asyncio.shield(self._task)
        # Raised by many calls, so each gets an error of its own.
        return self._recent_failure() or outcome

    async def _renew(self, rejected: Identity | None) -> Identity | DeepCallError:
        assert self._provider is not None  # noqa: S101  (only renewable sources come here)
        try:
            async with asyncio.timeout(self._timeout):
                if rejected is None:
                    found = await self._provider.credentials()
                else:
                    found = await self._provider.refresh(rejected.credentials)
            self.identity, self._rejected = Identity(found), None
        except asyncio.CancelledError:
            if self._closed:
                return ClientClosed("the client was closed while its credentials were renewed")
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._fail("the credential provider cancelled itself")
        except Exception as error:
            kind = type(error).__name__
            # By type and place alone: the provider's own words may hold a secret.
            log.warning("the credential provider failed: %s%s", kind, _place_of(error))
            return self._fail(f"the credential provider failed ({kind})")
        finally:
            self._task = None
        return self.identity

    def _fail(self, why: str) -> AuthenticationFailed:
        self._failure, self._failed_at = why, asyncio.get_running_loop().time()
        return AuthenticationFailed(why)

    def _recent_failure(self) -> AuthenticationFailed | None:
        if self._failure is None:
            return None
        if asyncio.get_running_loop().time() - self._failed_at < FAILURE_HOLDS:
            error = AuthenticationFailed(self._failure)
            error.message = self._failure
            return error
        self._failure = None
        return None


def _place_of(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
