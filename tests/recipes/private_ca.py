"""A service behind a company's own certificate authority, perhaps with client certificates."""

import asyncio
import os
import ssl

from deepcall_async import DeepCall


def context() -> ssl.SSLContext:
    # The system's authorities stay trusted; without `cafile` only those are.
    made = ssl.create_default_context()
    made.load_verify_locations(cafile=os.environ["COMPANY_CA"])
    if "CLIENT_CERTIFICATE" in os.environ:
        made.load_cert_chain(os.environ["CLIENT_CERTIFICATE"], os.environ["CLIENT_KEY"])
    return made


async def main() -> None:
    async with DeepCall(ssl=context()) as dc:  # DEEPCALL_USER_ID, ..._TOKEN, ..._BASE_URL
        print(len(await dc.groups.list()), "groups")


if __name__ == "__main__":
    asyncio.run(main())
