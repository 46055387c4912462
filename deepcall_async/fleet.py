"""Audits of many accounts. Files are the state: an account whose record is whole is not asked.

Each account's audit is ``run_audit`` with a record of its own; what it came to is data of
``audit.fleet``. Which process or machine an account is audited on is the choice of an engine, a
function of the shape of `fan_out`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from ssl import SSLContext, SSLError, create_default_context
from typing import Any, BinaryIO, Protocol

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from deepcall_async import fanout, options
from deepcall_async.audit.config import Thresholds
from deepcall_async.audit.engine import check_choice
from deepcall_async.audit.fleet import (
    SCHEMA,
    Account,
    AccountReport,
    EndLine,
    FleetLine,
    FleetPart,
    FleetReport,
    account_report,
    anchored,
    check_names,
    merged,
    read_part,
)
from deepcall_async.audit.formats.fleet import render_fleet
from deepcall_async.audit.formats.jsonl import read_jsonl
from deepcall_async.audit.mutes import Mute
from deepcall_async.audit.report import Report
from deepcall_async.audit.rules import RULES
from deepcall_async.audit.run import run_audit
from deepcall_async.audit.snapshot import Snapshot
from deepcall_async.client import DeepCall
from deepcall_async.errors import DeepCallError
from deepcall_async.fanout import Ok, Outcome
from deepcall_async.record import RecordFile, part_of
from deepcall_async.retry import RetryPolicy
from deepcall_async.validation import positive_int
from deepcall_async.version import __version__

__all__ = [
    "Account",
    "AccountReport",
    "AuditPlan",
    "Engine",
    "FleetReport",
    "audit_fleet",
    "read_fleet",
    "record_of",
    "render_fleet",
]

_log = logging.getLogger(__name__)

_TAIL_BYTES = 65_536
_POLL_SECONDS = 0.2
_SUMMARY = b'{"type":"summary"'
_PART = re.compile(r"fleet(-\d+-of-\d+)?\.jsonl")

_encode = msgspec.json.Encoder().encode
_account_line = msgspec.json.Decoder(AccountReport).decode


class Engine(Protocol):
    """What runs many calls at once: `fan_out`, or another function of its shape.

    Between a call's arguments and its result only what can be pickled passes: the call itself, an
    `Account`, an `AccountReport`.
    """

    def __call__(
        self,
        call: Callable[[Account], Awaitable[AccountReport]],
        keys: Iterable[Account],
        *,
        concurrency: int,
        patience: float,
    ) -> AbstractAsyncContextManager[AsyncIterator[Outcome[Account, AccountReport]]]:
        """Give an outcome for each key, as they finish."""
        ...


class AuditPlan(Struct, frozen=True, kw_only=True):
    """How each account is audited. It holds no secret, and travels to where that happens.

    Args:
        base_url: the address of accounts that have none of their own.
        concurrency: lookups in flight at once in one account; None adapts to the service.
        per_second: the most requests a second for an account that does not say its own.
        patience: seconds to bear a service that cannot be reached or refuses everything.
        timeout: seconds for one attempt.
        max_failures: how many lookups of one account may fail; one more ends its audit.
        max_response_bytes: the largest reply taken, decompressed.
        ca: a file of PEM certificates to trust besides the system's.
        cert: a PEM file of a client certificate and its key.
        only: ids or names of the rules to run; empty for all.
        ignore: ids or names of rules not to run.
        mutes: findings that are known and accepted.
        thresholds: where the rules draw their lines.
    """

    base_url: str | None = None
    concurrency: int | None = None
    per_second: float | None = None
    patience: float = 300.0
    timeout: float = 30.0
    max_failures: int | None = None
    max_response_bytes: int = 32 * 2**20
    ca: str | None = None
    cert: str | None = None
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    mutes: tuple[Mute, ...] = ()
    thresholds: Thresholds = Thresholds()


async def audit_fleet(
    accounts: Iterable[Account],
    *,
    folder: Path | str,
    at_once: int = 64,
    again: bool = False,
    shard: tuple[int, int] = (0, 1),
    plan: AuditPlan = AuditPlan(),  # noqa: B008  (frozen)
    fan_out: Engine = fanout.fan_out,
) -> AsyncGenerator[AccountReport]:
    """Audit many accounts, and give what each came to as it ends.

    The state is in the folder: ``accounts/NAME.jsonl`` is the last whole record of an account,
    ``accounts/NAME.jsonl.part`` what was read of an unfinished one, ``fleet.jsonl`` the list of
    reports. After an interruption, however hard, the same call goes on: accounts whose records are
    whole are not asked anything, and are given from their files.

    Args:
        accounts: the accounts; credentials are looked up where an account is audited.
        folder: where the records are kept; it is made if it is not there. Where the engine uses
            several machines, all of them must see it.
        at_once: accounts audited at once.
        again: begin a new night, in which every account is read again and compared with its last
            whole record. A night that was cut short is gone on with.
        shard: audit only every N-th account, from the I-th on: (I, N), I from 0 to N - 1.
        plan: how each account is audited.
        fan_out: the engine; by default `fan_out` in this process.

    Returns:
        An `AccountReport` for each account of the shard, once.

    Raises:
        ValueError: two accounts have one name, the shard does not exist, or a rule named in the
            plan does not.
        OSError: the folder cannot be used, or a record not be written.
        ImportError: filelock is not installed; the extra ``cli`` brings it.
    """
    positive_int("at_once", at_once)
    number, shards = shard
    if not 0 <= number < shards:
        raise ValueError(f"shard must be (I, N) with I from 0 to N - 1, not {shard}")
    accounts = tuple(anchored(account, Path.cwd()) for account in accounts)
    check_names(accounts)
    check_choice(
        RULES, plan.only, plan.ignore, new_only=False, baseline=Snapshot(), whole_account=True
    )
    _require_filelock()
    # Looked up here: the environment of another machine may name another address.
    plan = replace(plan, base_url=options.base_url(plan.base_url, allow_http=False))
    mine = accounts[number::shards]
    folder = _made(folder)
    file = folder / ("fleet.jsonl" if shards == 1 else f"fleet-{number}-of-{shards}.jsonl")
    first = FleetLine(
        schema=SCHEMA,
        started=_night(folder, file, again=again),
        names=tuple(account.name for account in accounts),
        shard=shard,
        tool=f"deepcall-async {__version__}",
    )
    audit = _AccountAudit(str(folder), first.started, plan)
    with _begun(file, first) as log:
        async with fan_out(audit, mine, concurrency=at_once, patience=0.0) as outcomes:
            async for outcome in outcomes:
                report = (
                    outcome.value
                    if isinstance(outcome, Ok)
                    else AccountReport.unread(outcome.key.name, outcome.error)
                )
                _append(log, report)
                yield report
        _append(log, EndLine(accounts=len(mine)))


def read_fleet(folders: Iterable[Path | str]) -> FleetReport:
    """Read what audits of fleets have come to so far, offline.

    Args:
        folders: the folders of `audit_fleet`.

    Returns:
        One report of all accounts; those without a whole record of the night are unread.

    Raises:
        ValueError: a file is damaged, or there was no audit in a folder.
        OSError: a file cannot be read.
    """
    return merged([_parts_with_records(Path(folder)) for folder in folders])


def record_of(folder: Path, name: str) -> Path:
    """The file of an account's last whole record.

    Args:
        folder: the folder of `audit_fleet`.
        name: the account's name.
    """
    return folder / "accounts" / f"{name}.jsonl"


class _AccountAudit:
    """Audits one account: what an engine calls, here or elsewhere.

    Pickled, it is the folder and the plan alone; connections stay where they were made.
    """

    def __init__(self, folder: str, night: datetime, plan: AuditPlan) -> None:
        self._folder = folder
        self._night = night
        self._plan = plan
        self._clients = _Clients(plan)

    def __reduce__(self) -> tuple[type[_AccountAudit], tuple[str, datetime, AuditPlan]]:
        return _AccountAudit, (self._folder, self._night, self._plan)

    async def __call__(self, account: Account) -> AccountReport:
        file = record_of(Path(self._folder), account.name)
        lock = file.with_name(f"{file.name}.lock")
        # Only an audit that did not come to its end leaves it.
        cut_short = lock.exists()
        async with _locked(lock):
            report = _finished(file, self._night)
            if report is None:
                if cut_short and (account.per_second or self._plan.per_second):
                    # It may have been killed just now, and what it sent counts for a second.
                    await asyncio.sleep(1)
                report = await self._audited(account, file)
            if report.complete:
                # Whoever opened it before and waits for it finds the whole record.
                lock.unlink(missing_ok=True)
            return report

    async def _audited(self, account: Account, file: Path) -> AccountReport:
        try:
            found = options.referenced_credentials(account.credentials, Path())
            baseline = _snapshot(file)
            earlier = _snapshot(part_of(file))
        except (ValueError, OSError) as error:
            return AccountReport.unread(account.name, error)
        if earlier is not None and _began(earlier) < self._night:
            earlier = None
        record = RecordFile(file, () if earlier is None else earlier.relations)
        held = _BeforeSummary(record)
        try:
            async with self._clients.open(account, found) as client:
                report = await self._run(client, held, baseline, earlier)
            told = account_report(account.name, report)
            held.end(told)
            if told.complete:
                record.finish()
            else:
                record.keep_part()
        except (DeepCallError, ValueError) as error:
            record.abandon()
            return AccountReport.unread(account.name, error)
        except BaseException:
            record.abandon()
            raise
        return told

    async def _run(
        self,
        client: DeepCall,
        on_line: Callable[[bytes], object],
        baseline: Snapshot | None,
        earlier: Snapshot | None,
    ) -> Report:
        plan = self._plan
        return await run_audit(
            client,
            concurrency=plan.concurrency,
            patience=plan.patience,
            baseline=baseline,
            only=plan.only,
            ignore=plan.ignore,
            mutes=plan.mutes,
            thresholds=plan.thresholds,
            max_failures=plan.max_failures,
            on_line=on_line,
            resume=earlier,
            # A clock that is behind must not make tonight's record look like last night's.
            now=max(datetime.now(UTC), self._night),
        )


class _BeforeSummary:
    """Hands lines on to a record, and puts the account's own before the last, the summary."""

    def __init__(self, record: RecordFile) -> None:
        self._record = record
        self._summary = b""

    def __call__(self, line: bytes) -> None:
        if line.startswith(_SUMMARY):
            self._summary = line
        else:
            self._record.write(line)

    def end(self, report: AccountReport) -> None:
        self._record.write(_encode(report) + b"\n")
        self._record.write(self._summary)


class _Clients:
    """One client for each address and way there, open while an account uses it.

    An account is a sibling of it: it has its own rate, budget and rosters, and shares connections.
    """

    def __init__(self, plan: AuditPlan) -> None:
        self._plan = plan
        self._open: dict[tuple[str, str | None], tuple[DeepCall, int]] = {}

    @asynccontextmanager
    async def open(self, account: Account, found: options.Referenced) -> AsyncIterator[DeepCall]:
        """Open a client of one account.

        Args:
            account: the account.
            found: what its reference to credentials led to.

        Raises:
            ValueError: a setting is wrong.
        """
        plan = self._plan
        url = options.base_url(
            account.base_url or found.base_url or plan.base_url, allow_http=False
        )
        key = (url, account.proxy)
        client, users = self._open.get(key) or (self._made(url, account, found), 0)
        self._open[key] = client, users + 1
        try:
            rate = account.per_second or plan.per_second
            yield client.with_options(credentials=found.credentials, per_second=rate)
        finally:
            client, users = self._open.pop(key)
            if users > 1:
                self._open[key] = client, users - 1
            else:
                await client.aclose()

    def _made(self, url: str, account: Account, found: options.Referenced) -> DeepCall:
        plan = self._plan
        return DeepCall(
            found.credentials,
            base_url=url,
            timeout=plan.timeout,
            retry=RetryPolicy(attempts=5),
            max_response_bytes=plan.max_response_bytes,
            ssl=_ssl_context(plan),
            proxy=account.proxy,
            trust_env=account.proxy is None,
            app_info="deepcall-fleet",
        )


def _ssl_context(plan: AuditPlan) -> SSLContext | None:
    if plan.ca is None and plan.cert is None:
        return None
    context = create_default_context()
    for file, load in ((plan.ca, context.load_verify_locations), (plan.cert, _load_cert(context))):
        if file is not None:
            try:
                load(file)
            except SSLError:
                raise ValueError(f"{file} holds no PEM certificate, or not its key") from None
            except OSError as error:
                raise ValueError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    return context


def _load_cert(context: SSLContext) -> Callable[[str], None]:
    def no_password() -> str:
        # Without it, OpenSSL would ask on the terminal, at night as well.
        raise ValueError("the client certificate's key is encrypted; give one without a password")

    return lambda file: context.load_cert_chain(file, password=no_password)


@asynccontextmanager
async def _locked(file: Path) -> AsyncIterator[None]:
    """Work on an account alone: another process may be at it still, such as one that was left."""
    from filelock import FileLock, Timeout

    lock, waiting = FileLock(file), False
    while True:
        try:
            # The system lifts it when the process ends, however it ends.
            lock.acquire(timeout=0)
            break
        except Timeout:
            if not waiting:
                waiting = True
                _log.warning("waiting for another process that is at %s", file.stem)
            await asyncio.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _require_filelock() -> None:
    try:
        import filelock  # noqa: F401  (only whether it is there)
    except ImportError as error:
        raise ImportError("fleets need filelock: pip install 'deepcall-async[cli]'") from error


def _snapshot(file: Path) -> Snapshot | None:
    try:
        with file.open("rb") as lines:
            if not lines.readline().endswith(b"\n"):
                return None  # killed while it was begun
            lines.seek(0)
            return read_jsonl(lines)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}; or move that file away") from None


def _began(snapshot: Snapshot) -> datetime:
    started = snapshot.run.resumed_from or snapshot.run.started
    return started or datetime.min.replace(tzinfo=UTC)


class _Begin(Struct):
    started: datetime
    resumed_from: datetime | None = None


def _finished(file: Path, night: datetime) -> AccountReport | None:
    """What a whole record of this night says of its account, if there is one."""
    try:
        with file.open("rb") as stream:
            begin = msgspec.json.decode(stream.readline(), type=_Begin)
            if (begin.resumed_from or begin.started) < night:
                return None
            stream.seek(max(0, file.stat().st_size - _TAIL_BYTES))
            lines = stream.read().splitlines()[-2:]
        return _account_line(lines[0])
    except (FileNotFoundError, msgspec.DecodeError, IndexError):
        return None  # written by something else, such as `deepcall audit`: it is a baseline


def _made(folder: Path | str) -> Path:
    folder = Path(folder).resolve()
    (folder / "accounts").mkdir(parents=True, exist_ok=True)
    return folder


def _night(folder: Path, file: Path, *, again: bool) -> datetime:
    """When the night began that this run belongs to."""
    parts = {path: _part(path) for path in _part_files(folder)}
    own = parts.pop(file, None)
    if own is not None and not (again and own.ended):
        return own.line.started
    if again or not parts:
        return datetime.now(UTC)
    # The same night, divided in another way.
    return max(part.line.started for part in parts.values())


def _part_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _PART.fullmatch(path.name))


def _part(file: Path) -> FleetPart:
    try:
        with file.open("rb") as lines:
            return read_part(lines)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _parts_with_records(folder: Path) -> list[FleetPart]:
    """The parts, and what records tell of accounts that a killed run had no time to report."""
    parts = [_part(path) for path in _part_files(folder)]
    if not parts:
        raise ValueError(f"{folder}: no fleet was audited here; `deepcall fleet audit` does it")
    for part in parts:
        for name in part.line.mine:
            known = part.accounts.get(name)
            if known is None or not known.complete:
                found = _finished(record_of(folder, name), part.line.started)
                if found is not None:
                    part.accounts[name] = found
    return parts


@contextmanager
def _begun(file: Path, first: FleetLine) -> Iterator[BinaryIO]:
    """Write the first line whole or not at all, and give the file to append to."""
    aside = file.with_name(f".{file.name}.tmp")
    aside.write_bytes(_encode(first) + b"\n")
    aside.replace(file)
    with file.open("ab") as log:
        yield log


def _append(log: BinaryIO, line: Any) -> None:
    log.write(_encode(line) + b"\n")
    log.flush()
