"""What aiohttp, asyncio and the system raise, as errors of this package.

Other libraries' exceptions are mapped here and nowhere else, by name: one that is not named is a
bug, and stays one. Nothing of the answer and no secret gets into an error.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from collections.abc import Iterable

import aiohttp
from yarl import URL

from deepcall_async.errors import (
    ClientClosed,
    ConnectFailed,
    ConnectionLost,
    DeepCallError,
    RequestTimeout,
    ResponseTooLarge,
    UnexpectedReply,
)

__all__ = [
    "MAPPED_EXCEPTIONS",
    "address_of",
    "closed_in_flight",
    "expire",
    "map_connect_exception",
    "map_exception",
    "response_too_large",
]


def _undocumented(name: str) -> type[Exception]:
    """An error of aiohttp's parser, or for a version that lacks it one that never comes there."""
    found = getattr(getattr(aiohttp, "http_exceptions", None), name, None)
    if isinstance(found, type) and issubclass(found, Exception):
        return found
    return aiohttp.ClientPayloadError


_NOT_HTTP = (_undocumented("HttpProcessingError"), aiohttp.ClientResponseError)
_CUT_SHORT = (
    *(_undocumented(name) for name in ("ContentLengthError", "TransferEncodingError")),
    OSError,
)

# Named one by one: a blanket `except Exception` would turn our own bugs into retries.
MAPPED_EXCEPTIONS = (aiohttp.ClientError, *_NOT_HTTP, OSError, TimeoutError)

# What a server says during the TLS handshake when it wants a certificate from the client, or does
# not accept the one it was shown. A server that ends a TLS 1.2 handshake for want of a certificate
# often says no more than "handshake failure".
_CERTIFICATE_WANTED = {
    "CERTIFICATE_REQUIRED": (
        "the server wants a client certificate: give one (ssl=, or --cert FILE)"
    ),
    "HANDSHAKE_FAILURE": (
        "the server ended the TLS handshake; most likely it wants a client certificate: give one"
        " (ssl=, or --cert FILE)"
    ),
    "BAD_CERTIFICATE": "the server did not accept the client certificate",
    "CERTIFICATE_EXPIRED": "the client certificate has expired",
    "CERTIFICATE_REVOKED": "the client certificate was revoked",
    "CERTIFICATE_UNKNOWN": "the server did not accept the client certificate",
    "UNSUPPORTED_CERTIFICATE": "the server does not support this kind of client certificate",
    "ACCESS_DENIED": "the server did not accept the client certificate",
    "UNKNOWN_CA": "the server does not know the authority of the client certificate",
}
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH")
_PROTOCOL_VERSION = ("PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS")

# X509_V_ERR_* of OpenSSL.
_EXPIRED, _NOT_YET_VALID = 10, 9
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})
_WRONG_HOST = frozenset({62, 64})


def address_of(url: URL) -> str:
    """The host and port of a URL, as messages name them."""
    host = url.host or ""
    return f"[{host}]:{url.port}" if ":" in host else f"{host}:{url.port}"


def map_connect_exception(error: BaseException, address: str, proxy: str | None) -> ConnectFailed:
    """Turn an exception raised while connecting into a `ConnectFailed` that says what to mend.

    Args:
        error: what was raised.
        address: the host and port of the service.
        proxy: the host and port of the proxy, if there is one.
    """
    reason, fatal = _connect_reason(error, proxy)
    route = f" through the proxy {proxy}" if proxy is not None else ""
    failed = ConnectFailed(f"no connection to {address}{route}: {reason}; nothing was sent")
    failed.untrusted = isinstance(error, ssl.CertificateError)
    failed.fatal = fatal
    failed.__cause__ = _cause(error)
    return failed


def map_exception(error: BaseException, address: str, *, reused: bool = False) -> DeepCallError:
    """Turn an exception raised after a request was sent into an error of this package.

    Args:
        error: what was raised.
        address: the host and port of the service.
        reused: the connection had been idle, so the server may have closed it before we sent.
    """
    result: DeepCallError
    kind = type(error).__name__
    if isinstance(error, TimeoutError):
        result = RequestTimeout("no complete answer within the timeout")
    elif not reused and (refusal := _refused_certificate(error)) is not None:
        # With TLS 1.3 the client's handshake ends before the server has judged its certificate,
        # so the refusal comes when the request was written; the server has not read it.
        return map_connect_exception(refusal, address, None)
    elif isinstance(error, aiohttp.ClientPayloadError):
        # Only what was cut short is a lost connection: what is garbled would be so again.
        if isinstance(error.__cause__, _CUT_SHORT):
            result = ConnectionLost(f"the connection to {address} ended within the answer")
        else:
            result = UnexpectedReply("the answer's body is not what its headers say")
    elif isinstance(error, _NOT_HTTP):
        result = UnexpectedReply(f"the answer from {address} is not valid HTTP ({kind})")
    elif isinstance(error, aiohttp.InvalidURL):
        result = ConnectFailed("base_url is not a URL that can be connected to")
    else:
        lost = ConnectionLost(
            f"the connection to {address} ended before the complete answer had arrived ({kind})"
        )
        lost.stale = reused
        result = lost
    result.__cause__ = _cause(error)
    return result


def closed_in_flight(*, sent: bool = True) -> ClientClosed:
    """The error of a request that closing the client ended."""
    error = ClientClosed("the client was closed while the request was in flight")
    error.sent = sent
    return error


def response_too_large(status: int, limit: int) -> ResponseTooLarge:
    """The error for a body over the limit, in bytes."""
    error = ResponseTooLarge(
        f"the answer is larger than {limit} bytes (HTTP {status}); raise the limit"
        " (max_response_bytes=, or --max-response-mib)"
    )
    error.http_status = status
    return error


def expire(scopes: Iterable[asyncio.Timeout]) -> None:
    """Let what waits under these scopes end with a TimeoutError at once."""
    for scope in scopes:
        # One whose time came in this very turn of the loop can no longer be moved.
        if not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())


def _connect_reason(error: BaseException, proxy: str | None) -> tuple[str, bool]:
    """Why no connection could be made, and whether trying again is of no use."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return _certificate_reason(error.certificate_error), True
    if isinstance(error, ssl.CertificateError):
        return _certificate_reason(error), True
    if isinstance(error, ssl.SSLError):
        return _tls_reason(error)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        if error.status == 407:
            return "the proxy wants a user name and password, or refused those it got (407)", True
        # Other statuses speak of the target, which may come back.
        return f"the proxy answered HTTP {error.status}", error.status < 500
    if isinstance(error, _NOT_HTTP):
        who = "server" if proxy is None else "proxy"
        return f"the {who} did not answer in HTTP", True
    if isinstance(error, TimeoutError):
        return "timed out", False
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name cannot be resolved", False
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"the proxy cannot be reached ({_system_reason(error.os_error)})", False
    if isinstance(error, aiohttp.ClientConnectorError):
        return _system_reason(error.os_error), False
    if isinstance(error, aiohttp.InvalidURL):
        return "the URL is not one that can be connected to", True
    if isinstance(error, OSError):
        return _system_reason(error), False
    return type(error).__name__, False


def _system_reason(error: OSError) -> str:
    if error.errno == errno.ECONNREFUSED:
        return "connection refused"
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return type(error).__name__


def _certificate_reason(error: Exception) -> str:
    code = getattr(error, "verify_code", None)
    if code == _EXPIRED:
        why = "it has expired"
    elif code == _NOT_YET_VALID:
        why = "it is not valid yet; is this machine's clock right?"
    elif code in _WRONG_HOST:
        why = "it was issued for another host name"
    elif code in _UNKNOWN_ISSUER:
        why = "its issuer is not known; if it is a private authority, trust it (ssl=, or --ca FILE)"
    else:
        why = str(getattr(error, "verify_message", None) or "it does not verify")
    return f"the server's certificate cannot be trusted: {why}"


def _alert(error: ssl.SSLError) -> str | None:
    """What a server that refuses a client certificate says, in words; None for other errors."""
    reason = _reason_code(error)
    if "ALERT" not in reason:
        return None
    return next((text for name, text in _CERTIFICATE_WANTED.items() if name in reason), None)


def _refused_certificate(error: BaseException) -> ssl.SSLError | None:
    """What the server said of the client's certificate; aiohttp makes it a cause of its own."""
    for each in (error, error.__cause__):
        if isinstance(each, ssl.SSLError) and _alert(each) is not None:
            return each
    return None


def _tls_reason(error: ssl.SSLError) -> tuple[str, bool]:
    alert = _alert(error)
    if alert is not None:
        return alert, True
    reason = _reason_code(error)
    if any(name in reason for name in _NOT_TLS):
        return "the server does not speak TLS on this port", True
    if any(name in reason for name in _PROTOCOL_VERSION):
        return "server and client have no TLS version in common", True
    return f"the TLS handshake failed ({reason.lower() or type(error).__name__})", False


def _reason_code(error: ssl.SSLError) -> str:
    # aiohttp's exception holds the original one.
    original = getattr(error, "os_error", error)
    return (getattr(original, "reason", None) or str(original)).upper().replace(" ", "_")


def _cause(error: BaseException) -> BaseException | None:
    """What of a library's exception may stay as a cause.

    aiohttp's connector errors hold the proxy's URL and password, so only the system's error in them
    is kept, without its traceback: those frames are not ours to vouch for. Other exceptions are not
    kept, since their text can quote the answer.
    """
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    if not isinstance(error, OSError):
        return None
    error.__context__ = error.__cause__ = None
    return error.with_traceback(None)
