"""The ``deepcall`` command."""

from deepcall_async.cli.audit import run

__all__ = ["run"]
