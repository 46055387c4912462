"""Servers and proxies that other people wrote, started on free ports and ended with the test.

Each runs from a folder of its own, needs no rights, and leaves nothing behind. Nothing of the
package is used here.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["Program", "find", "running", "unprivileged"]

_STARTS_WITHIN = 30.0  # seconds; a machine that does much else starts a program slowly
_ENDS_WITHIN = 10.0


def find(name: str) -> str:
    """The path of a program; where there is none, the test is skipped and says so."""
    if sys.platform == "win32":
        pytest.skip("the configurations of tests/interop are for POSIX systems")
    # What an administrator starts is often not on a user's path.
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def unprivileged(name: str) -> str:
    """A user for a program's workers: as root, some refuse to be root or become someone else."""
    if os.geteuid() != 0:
        return ""
    import pwd

    for user in (name, "nobody"):
        try:
            pwd.getpwnam(user)
        except KeyError:
            continue
        return user
    return "root"


class Program:
    """A running program: its folder, its ports, and what it wrote."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, ports: list[int]) -> None:
        self.process = process
        self.folder = folder
        self.ports = ports

    def lines(self, name: str) -> list[str]:
        """What it has written to a file so far, by line."""
        path = self.folder / name
        return path.read_text("utf-8", "replace").splitlines() if path.exists() else []


@contextmanager
def running(
    command: Callable[[Path, list[int]], Sequence[str | Path]], *, ports: int
) -> Iterator[Program]:
    """Start a program and give it when it accepts connections on all of its ports.

    Args:
        command: writes the configuration into the folder, and gives the command line.
        ports: how many ports it listens on.
    """
    # Not pytest's temporary folder, which no other user may enter: workers may be one.
    with tempfile.TemporaryDirectory(prefix="interop-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        for attempt in (1, 2, 3):
            chosen = _free_ports(ports)
            line = [str(part) for part in command(folder, chosen)]
            with (folder / "output.txt").open("wb") as output:
                process = subprocess.Popen(
                    line, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
                )
            try:
                # Between choosing and listening someone else may have taken a port.
                if _accepts(process, chosen):
                    yield Program(process, folder, chosen)
                    return
                if attempt == 3:
                    wrote = (folder / "output.txt").read_text("utf-8", "replace")
                    raise RuntimeError(f"{line[0]} does not start:\n{wrote[-2000:]}")
            finally:
                _end(process)


def _free_ports(count: int) -> list[int]:
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()


def _accepts(process: subprocess.Popen[bytes], ports: list[int]) -> bool:
    until = time.monotonic() + _STARTS_WITHIN
    for port in ports:
        while True:
            if process.poll() is not None or time.monotonic() > until:
                return False
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.02)
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_ENDS_WITHIN)
