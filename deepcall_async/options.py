"""What a client is set up with: arguments first, then the environment, checked before any use.

Only the environment, and what a reference to credentials names, is read here. A wrong setting is a
ValueError or TypeError that says what to do and never quotes a secret.
"""

from __future__ import annotations

import ipaddress
import os
import platform
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from deepcall_async import validation
from deepcall_async.credentials import CredentialProvider, SessionId, UserToken
from deepcall_async.version import __version__

__all__ = [
    "Referenced",
    "accept_encoding",
    "base_url",
    "credentials_from",
    "credentials_from_environment",
    "credentials_in",
    "proxy_url",
    "referenced_credentials",
    "user_agent",
    "wrong_credentials",
]

DEFAULT_BASE_URL = "https://v4-api.deepcall.com"
_NAMES = ("DEEPCALL_SSID", "DEEPCALL_USER_ID", "DEEPCALL_TOKEN")


def credentials_from(
    get: Callable[[str], str | None], where: str = "the file"
) -> SessionId | UserToken:
    """The credentials under DEEPCALL_SSID, or under DEEPCALL_USER_ID and DEEPCALL_TOKEN.

    They are asked for one by one: a mapping in a local variable would show them in a traceback.
    """
    ssid, user, token = (bool(get(name)) for name in _NAMES)
    if ssid and (user or token):
        raise ValueError(
            f"{where} holds both kinds of credentials: leave out DEEPCALL_SSID, or"
            " DEEPCALL_USER_ID and DEEPCALL_TOKEN"
        )
    if ssid:
        return SessionId(get("DEEPCALL_SSID") or "")
    if user and token:
        return UserToken(get("DEEPCALL_USER_ID") or "", get("DEEPCALL_TOKEN") or "")
    if user or token:
        there, missing = _NAMES[1:] if user else _NAMES[:0:-1]
        raise ValueError(f"{where} holds {there} but not {missing}: give both")
    raise ValueError(
        f"{where} holds no credentials: give DEEPCALL_SSID, or DEEPCALL_USER_ID and"
        " DEEPCALL_TOKEN; in code, SessionId(...) or UserToken(..., ...)"
    )


def credentials_from_environment() -> SessionId | UserToken:
    """The credentials in the environment."""
    return credentials_from(lambda name: os.environ.get(name), "the environment")


def wrong_credentials(given: object) -> TypeError | None:
    """The error to raise for what is neither credentials nor a provider of them."""
    if isinstance(given, (SessionId, UserToken, CredentialProvider)):
        return None
    return TypeError(
        "credentials must be a SessionId, a UserToken or a CredentialProvider, not"
        f" {type(given).__name__}"
    )


def base_url(given: str | None, *, allow_http: bool | None) -> str:
    """The address to call: given, from DEEPCALL_BASE_URL, or the vendor's newest host.

    Args:
        given: the address, or None to look for it.
        allow_http: whether it may be reached in the clear; None where nobody can choose that.
    """
    url = given if given is not None else os.environ.get("DEEPCALL_BASE_URL") or DEFAULT_BASE_URL
    if not isinstance(url, str):
        raise TypeError(f"base_url must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        # Labels that are empty or too long.
        (host or "").encode("idna")
    except ValueError:
        raise ValueError("base_url is not a URL; give one like https://brand.example") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url must not hold a user name or password")
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("base_url must be like https://brand.example")
    if parts.query or parts.fragment or not url.isprintable() or set(url) & set(" \\"):
        raise ValueError("base_url must not hold spaces, backslashes, a query or a fragment")
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        instead = "use https://" if allow_http is None else "use https://, or pass allow_http=True"
        raise ValueError(
            f"base_url is http://, which would send credentials in the clear: {instead}"
        )
    return url.rstrip("/")


def accept_encoding(compress: bool | None, base_url: str) -> str:
    """The Accept-Encoding header: compressed replies, or those that cost no unpacking.

    Args:
        compress: whether to ask for compressed replies; None for yes, except from this machine.
        base_url: the service's address.
    """
    if compress is None:
        compress = not _is_loopback(urlsplit(base_url).hostname or "")
    return "gzip, deflate" if validation.flag("compress", compress) else "identity"


def user_agent(app_info: str | None) -> str:
    """The User-Agent header; `app_info`, such as ``"audit-bot/2.1"``, stands at its end."""
    own = f"deepcall-async/{__version__} Python/{platform.python_version()}"
    if app_info is None:
        return own
    if not isinstance(app_info, str):
        raise TypeError(f"app_info must be a str, not {type(app_info).__name__}")
    if not app_info.strip() or not app_info.isascii() or not app_info.isprintable():
        raise ValueError("app_info must be printable ASCII, such as 'audit-bot/2.1'")
    return f"{own} {app_info.strip()}"


def proxy_url(given: str | None, base_url: str, *, trust_env: bool) -> str | None:
    """The proxy to use: given, or the one that the environment names for the base URL.

    Args:
        given: an HTTP proxy's URL, such as ``"http://user:password@proxy.example:3128"``.
        base_url: the service's address.
        trust_env: whether to look into the environment when none is given.
    """
    where, url = "proxy", given
    if url is None and trust_env:
        service = urlsplit(base_url)
        if not proxy_bypass(service.netloc):
            where, url = "the proxy in the environment", getproxies().get(service.scheme)
            # What curl and others accept there.
            url = f"http://{url}" if url and "://" not in url else url
    if not url:
        if given is not None:
            raise ValueError("proxy must be like http://proxy.example:3128, or None")
        return None
    if not isinstance(url, str):
        raise TypeError(f"proxy must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError:
        host = None
    if not host or not url.isprintable() or " " in url or parts.path not in ("", "/"):
        raise ValueError(f"{where} must be like http://proxy.example:3128")
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{where} must be an HTTP proxy, such as http://proxy.example:3128")
    return url


def _is_loopback(host: str) -> bool:
    if host.rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Referenced(NamedTuple):
    """What a reference leads to: credentials, and the base URL that stands with them, if any."""

    credentials: SessionId | UserToken
    base_url: str | None = None


def referenced_credentials(reference: str, folder: Path) -> Referenced:
    """Resolve a reference to credentials, so that a settings file need not hold a secret.

    Args:
        reference: ``env:NAME`` reads NAME_SSID, or NAME_USER_ID and NAME_TOKEN, and NAME_BASE_URL
            from the environment; ``file:PATH`` reads a file of ``DEEPCALL_...=...`` lines;
            ``keyring:SERVICE/USER_ID`` asks the system's keyring for the user's token.
        folder: what a relative path is relative to.

    Raises:
        ValueError: the reference is malformed, or what it names holds no credentials.
        OSError: the file cannot be read.
    """
    kind, _, name = reference.partition(":")
    if kind == "env" and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return _from_environment(name)
    if kind == "file" and name:
        path = folder / Path(name).expanduser()
        return credentials_in(path.read_bytes(), str(path))
    service, slash, user_id = name.rpartition("/")
    if kind == "keyring" and slash and service and user_id:
        return Referenced(_from_keyring(service, user_id))
    # Not quoted: somebody may have put the secret itself here.
    raise ValueError(
        "a reference to credentials must be like env:ACME, file:acme.env or"
        " keyring:deepcall/USER_ID"
    )


def credentials_in(content: bytes, where: str) -> Referenced:
    """Read credentials, and perhaps a base URL, from ``NAME=VALUE`` lines.

    Comments, quotes and ``export`` are those of dotenv files. Names other than ours are left alone.

    Args:
        content: the lines, in UTF-8; a byte order mark is allowed.
        where: where they stand, for error messages.

    Raises:
        ValueError: there are no credentials, or a line cannot be read; no line is ever quoted.
    """
    get = _Lines(content, where)
    del content
    return Referenced(credentials_from(get, where), get("DEEPCALL_BASE_URL") or None)


class _Lines:
    """Values by name, in an object whose repr shows none: a traceback may show locals."""

    def __init__(self, content: bytes, where: str) -> None:
        problem = self._read(content, where)
        if problem is not None:
            del content
            raise ValueError(f"{where}: {problem}")

    def __call__(self, name: str) -> str | None:
        return self._values.get(name)

    def _read(self, content: bytes, where: str) -> str | None:
        # Part of the extra `cli`, and slow to import: only those who read such files need it.
        from dotenv.parser import parse_stream

        self._values: dict[str, str | None] = {}
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            return "is not UTF-8; save it as UTF-8"
        for line in parse_stream(StringIO(text)):
            if line.error:
                return f"line {line.original.line} is not NAME=VALUE"
            if line.key is not None:
                self._values[line.key] = line.value
        return None


def _from_environment(prefix: str) -> Referenced:
    def get(name: str) -> str | None:
        return os.environ.get(name.replace("DEEPCALL", prefix, 1))

    try:
        return Referenced(
            credentials_from(get, "the environment"), get("DEEPCALL_BASE_URL") or None
        )
    except ValueError as error:
        raise ValueError(str(error).replace("DEEPCALL_", f"{prefix}_")) from None


def _from_keyring(service: str, user_id: str) -> UserToken:
    try:
        import keyring
    except ImportError:
        raise ValueError("keyring: references need it: pip install keyring") from None
    try:
        found = keyring.get_password(service, user_id)
    except keyring.errors.KeyringError as error:
        raise ValueError(f"the keyring cannot be used ({type(error).__name__})") from None
    if not found:
        raise ValueError(
            f"the keyring holds nothing: put the token in with `keyring set {service} {user_id}`"
        )
    return UserToken(user_id, found)
