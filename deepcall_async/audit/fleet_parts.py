"""``fleet.jsonl``: what its lines are, how they are read, and how several become one report.

Data and pure functions. Nothing is asked and no file is touched here; that is in
``deepcall_async.fleet``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from deepcall_async.audit.fleet import AccountReport, FleetReport

__all__ = ["SCHEMA", "EndLine", "FleetLine", "FleetPart", "merged", "read_part"]

SCHEMA = 1
"""The version of ``fleet.jsonl``. Readers accept unknown types of lines and unknown fields."""


class FleetLine(Struct, frozen=True, kw_only=True, tag_field="type", tag="fleet"):
    """The first line of ``fleet.jsonl``: which accounts the fleet has, audited since when.

    ``shard`` is this file's part of the fleet and into how many it was divided. A record is of this
    night when it began no earlier than ``started``.
    """

    schema: int
    started: datetime
    names: tuple[str, ...]
    shard: tuple[int, int] = (0, 1)
    tool: str = ""

    @property
    def mine(self) -> tuple[str, ...]:
        """The accounts of this file's shard."""
        number, shards = self.shard
        return self.names[number::shards]


class EndLine(Struct, frozen=True, kw_only=True, tag_field="type", tag="end"):
    """The last line of ``fleet.jsonl``: every account has had its turn."""

    accounts: int


class FleetPart(Struct, frozen=True, kw_only=True):
    """What one ``fleet.jsonl`` holds: its first line, the accounts by name, whether it ended."""

    line: FleetLine
    accounts: dict[str, AccountReport] = {}
    ended: bool = False


def read_part(lines: Iterable[bytes]) -> FleetPart:
    """Read what an audit of a fleet, or of a part of it, has written so far.

    Args:
        lines: of ``fleet.jsonl``; a torn last one, and types that are not known, are left out.

    Raises:
        ValueError: it is no such file, or a newer version wrote it.
    """
    first: FleetLine | None = None
    accounts: dict[str, AccountReport] = {}
    ended = False
    for line in lines:
        if first is None:
            first = _first(line)
            continue
        try:
            kind = _kind(line).type
            if kind == "account":
                found = _account(line)
                accounts[found.name] = found
            ended = ended or kind == "end"
        except msgspec.DecodeError:
            continue
    if first is None:
        raise ValueError("the file is empty; run `deepcall fleet audit` again")
    return FleetPart(line=first, accounts=accounts, ended=ended)


def merged(folders: Iterable[Iterable[FleetPart]]) -> FleetReport:
    """Make one report of what was written in one or more folders.

    Of a folder that was divided in different ways over time, the newest way counts. An account that
    is named and has no report yet is unread.

    Args:
        folders: for each folder, what its files hold: at least one of them.

    Returns:
        The report; an account of several folders is told as the newest tells it.
    """
    told = [_Told.of(tuple(parts)) for parts in folders]
    told.sort(key=lambda each: each.newest)
    found = {name: report for each in told for name, report in each.accounts.items()}
    return FleetReport.of(found.values(), min((each.oldest for each in told), default=None))


class _Told(Struct, frozen=True):
    """What one folder tells, and when its oldest and newest night began."""

    oldest: datetime
    newest: datetime
    accounts: dict[str, AccountReport]

    @classmethod
    def of(cls, parts: tuple[FleetPart, ...]) -> _Told:
        newest = max(parts, key=lambda part: part.line.started)
        chosen = [part for part in parts if part.line.shard[1] == newest.line.shard[1]]
        found = {
            name: part.accounts.get(name) or AccountReport.unread(name)
            for part in chosen
            for name in part.line.mine
        }
        for name in newest.line.names:
            # Of a shard that was never begun, which has no file to speak for it.
            found.setdefault(name, AccountReport.unread(name))
        return cls(min(part.line.started for part in chosen), newest.line.started, found)


class _Kind(Struct):
    type: str


_kind = msgspec.json.Decoder(_Kind).decode
_account = msgspec.json.Decoder(AccountReport).decode
_header = msgspec.json.Decoder(FleetLine).decode


def _first(line: bytes) -> FleetLine:
    try:
        version = msgspec.json.decode(line, type=dict[str, Any]).get("schema")
        if isinstance(version, int) and version > SCHEMA:
            raise ValueError(
                f"schema {version} is newer than {SCHEMA}, the newest read here;"
                " upgrade deepcall-async"
            )
        return _header(line)
    except msgspec.DecodeError as error:
        raise ValueError(
            f"not the beginning of a fleet's JSONL ({error}); move that file away, and run"
            " `deepcall fleet audit` again"
        ) from None
