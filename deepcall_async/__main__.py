"""The entry point of the ``deepcall`` command.

It checks that the extra ``cli`` is installed, says how to install it if not, and runs the command.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]


def main() -> int:
    """Run the ``deepcall`` command on this process's arguments and give its exit code."""
    if any(find_spec(name) is None for name in ("cyclopts", "jinja2", "rich")):
        print("deepcall needs its extra: pip install 'deepcall-async[cli]'", file=sys.stderr)
        return 2
    from deepcall_async.cli import run

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
