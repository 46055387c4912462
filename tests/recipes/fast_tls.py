"""TLS that costs less: aiofastnet's transports under the event loop that you use anyway."""

import asyncio
from collections.abc import Coroutine

import aiofastnet

from deepcall_async import DeepCall


async def main() -> None:
    async with DeepCall() as dc:  # nothing in it changes
        print(len(await dc.groups.list()), "groups")


def run(coroutine: Coroutine[object, object, None]) -> None:
    # Instead of asyncio.run. On uvloop: loop_factory(uvloop.new_event_loop).
    with asyncio.Runner(loop_factory=aiofastnet.loop_factory()) as runner:
        runner.run(coroutine)


if __name__ == "__main__":
    run(main())
