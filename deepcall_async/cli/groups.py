"""The commands that work on groups: ``deepcall groups list`` and ``show``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from deepcall_async.cli.connect import BaseUrl, CredentialsFile, open_client
from deepcall_async.cli.exits import FOUND
from deepcall_async.cli.loop import run_async
from deepcall_async.cli.terminal import printable, say, show_table
from deepcall_async.errors import GroupUnavailable

__all__ = ["app", "list_groups", "show_group"]

app: App = App(name="groups", help="Look at the account's groups.")


@app.command(name="list")
def list_groups(
    *,
    name: Annotated[str | None, Parameter(help="Only groups with this in their names.")] = None,
    base_url: BaseUrl = None,
    credentials: CredentialsFile = None,
) -> None:
    """List the account's groups."""

    async def work() -> list[tuple[str, ...]]:
        async with open_client(None, base_url, credentials) as client:
            groups = await client.groups.list(name=name)
        return [
            (
                str(group.unique_id),
                group.name,
                "active" if group.active else "inactive",
                f"{group.created_at:%Y-%m-%d}" if group.created_at else "",
            )
            for group in groups
        ]

    rows = run_async(work())
    show_table(Console(), f"{len(rows)} groups", ("Id", "Name", "Status", "Created"), rows)


@app.command(name="show")
def show_group(
    group_id: int, *, base_url: BaseUrl = None, credentials: CredentialsFile = None
) -> int:
    """Show a group, its members and whom its calls ring."""

    async def work() -> int:
        async with open_client(None, base_url, credentials) as client:
            try:
                relation = await client.groups.agent_relation(group_id)
            except GroupUnavailable as error:
                say(f"deepcall: {error}")
                return FOUND
        group, members = relation.group, relation.members
        rows = [
            (
                str(member.agent_id),
                member.agent.name if member.agent else "(not in the roster)",
                "yes" if member.receives_calls else "no",
            )
            for member in members
        ]
        title = (
            f"{printable(group.name)} (group {group.unique_id}),"
            f" {'active' if group.active else 'inactive'}:"
            f" {len(relation.receivers)} of {len(members)} receive calls"
        )
        show_table(Console(), title, ("Agent", "Name", "Receives calls"), rows)
        return 0

    return run_async(work())
