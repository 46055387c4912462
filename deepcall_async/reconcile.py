"""Finding out what became of an `add` whose answer was lost.

It looks at the list of groups before and after. It never sends the change again and never deletes
anything.
"""

from __future__ import annotations

import re
import time

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

    The retry policy's deadline counts over all three calls.

    Raises:
        OutcomeUnknown: the answer was lost and not exactly one new group fits; those that do are
            its ``candidates``.
        DeepCallError: the first list failed, so nothing was sent; or the group was refused.
    """
    call = wire.add(name)
    listing = wire.list_groups(name=None, group_id=None, quick=None, forward=None)
    start = time.monotonic()
    before = await session.call(listing, start=start)
    try:
        return await session.call(call, start=start)
    except (OutcomeUnknown, UnexpectedReply) as error:
        lost = error
    candidates: tuple[Group, ...] = ()
    try:
        candidates = _candidates(await session.call(listing, start=start), before, name)
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


def _candidates(
    after: tuple[Group, ...], before: tuple[Group, ...], name: str
) -> tuple[Group, ...]:
    """The new groups that may be the one that was added."""
    known = {group.unique_id for group in before}
    new = [group for group in after if group.unique_id not in known]
    bare = name.strip().casefold()
    exact = [group for group in new if group.name.strip().casefold() == bare]
    taken = exact or any(group.name.strip().casefold() == bare for group in before)
    if not taken:
        return ()
    # A name that is taken gets a number appended; how it is set off is not documented. Where the
    # bare name was free, a numbered one is somebody else's.
    numbered = re.compile(re.escape(name.strip()) + r"[\s_\-(]*[0-9]+\)?", re.IGNORECASE)
    return (*exact, *(group for group in new if numbered.fullmatch(group.name.strip())))
