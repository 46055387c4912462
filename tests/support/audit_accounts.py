"""Small accounts for the tests of the audit, told in a few words each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from msgspec.structs import replace

from deepcall_async.audit import Mute, Report, RunInfo, Snapshot, audit
from deepcall_async.errors import ApiError, DeepCallError
from deepcall_async.models import Agent, AgentRelation, Group, GroupAgentRelation

USER = "29791451"
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
DAY = 86_400
RECENT = SECONDS - 10 * DAY

Row = tuple[int, str]
Make = Callable[..., GroupAgentRelation]


def agents(*ids: int, **names: str) -> tuple[Agent, ...]:
    """Agents with the given ids, named after them."""
    return tuple(Agent(unique_id=i, name=f"Agent {i}", user_id=USER) for i in ids)


ROSTER = agents(*range(1, 81))


def relation(
    group_id: int = 1,
    flags: Mapping[int, str] | Iterable[Row] | str = "YYY",
    *,
    name: str | None = None,
    status: int | None = 1,
    create_date: int | None = None,
    labels: Iterable[int] | None = None,
    roster: tuple[Agent, ...] = ROSTER,
    rows: tuple[AgentRelation, ...] = (),
    first_agent: int | None = None,
    user_id: str | None = USER,
) -> GroupAgentRelation:
    """A group whose agents have the given flags.

    As a string, one letter for each of the agents that are the group's own: no two groups share
    any, so that nothing but what a test is about stands out.
    """
    if isinstance(flags, str):
        first = (group_id - 1) * 8 % 72 + 1 if first_agent is None else first_agent
        pairs = list(enumerate(flags, first))
    else:
        pairs = list(flags.items() if isinstance(flags, Mapping) else flags)
    own = tuple(
        AgentRelation(group_id=group_id, agent_id=i, receive_call=flag, user_id=USER)
        for i, flag in pairs
    )
    shown = dict.fromkeys(i for i, _ in pairs) if labels is None else labels
    group = Group(
        unique_id=group_id,
        name=f"Group {'ABCDEFGHIJ'[group_id % 10]}" if name is None else name,
        user_id=user_id,
        status=status,
        create_date=RECENT - group_id * 3600 if create_date is None else create_date,
        agents=tuple(f"#{i} Agent {i}" for i in shown),
    )
    return GroupAgentRelation(group, roster, own + rows)


def account(
    *relations: GroupAgentRelation,
    failed: Mapping[int, DeepCallError] | None = None,
    listed: Iterable[Group] = (),
    whole: bool = True,
    started: datetime = NOW,
) -> Snapshot:
    """A snapshot of these groups."""
    return Snapshot.of(
        (*(found.group for found in relations), *listed),
        {found.group.unique_id: found for found in relations},
        failed,
        run=RunInfo(started=started, whole_account=whole),
    )


def everyone(*relations: GroupAgentRelation) -> tuple[GroupAgentRelation, ...]:
    """The same groups with a roster of just the agents who are in them."""
    ids = sorted({row.agent_id for found in relations for row in found.relations})
    roster = agents(*ids)
    return tuple(GroupAgentRelation(found.group, roster, found.relations) for found in relations)


def refused(message: str = "Something went wrong", code: int | None = 1009) -> ApiError:
    """An error as the client raises it."""
    error = ApiError(message)
    error.code, error.message, error.http_status, error.attempts = code, message, 200, 4
    return error


def hostile(name: str) -> Report:
    """A report in which a name stands wherever a server or a user could have put it."""
    roster = (Agent(unique_id=1, name=name, user_id=name), *agents(2, 3, 4))
    rows = tuple(
        AgentRelation(group_id=1, agent_id=i, receive_call=flag, user_id=USER)
        for i, flag in ((1, "N"), (1, name), (2, "N"), (9, "N"))
    )
    group = Group(unique_id=1, name=name, user_id=name, status=1, create_date=0, agents=(name,))
    now = account(GroupAgentRelation(group, roster, rows), failed={2: refused(name)})
    now = replace(now, run=replace(now.run, base_url=f"https://{name}", tool=name))
    old = account(relation(1, "YYY", name=f"{name}!"))
    mutes = [Mute(rule="R004", group=1, reason=f"x{name}"), Mute(rule="G9", group=1, reason="y")]
    return audit(now, baseline=old, mutes=mutes, now=NOW)
