"""Who is calling: the two kinds of credentials, and where renewed ones come from.

Secrets are kept behind a redacted ``repr`` and leave only through named attributes. Nothing is
logged, and pickling is refused.
"""

from __future__ import annotations

from typing import NoReturn, Protocol, runtime_checkable

__all__ = ["CredentialProvider", "SessionId", "UserToken"]


class _Secret:
    __slots__ = ("_parts",)
    _parts: tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._parts == self._parts

    def __hash__(self) -> int:
        return hash((type(self), self._parts))

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a secret and cannot be pickled or copied")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed: make a new one")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} cannot be changed: make a new one")


class SessionId(_Secret):
    """Credentials of a logged-in session.

    Args:
        ssid: the session id.

    Raises:
        ValueError: it is blank or holds control characters.
    """

    __slots__ = ()

    def __init__(self, ssid: str) -> None:
        ssid = _plain(ssid)
        problem, parts = _problem(ssid=ssid), (ssid,)
        if problem is not None:
            # A traceback that shows locals must not show the value.
            del ssid, parts
            raise problem
        object.__setattr__(self, "_parts", parts)

    @property
    def ssid(self) -> str:
        """The session id itself: a secret."""
        return self._parts[0]

    def __repr__(self) -> str:
        return "SessionId('***')"


class UserToken(_Secret):
    """Credentials of a user with an API token.

    Args:
        user_id: the account's user id.
        token: its API token.

    Raises:
        ValueError: either is blank or holds control characters.
    """

    __slots__ = ()

    def __init__(self, user_id: str, token: str) -> None:
        user_id, token = _plain(user_id), _plain(token)
        problem, parts = _problem(user_id=user_id, token=token), (user_id, token)
        if problem is not None:
            del user_id, token, parts
            raise problem
        object.__setattr__(self, "_parts", parts)

    @property
    def user_id(self) -> str:
        """The account's user id."""
        return self._parts[0]

    @property
    def token(self) -> str:
        """The token itself: a secret."""
        return self._parts[1]

    # The user id is hidden too: the two arguments are easily given in the wrong order.
    def __repr__(self) -> str:
        return "UserToken('***', '***')"


@runtime_checkable
class CredentialProvider(Protocol):
    """Where credentials come from when they can expire.

    One renewal serves every call in flight, and each of those is repeated once.

    Example:
        >>> class Login:
        ...     async def credentials(self):
        ...         return SessionId(server.ssid)
        ...     async def refresh(self, rejected):
        ...         print("logging in again")
        ...         return SessionId(server.new_ssid())
        >>> renewed = dc.with_options(credentials=Login())
        >>> server.expire_ssid()
        >>> calls = (renewed.groups.agent_relation(28) for _ in range(20))
        >>> relations = await asyncio.gather(*calls)
        logging in again
    """

    async def credentials(self) -> SessionId | UserToken:
        """Give the credentials to begin with."""
        ...

    async def refresh(self, rejected: SessionId | UserToken) -> SessionId | UserToken:
        """Give new credentials in place of those that DeepCall has just rejected."""
        ...


def _plain(value: str) -> str:
    """Without a subclass of str, whose own methods could show it otherwise than it is sent."""
    return str.__str__(value) if isinstance(value, str) else value


def _problem(**parts: str) -> Exception | None:
    for name, value in parts.items():
        if not isinstance(value, str):
            return TypeError(f"{name} must be a str, not {type(value).__name__}")
        if not value.strip():
            return ValueError(f"{name} is blank")
        if not value.isprintable():
            return ValueError(f"{name} holds control characters, perhaps a line end from a file")
    return None
