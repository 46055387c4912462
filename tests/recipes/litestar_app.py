"""Litestar: one client for the application's life; handlers return the structs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar, get
from litestar.datastructures import State
from litestar.params import FromPath

from deepcall_async import DeepCall, GroupAgentRelation


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    async with DeepCall() as dc:  # DEEPCALL_USER_ID, DEEPCALL_TOKEN, DEEPCALL_BASE_URL
        app.state.dc = dc
        yield


@get("/groups/{group_id:int}")
async def relation(state: State, group_id: FromPath[int]) -> GroupAgentRelation:
    return await state.dc.groups.agent_relation(group_id)


@get("/groups/{group_id:int}/members")
async def members(state: State, group_id: FromPath[int]) -> dict:
    return (await state.dc.groups.agent_relation(group_id)).to_dict()


app = Litestar([relation, members], lifespan=[lifespan])
