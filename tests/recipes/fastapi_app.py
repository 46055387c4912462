"""FastAPI: one client for the application's life; a lookup ends when its browser leaves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request

from deepcall_async import DeepCall, GroupAgentRelation, GroupUnavailable


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, DeepCall]]:
    async with DeepCall() as dc:  # DEEPCALL_USER_ID, DEEPCALL_TOKEN, DEEPCALL_BASE_URL
        yield {"dc": dc}


def client(request: Request) -> DeepCall:
    return request.state.dc


app = FastAPI(lifespan=lifespan)


@app.get("/groups/{group_id}")
async def relation(
    group_id: int, request: Request, dc: Annotated[DeepCall, Depends(client)]
) -> GroupAgentRelation:
    task = asyncio.create_task(dc.groups.agent_relation(group_id))
    try:
        while not (await asyncio.wait([task], timeout=0.2))[0]:
            if await request.is_disconnected():
                raise HTTPException(499)
        return await task
    except GroupUnavailable as error:
        raise HTTPException(404, str(error)) from error
    finally:
        task.cancel()
