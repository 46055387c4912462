"""The accounts of a fleet: what each is called, and where its credentials are.

Data and pure functions. An account holds no secret: its credentials are a reference, which is
resolved where the account is audited.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from deepcall_async import options
from deepcall_async.validation import positive_number

__all__ = ["Account", "anchored", "check_distinct", "read_accounts"]

_LONGEST_NAME = 100
_NOT_IN_A_NAME = frozenset('/\\:*?"<>|')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:.+|keyring:.+/.+")


class Account(Struct, frozen=True, forbid_unknown_fields=True):
    """One account of a fleet. It holds no secret, so it may be stored, sent and logged.

    Args:
        name: what reports call it, and what its files are called.
        credentials: where its credentials are: ``env:NAME`` for NAME_USER_ID and NAME_TOKEN, or
            NAME_SSID; ``file:PATH`` for a file of such lines; ``keyring:SERVICE/USER_ID``. They
            are looked up where the account is audited.
        base_url: its service's address, if it has one of its own.
        per_second: the most requests sent a second under its credentials.
        proxy: the URL of an HTTP proxy, without a password.

    Raises:
        ValueError: a value cannot be used; credentials are never quoted.
    """

    name: str
    credentials: str
    base_url: str | None = None
    per_second: float | None = None
    proxy: str | None = None

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not _REFERENCE.fullmatch(self.credentials):
            # Not quoted: somebody may have put the secret itself here.
            raise ValueError(
                f"account {self.name}: credentials must be a reference like env:ACME,"
                " file:acme.env or keyring:deepcall/USER_ID"
            )
        url = self.base_url
        if url is not None:
            try:
                url = options.base_url(url, allow_http=None)
            except ValueError as error:
                raise ValueError(f"account {self.name}: {error}") from None
        if self.per_second is not None:
            positive_number(f"account {self.name}: per_second", self.per_second)
        if self.proxy is not None:
            if "@" in self.proxy:
                raise ValueError(
                    f"account {self.name}: proxy must not hold a password; let HTTPS_PROXY name"
                    " that proxy in the environment"
                )
            try:
                options.proxy_url(self.proxy, url or options.DEFAULT_BASE_URL, trust_env=False)
            except ValueError as error:
                raise ValueError(f"account {self.name}: {error}") from None


def read_accounts(parsed: Mapping[str, object], folder: Path) -> tuple[Account, ...]:
    """Read the accounts of a parsed ``fleet.toml``.

    Args:
        parsed: what ``tomllib`` made of the file: ``[[account]]`` tables with the fields of
            `Account`.
        folder: what the paths of ``file:`` references are relative to.

    Returns:
        The accounts, in the file's order; paths are absolute.

    Raises:
        ValueError: something is missing, misspelt or wrong, or an account is there twice.
    """
    tables = parsed.get("account", [])
    other = sorted(parsed.keys() - {"account"})
    if other:
        raise ValueError(
            f"{', '.join(map(repr, other))}: a fleet's file holds [[account]] tables only"
        )
    if not isinstance(tables, list) or not tables:
        raise ValueError("no accounts: give [[account]] tables with a name and credentials")
    accounts = tuple(
        anchored(_account(table, number), folder) for number, table in enumerate(tables, 1)
    )
    check_distinct(accounts)
    return accounts


def anchored(account: Account, folder: Path) -> Account:
    """Make the path of a ``file:`` reference absolute.

    Args:
        account: the account.
        folder: what the path is relative to.
    """
    kind, _, name = account.credentials.partition(":")
    if kind != "file":
        return account
    return replace(account, credentials=f"file:{folder / Path(name).expanduser()}")


def check_distinct(accounts: Iterable[Account]) -> None:
    """Refuse an account that is there twice.

    Two whose files would be one on some file system, and two that would be asked with the same
    credentials: each would be read at the account's full rate.

    Raises:
        ValueError: they are named.
    """
    names: set[str] = set()
    asked: dict[tuple[str, str | None], str] = {}
    for account in accounts:
        name = unicodedata.normalize("NFC", account.name).casefold()
        if name in names:
            raise ValueError(f"two accounts are called {account.name}; give each a name of its own")
        names.add(name)
        other = asked.setdefault((account.credentials, account.base_url), account.name)
        if other != account.name:
            raise ValueError(
                f"accounts {other} and {account.name} have the same credentials,"
                f" {account.credentials}, so they are one account; leave out one of them"
            )


def _account(table: object, number: int) -> Account:
    try:
        return msgspec.convert(table, Account)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$")
        field = where.strip("`").lstrip(".")
        what = what.replace("Object contains unknown field", "there is no such key as")
        what = what.replace("Object missing required field", "it lacks the key")
        place = f"[[account]] {number}"
        if not what.startswith("account ") and isinstance(table, dict):
            place += f", name {str(table.get('name'))[:40]!r}"
        raise ValueError(f"{place}: {field}{': ' if field else ''}{what}") from None


def _check_name(name: str) -> None:
    problem = ""
    if not name or not name.isprintable() or name != name.strip():
        problem = "is blank, or holds control characters or spaces at an end"
    elif len(name) > _LONGEST_NAME or len(name.encode("utf-8", "replace")) > 2 * _LONGEST_NAME:
        problem = f"is longer than {_LONGEST_NAME} characters"
    elif _NOT_IN_A_NAME.intersection(name) or name[0] == "." or name[-1] == ".":
        problem = 'begins or ends with a dot, or holds one of / \\ : * ? " < > |'
    elif _RESERVED.fullmatch(name):
        problem = "is reserved on Windows"
    if problem:
        raise ValueError(f"account name {name[:40]!r} {problem}; it is to be a file's name too")
