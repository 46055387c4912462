"""The sandbox's own routes under ``/_sandbox/``: its methods for tests in other languages.

Only the way from JSON to a method and back. What the methods do stands in the server.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from deepcall_async.sandbox.checks import json_object

if TYPE_CHECKING:
    from deepcall_async.sandbox.server import Sandbox

__all__ = ["control", "is_control"]

_PREFIX = "/_sandbox/"

_METHODS = (
    "add_agent",
    "add_group",
    "fail_next",
    "reset",
    "advance",
    "new_ssid",
    "expire_ssid",
)
_ROUTES = ("GET ", "GET calls", "POST settings", *(f"POST {method}" for method in _METHODS))


def is_control(path: str) -> bool:
    """Whether a URL's path is one of these routes, with or without a slash at its end."""
    return f"{path}/".startswith(_PREFIX)


def control(sandbox: Sandbox, method: str, path: str, raw: bytes) -> tuple[int, dict[str, Any]]:
    """Carry out one request.

    Args:
        sandbox: the sandbox to ask or to change.
        method: the HTTP method.
        path: the whole path of the URL.
        raw: the body: a JSON object with the arguments by name, or nothing.

    Returns:
        The HTTP status, and the reply: ``result``, or ``error`` with the reason.
    """
    route = f"{method} {path.removeprefix(_PREFIX.rstrip('/')).strip('/')}"
    if route not in _ROUTES:
        known = ", ".join(each.replace(" ", f" {_PREFIX}") for each in _ROUTES)
        return 404, {"error": f"no such route; there are {known}"}
    try:
        return 200, {"result": _result(sandbox, route, _arguments(raw))}
    except ValueError as error:
        return 400, {"error": str(error)}


def _result(sandbox: Sandbox, route: str, arguments: dict[str, Any]) -> object:
    match route:
        case "GET ":
            return {
                "user_id": sandbox.user_id,
                "token": sandbox.token,
                "ssid": sandbox.ssid,
                "planted": sandbox.planted,
                "requests": dict(sandbox.requests),
                "settings": _settings(sandbox),
            }
        case "GET calls":
            return [call._asdict() for call in sandbox.calls]
        case "POST settings":
            sandbox.change(arguments)
            return _settings(sandbox)
    called = getattr(sandbox, route.removeprefix("POST "))
    try:
        bound = inspect.signature(called).bind(**arguments)
    except TypeError as error:
        raise ValueError(f"{called.__name__}: {error}") from None
    return called(*bound.args, **bound.kwargs)


def _arguments(raw: bytes) -> dict[str, Any]:
    arguments = json_object(raw) if raw.strip() else {}
    if arguments is None:
        raise ValueError("the body must be a JSON object with the arguments by name")
    for name in ("error_rate", "members"):
        if isinstance(arguments.get(name), dict):
            arguments[name] = _with_integer_keys(name, arguments[name])
    lifetime = arguments.get("ssid_lifetime")
    if isinstance(lifetime, dict):
        try:
            arguments["ssid_lifetime"] = timedelta(**lifetime)
        except (TypeError, OverflowError):
            raise ValueError('ssid_lifetime is a count, {"seconds": 60}, or null') from None
    return arguments


def _with_integer_keys(name: str, value: Mapping[str, object]) -> dict[int, object]:
    # The keys of a JSON object are always strings.
    try:
        return {int(key): each for key, each in value.items()}
    except ValueError:
        raise ValueError(f"the keys of {name} must be whole numbers") from None


def _settings(sandbox: Sandbox) -> dict[str, object]:
    settings = sandbox.settings()
    settings["error_rate"] = dict(settings["error_rate"])
    if isinstance(settings["ssid_lifetime"], timedelta):
        settings["ssid_lifetime"] = {"seconds": settings["ssid_lifetime"].total_seconds()}
    return settings
