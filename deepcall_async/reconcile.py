"""Finding out what became of an `add` whose answer was lost.

Law: it looks, before and after; it never sends the change again and never deletes anything.
"""

from __future__ import annotations

import re

from deepcall_async import wire
from deepcall_async.errors import DeepCallError, OutcomeUnknown, UnexpectedReply
from deepcall_async.models import AddedGroup, Group
from deepcall_async.session import Session

__all__ = ["add_and_reconcile"]


async def add_and_reconcile(session: Session, name: str) -> AddedGroup:
    """Add a group; when the answer is lost, tell from the list of groups which one it made.

    Args:
        session: the way out.
        name: the new group's name.

    Returns:
        The new group, from the reply or from the list.

    Raises:
        OutcomeUnknown: the answer was lost and not exactly one new group fits; those that do are
            its ``candidates``.
        DeepCallError: the first list failed, so nothing was sent; or the group was refused.
    """
    call = wire.add(name)
    listing = wire.list_groups(name=None, group_id=None, quick=None, forward=None)
    before = {group.unique_id for group in await session.call(listing)}
    try:
        return await session.call(call)
    except (OutcomeUnknown, UnexpectedReply) as error:
        lost = error
    candidates: tuple[Group, ...] = ()
    try:
        candidates = _candidates(await session.call(listing), before, name)
    except DeepCallError as error:
        found = f"the groups could not be listed afterwards ({type(error).__name__})"
    else:
        if len(candidates) == 1:
            return AddedGroup(candidates[0].unique_id)
        ids = ", ".join(str(group.unique_id) for group in candidates) or "none"
        found = f"{len(candidates)} new groups fit it (ids: {ids})"
    unknown = OutcomeUnknown(
        f"{call.endpoint.name}: the answer was lost, and {found}; nothing was sent again"
    )
    unknown.endpoint, unknown.attempts = lost.endpoint, lost.attempts
    unknown.candidates = candidates
    raise unknown from lost


def _candidates(after: tuple[Group, ...], before: set[int], name: str) -> tuple[Group, ...]:
    # A name that is taken gets a number appended; how it is set off is not documented.
    made = re.compile(re.escape(name.strip()) + r"[\s_\-(]*[0-9]*\)?", re.IGNORECASE)
    return tuple(
        group
        for group in after
        if group.unique_id not in before and made.fullmatch(group.name.strip())
    )
