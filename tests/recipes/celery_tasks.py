"""Celery: a task is a plain function, so each runs an event loop and a client of its own.

With many groups in one task, a fan-out shares the client's connections among them.
"""

import asyncio

from celery import Celery

from deepcall_async import DeepCall, RateLimited, TransportError, collect

app = Celery("tasks", broker="memory://", backend="cache+memory://")


@app.task(autoretry_for=(TransportError, RateLimited), retry_backoff=True, max_retries=5)
def receivers(group_ids: list[int]) -> dict[int, list[int]]:
    """The agents whom each group rings. A refusal raises here and at ``result.get()``."""
    return asyncio.run(_receivers(group_ids))


async def _receivers(group_ids: list[int]) -> dict[int, list[int]]:
    async with DeepCall() as dc:  # DEEPCALL_USER_ID, DEEPCALL_TOKEN, DEEPCALL_BASE_URL
        batch = await collect(dc.groups.agent_relation, group_ids)
    batch.raise_if_failed()
    return {key: [each.agent_id for each in it.receivers] for key, it in batch.ok.items()}
