r"""The ``deepcall`` command.

Each module holds one family of commands, or what several of them share. Nothing heavy is imported
before it is known which command was asked for. ``deepcall --help`` lists the commands, and
``deepcall --install-completion`` adds shell completion.

## Credentials

A user id and an API token come from your account's web panel, and last. A session id is taken
from there too, and expires. Put them into the environment, or into a file for ``--credentials``:

```text
DEEPCALL_BASE_URL=https://brand.example
DEEPCALL_USER_ID=29791451
DEEPCALL_TOKEN=...
```

Or refer to them from ``~/.config/deepcall/config.toml``:

```toml
[profile.default]
base_url = "https://brand.example"
credentials = "file:brand.env"    # lines of DEEPCALL_USER_ID=... and DEEPCALL_TOKEN=...

[profile.acme]
base_url = "https://acme.example"
credentials = "env:ACME"          # ACME_USER_ID and ACME_TOKEN, or ACME_SSID
proxy = "http://proxy.example:3128"
ca = "acme-ca.pem"

[profile.other]
base_url = "https://other.example"
credentials = "keyring:deepcall/29791451"    # set with: keyring set deepcall 29791451
```

On Windows the profiles stand in ``%LOCALAPPDATA%\deepcall``, on macOS in ``~/Library/Application
Support/deepcall``.

An option comes before the environment, and the environment before a profile (``--profile NAME``,
else ``default``). A secret is never an argument. It never goes to an address that belongs to
another one: a credentials file's ``DEEPCALL_BASE_URL`` counts, and a mix of the environment and a
profile is refused.

## Exit codes

| code | of every command |
|---|---|
| 0 | nothing at or above ``--fail-on`` (default ``high``) |
| 1 | findings at or above it, and nothing else went wrong |
| 2 | wrong usage or configuration; nothing was done |
| 3 | incomplete, unless ``--allow-partial``: the service, or some group, could not be read |
| 4 | the credentials were not accepted |
| 5 | an output could not be written; the others were |
| 70 | a bug of this program |
| 130, 143, 129 | ended by Ctrl-C, SIGTERM or SIGHUP, with a line that says how to go on |
| 141 | stdout was closed by its reader |
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
