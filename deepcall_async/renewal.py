"""Which credentials calls go out under, and their renewal when they expire.

Law: one renewal at a time for all calls, and a failed one is remembered for a few seconds. The
provider is somebody else's code: whatever it raises is authentication that failed.
"""

from __future__ import annotations

import asyncio

from deepcall_async.credentials import CredentialProvider, SessionId, UserToken
from deepcall_async.errors import AuthenticationFailed, ClientClosed, DeepCallError
from deepcall_async.wire import Identity

__all__ = ["IdentitySource"]

FAILURE_HOLDS = 5.0
"""Seconds for which a failed renewal answers for all calls, so that a login is not hammered."""


class IdentitySource:
    """The identity of a client: fixed, or renewed through a provider.

    Args:
        credentials: fixed credentials, or where they come from; only the latter are ``renewable``.
        timeout: seconds the provider may take.
    """

    def __init__(
        self, credentials: SessionId | UserToken | CredentialProvider, *, timeout: float
    ) -> None:
        self.identity: Identity | None = None
        self.renewable: bool = False
        self._provider: CredentialProvider | None = None
        self._timeout = timeout
        self._task: asyncio.Task[Identity | DeepCallError] | None = None
        self._failure: str | None = None
        self._failed_at = 0.0
        self._closed = False
        if isinstance(credentials, (SessionId, UserToken)):
            self.identity = Identity(credentials)
        else:
            self._provider, self.renewable = credentials, True

    async def get(self) -> Identity | DeepCallError:
        """The identity to call under."""
        return self._failure_now() or self.identity or await self._ask(None)

    async def renew(self, rejected: Identity) -> Identity | DeepCallError:
        """A new identity in place of one that was rejected; one request for all who ask."""
        if self.identity is not rejected and self.identity is not None:
            return self.identity
        return self._failure_now() or await self._ask(rejected)

    def give_up(self, rejected: Identity) -> None:
        """Remember that even the renewed identity was rejected."""
        if self.identity is rejected:
            self._fail("the renewed credentials were rejected too")

    def close(self) -> None:
        """End a renewal in flight."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    async def _ask(self, rejected: Identity | None) -> Identity | DeepCallError:
        # One that is done stands here only where tasks begin eagerly: it ended in `create_task`.
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._renew(rejected))
        # Shielded: one call that is cancelled must not take the renewal from all the others.
        outcome = await asyncio.shield(self._task)
        # Raised by many calls, so each gets an error of its own.
        return self._failure_now() or outcome

    async def _renew(self, rejected: Identity | None) -> Identity | DeepCallError:
        assert self._provider is not None  # noqa: S101  (only renewable sources come here)
        try:
            async with asyncio.timeout(self._timeout):
                if rejected is None:
                    found = await self._provider.credentials()
                else:
                    found = await self._provider.refresh(rejected.credentials)
            self.identity = Identity(found)
        except asyncio.CancelledError:
            if self._closed:
                return ClientClosed("the client was closed while its credentials were renewed")
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return self._fail("the credential provider cancelled itself")
        except Exception as error:
            return self._fail(f"the credential provider failed ({type(error).__name__})")
        finally:
            self._task = None
        return self.identity

    def _fail(self, why: str) -> AuthenticationFailed:
        self._failure, self._failed_at = why, asyncio.get_running_loop().time()
        return AuthenticationFailed(why)

    def _failure_now(self) -> AuthenticationFailed | None:
        if self._failure is None:
            return None
        if asyncio.get_running_loop().time() - self._failed_at < FAILURE_HOLDS:
            error = AuthenticationFailed(self._failure)
            error.message = self._failure
            return error
        self._failure = None
        return None
