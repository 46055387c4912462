"""A watch over one account: it tells within minutes when a group goes dark.

The public names. `watch` sends requests through the client it is given and keeps its state in one
file; what counts as a change is decided by the pure `step`.

In three lines::

    async with DeepCall() as dc, watch(dc, state="watch.db") as changes:
        async for change in changes:
            print(change)
"""

from deepcall_async.audit.change import (
    Appeared,
    Blind,
    Change,
    Digest,
    FirstLook,
    Recovered,
    SightAgain,
    SwitchedOff,
    Thin,
    Vanished,
    WentDark,
    digest,
)
from deepcall_async.audit.watch import GroupState, State, step
from deepcall_async.watch.account import watch
from deepcall_async.watch.followers import Follower
from deepcall_async.watch.looks import Look, Watch
from deepcall_async.watch.store import StateInUse, StateUnusable

__all__ = [
    "Appeared",
    "Blind",
    "Change",
    "Digest",
    "FirstLook",
    "Follower",
    "GroupState",
    "Look",
    "Recovered",
    "SightAgain",
    "State",
    "StateInUse",
    "StateUnusable",
    "SwitchedOff",
    "Thin",
    "Vanished",
    "Watch",
    "WentDark",
    "digest",
    "step",
    "watch",
]
