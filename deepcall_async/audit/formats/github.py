"""A report as workflow commands, which GitHub Actions shows as annotations.

Pure, report to string. Each command is one line; what could end it early is escaped.
https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from deepcall_async.audit.finding import Severity
from deepcall_async.audit.labels import clean
from deepcall_async.audit.report import ASK_AGAIN, Report
from deepcall_async.redaction import printable

__all__ = ["to_github"]

_MOST = 500
"""GitHub shows ten of each kind; the others are lines of the log."""

_COMMANDS: dict[Severity, str] = {
    "critical": "error",
    "high": "error",
    "medium": "warning",
    "low": "notice",
    "info": "notice",
}


def to_github(report: Report) -> str:
    """Write the findings as workflow commands, most severe first, after the verdict.

    The command line also appends the Markdown report to the job's summary.

    Args:
        report: the report.

    Returns:
        The text, ended by a newline; beyond 500 findings it says how many more there are.
    """
    lines = [printable(report.verdict)]
    if report.incomplete:
        told = f"{report.incomplete} {ASK_AGAIN}"
        lines.append(_command("error", "X001 the run is not complete", told))
    names = {rule.id: rule.name for rule in report.rules}
    for finding in report.findings[:_MOST]:
        title = f"{clean(finding.rule)} {clean(names[finding.rule])}"
        lines.append(_command(_COMMANDS[finding.severity], title, finding.message))
    if len(report.findings) > _MOST:
        lines.append(f"{len(report.findings) - _MOST:,} more findings stand in the JSONL report.")
    return "\n".join(lines) + "\n"


def _command(name: str, title: str, message: str) -> str:
    # Commas and colons end a property, "::" the properties; "%" is what they are escaped with.
    title = _escaped(title).replace(":", "%3A").replace(",", "%2C")
    return f"::{name} title={title}::{_escaped(message)}"


def _escaped(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
