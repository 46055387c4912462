"""The ``deepcall`` command: which commands there are, and how an error becomes an exit code."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App, CycloptsError

from deepcall_async.cli.connect import DEMO_GROUPS
from deepcall_async.cli.exits import INCOMPLETE, INTERRUPTED, UNAUTHENTICATED, USAGE
from deepcall_async.cli.terminal import say
from deepcall_async.errors import AuthenticationFailed, DeepCallError
from deepcall_async.version import __version__

__all__ = ["run"]

app: App = App(
    name="deepcall", help="DeepCall's groups from the command line.", version=__version__
)
# A command's module is imported when the command is chosen; so its line of help stands here.
for _name, _place, _help in (
    (
        "audit",
        "audit:audit",
        "Find groups whose callers ring into nothing, and what is wrong.",
    ),
    ("diff", "audit:diff", "Say what changed from one run's JSONL to another's."),
    ("groups", "groups:app", "Look at the account's groups."),
    ("rules", "audit:list_rules", "List the rules of the audit."),
    ("sandbox", "sandbox:serve_sandbox", "Serve the built-in sandbox until Ctrl-C."),
):
    app.command(f"deepcall_async.cli.{_place}", name=_name, help=_help)


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
        say(f"deepcall: {error}")
        return USAGE
    except AuthenticationFailed as error:
        say(f"deepcall: {error}\nCheck the credentials; `deepcall audit --help` says where from.")
        return UNAUTHENTICATED
    except DeepCallError as error:
        say(f"deepcall: {error}")
        return INCOMPLETE
    except KeyboardInterrupt:
        say("deepcall: interrupted")
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def _with_demo_size(arguments: Sequence[str]) -> list[str]:
    # An option whose value may be left out is not known to the parser.
    found = list(arguments)
    for place, argument in enumerate(found):
        following = found[place + 1] if place + 1 < len(found) else ""
        if argument == "--sandbox" and not following.isdigit():
            found[place] = f"--sandbox={DEMO_GROUPS}"
    return found
