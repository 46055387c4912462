"""The audit of one account: its files, its lock, its way to the service. What an engine calls.

It runs where the engine lets it, perhaps on another machine: credentials are looked up here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from ssl import SSLContext, SSLError, create_default_context

import msgspec
from msgspec import Struct

from deepcall_async import options
from deepcall_async.audit.accounts import Account
from deepcall_async.audit.config import Thresholds
from deepcall_async.audit.fleet import AccountReport, account_report, ignored_in_fleet
from deepcall_async.audit.formats.jsonl import NewerSchema, read_jsonl
from deepcall_async.audit.mutes import Mute
from deepcall_async.audit.report import Report
from deepcall_async.audit.rule import Rule
from deepcall_async.audit.rules import RULES
from deepcall_async.audit.run import run_audit
from deepcall_async.audit.snapshot import Snapshot
from deepcall_async.client import DeepCall
from deepcall_async.errors import DeepCallError
from deepcall_async.fleet.folder import baseline_of, finished_report, keep_baseline, record_of
from deepcall_async.record import RecordFile, part_of
from deepcall_async.retry import RetryPolicy

__all__ = ["AccountAudit", "AuditPlan"]

_log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_SUMMARY = b'{"type":"summary"'

_encode = msgspec.json.Encoder().encode


class AuditPlan(Struct, frozen=True, kw_only=True):
    """How each account is audited. It holds no secret, and travels to where that happens.

    Args:
        base_url: the address of accounts that have none of their own.
        concurrency: lookups in flight at once in one account; None adapts to the service.
        per_second: the most requests a second for an account that does not say its own.
        patience: seconds to wait for a service that cannot be reached or refuses everything.
        timeout: seconds for one attempt.
        max_failures: how many lookups of one account may fail; one more ends its audit.
        max_response_bytes: the largest reply taken, decompressed.
        ca: a file of PEM certificates to trust besides the system's.
        cert: a PEM file of a client certificate and its key.
        only: ids or names of the rules to run; empty for all.
        ignore: ids or names of rules not to run.
        mutes: findings that are known and accepted, in every account; X003 does not run, because
            one that matches nothing may be of another account.
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


class AccountAudit:
    """Audits one account: what an engine calls, here or elsewhere.

    Pickled, it is what it was made of; connections stay where they were made.
    """

    def __init__(
        self,
        folder: str,
        night: datetime,
        plan: AuditPlan,
        rules: tuple[Rule | str, ...] = RULES,
    ) -> None:
        self._folder = Path(folder)
        self._night = night
        self._plan = plan
        ours = {rule.id: rule for rule in RULES}
        self._rules = tuple(ours[each] if isinstance(each, str) else each for each in rules)
        self._clients = _Clients(plan)

    def __reduce__(self) -> tuple[type[AccountAudit], tuple[object, ...]]:
        # Ours go by their ids: they are known wherever this is.
        rules = tuple(rule.id if rule in RULES else rule for rule in self._rules)
        return AccountAudit, (str(self._folder), self._night, self._plan, rules)

    async def __call__(self, account: Account) -> AccountReport:
        """Audit the account, unless its record of this night is whole."""
        try:
            return await self._alone(account)
        except (PermissionError, IsADirectoryError) as error:
            # Of one account's files, such as those of a run by another user.
            return AccountReport.unread(account.name, error)

    async def _alone(self, account: Account) -> AccountReport:
        file = record_of(self._folder, account.name)
        lock = file.with_name(f"{file.name}.lock")
        # Only an audit that did not come to its end leaves it.
        cut_short = lock.exists()
        async with _locked(lock):
            report = finished_report(self._folder, account.name, self._night)
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
            baseline = self._snapshot(file)
            earlier = self._snapshot(part_of(file))
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
                keep_baseline(file, baseline_of(self._folder, account.name))
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

    def _snapshot(self, file: Path) -> Snapshot | None:
        """What a record tells; one that is damaged is kept aside, and the account read anew."""
        try:
            with file.open("rb") as lines:
                if not lines.readline().endswith(b"\n"):
                    return None  # killed while it was begun
                lines.seek(0)
                return read_jsonl(lines)
        except FileNotFoundError:
            return None
        except NewerSchema as error:
            raise ValueError(f"{file.name}: {error}") from None
        except ValueError as error:
            aside = file.with_name(f"{file.name}.damaged-{self._night:%Y%m%dT%H%M%S%f}")
            file.replace(aside)
            why = str(error).partition(";")[0]
            _log.warning("%s is damaged, not used, and kept as %s: %s", file.name, aside.name, why)
            return None

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
            rules=self._rules,
            only=plan.only,
            ignore=ignored_in_fleet(plan.ignore, self._rules),
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
        url = options.base_url(account.base_url or found.base_url or plan.base_url, allow_http=None)
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

    # It is held by this task alone, in one thread, so it needs no state for each thread.
    lock, waiting = FileLock(file, thread_local=False), False
    while True:
        try:
            # The system lifts it when the process ends, however it ends.
            lock.acquire(timeout=0)
            break
        except Timeout:
            if not waiting:
                waiting = True
                # The same words for each account, so that they are told once.
                _log.warning("another process audits these accounts too: waiting for it")
            await asyncio.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _began(snapshot: Snapshot) -> datetime:
    started = snapshot.run.resumed_from or snapshot.run.started
    return started or datetime.min.replace(tzinfo=UTC)
