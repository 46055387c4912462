"""How names, ids and numbers are written in a message.

Pure functions from values to short text. Names that a server chose come out without control
characters, and short enough for a line.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from deepcall_async.models import Agent, Group
from deepcall_async.redaction import printable

__all__ = ["agent_label", "capped", "clean", "count", "group_label", "listing"]

_LONGEST_NAME = 60
_MOST_IDS = 100


def clean(text: str, longest: int = _LONGEST_NAME) -> str:
    """Make text printable, and cut it at ``longest`` characters."""
    return printable(text if len(text) <= longest else text[: longest - 1] + "…")


def group_label(group_id: int, group: Group | None) -> str:
    """Name a group by its name and id, or by the id alone when it has no name."""
    name = clean(group.name).strip() if group is not None else ""
    return f"{name} ({group_id})" if name else f"group {group_id}"


def agent_label(agent_id: int, agent: Agent | None) -> str:
    """Name an agent by name and id, or by the id alone when the name is not known."""
    name = clean(agent.name).strip() if agent is not None else ""
    return f"{name} (agent {agent_id})" if name else f"agent {agent_id}"


def count(number: int, one: str, many: str | None = None) -> str:
    """Write a number with its noun: ``1 group``, ``1,204 groups``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listing(labels: Iterable[str], total: int, limit: int = 3) -> str:
    """Join labels as a sentence does, naming ``limit`` of the ``total`` and counting the rest."""
    shown = list(islice(labels, limit))
    if total > len(shown):
        return f"{', '.join(shown)} and {total - len(shown):,} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def capped(ids: Iterable[int]) -> list[int]:
    """Sort ids for a finding's evidence, and leave out what no reader would go through."""
    return sorted(ids)[:_MOST_IDS]
