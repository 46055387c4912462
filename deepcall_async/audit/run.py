"""An audit of a live account.

The only module of the audit that does I/O: it sends requests through the client it is given and
reads the clock. It writes no file: each line of the record is handed to the caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime

from deepcall_async.audit.config import Thresholds
from deepcall_async.audit.engine import audit, check_choice
from deepcall_async.audit.formats.jsonl import LineWriter, tail
from deepcall_async.audit.mutes import Mute
from deepcall_async.audit.report import Health, Report
from deepcall_async.audit.rule import Rule
from deepcall_async.audit.rules import RULES
from deepcall_async.audit.snapshot import FailedLookup, RunInfo, Snapshot, SnapshotBuilder
from deepcall_async.client import DeepCall
from deepcall_async.errors import DeepCallError, GroupUnavailable, TooManyFailures
from deepcall_async.fanout import Ok, Progress, fan_out
from deepcall_async.models import GroupAgentRelation
from deepcall_async.pacing import Adaptive
from deepcall_async.version import __version__

__all__ = ["run_audit"]


async def run_audit(
    dc: DeepCall,
    group_ids: Iterable[int] | None = None,
    *,
    concurrency: int | Adaptive = 32,
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

    A lookup that fails does not end the run: it makes the report incomplete.

    Args:
        dc: the client to ask through.
        group_ids: the groups to look up; None for all that the account lists.
        concurrency: lookups in flight at once, or `Adaptive`.
        baseline: an earlier snapshot to compare with.
        rules: the rules; add your own with ``(*RULES, mine)``.
        only: ids or names of the rules to run; empty for all.
        ignore: ids or names of rules not to run.
        mutes: findings that are known and accepted.
        thresholds: where the rules draw their lines.
        new_only: leave out findings that the baseline had as well.
        max_failures: how many failed lookups are borne; one more ends the run early, with a report
            of what was read.
        progress: called with a `Progress` after each lookup.
        on_line: called with each line of the JSONL record, newline included: the run and its
            groups as lookups land, the findings and the summary at the end. Raising ends the run.
        resume: an earlier run's snapshot; groups that it read are not asked for again, and stand in
            the new record as if they had been.
        now: when the account is looked at; the current time by default.
        base_url: the service's address, for the record; the client's by default.
        sandbox: note in the record that this is the sandbox.

    Returns:
        The report.

    Raises:
        DeepCallError: the groups could not be listed.
        AuthenticationFailed: the credentials are not accepted; what had landed by then was given to
            ``on_line``.
        ValueError: a rule named in ``only`` or ``ignore`` does not exist, or ``new_only`` is asked
            for without a baseline; or ``resume`` is the record of another service.
    """
    base_url = base_url or dc.base_url
    rules, only, ignore, mutes = tuple(rules), tuple(only), tuple(ignore), tuple(mutes)
    check_choice(rules, only, ignore, new_only=new_only, baseline=baseline)
    _check_resume(resume, base_url, sandbox=sandbox)
    before, began, started = dc.stats, time.monotonic(), now or datetime.now(UTC)
    run = RunInfo(
        started=started,
        base_url=base_url,
        sandbox=sandbox,
        whole_account=group_ids is None,
        resumed_from=None if resume is None else resume.run.resumed_from or resume.run.started,
        tool=f"deepcall-async {__version__}",
    )
    record = _Record(run, thresholds, on_line)
    if group_ids is None:
        record.builder.add_groups(await dc.groups.list())
    else:
        record.builder.add_asked(_checked(group_ids))
    asked = record.builder.snapshot().asked
    record.emit(record.writer.asked_line(asked))
    known = resume.relations if resume is not None else {}
    for group_id in asked:
        if group_id in known:
            record.add_relation(group_id, known[group_id])
    missing = [group_id for group_id in asked if group_id not in known]
    try:
        async with fan_out(
            dc.groups.agent_relation,
            missing,
            concurrency=concurrency,
            max_failures=max_failures,
            progress=progress,
        ) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Ok):
                    record.add_relation(outcome.key, outcome.value)
                else:
                    record.add_failure(outcome.key, outcome.error, listed=group_ids is None)
    except TooManyFailures:
        pass  # the report says what was not looked up
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

    def add_failure(self, group_id: int, error: DeepCallError, *, listed: bool) -> None:
        group = self.builder.group(group_id)
        if listed and isinstance(error, GroupUnavailable):
            self.builder.add_gone(group_id)
            self.emit(self.writer.gone_line(group_id, group))
            return
        failure = FailedLookup.of(error)
        self.builder.add_failure(group_id, failure)
        self.emit(self.writer.failure_line(group_id, group, failure))


def _checked(group_ids: Iterable[int]) -> Iterator[int]:
    for group_id in group_ids:
        if isinstance(group_id, bool) or not isinstance(group_id, int):
            raise TypeError(f"group_ids must be ints, not {type(group_id).__name__}")
        yield group_id


def _check_resume(resume: Snapshot | None, base_url: str, *, sandbox: bool) -> None:
    if resume is None or sandbox:  # a sandbox gets another port each time
        return
    other = resume.run.base_url
    if base_url and other and other != base_url:
        raise ValueError(f"the run to resume was of {other}, not of {base_url}")
