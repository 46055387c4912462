"""The entry point of the ``deepcall`` command.

It answers ``--version``, says how to install the extra that the command needs, and runs it. It
imports next to nothing, so that this takes no longer than to start the interpreter.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from deepcall_async.version import __version__

__all__ = ["main"]

_NEEDED = ("cyclopts", "dotenv", "filelock", "jinja2", "platformdirs", "rich")


def main() -> int:
    """Run the ``deepcall`` command on this process's arguments and give its exit code."""
    arguments = sys.argv[1:]
    try:
        if arguments == ["--version"] and sys.stdout is not None:
            # What goes wrong here goes wrong again below, and is told there.
            with suppress(OSError):
                sys.stdout.write(f"{__version__}\n")
                sys.stdout.flush()
                return 0
        from importlib.util import find_spec

        if any(find_spec(name) is None for name in _NEEDED):
            print("deepcall: install its extra: pip install 'deepcall-async[cli]'", file=sys.stderr)
            return 2
        from deepcall_async.cli.process import main as run_process

        return run_process(arguments)
    except KeyboardInterrupt:
        # So early that nothing was begun.
        print("deepcall: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
