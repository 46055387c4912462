"""What a fan-out gives: an outcome for each key, how far it has come, and all outcomes by key.

Data only.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeAlias, TypeVar

from msgspec import Struct

from deepcall_async.errors import DeepCallError

__all__ = ["Batch", "Failed", "Ok", "Outcome", "Progress"]

K = TypeVar("K")
H = TypeVar("H", bound=Hashable)
V = TypeVar("V")


class Ok(Struct, Generic[K, V], frozen=True):
    """A key's value."""

    key: K
    value: V


class Failed(Struct, Generic[K], frozen=True):
    """A key's error."""

    key: K
    error: DeepCallError


Outcome: TypeAlias = Ok[K, V] | Failed[K]


class Progress(Struct, frozen=True):
    """How far a fan-out has come.

    Attributes:
        done: lookups that have ended.
        failed: those of them that failed.
        total: the number of keys; None when it is not known.
        seconds: how long the fan-out has been running.
        rate: lookups a second.
        eta: seconds left; None when that cannot be told.
        waiting_for: why lookups are held back, such as "no answer from brand.example:443"; None
            when they are not.
    """

    done: int
    failed: int
    total: int | None
    seconds: float
    rate: float
    eta: float | None
    waiting_for: str | None = None


class Batch(Struct, Generic[H, V], frozen=True):
    """What `collect` found, by key."""

    ok: dict[H, V]
    failed: dict[H, DeepCallError]

    def __repr__(self) -> str:
        # In few words: before Python 3.13, `asyncio.run` makes the repr of what it returns.
        return f"Batch({len(self.ok)} ok, {len(self.failed)} failed)"

    def raise_if_failed(self) -> None:
        """Raise the first failure, with a note on how many there were, if there was any.

        Example:
            >>> batch = await collect(dc.groups.agent_relation, [28, 404404])
            >>> try:
            ...     batch.raise_if_failed()
            ... except GroupUnavailable as error:
            ...     print(error.__notes__)
            ['1 of 2 keys failed; this is key 404404']
        """
        for key, error in self.failed.items():
            total = len(self.ok) + len(self.failed)
            note = f"{len(self.failed)} of {total} keys failed; this is key {key!r}"
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            raise error
