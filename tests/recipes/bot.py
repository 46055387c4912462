"""A program that runs for months: it looks again and again, and lives through outages."""

import asyncio
import logging
from collections.abc import Callable

from deepcall_async import AuthenticationFailed, DeepCall, DeepCallError, collect

log = logging.getLogger("bot")


async def watch(dc: DeepCall, tell: Callable[[str], None], every: float = 60.0) -> None:
    """Tell when callers to a group begin to reach nobody, and when that is over."""
    silent: dict[int, str] = {}
    while True:
        try:
            ids = [each.unique_id for each in await dc.groups.list()]
            # An outage of up to ten minutes costs this round time, and no group.
            batch = await collect(dc.groups.agent_relation, ids, patience=600.0)
        except DeepCallError as error:
            if isinstance(error, AuthenticationFailed):
                raise
            log.warning("looking again in %g s: %s", every, error)
        else:
            now = {key: it.group.name for key, it in batch.ok.items() if not it.receivers}
            for key in now.keys() - silent.keys():
                tell(f"nobody receives calls to {now[key]}")
            for key in silent.keys() & batch.ok.keys() - now.keys():
                tell(f"{silent[key]} is reachable again")
            silent = {key: silent[key] for key in silent.keys() & batch.failed.keys()} | now
        await asyncio.sleep(every)


async def main() -> None:
    async with DeepCall() as dc:  # DEEPCALL_USER_ID, DEEPCALL_TOKEN, DEEPCALL_BASE_URL
        await watch(dc, print)


if __name__ == "__main__":
    asyncio.run(main())
