"""How names, ids and numbers read in a message.

Law: pure functions from values to short text. Whatever a server chose to call a group leaves here
without control characters and no longer than a line can bear.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from deepcall_async.models import Agent, Group

__all__ = ["UNSEEN", "agent_label", "capped", "clean", "count", "group_label", "listing"]

UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls, C0 and C1: a terminal obeys them
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff"  # they reorder or hide the text
    "\u2028\u2029\ud800-\udfff]"  # line breaks in disguise; halves of characters
)
"""Characters that a reader cannot see but that change what is shown.

The joiners U+200C and U+200D are not among them: Indic names are written with them.
"""

_LONGEST_NAME = 60
_MOST_IDS = 100


def clean(text: str, longest: int = _LONGEST_NAME) -> str:
    """Show unseen characters as escapes, and cut at ``longest`` characters."""
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    return text if UNSEEN.search(text) is None else UNSEEN.sub(_escape, text)


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


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
