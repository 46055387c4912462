"""The commands that work on groups: ``deepcall groups list``, ``show``, and four that change them.

A command that changes something says first what it will do. It asks on a terminal, and needs
``--yes`` elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from cyclopts import App, Parameter

from deepcall_async.cli.exits import UsageError, usage_errors
from deepcall_async.cli.listing import Listing
from deepcall_async.cli.parameters import ENVIRONMENT, ConnectOptions, ListFormat, Whole, split
from deepcall_async.cli.terminal import emit, say
from deepcall_async.redaction import printable

if TYPE_CHECKING:
    from deepcall_async.client import DeepCall
    from deepcall_async.models import Group, GroupAgentRelation

__all__ = [
    "add_group",
    "app",
    "assign_agents",
    "delete_group",
    "list_groups",
    "show_group",
    "update_group",
]

T = TypeVar("T")

app: App = App(
    name="groups",
    help="Look at the account's groups, and change them.",
    help_epilogue=ENVIRONMENT,
)

DryRun = Annotated[bool, Parameter(help="Say what would be done, and do nothing.", negative="")]
Yes = Annotated[
    bool,
    Parameter(name=["--yes", "-y"], help="Do not ask; needed without a terminal.", negative=""),
]
ResultFormat = Annotated[
    Literal["table", "json"], Parameter(name=["--output", "-o"], help="How to print the result.")
]


@app.command(name="list")
def list_groups(
    *,
    name: Annotated[
        str | None, Parameter(help="Only groups with this in their names.", metavar="TEXT")
    ] = None,
    output: ListFormat = "table",
    connect: ConnectOptions = ConnectOptions(),  # noqa: B008  (frozen)
) -> None:
    """List the account's groups."""

    async def work(client: DeepCall) -> tuple[Group, ...]:
        return await client.groups.list(name=name)

    groups = _with_client(connect, work)
    Listing(
        title=f"{len(groups)} groups",
        columns=("id", "name", "status", "created"),
        rows=[(group.unique_id, group.name, _status(group), _created(group)) for group in groups],
    ).show(output)


@app.command(name="show")
def show_group(
    group_id: Whole,
    *,
    output: ListFormat = "table",
    connect: ConnectOptions = ConnectOptions(),  # noqa: B008  (frozen)
) -> None:
    """Show a group, its members and whom its calls ring."""

    async def work(client: DeepCall) -> GroupAgentRelation:
        return await client.groups.agent_relation(group_id)

    relation = _with_client(connect, work)
    group, members = relation.group, relation.members
    Listing(
        title=f"{group.name} (group {group.unique_id}), {_status(group)}:"
        f" {len(relation.receivers)} of {len(members)} receive calls",
        columns=("agent", "name", "receives calls"),
        rows=[
            (
                member.agent_id,
                member.agent.name if member.agent else "(not in the roster)",
                member.receives_calls,
            )
            for member in members
        ],
    ).show(output)


@app.command(name="add")
def add_group(
    name: str,
    *,
    reconcile: Annotated[
        bool,
        Parameter(help="Find out which group was made when the answer is lost.", negative=""),
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: ResultFormat = "table",
    connect: ConnectOptions = ConnectOptions(),  # noqa: B008  (frozen)
) -> None:
    """Add a group. The service appends a number to a name that is taken."""

    async def work(client: DeepCall) -> int | None:
        wanted = name.strip().casefold()
        same = [g for g in await client.groups.list(name=name) if _is_named(g, wanted)]
        plan = [f"add a group called {printable(name)}"]
        if same:
            ids = ", ".join(str(group.unique_id) for group in same)
            plan.append(f"the name is taken (group {ids}): the service will append a number")
        if not await _agreed(plan, dry_run=dry_run, yes=yes):
            return None
        return (await client.groups.add(name, reconcile=reconcile)).group_id

    added = _with_client(connect, work)
    if added is not None:
        _done({"group_id": added}, f"added group {added}", output)


@app.command(name="update")
def update_group(
    group_id: Whole,
    *,
    name: Annotated[
        str, Parameter(help="Its name from now on; the service requires one.", metavar="NAME")
    ],
    status: Annotated[Whole | None, Parameter(help="1 for active, 0 for inactive.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: ResultFormat = "table",
    connect: ConnectOptions = ConnectOptions(),  # noqa: B008  (frozen)
) -> None:
    """Change a group's name or status.

    Without --status the service may make an inactive group active: that is not documented.
    """

    async def work(client: DeepCall) -> str | None:
        group = (await client.groups.agent_relation(group_id)).group
        plan = [
            f"update group {group_id}",
            f"name: {printable(group.name)} -> {printable(name)}"
            if name != group.name
            else f"name: {printable(name)}, as it is",
            f"status: {_status_after(group, status)}",
        ]
        if status not in (None, 0, 1):
            plan.append(f"{status} is no status that is documented; only 1 is known to be active")
        if not await _agreed(plan, dry_run=dry_run, yes=yes):
            return None
        return await client.groups.update(group_id, name=name, status=status)

    message = _with_client(connect, work)
    if message is not None:
        _done({"group_id": group_id, "message": message}, f"updated group {group_id}", output)


@app.command(name="delete")
def delete_group(
    group_id: Whole,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
    output: ResultFormat = "table",
    connect: ConnectOptions = ConnectOptions(),  # noqa: B008  (frozen)
) -> None:
    """Delete a group, and with it who is in it."""

    async def work(client: DeepCall) -> bool | None:
        relation = await client.groups.agent_relation(group_id)
        plan = [
            f"delete group {group_id}, {printable(relation.group.name)}",
            f"its {len(relation.members)} agents leave it",
        ]
        if not await _agreed(plan, dry_run=dry_run, yes=yes):
            return None
        return (await client.groups.delete(group_id)).already_absent

    absent = _with_client(connect, work)
    if absent is not None:
        result = {"group_id": group_id, "already_absent": absent}
        _done(result, f"deleted group {group_id}", output)


@app.command(name="assign")
def assign_agents(
    group_id: Whole,
    *agent_ids: Whole,
    receive: Annotated[
        tuple[str, ...],
        Parameter(help="Those of them whom calls ring.", negative="", metavar="ID,..."),
    ] = (),
    dry_run: DryRun = False,
    yes: Yes = False,
    output: ResultFormat = "table",
    connect: ConnectOptions = ConnectOptions(),  # noqa: B008  (frozen)
) -> None:
    """Put agents into a group.

    Whether they replace the group's members or are added to them is not documented.
    """
    if not agent_ids:
        # An empty variable of a script, which would perhaps empty the group.
        raise UsageError("name the agents to assign, by their ids")
    receivers = _receivers(receive, agent_ids)

    async def work(client: DeepCall) -> str | None:
        relation = await client.groups.agent_relation(group_id)
        names = {agent.unique_id: agent.name for agent in relation.agents}
        now = {member.agent_id: member.receives_calls for member in relation.members}
        plan = [f"assign agents to group {group_id}, {printable(relation.group.name)}"]
        for agent_id in dict.fromkeys(agent_ids):
            receives = "receives calls" if agent_id in receivers else "does not receive calls"
            was = "" if agent_id not in now else f" (now {'does' if now[agent_id] else 'does not'})"
            plan.append(
                f"{'keep' if agent_id in now else 'add '} agent {agent_id}"
                f" {printable(names.get(agent_id, '(not in the roster)'))}: {receives}{was}"
            )
        left_out = [agent_id for agent_id in now if agent_id not in agent_ids]
        if left_out:
            ids = ", ".join(map(str, left_out))
            plan.append(f"not named: {ids}; the service may remove them, or leave them")
        if not await _agreed(plan, dry_run=dry_run, yes=yes):
            return None
        return await client.groups.assign_agents(group_id, agent_ids, receive_call=receivers)

    message = _with_client(connect, work)
    if message is not None:
        result = {"group_id": group_id, "message": message}
        _done(result, f"assigned {len(set(agent_ids))} agents to group {group_id}", output)


def _with_client(connect: ConnectOptions, work: Callable[[DeepCall], Awaitable[T]]) -> T:
    from deepcall_async.cli.connect import open_client, target_of
    from deepcall_async.cli.loop import run_async

    target = target_of(connect)

    async def run() -> T:
        async with open_client(target) as client:
            # Arguments are checked before anything is sent; what they may be, the client knows.
            try:
                return await work(client)
            except (ValueError, TypeError) as error:
                raise UsageError(str(error)) from error

    return run_async(run())


async def _agreed(plan: list[str], *, dry_run: bool, yes: bool) -> bool:
    """Say what will be done, and find out whether it is wanted."""
    say("\n  ".join([f"Will {plan[0]}:" if plan[1:] else f"Will {plan[0]}.", *plan[1:]]))
    if dry_run:
        say("Nothing was changed (--dry-run).")
        return False
    if yes:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("nothing was changed: give --yes, since there is no terminal to ask on")
    if await _ask("Go on? [y/N] ") in ("y", "yes"):
        return True
    raise UsageError("nothing was changed")


async def _ask(question: str) -> str:
    import asyncio

    sys.stderr.write(question)
    sys.stderr.flush()
    # In the loop, so that Ctrl-C ends the waiting: a thread in `input` cannot be ended.
    loop, answer = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(sys.stdin.fileno(), answer.set)
    except NotImplementedError:  # Windows
        line: str = await asyncio.to_thread(sys.stdin.readline)
        return line.strip().casefold()
    try:
        await answer.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    return sys.stdin.readline().strip().casefold()


def _receivers(receive: tuple[str, ...], agent_ids: tuple[int, ...]) -> list[int]:
    with usage_errors("--receive"):
        receivers = [int(word) for word in split(receive)]
    strangers = [agent_id for agent_id in receivers if agent_id not in agent_ids]
    if strangers:
        ids = ", ".join(map(str, strangers))
        raise UsageError(f"--receive {ids}: only agents who are assigned can receive calls")
    return receivers


def _done(result: Mapping[str, object], said: str, output: Literal["table", "json"]) -> None:
    if output == "json":
        import msgspec

        emit(msgspec.json.encode(result) + b"\n")
    else:
        emit(said + "\n")


def _is_named(group: Group, wanted: str) -> bool:
    return group.name.strip().casefold() == wanted


def _status(group: Group) -> str:
    return "active" if group.active else "inactive"


def _status_after(group: Group, wanted: int | None) -> str:
    now = _meaning(group.status)
    if wanted is None:
        return f"{now}, not sent; the service may make it 1"
    return f"{now}, as it is" if wanted == group.status else f"{now} -> {_meaning(wanted)}"


def _meaning(status: int | None) -> str:
    if status is None:
        return "not known"
    return f"{status} ({'active' if status == 1 else 'inactive'})"


def _created(group: Group) -> str:
    return f"{group.created_at:%Y-%m-%d}" if group.created_at else ""
