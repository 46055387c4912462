"""The ``deepcall`` command: options, environment, exit codes.

Law: it connects what the library offers to a terminal. What is worth testing apart from it lives
elsewhere: rules and formats in ``audit``, looks in ``terminal``, reading and writing in ``files``.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from deepcall_async.audit import (
    RULES,
    Report,
    Settings,
    exit_code,
    render,
    run_audit,
    table_rows,
)
from deepcall_async.audit import diff as compare
from deepcall_async.cli.files import (
    STDOUT,
    Output,
    Record,
    output_from,
    read_credentials,
    read_mutes,
    read_run,
    write_report,
)
from deepcall_async.cli.terminal import ProgressStyle, printable, progress_display, show_table
from deepcall_async.client import DeepCall
from deepcall_async.credentials import UserToken
from deepcall_async.errors import AuthenticationFailed, DeepCallError, GroupUnavailable
from deepcall_async.retry import RetryPolicy
from deepcall_async.validation import positive_int, positive_number
from deepcall_async.version import __version__

__all__ = ["run"]

T = TypeVar("T")

FOUND, USAGE, INCOMPLETE, UNAUTHENTICATED, INTERRUPTED = 1, 2, 3, 4, 130
DEMO_GROUPS = 300

app: App = App(
    name="deepcall", help="DeepCall's groups from the command line.", version=__version__
)
groups_app: App = App(name="groups", help="Look at the account's groups.")
app.command(groups_app)

BaseUrl = Annotated[
    str | None, Parameter(help="The service's address, instead of DEEPCALL_BASE_URL.")
]
CredentialsFile = Annotated[
    Path | None,
    Parameter(
        name="--credentials",
        allow_leading_hyphen=True,
        help="A file of DEEPCALL_SSID=... or DEEPCALL_USER_ID=... and DEEPCALL_TOKEN=... lines"
        " instead of the environment; - for stdin.",
    ),
]


def run(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: the command line's, without the program's name.

    Returns:
        The exit code: 0 fine, 1 findings, 2 wrong usage or configuration, 3 incomplete,
        4 authentication, 130 interrupted.
    """
    try:
        code = app(_with_demo_size(arguments), exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return USAGE
    except (ValueError, TypeError, OSError) as error:
        _say(f"deepcall: {error}")
        return USAGE
    except AuthenticationFailed as error:
        _say(f"deepcall: {error}\nCheck the credentials; `deepcall audit --help` says where from.")
        return UNAUTHENTICATED
    except DeepCallError as error:
        _say(f"deepcall: {error}")
        return INCOMPLETE
    except KeyboardInterrupt:
        _say("deepcall: interrupted")
        return INTERRUPTED
    return code if isinstance(code, int) else 0


@app.command
def audit(
    *group_ids: int,
    sandbox: Annotated[
        int | None,
        Parameter(help=f"Audit a demo account of N groups ({DEMO_GROUPS} when N is left out)."),
    ] = None,
    concurrency: Annotated[int, Parameter(help="Lookups in flight at once.")] = 32,
    rate: Annotated[float | None, Parameter(help="Requests a second at most.")] = None,
    rules: Annotated[
        tuple[str, ...], Parameter(help="Only these rules, by id or name.", negative="")
    ] = (),
    ignore: Annotated[tuple[str, ...], Parameter(help="All rules but these.", negative="")] = (),
    fail_on: Annotated[
        Literal["critical", "high", "medium", "low", "never"],
        Parameter(help="The mildest severity that makes the exit code 1."),
    ] = "high",
    baseline: Annotated[
        Path | None, Parameter(help="An earlier run's JSONL to compare with.")
    ] = None,
    new_only: Annotated[bool, Parameter(help="Only what the baseline lacks.", negative="")] = False,
    output: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--output", "-o"],
            help="FORMAT:FILE, repeatable: table, json, jsonl, csv, md, html, junit; - is stdout.",
            negative="",
        ),
    ] = (),
    resume: Annotated[
        Path | None,
        Parameter(help="Go on from an earlier run's JSONL, and write to it unless -o names one."),
    ] = None,
    mutes: Annotated[
        Path | None, Parameter(help="A TOML file of accepted findings and thresholds.")
    ] = None,
    allow_partial: Annotated[
        bool, Parameter(help="An incomplete run may pass.", negative="")
    ] = False,
    max_failures: Annotated[int | None, Parameter(help="End after more failures.")] = None,
    progress: Annotated[ProgressStyle, Parameter(help="How to show progress, on stderr.")] = "auto",
    base_url: BaseUrl = None,
    credentials: CredentialsFile = None,
) -> int:
    """Find groups whose callers ring into nothing, and what else is wrong or wasteful.

    Without GROUP_IDS the whole account is audited.
    """
    positive_int("--concurrency", concurrency)
    if rate is not None:
        positive_number("--rate", rate)
    outputs = [output_from(item) for item in output]
    if new_only and baseline is None:
        raise ValueError("--new-only compares with a baseline: give --baseline FILE")
    known = Settings() if mutes is None else read_mutes(mutes)
    earlier = None if resume is None else read_run(resume)
    if resume is not None and not any(kind == "jsonl" for kind, _ in outputs):
        outputs.append(Output("jsonl", resume))
    before = None if baseline is None else read_run(baseline)
    err = Console(stderr=True)

    async def work() -> Report:
        retry = RetryPolicy(attempts=5)
        async with _client(
            sandbox, base_url, credentials, retry=retry, per_second=rate, connections=concurrency
        ) as client:
            with progress_display(err, "Looking up groups", progress) as shown:
                return await run_audit(
                    client,
                    group_ids or None,
                    concurrency=concurrency,
                    baseline=before,
                    only=_split(rules),
                    ignore=_split(ignore),
                    mutes=known.mutes,
                    thresholds=known.thresholds,
                    new_only=new_only,
                    max_failures=max_failures,
                    progress=shown,
                    on_line=record,
                    resume=earlier,
                    sandbox=sandbox is not None,
                )

    with ExitStack() as files:
        written = [
            files.enter_context(Record(path, earlier)) for kind, path in outputs if kind == "jsonl"
        ]

        def record(line: bytes) -> None:
            for file in written:
                file.write(line)

        report = _run(work())
    _write(report, [item for item in outputs if item.format != "jsonl"])
    if not output:
        _show(report)
    elif not any(path == STDOUT for _, path in outputs):
        _say(report.verdict)
    return exit_code(report, fail_on=fail_on, allow_partial=allow_partial)


@app.command
def diff(
    old: Path,
    new: Path,
    *,
    mutes: Annotated[
        Path | None, Parameter(help="A TOML file of accepted findings and thresholds.")
    ] = None,
    fail_on: Annotated[
        Literal["critical", "high", "medium", "low", "never"],
        Parameter(help="The mildest severity that makes the exit code 1."),
    ] = "high",
    output: Annotated[
        tuple[str, ...],
        Parameter(name=["--output", "-o"], help="FORMAT:FILE, as for audit.", negative=""),
    ] = (),
) -> int:
    """Say what changed from one run's JSONL to another's."""
    known = Settings() if mutes is None else read_mutes(mutes)
    outputs = [output_from(item) for item in output]
    report = compare(read_run(old), read_run(new), thresholds=known.thresholds, mutes=known.mutes)
    _write(report, outputs)
    if not outputs:
        _show(report)
    return exit_code(report, fail_on=fail_on, allow_partial=True)


@app.command(name="rules")
def list_rules() -> None:
    """List the rules of the audit."""
    rows = [(rule.id, rule.severity, rule.name, rule.meaning, rule.fix) for rule in RULES]
    show_table(Console(), "Rules", ("Rule", "Severity", "Name", "Meaning", "What to do"), rows)


@groups_app.command(name="list")
def list_groups(
    *,
    name: Annotated[str | None, Parameter(help="Only groups with this in their names.")] = None,
    base_url: BaseUrl = None,
    credentials: CredentialsFile = None,
) -> None:
    """List the account's groups."""

    async def work() -> list[tuple[str, ...]]:
        async with _client(None, base_url, credentials) as client:
            groups = await client.groups.list(name=name)
        return [
            (
                str(group.unique_id),
                group.name,
                "active" if group.active else "inactive",
                f"{group.created_at:%Y-%m-%d}" if group.created_at else "",
            )
            for group in groups
        ]

    rows = _run(work())
    show_table(Console(), f"{len(rows)} groups", ("Id", "Name", "Status", "Created"), rows)


@groups_app.command(name="show")
def show_group(
    group_id: int, *, base_url: BaseUrl = None, credentials: CredentialsFile = None
) -> int:
    """Show a group, its members and whom its calls ring."""

    async def work() -> int:
        async with _client(None, base_url, credentials) as client:
            try:
                relation = await client.groups.agent_relation(group_id)
            except GroupUnavailable as error:
                _say(f"deepcall: {error}")
                return FOUND
        group, members = relation.group, relation.members
        rows = [
            (
                str(member.agent_id),
                member.agent.name if member.agent else "(not in the roster)",
                "yes" if member.receives_calls else "no",
            )
            for member in members
        ]
        title = (
            f"{printable(group.name)} (group {group.unique_id}),"
            f" {'active' if group.active else 'inactive'}:"
            f" {len(relation.receivers)} of {len(members)} receive calls"
        )
        show_table(Console(), title, ("Agent", "Name", "Receives calls"), rows)
        return 0

    return _run(work())


@app.command(name="sandbox")
def serve_sandbox(
    *,
    port: Annotated[int, Parameter(help="Where to listen on 127.0.0.1; 0 for any.")] = 0,
    groups: Annotated[int, Parameter(help="Groups in the demo account.")] = DEMO_GROUPS,
) -> int:
    """Serve the built-in sandbox until Ctrl-C, and print the environment for its account."""
    from deepcall_async.sandbox import Sandbox

    async def work() -> int:
        async with Sandbox(groups=groups, port=port) as server:
            print(f"export DEEPCALL_BASE_URL={server.base_url}")
            print(f"export DEEPCALL_USER_ID={server.user_id}")
            print(f"export DEEPCALL_TOKEN={server.token}", flush=True)
            _say(f"{groups} groups at {server.base_url}; end with Ctrl-C")
            ended = asyncio.Event()
            loop = asyncio.get_running_loop()
            # A service manager ends it with SIGTERM; that is as orderly an end as Ctrl-C.
            if sys.platform != "win32":
                loop.add_signal_handler(signal.SIGTERM, ended.set)
            await ended.wait()
        return 0

    try:
        return _run(work())
    except KeyboardInterrupt:
        return 0


@asynccontextmanager
async def _client(
    sandbox: int | None,
    base_url: str | None,
    credentials_file: Path | None,
    *,
    retry: RetryPolicy = RetryPolicy(),  # noqa: B008  (frozen)
    per_second: float | None = None,
    connections: int = 100,
) -> AsyncIterator[DeepCall]:
    if sandbox is None:
        client = DeepCall(
            None if credentials_file is None else read_credentials(credentials_file),
            base_url=base_url,
            retry=retry,
            per_second=per_second,
            max_connections=connections,
            app_info="deepcall-command",
        )
        async with client:
            yield client
        return
    from deepcall_async.sandbox import Sandbox

    async with Sandbox(groups=sandbox) as server:
        client = DeepCall(
            UserToken(server.user_id, server.token),
            base_url=server.base_url,
            retry=retry,
            per_second=per_second,
            max_connections=connections,
        )
        async with client:
            yield client


def _run(work: Coroutine[Any, Any, T]) -> T:
    if find_spec("uvloop") is not None:
        import uvloop

        return uvloop.run(work)
    return asyncio.run(work)


def _with_demo_size(arguments: Sequence[str]) -> list[str]:
    # An option whose value may be left out is not known to the parser.
    found = list(arguments)
    for place, argument in enumerate(found):
        following = found[place + 1] if place + 1 < len(found) else ""
        if argument == "--sandbox" and not following.isdigit():
            found[place] = f"--sandbox={DEMO_GROUPS}"
    return found


def _split(words: Sequence[str]) -> list[str]:
    return [part.strip() for word in words for part in word.split(",") if part.strip()]


def _write(report: Report, outputs: Sequence[Output]) -> None:
    for output in outputs:
        if output == ("table", STDOUT):
            _show(report)
        else:
            write_report(report, output)


def _show(report: Report) -> None:
    out = Console()
    if not out.is_terminal:
        # For programs and logs: a finding a line, nothing wrapped or drawn.
        sys.stdout.write(render(report, "table").decode())
        return
    rows = [
        (severity, rule, "" if finding.group_id is None else str(finding.group_id), message, fix)
        for finding, (severity, rule, message, fix) in zip(
            report.findings, table_rows(report), strict=True
        )
    ]
    if rows:
        columns = ("Severity", "Rule", "Group", "Finding", "What to do")
        show_table(out, "Findings", columns, rows)
    out.print(printable(report.verdict), markup=False, highlight=False, style="bold")


def _say(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)
