"""taskiq: one client for the worker's life, made and closed by its start-up hooks."""

from typing import Annotated

from taskiq import Context, InMemoryBroker, TaskiqDepends, TaskiqEvents, TaskiqState

from deepcall_async import DeepCall

broker = InMemoryBroker()


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_client(state: TaskiqState) -> None:
    state.dc = DeepCall()  # DEEPCALL_USER_ID, DEEPCALL_TOKEN, DEEPCALL_BASE_URL


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_client(state: TaskiqState) -> None:
    await state.dc.aclose()


@broker.task
async def receivers(group_id: int, context: Annotated[Context, TaskiqDepends()]) -> list[int]:
    relation = await context.state.dc.groups.agent_relation(group_id)
    return [each.agent_id for each in relation.receivers]
