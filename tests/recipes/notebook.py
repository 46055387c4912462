"""Jupyter and IPython: `await` stands at the top of a cell. Each `# %%` begins a cell."""

# %%
from deepcall_async import DeepCall, collect

dc = DeepCall()  # DEEPCALL_USER_ID, DEEPCALL_TOKEN, DEEPCALL_BASE_URL
groups = await dc.groups.list()

# %%
batch = await collect(dc.groups.agent_relation, [group.unique_id for group in groups])
silent = [it.group.name for it in batch.ok.values() if not it.receivers]
print(f"{len(silent)} of {len(groups)} groups ring nobody")

# %%
await dc.aclose()
