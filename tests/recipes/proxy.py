"""A service that is reached through a company's HTTP proxy."""

import asyncio
import os

from deepcall_async import DeepCall, DeepCallError


async def main() -> None:
    # Such as http://user:password@proxy.example:3128. With `trust_env=True` instead it is the one
    # that HTTPS_PROXY names, and NO_PROXY is heeded.
    async with DeepCall(proxy=os.environ["COMPANY_PROXY"]) as dc:
        try:
            print(len(await dc.groups.list()), "groups")
        except DeepCallError as error:
            print(error)  # says which of both was not reached, and no password


if __name__ == "__main__":
    asyncio.run(main())
