"""An account as one run saw it.

Plain data, and a builder that adds outcomes as they arrive and keeps each roster once. No I/O: the
caller decides where the outcomes come from, and when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from deepcall_async.audit.labels import clean
from deepcall_async.errors import ApiError, DeepCallError, UnexpectedReply
from deepcall_async.models import Agent, AgentRelation, Group, GroupAgentRelation

__all__ = [
    "FailedLookup",
    "RunInfo",
    "Snapshot",
    "SnapshotBuilder",
    "merged",
    "require_same_account",
]


class FailedLookup(Struct, frozen=True, kw_only=True):
    """Why a group could not be read.

    ``error`` is the name of the error's class; ``code`` and ``http_status`` are None when the
    answer, if there was one, had none.
    """

    error: str
    message: str = ""
    code: int | None = None
    http_status: int | None = None
    attempts: int = 0

    @classmethod
    def of(cls, error: DeepCallError) -> FailedLookup:
        """Record what an error says."""
        code = error.code if isinstance(error, ApiError) else None
        said = error.message if isinstance(error, ApiError) else ""
        status = error.http_status if isinstance(error, ApiError | UnexpectedReply) else None
        return cls(
            error=type(error).__name__,
            message=said or str(error),
            code=code,
            http_status=status,
            attempts=error.attempts,
        )


class RunInfo(Struct, frozen=True, kw_only=True):
    """Where and when a run began.

    ``whole_account`` is False when only chosen groups were asked for; ``resumed_from`` is the
    beginning of the run that this one went on from.
    """

    started: datetime | None = None
    base_url: str = ""
    sandbox: bool = False
    whole_account: bool = True
    resumed_from: datetime | None = None
    tool: str = ""


class Snapshot(Struct, frozen=True, kw_only=True):
    """What a run knows of an account.

    ``relations``, ``failed`` and ``gone`` (listed, but no longer there when looked up) are by the
    id asked for; ``unread`` holds what the list said of groups without a relation. ``cut_short``
    says that the run ended before it knew which groups there are.
    """

    run: RunInfo = RunInfo()
    asked: tuple[int, ...] = ()
    relations: dict[int, GroupAgentRelation] = {}
    failed: dict[int, FailedLookup] = {}
    gone: frozenset[int] = frozenset()
    unread: dict[int, Group] = {}
    cut_short: bool = False

    def __repr__(self) -> str:
        # Short: before Python 3.13, `asyncio.run` makes the repr of what it returns.
        read, failed = len(self.relations), len(self.failed)
        return f"Snapshot({len(self.asked)} groups: {read} read, {failed} failed)"

    @classmethod
    def of(
        cls,
        groups: Iterable[Group] = (),
        relations: Mapping[int, GroupAgentRelation] | None = None,
        failed: Mapping[int, DeepCallError] | None = None,
        *,
        run: RunInfo = RunInfo(),  # noqa: B008  (frozen)
    ) -> Snapshot:
        """Make a snapshot of groups and the outcomes of ``collect``.

        Args:
            groups: the account's groups, as listed.
            relations: relations by group id, such as ``batch.ok``.
            failed: errors by group id, such as ``batch.failed``.
            run: where and when.

        Returns:
            The snapshot; listed groups without an outcome count as not looked up.
        """
        builder = SnapshotBuilder(run)
        builder.add_groups(groups)
        for group_id, relation in (relations or {}).items():
            builder.add_relation(group_id, relation)
        for group_id, error in (failed or {}).items():
            builder.add_failure(group_id, FailedLookup.of(error))
        return builder.snapshot()

    @property
    def groups(self) -> tuple[Group, ...]:
        """Every group whose record is known, in the order asked."""
        known = (self.group(group_id) for group_id in self.asked)
        return tuple(group for group in known if group is not None)

    @property
    def rosters(self) -> tuple[tuple[Agent, ...], ...]:
        """The distinct rosters, in the order of their first reply."""
        found = {id(relation.agents): relation.agents for relation in self.relations.values()}
        return tuple(found.values())

    @property
    def user_ids(self) -> frozenset[str]:
        """The users whom the groups and relations belong to, as far as that is said."""
        found = {group.user_id for group in self.groups}
        for relation in self.relations.values():
            found.update([row.user_id for row in relation.relations])
        return frozenset(user_id for user_id in found if user_id)

    @property
    def pending(self) -> tuple[int, ...]:
        """The ids asked for that have no outcome: the run ended before their turn."""
        done = self.relations.keys() | self.failed.keys() | self.gone
        return tuple(group_id for group_id in self.asked if group_id not in done)

    @property
    def complete(self) -> bool:
        """Whether every group asked for was read, or was seen to be gone."""
        return not (self.failed or self.cut_short or self.pending)

    def group(self, group_id: int) -> Group | None:
        """What is known of a group itself: from its relation, or else from the list."""
        relation = self.relations.get(group_id)
        return relation.group if relation is not None else self.unread.get(group_id)


class SnapshotBuilder:
    """Collects a run's outcomes as they arrive; equal rosters are kept once.

    Args:
        run: where and when the run began.
    """

    def __init__(self, run: RunInfo = RunInfo()) -> None:  # noqa: B008  (frozen)
        self._run = run
        self._asked: dict[int, None] = {}
        self._unread: dict[int, Group] = {}
        self._relations: dict[int, GroupAgentRelation] = {}
        self._failed: dict[int, FailedLookup] = {}
        self._gone: set[int] = set()
        # Equal rosters nearly always come as the same object, which costs no hashing. The entry
        # holds the roster, so that its id stays its own.
        self._by_identity: dict[int, tuple[Agent, ...]] = {}
        self._by_value: dict[frozenset[Agent], tuple[Agent, ...]] = {}
        self._strings: dict[str, str] = {}
        self._ids: dict[int, int] = {}

    def add_groups(self, groups: Iterable[Group]) -> None:
        """Add the groups of the account's list: all of them are to be looked up."""
        for group in groups:
            self.add_unread(group.unique_id, group)

    def add_unread(self, group_id: int, group: Group | None) -> None:
        """Add what is known of a group that is to be looked up but is not read yet."""
        self._asked[group_id] = None
        if group is not None and group_id not in self._relations:
            self._unread[group_id] = group

    def add_asked(self, group_ids: Iterable[int]) -> None:
        """Add ids that are to be looked up, whether or not a list named them."""
        self._asked.update(dict.fromkeys(group_ids))

    def add_relation(self, group_id: int, relation: GroupAgentRelation) -> GroupAgentRelation:
        """Add a relation that was read.

        Args:
            group_id: the id asked for.
            relation: the reply.

        Returns:
            The relation as the snapshot holds it: with the shared roster, and with what only the
            list said of the group.
        """
        self._asked[group_id] = None
        self._failed.pop(group_id, None)
        self._gone.discard(group_id)
        known = self._unread.pop(group_id, None) or self.group(group_id)
        group = merged(relation.group, known)
        held = GroupAgentRelation(
            self._compact_group(group),
            self._shared(relation.agents),
            tuple([self._compact(row, group_id) for row in relation.relations]),
        )
        self._relations[group_id] = held
        return held

    def add_failure(self, group_id: int, failure: FailedLookup) -> None:
        """Add a lookup that failed."""
        self._asked[group_id] = None
        self._failed[group_id] = failure

    def add_gone(self, group_id: int) -> None:
        """Add a listed group that no longer existed when it was looked up."""
        self._asked[group_id] = None
        self._gone.add(group_id)

    def group(self, group_id: int) -> Group | None:
        """What is known of a group so far."""
        relation = self._relations.get(group_id)
        return relation.group if relation is not None else self._unread.get(group_id)

    def snapshot(self, *, cut_short: bool = False) -> Snapshot:
        """Return what was collected so far.

        Args:
            cut_short: the run ended before it knew which groups there are.
        """
        return Snapshot(
            run=self._run,
            asked=tuple(self._asked),
            relations=dict(self._relations),
            failed=dict(self._failed),
            gone=frozenset(self._gone),
            unread=dict(self._unread),
            cut_short=cut_short,
        )

    def _shared(self, roster: tuple[Agent, ...]) -> tuple[Agent, ...]:
        shared = self._by_identity.get(id(roster))
        if shared is None:
            # The order is the server's choice: the same agents in another order are one roster.
            shared = self._by_value.setdefault(frozenset(roster), roster)
            self._by_identity[id(shared)] = shared
        return shared

    def _compact_group(self, group: Group) -> Group:
        # An agent's label is the same in every group, and most groups are one user's.
        strings, user, maker = self._strings, group.user_id, group.create_by
        return Group(
            unique_id=group.unique_id,
            name=group.name,
            user_id=user if user is None else strings.setdefault(user, user),
            create_by=maker if maker is None else strings.setdefault(maker, maker),
            status=group.status,
            create_date=group.create_date,
            agents=tuple([strings.setdefault(label, label) for label in group.agents]),
        )

    def _compact(self, row: AgentRelation, group_id: int) -> AgentRelation:
        # A decoder makes each value anew; a large account repeats a few of them a million times.
        strings = self._strings
        flag = strings.setdefault(row.receive_call, row.receive_call)
        user = row.user_id if row.user_id is None else strings.setdefault(row.user_id, row.user_id)
        return AgentRelation(
            group_id=group_id if row.group_id == group_id else row.group_id,
            agent_id=self._ids.setdefault(row.agent_id, row.agent_id),
            receive_call=flag,
            user_id=user,
        )


def merged(group: Group, listed: Group | None) -> Group:
    """Fill in from the list what a relation's own record of the group leaves out.

    Args:
        group: the record in the relation, which is the newer and wins.
        listed: the record in the list.
    """
    if listed is None:
        return group
    found = {
        field: value
        for field in ("user_id", "create_by", "status", "create_date")
        if getattr(group, field) is None and (value := getattr(listed, field)) is not None
    }
    return replace(group, **found) if found else group


def require_same_account(earlier: Snapshot, now: Snapshot, role: str) -> None:
    """Refuse an earlier run of another service or account.

    An account is its base URL and the user ids that its groups and relations carry. What a
    snapshot does not say is not compared; a sandbox has another address each time.

    Args:
        earlier: the earlier run.
        now: the present one, as far as it is known.
        role: what the earlier one is used as, for the message.

    Raises:
        ValueError: they are of different accounts.
    """
    if not (earlier.asked or earlier.run.base_url):
        return  # an empty one is of nobody
    said = f"the {role} is of another account"
    if earlier.run.base_url and now.run.base_url:
        if earlier.run.sandbox != now.run.sandbox:
            raise ValueError(f"{said}: one of them is the sandbox's")
        urls = [run.base_url.rstrip("/").casefold() for run in (earlier.run, now.run)]
        if not now.run.sandbox and urls[0] != urls[1]:
            raise ValueError(f"{said}: it was of {earlier.run.base_url}, not of {now.run.base_url}")
    if not (earlier.run.whole_account or now.run.whole_account):
        return  # of an account with several users, each run may hold the groups of one
    users, others = earlier.user_ids, now.user_ids
    if users and others and users.isdisjoint(others):
        shown = [clean(min(ids)) for ids in (users, others)]
        raise ValueError(f"{said}: its groups belong to user {shown[0]}, not to {shown[1]}")
