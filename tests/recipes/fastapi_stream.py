"""FastAPI: a fan-out as a stream of JSON lines; it ends when the browser leaves."""

from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from msgspec.json import encode

from deepcall_async import DeepCall, Ok, fan_out

router = APIRouter()


async def lines(dc: DeepCall) -> AsyncIterator[bytes]:
    ids = [group.unique_id for group in await dc.groups.list()]
    async with fan_out(dc.groups.agent_relation, ids, concurrency=16) as outcomes:
        async for outcome in outcomes:
            if isinstance(outcome, Ok):
                found = [each.agent_id for each in outcome.value.receivers]
                yield encode({"group": outcome.key, "receivers": found}) + b"\n"
            else:
                yield encode({"group": outcome.key, "error": str(outcome.error)}) + b"\n"


@router.get("/receivers")
async def receivers(request: Request) -> StreamingResponse:
    # `dc` is put there by the lifespan of fastapi_app.py.
    return StreamingResponse(lines(request.state.dc), media_type="application/jsonl")
