"""The commands that look at the service itself: ``deepcall check`` and ``deepcall probe``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deepcall_async.cli.exits import (
    INCOMPLETE,
    UNAUTHENTICATED,
    USAGE,
    UsageError,
    reason,
)
from deepcall_async.cli.parameters import ConnectOptions
from deepcall_async.cli.terminal import emit
from deepcall_async.redaction import printable

if TYPE_CHECKING:
    from deepcall_async.cli.connect import Target
    from deepcall_async.client import DeepCall

__all__ = ["check", "probe", "shape"]

# Of OpenSSL's x509_vfy.h: who signed a certificate is not known here.
_UNKNOWN_ISSUER = (2, 18, 19, 20, 21)


def check(
    *,
    connect: ConnectOptions = ConnectOptions(),  # noqa: B008  (frozen)
) -> int:
    """Check the way to the service, step by step."""
    from deepcall_async.cli.connect import target_of
    from deepcall_async.cli.loop import run_async

    try:
        target = target_of(connect)
    except UsageError as error:
        _line("FAIL", "settings", str(error))
        return USAGE
    sources = target.sources
    kind = "session id" if type(target.credentials).__name__ == "SessionId" else "user id and token"
    _line("ok", "address", f"{target.base_url}, from {sources['address']}")
    _line("ok", "credentials", f"{kind}, from {sources['credentials']}")
    proxy = "none" if target.proxy is None else f"{_host(target.proxy)}, from {sources['proxy']}"
    _line("ok", "proxy", proxy)
    for name, what in (("ca", "authorities"), ("cert", "client certificate")):
        if name in sources:
            _line("ok", what, f"from {sources[name]}")
    return run_async(_check(target))


def probe(
    *,
    connect: ConnectOptions = ConnectOptions(),  # noqa: B008  (frozen)
) -> int:
    """Print the shape of the replies: it may be shown to anybody."""
    from deepcall_async.cli.connect import target_of
    from deepcall_async.cli.loop import run_async

    return run_async(_probe(target_of(connect)))


async def _check(target: Target) -> int:
    from deepcall_async.cli.connect import open_client
    from deepcall_async.errors import AuthenticationFailed, DeepCallError, PermissionDenied
    from deepcall_async.retry import RetryPolicy

    if target.proxy is None and not await _reachable(target):
        return INCOMPLETE
    async with open_client(target, retry=RetryPolicy(attempts=1)) as client:
        try:
            groups = await client.groups.list(quick=True)
            _line("ok", "groups", f"{len(groups):,} listed")
            if groups:
                await client.groups.agent_relation(groups[0].unique_id)
                _line("ok", "permission", "a group's agents may be read")
        except AuthenticationFailed as error:
            _line("FAIL", "credentials", f"{error}; check them, or get new ones")
            return UNAUTHENTICATED
        except PermissionDenied as error:
            _line("FAIL", "permission", f"{error}; ask for AGENT_TO_AGENT_CALL")
            return INCOMPLETE
        except DeepCallError as error:
            what, advice = _trouble(error, target)
            _line("FAIL", what, f"{error}{advice}")
            return INCOMPLETE
    return 0


async def _reachable(target: Target) -> bool:
    """Look the host up and connect to it, as far as that goes."""
    import asyncio
    import ssl
    from socket import gaierror

    parts = urlsplit(target.base_url)
    host, secure = parts.hostname or "", parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
    except gaierror as error:
        said = f"{host}: {error.strerror or error}; check the address, or the proxy it needs"
        _line("FAIL", "host", said)
        return False
    _line("ok", "host", f"{host} is {found[0][4][0]}")
    context = (target.ssl or ssl.create_default_context()) if secure else None
    try:
        async with asyncio.timeout(target.timeout):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLCertVerificationError as error:
        # What else is wrong with a certificate is not mended by trusting anybody.
        private = error.verify_code in _UNKNOWN_ISSUER
        advice = "; give --ca FILE if its authority is a private one" if private else ""
        _line("FAIL", "TLS", f"{error.verify_message}{advice}")
        return False
    except ssl.SSLError as error:
        _line("FAIL", "TLS", f"{error.reason or error}; is {host}:{port} an https:// address?")
        return False
    except TimeoutError:
        _line("FAIL", "connection", f"{host}:{port} did not answer in {target.timeout:g} s")
        return False
    except OSError as error:
        said = f"{host}:{port}: {reason(error)}"
        _line("FAIL", "connection", f"{said}; check the address, the port and the firewall")
        return False
    if secure:
        tls = writer.get_extra_info("ssl_object")
        _line("ok", "TLS", f"{tls.version()}, certificate valid")
    else:
        _line("ok", "connection", f"{host}:{port}, without TLS")
    writer.close()
    return True


async def _probe(target: Target) -> int:
    from deepcall_async.cli.connect import open_client
    from deepcall_async.errors import ApiError, DeepCallError
    from deepcall_async.wire import Call, agent_relation, list_groups

    failed = 0
    async with open_client(target) as client:
        groups = await client.groups.list(quick=True)
        calls: list[tuple[str, Call[Any]]] = [
            ("list", list_groups(name=None, group_id=None, quick=None, forward=None)),
            ("list, quick", list_groups(name=None, group_id=None, quick=True, forward=None)),
        ]
        if groups:
            calls.append(
                (
                    "getGroupAgentRelation",
                    agent_relation(groups[0].unique_id, quick=True, name=None),
                )
            )
        for title, call in calls:
            try:
                reply = await _raw(client, call)
            except DeepCallError as error:
                failed = INCOMPLETE
                code = f" (code {error.code})" if isinstance(error, ApiError) else ""
                emit(f"{title}\n  {type(error).__name__}{code}\n")
            else:
                emit("\n".join([title, *(f"  {line}" for line in shape(reply))]) + "\n")
    return failed


async def _raw(client: DeepCall, call: Any) -> object:
    """Make a call and give its reply as it came."""
    import msgspec
    from msgspec.structs import replace

    def read(_: object, body: bytes | bytearray) -> tuple[str, object]:
        reply = msgspec.json.decode(body)
        status = reply.get("status") if isinstance(reply, dict) else None
        return (status if isinstance(status, str) else ""), reply

    endpoint = replace(call.endpoint, read=read, subject=None)
    raw = replace(call, endpoint=endpoint, refine=None, when_no_data=None)
    # The raw reply is nobody's business but this command's, so the client does not offer it.
    return await client._session.call(raw)  # noqa: SLF001


_KNOWN = frozenset(
    {
        *("status", "code", "errCode", "message", "response", "groupId"),
        *("groupData", "agentData", "relationData", "group_id", "agent_id", "receive_call"),
        *("name", "unique_id", "user_id", "create_by", "create_date", "agents"),
    }
)
"""Keys that the vendor's pages show."""


def shape(value: object, path: str = "$") -> list[str]:
    """Describe a JSON value by its keys and types, without any of its contents.

    A key that the vendor's pages do not show may be data, such as an agent's name: it is counted
    and not printed.

    Args:
        value: what was decoded.
        path: where it stands.

    Returns:
        Lines of ``path: type``, in the order of the paths' first appearance.
    """
    found: dict[str, set[str]] = {}
    _gather(value, path, found)
    return [f"{path}: {' | '.join(sorted(types))}" for path, types in found.items()]


def _gather(value: object, path: str, found: dict[str, set[str]]) -> None:
    found.setdefault(path, set()).add(_type(value))
    if isinstance(value, list):
        for item in value:
            _gather(item, f"{path}[]", found)
    elif isinstance(value, dict):
        for key, item in value.items():
            _gather(item, f"{path}.{key if key in _KNOWN else '<other key>'}", found)


def _type(value: object) -> str:
    if isinstance(value, str):
        if re.fullmatch(r"[0-9]+", value):
            return "string of digits"
        return "string" if value else "empty string"
    if isinstance(value, (list, dict)) and not value:
        return "empty array" if isinstance(value, list) else "empty object"
    names = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _trouble(error: Exception, target: Target) -> tuple[str, str]:
    """Say what an error is about, and what to do."""
    from deepcall_async.errors import ConnectFailed

    if isinstance(error, ConnectFailed):
        if error.untrusted:
            return "TLS", ""  # it says itself what to do
        if target.proxy is not None:
            return "proxy", f"; check the proxy from {target.sources['proxy']}"
        if error.fatal:
            return "connection", ""
    if getattr(error, "http_status", None) is not None:
        return "service", f"; is {target.base_url} the service's address?"
    return "service", "; try again later, or with a longer --timeout"


def _host(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def _line(verdict: str, what: str, said: str) -> None:
    emit(f"{verdict:<4}  {what:<18}  {printable(said)}\n")
