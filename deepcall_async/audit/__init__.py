"""Which callers would ring into nothing, and what in an account's groups is wrong or wasteful.

The public names of the audit. All of it is pure except `run_audit`, which sends requests through
the client it is given.

In three lines::

    async with DeepCall() as dc:
        report = await run_audit(dc)
        print(report.verdict)

`run_audit` is loaded on first use: what only judges records must not pay for the client.
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
