"""A watch over one account: it reports within minutes when a group goes dark.

The public names. `watch` sends requests through the client it is given and keeps its state in one
file; what counts as a change is decided by the pure `step`.

```python
import asyncio
from deepcall_async import DeepCall
from deepcall_async.watch import FirstLook, WentDark, watch


async def main():
    async with DeepCall() as dc, watch(dc, every=300.0, state="watch.db") as changes:
        async for change in changes:
            match change:
                case FirstLook(groups=groups, dark=dark):
                    print(len(dark), "of", groups, "groups are dark")
                    break  # a bot would go on
                case WentDark(group_id=group_id):
                    print(group_id, change)


asyncio.run(main())
```

```text
8 of 300 groups are dark
```

## When a change is reported

- Two looks in a row must agree: ``confirm=2`` for trouble, ``clear=2`` for its end.
- After that nothing more is reported about the same group for an hour (``cooldown=3600.0``), and
  then what still holds. There is one exception. When the message before was that a group is thin
  or new, it is reported at once that the group went dark.
- The first look ever gives one summary, a `FirstLook`.
- A lookup that failed, or a list that could not be had, says nothing about a group. Three looks
  in a row that read nothing are reported as `Blind`, and their end as `SightAgain`.

## What is kept

State and changes that are still to be reported are in one SQLite file, written in one transaction
a look. A change counts as reported when the next one is asked for, or the block is left without
an exception. After a crash or ``kill -9`` what was reported is not reported again, and what was
not is; its ``number`` is its own. A second watch on the file is refused (`StateInUse`). A damaged
file is moved aside, and the watch says so. A follower that takes the place of another, such as a
URL that was mended, is given what that one had not acknowledged.

`Watch.look_now` looks at once. A slow consumer loses nothing and delays no look. ``str(change)``
is a sentence, and ``msgspec.json.encode(change)`` is JSON. ``followers=("mail", "chat")`` and
`Watch.follow` give all changes of a look at once, to each follower at its own pace.

To try it, ``deepcall sandbox`` prints the settings of an account to watch, and
``deepcall watch --every 2s --state watch.db`` reports what you change there.

## As a service

The command ``deepcall watch`` needs ``pip install "deepcall-async[watch]"``. The README has a unit
for systemd.

- ``--notify FILE`` sends one message a look to each [Apprise](https://appriseit.com) URL in the
  file, one a line: mail, Slack, Teams, Telegram, or ``json://`` for a webhook of your own. The
  URLs hold secrets and are never shown. What could not be delivered is tried again, with growing
  pauses, and the looks go on. A service that hangs is waited for, and the watch says so.
- ``--listen HOST:PORT`` serves a page of what is dark and since when at ``/``, the account's
  numbers for Prometheus at ``/metrics``, and ``/healthz``, which is 503 when no look has finished
  for three intervals. Other addresses than this machine's own need ``--allow-remote``. Without it
  only requests for ``localhost`` or a loopback address are answered: a page on the Internet could
  make a name of its own mean 127.0.0.1 (DNS rebinding).
- ``--heartbeat URL`` is called after each look that saw the account, for a service that raises
  the alarm when the calls stop. ``file:PATH`` keeps a secret URL out of the arguments.
- ``--confirm N``, ``--clear N`` and ``--cooldown 1h`` are the arguments above.

Changes are printed on stdout too, one a line. SIGTERM and Ctrl-C end the watch with exit code 0.
Wrong credentials end it with 4 when it has never seen the account; later they are reported as
trouble.
"""

from deepcall_async.audit.change import (
    Appeared,
    Blind,
    Change,
    DarkGroup,
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
    "DarkGroup",
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
