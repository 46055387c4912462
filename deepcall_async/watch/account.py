"""A watch over an account of the service: what one look asks, and the arguments that users give.

When it looks and whom it tells is in ``looks``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path

from deepcall_async.audit.config import Thresholds
from deepcall_async.audit.run import run_audit
from deepcall_async.audit.snapshot import Snapshot
from deepcall_async.audit.watch import step
from deepcall_async.client import DeepCall
from deepcall_async.pacing import Adaptive
from deepcall_async.validation import positive_int, positive_number
from deepcall_async.watch.looks import DEFAULT_FOLLOWER, Watch

__all__ = ["watch"]


def watch(
    dc: DeepCall,
    *,
    state: str | PathLike[str],
    every: float = 300.0,
    confirm: int = 2,
    clear: int = 2,
    cooldown: float = 3600.0,
    thresholds: Thresholds = Thresholds(),  # noqa: B008  (frozen)
    concurrency: int | Adaptive | None = None,
    patience: float = 60.0,
    followers: Sequence[str] = (DEFAULT_FOLLOWER,),
) -> Watch:
    """Look at an account again and again, and tell what changed.

    Use it as ``async with watch(dc, state="watch.db") as changes``, and iterate: ``async for change
    in changes``. Each change is told at least once: it counts as told when the next one is asked
    for, or the block is left without an exception.

    Args:
        dc: the client to send requests through.
        state: the file that keeps what is known and what is still to be told. A restart goes on
            from it.
        every: seconds from the beginning of one look to that of the next, at least 1.
        confirm: looks in a row that must agree before a group is told to be dark, thin, off, new
            or gone.
        clear: looks in a row that must agree before a group is told to have recovered.
        cooldown: seconds after a message about a group in which it gets no other. Only that it
            went dark is told at once when it had been told to be thin or new.
        thresholds: ``min_receivers`` says what is thin cover.
        concurrency: lookups in flight at once; by default `Adaptive`.
        patience: seconds without any success for which a look waits for the service.
        followers: who is told, each at its own pace, by `Watch.follow`.

    Raises:
        ValueError: an argument is out of range.
        AuthenticationFailed: while iterating: the credentials are not accepted, before anything was
            ever seen. Later that is told as `Blind`, as all trouble is.
    """
    if positive_number("every", every) < 1:
        raise ValueError("every must be at least 1 second")
    for name, value in (("cooldown", cooldown), ("patience", patience)):
        if value:
            positive_number(name, value)

    async def look() -> Snapshot:
        report = await run_audit(
            dc, only=("G002",), concurrency=concurrency, patience=patience, thresholds=thresholds
        )
        return report.snapshot

    return Watch(
        look,
        state=Path(state),
        account=dc.base_url,
        every=every,
        followers=followers,
        decide=partial(
            step,
            confirm=positive_int("confirm", confirm),
            clear=positive_int("clear", clear),
            cooldown=cooldown,
            min_receivers=thresholds.min_receivers,
        ),
    )
