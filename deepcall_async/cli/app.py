"""The ``deepcall`` command: which commands there are, how they are parsed, and how errors end.

A command's module is imported when the command is chosen; so what help says of it stands here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from cyclopts import (
    App,
    CycloptsError,
    Parameter,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)
from cyclopts.completion.install import create_install_completion_command

from deepcall_async.cli.exits import USAGE, UsageError, ending
from deepcall_async.cli.parameters import DEMO_GROUPS, ENVIRONMENT
from deepcall_async.cli.terminal import drawn, emit, page, say, stdout_is_terminal
from deepcall_async.version import __version__

__all__ = ["build_app", "run_command"]

_Shell = Literal["zsh", "bash", "fish", "powershell"]

_CODES = """\
Exit codes:
  0    nothing at or above --fail-on
  1    findings at or above it
  2    wrong usage or configuration
  3    incomplete, unless --allow-partial
  4    the credentials were not accepted
  5    an output could not be written; the others were
  70   a bug
  130, 143, 129   ended by Ctrl-C, SIGTERM, SIGHUP
  141  stdout was closed by its reader"""

_AUDIT_HELP = """\
Find groups whose callers ring into nothing, and what else is wrong.

Without GROUP-IDS the whole account is audited. The JSONL is written as lookups land."""

_AUDIT = f"""\
Examples:
  deepcall audit --sandbox
  deepcall audit -o html:report.html -o jsonl:today.jsonl
  deepcall audit --baseline yesterday.jsonl --new-only
  deepcall audit --resume today.jsonl
  deepcall audit --nightly /var/lib/deepcall --credentials /etc/deepcall.env

{ENVIRONMENT}

{_CODES}"""

_WATCH = f"""\
Examples:
  deepcall watch --state /var/lib/deepcall/watch.db
  deepcall watch --state watch.db --every 1m --notify urls.txt
  deepcall watch --state watch.db --listen 127.0.0.1:9109 --heartbeat https://hc.example/ping/ID

{ENVIRONMENT}

Exit codes:
  0    ended by Ctrl-C, SIGTERM or SIGHUP, as is meant
  2    wrong usage or configuration; another watch uses the state file
  4    the credentials were not accepted, before anything was ever seen
  70   a bug
  141  stdout was closed by its reader"""

_COMMANDS = (
    (
        "audit",
        "audit:audit",
        _AUDIT_HELP,
        _AUDIT,
    ),
    (
        "check",
        "service:check",
        "Say whether the service can be used, and what to mend.",
        ENVIRONMENT,
    ),
    (
        "diff",
        "audit:diff",
        "Say what changed from one run's JSONL to another's.",
        f"Example:\n  deepcall diff yesterday.jsonl today.jsonl -o md:-\n\n{_CODES}",
    ),
    (
        "fleet",
        "fleet:app",
        "Audit many accounts, and report which of them need somebody first.",
        None,
    ),
    ("groups", "groups:app", "Look at the account's groups, and change them.", None),
    (
        "probe",
        "service:probe",
        "Print the shape of the service's replies: keys and types, and not one value.",
        ENVIRONMENT,
    ),
    (
        "report",
        "audit:report",
        "Make reports from a run's JSONL, offline; also of a run that was killed.",
        f"Example:\n  deepcall report today.jsonl -o html:report.html\n\n{_CODES}",
    ),
    ("rules", "audit:list_rules", "List the rules of the audit.", ""),
    ("sandbox", "sandbox:serve_sandbox", "Serve the built-in sandbox until Ctrl-C.", ""),
    (
        "watch",
        "watch:watch",
        "Look at the account again and again, and tell when a group goes dark.",
        _WATCH,
    ),
)


def run_command(arguments: Sequence[str]) -> int:
    """Parse and run; see `deepcall_async.cli.run`."""
    # What the client logs is told by the commands that run long; the others end with one error.
    log, silent = logging.getLogger("deepcall_async"), logging.NullHandler()
    log.addHandler(silent)
    try:
        return _run(_with_demo_size(arguments))
    except SystemExit as ended:
        return USAGE if ended.code else 0  # the parser's own commands
    except BaseException as error:
        code, text = ending(error)
        if text:
            say(f"deepcall: {text}")
        return code
    finally:
        log.removeHandler(silent)


def build_app(*, plain: bool) -> App:
    """Make the parser of the command line.

    Args:
        plain: whether help is text without boxes and colours.
    """
    app = App(
        name="deepcall",
        help="DeepCall's groups from the command line.",
        help_format="plaintext",
        help_formatter="plain" if plain else "default",
        help_epilogue=f"{ENVIRONMENT}\n\n`deepcall COMMAND --help` has examples.",
        version=__version__,
        # That a switch is off and a list empty goes without saying.
        default_parameter=Parameter(show_default=_default_text),
    )
    for name, place, summary, epilogue in _COMMANDS:
        # A command with commands of its own says itself what help ends with.
        more = {} if epilogue is None else {"help_epilogue": epilogue}
        app.command(f"deepcall_async.cli.{place}", name=name, help=summary, **more)
    app.command(
        create_install_completion_command(partial(_install_completion, app), add_to_startup=True),
        name="--install-completion",
        help="Install completion for your shell.",
    )
    return app


def _install_completion(
    app: App, *, shell: _Shell, output: Path | None, add_to_startup: bool
) -> Path:
    folder = os.environ.get("XDG_CONFIG_HOME")
    if shell == "fish" and output is None and folder:
        # The parser always takes ~/.config, where fish then does not look.
        output = Path(folder, "fish", "completions", f"{app.name[0]}.fish")
    return app.install_completion(shell=shell, output=output, add_to_startup=add_to_startup)


def _run(arguments: Sequence[str]) -> int:
    app = build_app(plain=not stdout_is_terminal())
    try:
        command, bound, _ = app.parse_args(arguments, print_error=False, exit_on_error=False)
    except UnknownOptionError as error:
        raise UsageError(_unknown(error)) from None
    except UnknownCommandError as error:
        if arguments[0] in ("help", "version"):
            raise UsageError(f"did you mean --{arguments[0]}?") from None
        raise UsageError(str(error)) from None
    except UnusedCliTokensError as error:
        # Not shown: one of them may be a secret.
        number = len(error.unused_tokens or ())
        too_many = "1 argument" if number == 1 else f"{number} arguments"
        raise UsageError(f"{too_many} too many; a name with spaces stands in quotes") from None
    except CycloptsError as error:
        raise UsageError(str(error)) from None
    if "console" in bound.arguments:
        # The parser's own answer, such as help; commands write for themselves.
        bound.arguments["console"] = console = page()
        command(*bound.args, **bound.kwargs)
        emit(drawn(console), drawn=True)
        return 0
    code = command(*bound.args, **bound.kwargs)
    return code if isinstance(code, int) else 0


def _unknown(error: UnknownOptionError) -> str:
    given = error.token.keyword or error.token.value
    name = given.partition("=")[0]
    if name in ("--token", "--ssid", "--user-id"):
        return (
            f"there is no {name}, since others can read a command line: set DEEPCALL_USER_ID and"
            " DEEPCALL_TOKEN, or DEEPCALL_SSID, or give --credentials FILE"
        )
    return str(error).replace(given, name)  # its value may be a secret


def _default_text(value: object) -> str | None:
    if value in (None, False, ()):
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


def _with_demo_size(arguments: Sequence[str]) -> list[str]:
    """Complete ``--sandbox`` where its number is left out, which the parser does not know."""
    found = list(arguments)
    for place, argument in enumerate(found):
        if argument == "--":
            break
        following = found[place + 1] if place + 1 < len(found) else ""
        if argument == "--sandbox" and not following.lstrip("-").isdigit():
            found[place] = f"--sandbox={DEMO_GROUPS}"
    return found
