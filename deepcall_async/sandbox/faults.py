"""What the sandbox does wrong on request: its settings, planned faults, and faults by chance.

Decisions only. Whatever a request is to be answered with instead is carried out by the server.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from deepcall_async.sandbox.checks import boolean, integer, mapping, number
from deepcall_async.sandbox.clock import Clock

__all__ = ["Fault", "Faults", "Settings", "planned_fault"]

_LOWEST_CODE = 1000  # DeepCall's codes begin where HTTP's end
_HIGHEST_CODE = 99_999  # far above any that is documented
_NO_FAULTS: Mapping[int, float] = MappingProxyType({})


def _positive(name: str, value: object) -> float:
    found = number(name, value)
    if not found:
        raise ValueError(f"{name} must be more than 0; None is for no limit")
    return found


def _probability(name: str, value: object) -> float:
    return number(name, value, highest=1)


def _code(name: str, value: object) -> int:
    return integer(name, value, _LOWEST_CODE, _HIGHEST_CODE)


def _http_status(name: str, value: object) -> int:
    # Below 200 are interim responses, which are followed by another one.
    return integer(name, value, 200, 599)


def _error_rate(name: str, value: object) -> Mapping[int, float]:
    if value is None:
        return _NO_FAULTS
    rates: dict[int, float] = {}
    for code, rate in mapping(name, value).items():
        known = isinstance(code, int) and code >= _LOWEST_CODE
        check = _code if known else _http_status
        rates[check(f"the key of {name}", code)] = _probability(f"{name}[{code!r}]", rate)
    if math.fsum(rates.values()) > 1 + 1e-9:
        raise ValueError(f"the probabilities in {name} are more than 1 together")
    # Read-only: a change in place would not be checked.
    return MappingProxyType(rates)


def _lifetime(name: str, value: object) -> int | timedelta:
    if not isinstance(value, timedelta):
        return integer(name, value, 0)
    if value < timedelta(0):
        raise ValueError(f"{name} must not be negative")
    return value


def _or_none(check: Callable[[str, object], Any]) -> Callable[[str, object], Any]:
    return lambda name, value: None if value is None else check(name, value)


class Settings:
    """What may be changed while the sandbox runs; a wrong value is a ValueError when assigned."""

    latency: float
    error_rate: Mapping[int, float]
    drop_rate: float
    rate_limit: float | None
    retry_after: bool
    ssid_lifetime: int | timedelta | None
    agent_to_agent_call: bool

    def __setattr__(self, name: str, value: object) -> None:
        check = _CHECKS.get(name)
        super().__setattr__(name, value if check is None else check(name, value))

    def settings(self) -> dict[str, Any]:
        """Return the settings' values by name."""
        return {name: getattr(self, name) for name in _CHECKS}

    def change(self, values: Mapping[str, object]) -> None:
        """Set several settings, or none of them if one is unknown or wrong."""
        unknown = sorted(values.keys() - _CHECKS.keys())
        if unknown:
            raise ValueError(f"no setting {unknown[0]!r}; there are {', '.join(_CHECKS)}")
        checked = {name: _CHECKS[name](name, value) for name, value in values.items()}
        for name, value in checked.items():
            super().__setattr__(name, value)


_CHECKS: dict[str, Callable[[str, object], Any]] = {
    "latency": number,
    "error_rate": _error_rate,
    "drop_rate": _probability,
    "rate_limit": _or_none(_positive),
    "retry_after": boolean,
    "ssid_lifetime": _or_none(_lifetime),
    "agent_to_agent_call": boolean,
}


class Fault(NamedTuple):
    """What one request meets.

    With a code or an HTTP status it is answered instead of being carried out; with both, the
    DeepCall error comes under that status. With ``drop`` the answer is never sent.
    """

    code: int | None = None
    http_status: int | None = None
    drop: bool = False
    delay: float = 0.0
    retry_after: int | None = None


_NO_FAULT = Fault()


def planned_fault(code: int | None, http_status: int | None, drop: object, delay: object) -> Fault:
    """Check what a test plans and return it.

    Raises:
        ValueError: a value is wrong, or nothing would happen.
    """
    fault = Fault(
        code=None if code is None else _code("code", code),
        http_status=None if http_status is None else _http_status("http_status", http_status),
        drop=boolean("drop", drop),
        delay=number("delay", delay),
    )
    answered = fault.code is not None or fault.http_status is not None
    if not (answered or fault.drop or fault.delay):
        raise ValueError("say what is to happen: code, http_status, drop or delay")
    if answered and fault.drop:
        raise ValueError("a dropped request has no answer: give drop, or code and http_status")
    return fault


class Faults:
    """Decides which fault a request meets: planned ones first, then the rate limit, then chance.

    Args:
        seed: the faults by chance follow from it and from the order of the requests.
        clock: measures the rate.
    """

    def __init__(self, seed: int, clock: Clock) -> None:
        self._seed = seed
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Forget what was planned, and begin anew with chance and with the rate limit."""
        self._chance = random.Random(f"faults {self._seed}")  # noqa: S311 - repeats by the seed
        self._planned: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._allowance = math.inf
        self._allowance_at = 0.0

    def plan(self, endpoint: str, faults: Iterable[Fault]) -> None:
        """Let the endpoint's next requests meet these, behind those already planned."""
        self._planned[endpoint].extend(faults)

    def next(self, endpoint: str, settings: Settings) -> Fault:
        """Decide what this request meets.

        Args:
            endpoint: the endpoint's name in the URL.
            settings: the settings as they are now.
        """
        planned = self._planned.get(endpoint)
        if planned:
            return planned.popleft()
        wait = self._seconds_to_wait(settings.rate_limit)
        if wait:
            fault = Fault(http_status=429, retry_after=wait if settings.retry_after else None)
        elif settings.error_rate:
            fault = self._by_chance(settings.error_rate)
        else:
            fault = _NO_FAULT
        if settings.drop_rate and self._chance.random() < settings.drop_rate:
            return fault._replace(drop=True)
        return fault

    def _by_chance(self, error_rate: Mapping[int, float]) -> Fault:
        chance = self._chance.random()
        for code, probability in error_rate.items():
            chance -= probability
            if chance < 0:
                return Fault(code=code) if code >= _LOWEST_CODE else Fault(http_status=code)
        return _NO_FAULT

    def _seconds_to_wait(self, rate: float | None) -> int:
        if rate is None:
            return 0
        now = self._clock.monotonic()
        earned = (now - self._allowance_at) * rate
        self._allowance = min(max(rate, 1.0), self._allowance + earned)
        self._allowance_at = now
        if self._allowance >= 1.0:
            self._allowance -= 1.0
            return 0
        return math.ceil((1.0 - self._allowance) / rate)
