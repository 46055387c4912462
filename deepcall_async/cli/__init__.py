"""The ``deepcall`` command.

Each module holds one family of commands, or what several of them share. Nothing heavy is imported
before it is known which command was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["run"]


def run(arguments: Sequence[str]) -> int:
    """Run the command.

    Args:
        arguments: the command line's, without the program's name.

    Returns:
        The exit code: 0 fine, 1 findings, 2 wrong usage or configuration, 3 incomplete,
        4 authentication, 5 an output could not be written, 70 a bug, 141 a closed pipe;
        130, 143 or 129 when it was ended by SIGINT, SIGTERM or SIGHUP.
    """
    from deepcall_async.cli.app import run_command

    return run_command(arguments)
