"""Which callers would ring into nothing, and what in an account's groups is wrong or wasteful.

The public names of the audit. All of it is pure except `run_audit`, which sends requests through
the client it is given.

In three lines::

    async with DeepCall() as dc:
        report = await run_audit(dc)
        print(report.verdict)
"""

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
from deepcall_async.audit.run import run_audit
from deepcall_async.audit.snapshot import FailedLookup, RunInfo, Snapshot, SnapshotBuilder

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
