"""Which callers would reach nobody, and what in an account's groups is wrong or wasteful.

The public names of the audit. All of it is pure except `run_audit`, which sends requests through
the client it is given. The command is ``deepcall audit``; see `deepcall_async.cli`.

```python
import asyncio
from deepcall_async import DeepCall
from deepcall_async.audit import RULES, Hit, rule, run_audit


@rule("B001", "test-group", "low", meaning="A group left over from a test.", fix="Delete it.")
def test_group(context):
    for group in context.snapshot.groups:
        if group.name.casefold().startswith("test"):
            yield Hit(
                message=f"{group.name} ({group.unique_id}) looks like a test.",
                group_id=group.unique_id,
            )


async def main():
    async with DeepCall() as dc:
        report = await run_audit(dc, rules=(*RULES, test_group))
        print(report.complete, report.counts["critical"])


asyncio.run(main())
```

```text
True 4
```

## What a report says

The verdict counts what was read, whatever rules, mutes or ``--new-only`` leave out: "Callers to 8
groups reach nobody, 3 of them muted". A run that could not read every group says so first, in
every format, and by its exit code. More than ten findings of one rule below "high" become one
sentence with all their ids.

## What is known and accepted

Mutes and thresholds stand in a file for ``--mutes``, or `read_settings`. A mute that has expired
or matches nothing is a finding itself.

```toml
[[mute]]
rule = "G002"
group = 5
reason = "closes in spring"
expires = 2027-03-31

[thresholds]
min_receivers = 2
```

## Records, baselines and runs that were ended

The record (``-o jsonl:today.jsonl``) is written as lookups finish, in ``today.jsonl.part`` until
the run is over. After Ctrl-C or ``kill -9``, ``--resume today.jsonl`` asks only for the rest: for
groups that were not read or whose listing has changed since, and once more for groups whose
labels differ from their relations. ``deepcall report today.jsonl`` shows what was read.

What failed for a reason that may pass, such as a lost connection, is looked up once more at the
end. Reports that a run will replace say "Incomplete" from its beginning, so that none of
yesterday's is taken for today's, whatever ends the run. A full disk may leave no room for that:
then they are moved to ``FILE.old``.

With ``--baseline yesterday.jsonl`` a finding is new when the baseline lacked it. Nothing is
called new that the baseline had not read. A baseline, or a record to resume, of another account
is refused.

``--nightly FOLDER`` does all of this by itself, for the whole account. Each night is compared with
the last one that read everything, which only a complete one replaces. The first night has nothing
to be compared with and reports everything. A second run at the same time is refused. Thirty records
are kept.
"""

from typing import TYPE_CHECKING

from deepcall_async.audit.config import Settings, Thresholds, read_settings
from deepcall_async.audit.context import Context, GroupView
from deepcall_async.audit.engine import audit, diff, exit_code
from deepcall_async.audit.finding import SEVERITIES, Evidence, Finding, Hit, Severity
from deepcall_async.audit.formats import FORMATS, Format, render
from deepcall_async.audit.formats.jsonl import LineWriter, read_jsonl
from deepcall_async.audit.formats.text import TABLE_COLUMNS, table_rows
from deepcall_async.audit.mutes import Mute, Muted
from deepcall_async.audit.report import Action, Health, Report
from deepcall_async.audit.rule import Check, Rule, rule
from deepcall_async.audit.rules import RULES
from deepcall_async.audit.snapshot import FailedLookup, RunInfo, Snapshot, SnapshotBuilder

if TYPE_CHECKING:
    from deepcall_async.audit.run import run_audit

__all__ = [
    "FORMATS",
    "RULES",
    "SEVERITIES",
    "TABLE_COLUMNS",
    "Action",
    "Check",
    "Context",
    "Evidence",
    "FailedLookup",
    "Finding",
    "Format",
    "GroupView",
    "Health",
    "Hit",
    "LineWriter",
    "Mute",
    "Muted",
    "Report",
    "Rule",
    "RunInfo",
    "Settings",
    "Severity",
    "Snapshot",
    "SnapshotBuilder",
    "Thresholds",
    "audit",
    "diff",
    "exit_code",
    "read_jsonl",
    "read_settings",
    "render",
    "rule",
    "run_audit",
    "table_rows",
]

# Type checkers see the import above instead: with a `__getattr__` they would accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:  # PEP 562
        if name != "run_audit":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from deepcall_async.audit.run import run_audit

        globals()[name] = run_audit
        return run_audit

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
