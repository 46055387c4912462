"""The client: DeepCall's endpoints as coroutine methods.

Each endpoint method is a declaration: what is asked, and of whom. How a request is made, sent and
repeated is decided in the modules below.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from ssl import SSLContext
from types import TracebackType
from typing import Self

from aiohttp import ClientSession

from deepcall_async import options, validation, wire
from deepcall_async.credentials import CredentialProvider, SessionId, UserToken
from deepcall_async.events import Observer, Stats
from deepcall_async.models import AddedGroup, DeletedGroup, Group, GroupAgentRelation
from deepcall_async.pool import Account, Pool
from deepcall_async.reconcile import add_and_reconcile
from deepcall_async.renewal import IdentitySource
from deepcall_async.reporting import Observers
from deepcall_async.retry import RetryPolicy
from deepcall_async.session import Session
from deepcall_async.transport.base import CONTENT_TYPE, TransportOptions
from deepcall_async.validation import of_type, positive_int, positive_number

__all__ = ["DeepCall", "GroupsAPI"]

_MIB = 2**20


class DeepCall:
    """A client of one DeepCall service: one pool of connections, made on first use.

    Share one client per event loop; it may be made outside of any. Close it with ``async with``
    or `aclose`.

    Args:
        credentials: who calls, or a provider of credentials that expire. When None, DEEPCALL_SSID,
            or DEEPCALL_USER_ID and DEEPCALL_TOKEN, from the environment.
        base_url: the service's address; when None, DEEPCALL_BASE_URL from the environment, or
            the vendor's own host.
        timeout: seconds for one attempt, from connecting to the last byte. Waiting for a free
            connection does not count.
        retry: when and how often to repeat.
        max_connections: the most connections open at once, idle ones included.
        max_response_bytes: the largest reply taken, decompressed.
        per_second: the most requests sent a second, repeats included; None for no limit.
        ssl: how to verify the server, such as with a private authority, and which certificate to
            show it; None for the system's authorities.
        proxy: the URL of an HTTP proxy, such as ``"http://user:password@proxy.example:3128"``.
        headers: sent with every request. Those that this package sets itself are refused.
        compress: ask for compressed replies, which cost less on a slow network and more CPU time;
            None for yes, except from this machine.
        observers: are told of each attempt and each call, in this order; see `Observer`.
        session: an aiohttp session to borrow, with all that is set on it; it is never closed, and
            at most as many requests are in flight as its connector has slots. This package then
            cannot notice what a server sends on a connection of that session's pool without having
            been asked.
        allow_http: allow ``http://`` to hosts other than this machine.
        trust_env: when no proxy is given, use the one that the environment names.
        app_info: name and version of your program for the User-Agent, such as ``"bot/1.2"``.

    Raises:
        ValueError: a setting is missing or wrong.
        TypeError: a setting has the wrong type.

    Example:
        >>> async with DeepCall(UserToken(user_id, token), base_url=server.base_url) as dc:
        ...     relation = await dc.groups.agent_relation(28)
        >>> relation.group.name
        'Mahipal singh'
    """

    def __init__(
        self,
        credentials: SessionId | UserToken | CredentialProvider | None = None,
        *,
        base_url: str | None = None,
        timeout: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  (frozen)
        max_connections: int = 100,
        max_response_bytes: int = 32 * _MIB,
        per_second: float | None = None,
        ssl: SSLContext | None = None,
        proxy: str | None = None,
        headers: Mapping[str, str] | None = None,
        compress: bool | None = None,
        observers: Iterable[Observer] = (),
        session: ClientSession | None = None,
        allow_http: bool = False,
        trust_env: bool = False,
        app_info: str | None = None,
    ) -> None:
        if credentials is None:
            credentials = options.credentials_from_environment()
        wrong = options.wrong_credentials(credentials)
        if wrong is not None:
            # It may well be a bare secret, and a traceback with locals would show it.
            del credentials
            raise wrong
        url = options.base_url(base_url, allow_http=allow_http)
        seconds = positive_number("timeout", timeout)
        transport = TransportOptions(
            base_url=url,
            headers={
                "User-Agent": options.user_agent(app_info),
                "Accept": CONTENT_TYPE,
                "Accept-Encoding": options.accept_encoding(compress, url),
                **validation.headers(headers),
            },
            max_connections=positive_int("max_connections", max_connections),
            max_response_bytes=positive_int("max_response_bytes", max_response_bytes),
            ssl=None if ssl is None else of_type("ssl", ssl, SSLContext),
            proxy=options.proxy_url(proxy, url, trust_env=trust_env),
        )
        borrowed = None if session is None else of_type("session", session, ClientSession)
        rate = None if per_second is None else positive_number("per_second", per_second)
        policy = of_type("retry", retry, RetryPolicy)
        pool = Pool(transport, borrowed)
        told = Observers(observers, url, pool.connections)
        account = Account(IdentitySource(credentials, timeout=seconds), rate, pool.address)
        self._owns_pool = True
        self._session = Session(pool, account, timeout=seconds, retry=policy, observers=told)
        self._groups = GroupsAPI(self._session)

    @property
    def groups(self) -> GroupsAPI:
        """The Group API."""
        return self._groups

    @property
    def base_url(self) -> str:
        """The service's address."""
        return self._session.pool.options.base_url

    @property
    def stats(self) -> Stats:
        """What was sent under this client's credentials, and what its connections are doing."""
        return self._session.pool.stats(self._session.account)

    def with_options(
        self,
        *,
        credentials: SessionId | UserToken | CredentialProvider | None = None,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        per_second: float | None = None,
        observers: Iterable[Observer] | None = None,
    ) -> Self:
        """Give a sibling on the same connections, with some options changed.

        A sibling with its own credentials has a rate, retry budget and statistics of its own, and
        nothing of one account is ever shown to another. Closing a sibling leaves the connections
        open; closing the first client closes them for all.

        Args:
            credentials: who the sibling calls as.
            timeout: seconds for one attempt.
            retry: when and how often to repeat.
            per_second: the most requests that the sibling sends a second, apart from this client's.
            observers: who is told of the sibling's calls, instead of this client's observers.

        Returns:
            The sibling; what was not given is as in this client.

        Example:
            >>> patient = dc.with_options(timeout=120)
            >>> other = dc.with_options(credentials=UserToken(user_id, token))
        """
        wrong = None if credentials is None else options.wrong_credentials(credentials)
        if wrong is not None:
            del credentials
            raise wrong
        mine = self._session
        seconds = mine.timeout if timeout is None else positive_number("timeout", timeout)
        policy = mine.retry if retry is None else of_type("retry", retry, RetryPolicy)
        told = mine.observers
        if observers is not None:
            told = Observers(observers, told.base_url, told.stats)
        account = mine.account
        if credentials is not None or per_second is not None:
            rate = account.per_second
            if per_second is not None:
                rate = positive_number("per_second", per_second)
            source = account.source
            if credentials is not None:
                source = IdentitySource(credentials, timeout=seconds)
            account = Account(source, rate, mine.pool.address)
        session = Session(mine.pool, account, timeout=seconds, retry=policy, observers=told)
        # A copy, so that a subclass gives a sibling of its own class.
        sibling = copy(self)
        vars(sibling).update(_owns_pool=False, _session=session, _groups=GroupsAPI(session))
        return sibling

    async def aclose(self) -> None:
        """Close the client; calls in flight end with `ClientClosed` or `OutcomeUnknown`.

        Closing twice is no error. A borrowed session stays open.
        """
        self._session.closed = True
        if self._owns_pool:
            await self._session.pool.aclose()
        else:
            self._session.account.source.close_if_unused()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        # A traceback with locals may show a client whose making failed.
        session = getattr(self, "_session", None)
        return f"<DeepCall {session.pool if session else 'not made'!r}>"


class GroupsAPI:
    """The endpoints under ``/api/v2/Group``. Every method may raise any `DeepCallError`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def add(self, name: str, *, reconcile: bool = False) -> AddedGroup:
        """Add a group (vendor page: Add Group).

        A name that is taken is no error: the server appends a number. So a call that ended
        without an answer must not simply be repeated.

        Args:
            name: the new group's name, at most 255 characters.
            reconcile: list the groups before, and again when the answer is lost, to tell which
                group was made. Nothing is ever deleted. The retry policy's deadline counts over
                all of these calls.

        Returns:
            The new group's id.

        Raises:
            OutcomeUnknown: the group may or may not have been added; it was sent once.

        Example:
            >>> (await dc.groups.add("Sales", reconcile=True)).group_id
            301
        """
        if reconcile:
            return await add_and_reconcile(self._session, name)
        return await self._session.call(wire.add(name))

    async def update(self, group_id: int | str, *, name: str, status: int | None = None) -> str:
        """Change a group's name or status (vendor page: Update Group).

        Args:
            group_id: the group.
            name: its name from now on; the vendor requires it even to change only the status.
            status: 1 for active; None leaves it out of the request. Whether the vendor then
                makes an inactive group active again is not documented.

        Returns:
            The server's message.

        Raises:
            GroupUnavailable: there is no such group for this account.
            OutcomeUnknown: the change may or may not have been applied; it was sent once.

        Example:
            >>> said = await dc.groups.update(28, name="Sales EU", status=1)
        """
        return await self._session.call(wire.update(group_id, name=name, status=status))

    async def delete(self, group_id: int | str) -> DeletedGroup:
        """Delete a group and its relations (vendor page: Delete Group).

        Repeated when an answer is lost: that the group is gone then counts as success.

        Args:
            group_id: the group.

        Returns:
            Whether the group was gone already when the request was repeated.

        Raises:
            GroupUnavailable: there was no such group for this account to begin with.
            OutcomeUnknown: no attempt was answered; the group may or may not be gone.

        Example:
            >>> (await dc.groups.delete(28)).already_absent
            False
        """
        return await self._session.call(wire.delete(group_id))

    async def list(
        self,
        *,
        name: str | None = None,
        group_id: int | str | None = None,
        quick: bool | None = None,
        forward: bool | None = None,
    ) -> tuple[Group, ...]:
        """List the account's groups (vendor page: List Groups).

        Args:
            name: only groups with this in their names, whatever the case.
            group_id: only this group.
            quick: True for a quicker answer with less detail; None leaves the choice to the server.
            forward: True to skip the check of the AGENT_TO_AGENT_CALL permission; None leaves it
                out.

        Returns:
            The groups, in the server's order.

        Example:
            >>> [group.unique_id for group in await dc.groups.list(name="mahipal")]
            [28]
        """
        return await self._session.call(
            wire.list_groups(name=name, group_id=group_id, quick=quick, forward=forward)
        )

    async def agent_relation(
        self, group_id: int | str, *, quick: bool = True, name: str | None = None
    ) -> GroupAgentRelation:
        """Look up who is in a group and who of them receives its calls.

        It needs the AGENT_TO_AGENT_CALL permission (vendor page: Group Agent Relation).

        Args:
            group_id: the group.
            quick: as the vendor's page says, must be true for data to be sent.
            name: a group name to filter by.

        Returns:
            The group, the roster that came with it, and the relations.

        Raises:
            GroupUnavailable: there is no such group for this account.
            PermissionDenied: the account lacks the permission.

        Example:
            >>> relation = await dc.groups.agent_relation(28)
            >>> [member.agent_id for member in relation.receivers]
            [3, 8, 2]
        """
        return await self._session.call(wire.agent_relation(group_id, quick, name))

    async def assign_agents(
        self,
        group_id: int | str,
        agent_ids: Iterable[int | str],
        *,
        receive_call: Iterable[int | str] = (),
    ) -> str:
        """Put agents into a group (vendor page: Submit Assign Group To Agent).

        Whether the agents replace the group's members or are added to them is not documented.

        Args:
            group_id: the group.
            agent_ids: the agents' ``unique_id`` values.
            receive_call: those of them whom the group's calls ring.

        Returns:
            The server's message.

        Raises:
            GroupUnavailable: there is no such group for this account.
            OutcomeUnknown: the change may or may not have been applied; it was sent once.

        Example:
            >>> said = await dc.groups.assign_agents(28, [3, 8, 2], receive_call=[3])
        """
        return await self._session.call(
            wire.assign_agents(group_id, agent_ids, receive_call=receive_call)
        )
