"""The ``deepcall`` command."""

from deepcall_async.cli.app import run

__all__ = ["run"]
