"""An audit of a live account.

The only module of the audit that does I/O: it sends requests through the client it is given and
reads the clock. It writes no file: each line of the record is handed to the caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from deepcall_async.audit.config import Thresholds
from deepcall_async.audit.engine import audit, check_choice
from deepcall_async.audit.formats.jsonl import LineWriter, tail
from deepcall_async.audit.mutes import Mute
from deepcall_async.audit.report import Health, Report
from deepcall_async.audit.rule import Rule
from deepcall_async.audit.rules import RULES
from deepcall_async.audit.rules.records import label_drift, labelled_agents
from deepcall_async.audit.snapshot import (
    FailedLookup,
    RunInfo,
    Snapshot,
    SnapshotBuilder,
    require_same_account,
)
from deepcall_async.client import DeepCall
from deepcall_async.errors import (
    DeepCallError,
    GroupUnavailable,
    ResponseTooLarge,
    TooManyFailures,
    UnexpectedReply,
)
from deepcall_async.fanout import Ok, Progress, fan_out
from deepcall_async.models import Group, GroupAgentRelation
from deepcall_async.pacing import Adaptive
from deepcall_async.retry import is_retryable, is_unanswered
from deepcall_async.validation import is_int
from deepcall_async.version import __version__

__all__ = ["run_audit"]

_SECOND_PATIENCE = 30.0
"""Seconds of patience in the second pass: the first has waited for an outage to end."""


async def run_audit(
    dc: DeepCall,
    group_ids: Iterable[int] | None = None,
    *,
    concurrency: int | Adaptive | None = None,
    patience: float = 300.0,
    baseline: Snapshot | None = None,
    rules: Iterable[Rule] = RULES,
    only: Iterable[str] = (),
    ignore: Iterable[str] = (),
    mutes: Iterable[Mute] = (),
    thresholds: Thresholds = Thresholds(),  # noqa: B008  (frozen)
    new_only: bool = False,
    max_failures: int | None = None,
    progress: Callable[[Progress], object] | None = None,
    on_line: Callable[[bytes], object] | None = None,
    resume: Snapshot | None = None,
    now: datetime | None = None,
    base_url: str = "",
    sandbox: bool = False,
) -> Report:
    """Look up an account's groups and judge them by the rules.

    A lookup that fails does not end the run. What failed for a reason that may pass, such as a lost
    connection, is looked up once more at the end; what fails again makes the report incomplete.

    Args:
        dc: the client to send requests through.
        group_ids: the groups to look up; None for all that the account lists.
        concurrency: lookups in flight at once; by default `Adaptive`, which follows the service.
        patience: seconds without any success for which lookups are held back, not failed, while
            the service cannot be reached or refuses everything; the first listing too.
        baseline: an earlier snapshot of the same account to compare with.
        rules: the rules; add your own with ``(*RULES, mine)``.
        only: ids or names of the rules to run; empty for all.
        ignore: ids or names of rules not to run.
        mutes: findings that are known and accepted.
        thresholds: where the rules draw their lines.
        new_only: leave out findings that the baseline had as well.
        max_failures: how many lookups may fail; one more ends the run.
        progress: called with a `Progress` after each lookup.
        on_line: called with each line of the JSONL record, newline included: the run and its
            groups as lookups finish, the findings and the summary at the end. A later line of a
            group replaces an earlier one. Raising ends the run.
        resume: an earlier run's snapshot. Groups that it read are not looked up again, unless what
            the account lists of them has changed; they stand in the new record as if they had
            been. With ``group_ids``, its other groups stay in the record as well.
        now: when the account is looked at; the current time by default.
        base_url: the service's address, for the record; the client's by default.
        sandbox: note in the record that this is the sandbox.

    Returns:
        The report.

    Raises:
        DeepCallError: the groups could not be listed.
        AuthenticationFailed: the credentials are not accepted; what was read by then was given to
            ``on_line``.
        ValueError: a rule named in ``only`` or ``ignore`` does not exist, no rule would run, or
            ``new_only`` is asked for without a baseline; or ``baseline`` or ``resume`` is the
            record of another account.

    Example:
        >>> report = await run_audit(dc, [28])
        >>> report.complete, report.verdict
        (True, 'The one group chosen has someone who receives calls. 2 findings: 2 low.')
    """
    base_url = base_url or dc.base_url
    rules, only, ignore, mutes = tuple(rules), tuple(only), tuple(ignore), tuple(mutes)
    whole = group_ids is None
    chosen = check_choice(
        rules, only, ignore, new_only=new_only, baseline=baseline, whole_account=whole
    )
    wanted = () if group_ids is None else _checked(group_ids)
    before, began, started = dc.stats, time.monotonic(), now or datetime.now(UTC)
    run = RunInfo(
        started=started,
        base_url=base_url,
        sandbox=sandbox,
        whole_account=whole,
        resumed_from=None if resume is None else resume.run.resumed_from or resume.run.started,
        tool=f"deepcall-async {__version__}",
    )
    same = _SameAccount(baseline, resume)
    same.check(Snapshot(run=run))
    record = _Record(run, thresholds, on_line)
    lookups = _Lookups(dc, record, concurrency, patience, progress, same)
    if whole:
        record.builder.add_groups(await lookups.list())
        same.check(record.builder.snapshot())
    else:
        record.builder.add_asked(wanted)
    known = _still_known(resume, record.builder.snapshot())
    record.builder.add_asked(known)
    asked = record.builder.snapshot().asked
    record.emit(record.writer.asked_line(asked))
    for group_id in asked:
        if group_id in known:
            record.add_relation(group_id, known[group_id])
    missing = [group_id for group_id in asked if group_id not in known]
    if await lookups.run(missing, max_failures) and label_drift in chosen:
        await lookups.check_labels_again()
    after = dc.stats
    report = audit(
        record.builder.snapshot(),
        baseline=baseline,
        rules=rules,
        only=only,
        ignore=ignore,
        mutes=mutes,
        thresholds=thresholds,
        new_only=new_only,
        now=started,
        health=Health(
            seconds=time.monotonic() - began,
            requests=after.requests - before.requests,
            retries=after.retries - before.retries,
        ),
    )
    for line in tail(report):
        record.emit(line)
    return report


class _Record:
    """Keeps what was read, and hands its lines on."""

    def __init__(
        self, run: RunInfo, thresholds: Thresholds, on_line: Callable[[bytes], object] | None
    ) -> None:
        self.builder = SnapshotBuilder(run)
        self.writer = LineWriter()
        self._on_line = on_line
        self.emit(self.writer.run_line(run, thresholds))

    def emit(self, line: bytes) -> None:
        if self._on_line is not None:
            self._on_line(line)

    def add_relation(self, group_id: int, relation: GroupAgentRelation) -> None:
        held = self.builder.add_relation(group_id, relation)
        if self._on_line is not None:
            for line in self.writer.relation_lines(group_id, held):
                self._on_line(line)

    def add_gone(self, group_id: int) -> None:
        group = self.builder.group(group_id)
        self.builder.add_gone(group_id)
        self.emit(self.writer.gone_line(group_id, group))

    def add_failure(self, group_id: int, failure: FailedLookup) -> None:
        self.builder.add_failure(group_id, failure)
        self.emit(self.writer.failure_line(group_id, self.builder.group(group_id), failure))


class _SameAccount:
    """Refuses a baseline or a resumed run of another account, before work is spent on it."""

    def __init__(self, baseline: Snapshot | None, resume: Snapshot | None) -> None:
        self._earlier = {
            role: found
            for role, found in (("baseline", baseline), ("run to resume", resume))
            if found is not None
        }

    def check(self, now: Snapshot) -> None:
        for role, earlier in self._earlier.items():
            require_same_account(earlier, now, role)


class _Lookups:
    """The requests of one audit, and what becomes of their outcomes."""

    def __init__(
        self,
        dc: DeepCall,
        record: _Record,
        concurrency: int | Adaptive | None,
        patience: float,
        progress: Callable[[Progress], object] | None,
        same: _SameAccount,
    ) -> None:
        self._dc = dc
        self._record = record
        self._progress = progress
        self._same = same
        self._whole = record.builder.snapshot().run.whole_account
        self._concurrency = Adaptive() if concurrency is None else concurrency
        self._patience = patience
        self._read = 0

    async def list(self) -> Sequence[Group]:
        """List the account's groups, as patiently as they are looked up."""
        end = time.monotonic() + self._patience
        while True:
            try:
                return await self._listed()
            except DeepCallError as error:
                # A single call that goes unanswered is no outage yet, and so was not held back.
                # After a few of them it is, and the next one waits for the service to be back.
                if not is_unanswered(error) or time.monotonic() >= end:
                    raise

    async def _listed(self) -> Sequence[Group]:
        async def groups(_: None) -> Sequence[Group]:
            return await self._dc.groups.list()

        async with fan_out(
            groups, [None], concurrency=1, on_error="raise", patience=self._patience
        ) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Ok):
                    return outcome.value
        raise AssertionError("a fan-out gives one outcome for each key")

    async def run(self, group_ids: Sequence[int], max_failures: int | None) -> bool:
        """Look groups up, and once more those that failed for a reason that may have passed.

        Returns:
            False when more than `max_failures` failed, which ended it early.
        """
        held: dict[int, FailedLookup] = {}
        try:
            await self._pass(group_ids, held, max_failures, self._patience)
            # When nothing at all was read the service is away, and more requests would not help.
            if held and self._read:
                await self._pass(list(held), held, None, min(self._patience, _SECOND_PATIENCE))
        except TooManyFailures:
            return False
        finally:
            for group_id, failure in held.items():
                self._record.add_failure(group_id, failure)
        return True

    async def check_labels_again(self) -> None:
        """Look once more at groups whose labels differ: the index behind them may lag."""
        relations = self._record.builder.snapshot().relations
        differing = [group_id for group_id, found in relations.items() if _labels_differ(found)]
        try:
            async with fan_out(
                self._dc.groups.agent_relation,
                differing,
                concurrency=self._concurrency,
                patience=min(self._patience, _SECOND_PATIENCE),
            ) as outcomes:
                async for outcome in outcomes:
                    if isinstance(outcome, Ok) and not _labels_differ(outcome.value):
                        self._record.add_relation(outcome.key, outcome.value)
        except DeepCallError:
            return  # every group had been read: the report stands on what was read first

    async def _pass(
        self,
        group_ids: Iterable[int],
        held: dict[int, FailedLookup],
        max_failures: int | None,
        patience: float,
    ) -> None:
        async with fan_out(
            self._dc.groups.agent_relation,
            group_ids,
            max_failures=max_failures,
            patience=patience,
            progress=self._progress,
            concurrency=self._concurrency,
        ) as outcomes:
            async for outcome in outcomes:
                group_id = outcome.key
                if isinstance(outcome, Ok):
                    held.pop(group_id, None)
                    self._record.add_relation(group_id, outcome.value)
                    self._read += 1
                    if self._read == 1:
                        self._same.check(self._record.builder.snapshot())
                elif self._whole and isinstance(outcome.error, GroupUnavailable):
                    held.pop(group_id, None)
                    self._record.add_gone(group_id)
                elif _may_pass(outcome.error):
                    held[group_id] = FailedLookup.of(outcome.error)
                else:
                    held.pop(group_id, None)
                    self._record.add_failure(group_id, FailedLookup.of(outcome.error))


def _may_pass(error: DeepCallError) -> bool:
    """Whether a lookup that failed so may succeed a little later."""
    # A proxy's error page in place of an answer is often as short-lived as a lost connection.
    odd = isinstance(error, UnexpectedReply) and not isinstance(error, ResponseTooLarge)
    return odd or is_retryable(error, "safe")


def _labels_differ(relation: GroupAgentRelation) -> bool:
    labelled, group_id = labelled_agents(relation.group, {}), relation.group.unique_id
    if labelled is None:
        return False
    return labelled != {row.agent_id for row in relation.relations if row.group_id == group_id}


def _checked(group_ids: Iterable[int]) -> tuple[int, ...]:
    found = tuple(group_ids)
    for group_id in found:
        if not is_int(group_id):
            raise TypeError(f"group_ids must be ints, not {type(group_id).__name__}")
    return found


def _still_known(resume: Snapshot | None, now: Snapshot) -> dict[int, GroupAgentRelation]:
    """What a resumed run read and what need not be read again."""
    if resume is None:
        return {}
    if not now.run.whole_account:
        return resume.relations
    return {
        group_id: relation
        for group_id, relation in resume.relations.items()
        if (listed := now.unread.get(group_id)) is not None
        and not _listing_changed(relation.group, listed)
    }


def _listing_changed(group: Group, listed: Group) -> bool:
    """Whether a list says something else of a group than it said when the group was read."""
    for field in ("name", "status", "user_id", "create_by", "create_date"):
        value = getattr(listed, field)
        if value is not None and value != getattr(group, field):
            return True
    return bool(listed.agents and group.agents) and set(listed.agents) != set(group.agents)
