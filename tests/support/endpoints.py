"""The six endpoints as rows of a table, and what each must make of a failed attempt.

The table and the rules are written by hand, apart from the package's own, so that the two can
disagree. Servers are scripted elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import pytest

from deepcall_async import (
    AddedGroup,
    DeepCall,
    DeepCallError,
    DeletedGroup,
    OutcomeUnknown,
    RateLimited,
)

E = TypeVar("E", bound=DeepCallError)

Kind = Literal["read", "delete", "change"]
"""How a failed request may be repeated: always; always, where "gone" then means done; or only
when it was surely never sent."""


@dataclass(frozen=True)
class Endpoint:
    """One endpoint, called for group 28 unless it is told otherwise."""

    name: str
    verb: str
    kind: Kind
    call: Callable[[DeepCall, int], Awaitable[Any]]
    good: Callable[[Any, int], bool]

    async def __call__(self, dc: DeepCall, group: int = 28) -> None:
        """Call it and check that the answer is about the group that was asked for."""
        result = await self.call(dc, group)
        assert self.good(result, group), result

    async def fails(self, dc: DeepCall, error: type[E], *, attempts: int = 1, group: int = 28) -> E:
        """Call it and check that it fails in exactly this way."""
        with pytest.raises(DeepCallError) as caught:
            await self.call(dc, group)
        raised = caught.value
        shown = f"{raised!r} after {raised.attempts} attempts, for {self.name}"
        assert type(raised) is error, shown
        assert (raised.endpoint, raised.attempts) == (self.name, attempts), shown
        assert isinstance(raised, error)
        return raised

    async def fails_for_good(
        self, dc: DeepCall, error: type[DeepCallError], *, attempts: int
    ) -> DeepCallError:
        """Call it against a server that fails every attempt in this way, and check the outcome.

        Args:
            dc: the client.
            error: what an attempt ends with; one after which a read is repeated.
            attempts: how many the client's policy allows.
        """
        made = attempts if self.repeats(error) else 1
        if self.kind == "read" or error is RateLimited:
            return await self.fails(dc, error, attempts=made)
        unknown = await self.fails(dc, OutcomeUnknown, attempts=made)
        assert type(unknown.__cause__) is error, repr(unknown.__cause__)
        return unknown.__cause__

    def repeats(self, error: type[DeepCallError]) -> bool:
        """Whether it is sent again after an attempt that failed in a way that may pass."""
        return self.kind == "read" or (self.kind == "delete" and error is not RateLimited)


ENDPOINTS = (
    Endpoint(
        "groups.list",
        "list",
        "read",
        lambda dc, group: dc.groups.list(group_id=group),
        lambda groups, group: [each.unique_id for each in groups] == [group],
    ),
    Endpoint(
        "groups.agent_relation",
        "getGroupAgentRelation",
        "read",
        lambda dc, group: dc.groups.agent_relation(group),
        lambda relation, group: (
            relation.group.unique_id == group
            and [member.agent.name for member in relation.members] == ["agent 3"]
        ),
    ),
    Endpoint(
        "groups.delete",
        "delete",
        "delete",
        lambda dc, group: dc.groups.delete(group),
        lambda deleted, group: deleted == DeletedGroup(False, f"delete {group}"),
    ),
    Endpoint(
        "groups.add",
        "add",
        "change",
        lambda dc, group: dc.groups.add(f"Sales {group}"),
        lambda added, group: added == AddedGroup(group),
    ),
    Endpoint(
        "groups.update",
        "update",
        "change",
        lambda dc, group: dc.groups.update(group, name="Sales", status=1),
        lambda message, group: message == f"update {group}",
    ),
    Endpoint(
        "groups.assign_agents",
        "submitAssignGroupToAgent",
        "change",
        lambda dc, group: dc.groups.assign_agents(group, [3, 8], receive_call=[3]),
        lambda message, group: message == f"submitAssignGroupToAgent {group}",
    ),
)
LIST, RELATION, DELETE, ADD, UPDATE, ASSIGN = ENDPOINTS
READS = (LIST, RELATION)
CHANGES = (ADD, UPDATE, ASSIGN)


def over(*endpoints: Endpoint) -> pytest.MarkDecorator:
    """Run a test for each of the endpoints."""
    return pytest.mark.parametrize("endpoint", endpoints, ids=lambda each: each.name)


each_endpoint = over(*ENDPOINTS)
