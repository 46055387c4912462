"""From the options of a command to a client: the address, the credentials and the way there.

An option comes before the environment, and the environment before the profile. A secret is never
sent to an address that belongs to another one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from ssl import SSLContext, SSLError, create_default_context
from typing import TYPE_CHECKING, NoReturn

from msgspec import Struct

from deepcall_async import options
from deepcall_async.cli.config import config_file, read_profile, warn_if_exposed
from deepcall_async.cli.exits import UsageError, usage_errors
from deepcall_async.cli.parameters import ConnectOptions
from deepcall_async.credentials import SessionId, UserToken
from deepcall_async.retry import RetryPolicy

if TYPE_CHECKING:
    from deepcall_async.client import DeepCall

__all__ = ["Target", "open_client", "open_sandbox", "target_of"]

_STDIN = Path("-")
_MIB = 2**20
_CREDENTIAL_NAMES = ("DEEPCALL_SSID", "DEEPCALL_USER_ID", "DEEPCALL_TOKEN")


class Target(Struct, frozen=True, kw_only=True):
    """What a client is made of.

    ``sources`` says for each setting where it is from, and ``files`` which files were read, by what
    they are called in messages.
    """

    base_url: str
    credentials: SessionId | UserToken
    proxy: str | None = None
    ssl: SSLContext | None = None
    timeout: float = 30.0
    max_response_mib: int = 32
    sources: dict[str, str] = {}
    files: dict[str, Path] = {}

    def __repr__(self) -> str:
        # A proxy's URL may hold a password.
        return f"Target({self.base_url!r})"


def target_of(given: ConnectOptions) -> Target:
    """Find out which service to call, as whom and by which way.

    Args:
        given: the options of the command.

    Raises:
        UsageError: something is missing, malformed or cannot be read.
    """
    sought = _Settings(given)
    referenced = sought.credentials()
    url = sought.base_url(referenced.base_url)
    return Target(
        base_url=url,
        credentials=referenced.credentials,
        proxy=sought.proxy(url),
        ssl=sought.ssl_context(),
        timeout=given.timeout,
        max_response_mib=given.max_response_mib,
        sources=sought.sources,
        files=sought.files,
    )


@asynccontextmanager
async def open_client(
    target: Target,
    *,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008  (frozen)
    per_second: float | None = None,
    connections: int = 100,
) -> AsyncIterator[DeepCall]:
    """Open a client of the service that the options name.

    Args:
        target: which service, as whom.
        retry: when and how often to repeat.
        per_second: requests a second at most.
        connections: the most connections open at once.
    """
    from deepcall_async.client import DeepCall

    with usage_errors():
        client = DeepCall(
            target.credentials,
            base_url=target.base_url,
            timeout=target.timeout,
            retry=retry,
            max_connections=connections,
            max_response_bytes=target.max_response_mib * _MIB,
            per_second=per_second,
            ssl=target.ssl,
            proxy=target.proxy,
            app_info="deepcall-command",
        )
    async with client:
        yield client


@asynccontextmanager
async def open_sandbox(groups: int, given: ConnectOptions) -> AsyncIterator[Target]:
    """Serve a sandbox with demo data for as long as it is used.

    Args:
        groups: how many groups it has.
        given: the options of the command, of which those that speak of a real service are not set.
    """
    from deepcall_async.sandbox import Sandbox

    with usage_errors("--sandbox"):
        sandbox = Sandbox(groups=groups)
    async with sandbox as server:
        yield Target(
            base_url=server.base_url,
            credentials=UserToken(server.user_id, server.token),
            timeout=given.timeout,
            max_response_mib=given.max_response_mib,
            sources={"address": "the sandbox", "credentials": "the sandbox"},
        )


class _Settings:
    """Looks for each setting among the options, then in the environment, then in the profile."""

    def __init__(self, given: ConnectOptions) -> None:
        self._given = given
        name, self._profile = read_profile(given.profile)
        self._folder = config_file().parent
        self._where = f"profile {name} of {config_file()}"
        self._of_profile = False
        self.sources: dict[str, str] = {}
        self.files = {"the profiles": config_file()}

    def credentials(self) -> options.Referenced:
        file, reference = self._given.credentials, self._profile.credentials
        if file is not None:
            return self._from_file(file)
        if any(os.environ.get(name) for name in _CREDENTIAL_NAMES):
            self.sources["credentials"] = "the environment"
            self._refuse_mixing()
            with usage_errors():
                return options.Referenced(options.credentials_from_environment())
        if reference is None:
            raise UsageError(
                "no credentials: set DEEPCALL_USER_ID and DEEPCALL_TOKEN, or DEEPCALL_SSID, or"
                f" give --credentials FILE, or a profile in {config_file()}"
            )
        self._of_profile = True
        self.sources["credentials"] = self._where
        kind, _, name = reference.partition(":")
        if kind == "file":
            self.files[f"credentials of {self._where}"] = file = self._path(name)
            warn_if_exposed(file)
        with usage_errors(f"credentials of {self._where}"):
            return options.referenced_credentials(reference, self._folder)

    def base_url(self, beside: str | None) -> str:
        """Choose the address; ``beside`` is the one that stands with the credentials."""
        url = self._address(beside)
        with usage_errors(self.sources["address"]):
            return options.base_url(url, allow_http=None)

    def proxy(self, url: str) -> str | None:
        given, found = self._given.proxy, None
        with usage_errors("--proxy" if given is not None else None):
            found = options.proxy_url(given, url, trust_env=given is None)
        if found is not None:
            self.sources["proxy"] = "--proxy" if given is not None else "the environment"
        elif self._profile.proxy is not None:
            self.sources["proxy"] = self._where
            with usage_errors(self._where):
                found = options.proxy_url(self._profile.proxy, url, trust_env=False)
        return found

    def ssl_context(self) -> SSLContext | None:
        ca = self._file("ca", self._given.ca, self._profile.ca)
        cert = self._file("cert", self._given.cert, self._profile.cert)
        if ca is None and cert is None:
            return None
        context = create_default_context()
        if ca is not None:
            with usage_errors(ca):
                _load(lambda: context.load_verify_locations(ca), "holds no PEM certificate")
        if cert is not None:
            warn_if_exposed(cert)
            with usage_errors(cert):
                _load(
                    lambda: context.load_cert_chain(cert, password=_no_password),
                    "must hold a PEM certificate and the key that belongs to it",
                )
        return context

    def _from_file(self, file: Path) -> options.Referenced:
        self.sources["credentials"] = f"--credentials {file}"
        if file == _STDIN:
            with usage_errors():
                return options.credentials_in(_stdin(), "stdin")
        self.files["--credentials"] = file
        warn_if_exposed(file)
        with usage_errors():
            return options.credentials_in(file.read_bytes(), str(file))

    def _address(self, beside: str | None) -> str:
        own = self._profile.base_url or (beside if self._of_profile else None)
        environment = os.environ.get("DEEPCALL_BASE_URL")
        if self._given.base_url is not None:
            self.sources["address"] = "--base-url"
            return self._given.base_url
        if beside is not None and not self._of_profile:
            self.sources["address"] = self.sources["credentials"]
            return beside
        if environment:
            if self._of_profile and own and own.rstrip("/") != environment.rstrip("/"):
                raise UsageError(
                    f"DEEPCALL_BASE_URL would send the credentials of {self._where} to another"
                    " address than its own: unset it, or give --base-url"
                )
            self.sources["address"] = "DEEPCALL_BASE_URL"
            return environment
        self.sources["address"] = self._where if own else "the default"
        return own or options.DEFAULT_BASE_URL

    def _refuse_mixing(self) -> None:
        addressed = self._given.base_url is not None or os.environ.get("DEEPCALL_BASE_URL")
        if self._profile.base_url and self._profile.credentials and not addressed:
            raise UsageError(
                f"the credentials in the environment would be sent to the address of {self._where},"
                " which has credentials of its own: unset DEEPCALL_SSID, DEEPCALL_USER_ID and"
                " DEEPCALL_TOKEN, or give --base-url"
            )

    def _file(self, name: str, given: Path | None, in_profile: str | None) -> Path | None:
        if given is not None:
            self.sources[name] = option = f"--{name}"
            self.files[option] = given
            return given
        if in_profile is None:
            return None
        self.sources[name] = self._where
        self.files[f"{name} of {self._where}"] = file = self._path(in_profile)
        return file

    def _path(self, name: str) -> Path:
        return self._folder / Path(name).expanduser()


def _load(load: Callable[[], object], otherwise: str) -> None:
    try:
        load()
    except SSLError:
        raise ValueError(otherwise) from None


def _no_password() -> NoReturn:
    # Without it, OpenSSL would ask on the terminal, at night as well.
    raise ValueError("the key is encrypted; give one without a password")


def _stdin() -> bytes:
    buffer = getattr(sys.stdin, "buffer", None)
    return buffer.read() if buffer is not None else sys.stdin.read().encode()
