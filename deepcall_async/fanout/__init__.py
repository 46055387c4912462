"""Many lookups at once, without losing any: `fan_out` streams outcomes, `collect` gathers them.

Their arguments are checked here; the parts of a running fan-out are the modules of this package.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Awaitable, Callable, Hashable, Iterable
from functools import partial
from typing import Any, Literal, TypeVar

from deepcall_async.errors import AuthenticationFailed, DeepCallError
from deepcall_async.fanout.keys import check_keys, distinct
from deepcall_async.fanout.outcomes import Batch, Failed, Ok, Outcome, Progress
from deepcall_async.fanout.run import FailurePolicy, FanOut
from deepcall_async.pacing import Adaptive
from deepcall_async.validation import is_int, positive_int

__all__ = ["Batch", "Failed", "FanOut", "Ok", "Outcome", "Progress", "collect", "fan_out"]

K = TypeVar("K")
H = TypeVar("H", bound=Hashable)
V = TypeVar("V")


def fan_out(
    call: Callable[[K], Awaitable[V]],
    keys: Iterable[K] | AsyncIterable[K],
    *,
    concurrency: int | Adaptive = 32,
    ordered: bool = False,
    on_error: Literal["yield", "raise"] = "yield",
    max_failures: int | None = None,
    patience: float = 60.0,
    progress: Callable[[Progress], object] | None = None,
    fatal: tuple[type[DeepCallError], ...] = (AuthenticationFailed,),
) -> FanOut[K, V]:
    """Call a coroutine function for many keys at once and stream the outcomes.

    Use it as ``async with fan_out(...) as outcomes: async for outcome in outcomes: ...``. Leaving
    early cancels the lookups in flight and takes at most a second: one that ignores two
    cancellations is left running, and a `RuntimeWarning` names its key. Exceptions other than
    `DeepCallError` are raised as they are.

    Each lookup runs in a copy of the caller's context; the keys are pulled in one context of their
    own. A key generator is closed on leaving.

    Args:
        call: the lookup, such as ``client.groups.agent_relation``.
        keys: what to look up; pulled as there is room, duplicates included.
        concurrency: lookups in flight at once, or `Adaptive` to find out how many are worth it.
        ordered: give outcomes in the order of the keys instead of as they finish.
        on_error: "yield" a `Failed`, or "raise" the first error.
        max_failures: the most failures that are accepted; one more ends the run.
        patience: seconds without any success for which lookups are held back, and not failed,
            while the service cannot be reached or throttles; no new key is pulled meanwhile. One
            lookup at a time asks whether the service is back. Once the patience is spent they
            fail, and later ones are tried once. A host that was mistyped takes
            this long to fail. 0 holds nothing back.
        progress: called with a `Progress` after each lookup, and each second while lookups are
            held back. A plain function: what it returns is not awaited.
        fatal: errors that all other keys would meet too; raised whatever `on_error` says.

    Returns:
        A context manager that gives an async iterator of `Ok` and `Failed`, one for each key.

    Raises:
        TooManyFailures: more than `max_failures` keys failed; the finished ones were given first.
        TypeError: an argument is of the wrong type, such as an async `progress`.
        ValueError: a number is out of range.

    Example:
        >>> async with fan_out(dc.groups.agent_relation, [28, 404404], ordered=True) as outcomes:
        ...     async for outcome in outcomes:
        ...         match outcome:
        ...             case Ok(key, relation):
        ...                 print(key, len(relation.receivers), "receive calls")
        ...             case Failed(key, error):
        ...                 print(key, type(error).__name__)
        28 3 receive calls
        404404 GroupUnavailable
    """
    _check_concurrency(concurrency)
    if on_error not in ("yield", "raise"):
        raise ValueError('on_error must be "yield" or "raise"')
    if max_failures is not None and max_failures < 0:
        raise ValueError("max_failures must not be negative; 0 ends the run at the first failure")
    _check_patience(patience)
    _check_progress(progress)
    check_keys(keys)
    return FanOut(
        call,
        keys,
        concurrency=concurrency,
        ordered=ordered,
        failures=FailurePolicy(on_error == "raise", fatal, max_failures),
        patience=patience,
        progress=progress,
    )


async def collect(
    call: Callable[[H], Awaitable[V]],
    keys: Iterable[H] | AsyncIterable[H],
    *,
    concurrency: int | Adaptive = 32,
    max_failures: int | None = None,
    patience: float = 60.0,
    progress: Callable[[Progress], object] | None = None,
    fatal: tuple[type[DeepCallError], ...] = (AuthenticationFailed,),
) -> Batch[H, V]:
    """Look up each distinct key once and gather the outcomes.

    Args:
        call: the lookup.
        keys: what to look up; duplicates are looked up once.
        concurrency: lookups in flight at once, or `Adaptive`.
        max_failures: the most failures that are accepted; one more raises `TooManyFailures`.
        patience: seconds for which lookups are held back while the service is away or throttles.
        progress: called with a `Progress` after each lookup, and while lookups are held back.
        fatal: errors that all other keys would meet too; raised at once.

    Returns:
        The values and the errors, by key.

    Example:
        >>> batch = await collect(dc.groups.agent_relation, [28, 404404])
        >>> batch.ok[28].group.name
        'Mahipal singh'
        >>> batch.failed
        {404404: GroupUnavailable('groups.agent_relation: Group not found or not authorized ...')}
    """
    check_keys(keys)
    batch: Batch[H, V] = Batch({}, {})
    async with fan_out(
        call,
        distinct(keys),
        concurrency=concurrency,
        max_failures=max_failures,
        patience=patience,
        progress=progress,
        fatal=fatal,
    ) as outcomes:
        async for outcome in outcomes:
            if isinstance(outcome, Ok):
                batch.ok[outcome.key] = outcome.value
            else:
                batch.failed[outcome.key] = outcome.error
    return batch


def _check_concurrency(concurrency: object) -> None:
    if isinstance(concurrency, Adaptive):
        return
    if not is_int(concurrency):
        raise TypeError("concurrency must be an int or Adaptive(...)")
    positive_int("concurrency", concurrency)


def _check_patience(patience: object) -> None:
    if not is_int(patience) and not isinstance(patience, float):
        raise TypeError("patience must be a number of seconds")
    if not patience >= 0:
        raise ValueError("patience must be a number of seconds >= 0; 0 holds no key back")


def _check_progress(progress: object) -> None:
    if progress is None:
        return
    if not callable(progress):
        raise TypeError("progress must be a function that takes a Progress")
    called: Any = progress
    while isinstance(called, partial):
        called = called.func
    if inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(type(called).__call__):
        raise TypeError("progress must be a plain function: what it returns is not awaited")
