"""The command in children of one process that has imported it: a run takes no time to start.

To import the command takes longer than most of what the tests ask of it. Each worker of the tests
has one such process, and every run is a child of it with descriptors, environment and folder of its
own. What depends on how the interpreter starts needs a process of its own.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NoReturn, TextIO

from deepcall_async.cli import run

__all__ = ["ForkedProcess"]

_PRELOADED = (
    "deepcall_async.audit.formats.html",
    "deepcall_async.audit.formats.jsonl",
    "deepcall_async.audit.formats.text",
    "deepcall_async.cli.app",
    "deepcall_async.cli.audit",
    "deepcall_async.cli.audit_run",
    "deepcall_async.cli.offline",
    "deepcall_async.cli.groups",
    "deepcall_async.cli.process",
    "deepcall_async.cli.sandbox",
    "deepcall_async.cli.service",
    "deepcall_async.sandbox.server",
    "deepcall_async.transport.direct",
    "encodings.idna",
    "rich.markdown",
    "rich.progress",
    "rich.table",
    "uvloop",
)
_REQUEST = 1 << 20


class ForkedProcess:
    """A run of the command that has begun; used as a `subprocess.Popen` is.

    Args:
        arguments: the command line's, without the program's name.
        env: its environment.
        cwd: its folder.
        stdin: a file, its descriptor, or `subprocess.DEVNULL`.
        stdout: a file, its descriptor, `subprocess.PIPE` or `subprocess.DEVNULL`.
        stderr: as stdout.
    """

    def __init__(
        self,
        arguments: list[str],
        *,
        env: dict[str, str],
        cwd: str,
        stdin: Any,
        stdout: Any,
        stderr: Any,
    ) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._status, status = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ExitStack() as stack:
            stack.enter_context(status)
            null = stack.enter_context(open(os.devnull, "r+b"))  # noqa: PTH123  (has no path)
            self.stdout, out = _output(stdout, stack)
            self.stderr, err = _output(stderr, stack)
            files = [null if stdin == subprocess.DEVNULL else stdin, out, err, status]
            request = json.dumps([arguments, env, cwd]).encode()
            socket.send_fds(
                _server(),
                [request],
                [each if isinstance(each, int) else each.fileno() for each in files],
            )
        self.pid = int(self._status.recv(100))

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        with suppress(BlockingIOError, subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code once it has ended, or the negative number of the signal that ended it."""
        if self.returncode is None:
            self._status.settimeout(timeout)
            try:
                self.returncode = os.waitstatus_to_exitcode(int(self._status.recv(100)))
            except TimeoutError:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
            self._status.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Its exit waited for, and what it wrote since it was last asked; then its pipes are closed."""
        with ThreadPoolExecutor(2) as pool:
            reads = [pool.submit(_rest_of, stream) for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        out, err = (read.result() for read in reads)
        return out, err

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _output(wanted: Any, stack: ExitStack) -> tuple[TextIO | None, Any]:
    """Our end of an output, and the process's."""
    if wanted == subprocess.DEVNULL:
        return None, stack.enter_context(open(os.devnull, "wb"))  # noqa: PTH123  (has no path)
    if wanted != subprocess.PIPE:
        return None, wanted
    ours, theirs = os.pipe()
    return open(ours, encoding="utf-8"), stack.enter_context(open(theirs, "wb"))  # noqa: PTH123  (descriptors)


def _rest_of(stream: TextIO | None) -> str:
    if stream is None or stream.closed:
        return ""
    with stream:
        return stream.read()


@cache
def _server() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait(timeout=10)

    atexit.register(end)
    return ours


def _serve(connection: socket.socket) -> None:
    for name in _PRELOADED:
        importlib.import_module(name)
    _warm_up()
    gc.collect()
    gc.freeze()
    while True:
        request, descriptors, _, _ = socket.recv_fds(connection, _REQUEST, 4)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG if request else 0)[0]:
                pass
        if not request:
            return
        if os.fork() == 0:
            connection.close()
            _mind(socket.socket(fileno=descriptors.pop()), json.loads(request), descriptors)
        for each in descriptors:
            os.close(each)


def _warm_up() -> None:
    """The first help and the first page import and compile what every later one uses.

    An event loop is not for a process that forks: uvloop's threads would stay.
    """
    with (
        NamedTemporaryFile("w", suffix=".jsonl") as record,
        open(os.devnull, "w") as null,  # noqa: PTH123  (has no path)
        redirect_stdout(null),
        redirect_stderr(null),
    ):
        record.write('{"type":"run","schema":1}\n{"type":"asked","group_ids":[]}\n')
        record.flush()
        run(["--help"])
        run(["audit", "--help"])
        run(["report", record.name, "-o", f"html:{os.devnull}", "-o", "table:-"])


def _mind(status: socket.socket, request: tuple[Any, ...], descriptors: list[int]) -> NoReturn:
    """Begin a run, and tell its process's number, and how it ended."""
    pid = os.fork()
    if pid == 0:
        status.close()
        os._exit(_run(*request, descriptors))
    for each in descriptors:
        os.close(each)
    status.send(str(pid).encode())
    status.send(str(os.waitpid(pid, 0)[1]).encode())
    os._exit(0)


def _run(arguments: list[str], env: dict[str, str], cwd: str, descriptors: list[int]) -> int:
    for number, each in enumerate(descriptors):
        os.dup2(each, number)
        os.close(each)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = ["deepcall", *arguments]
    sys.stdin, sys.stdout, sys.stderr = (_stream(0, "r"), _stream(1, "w"), _stream(2, "w"))

    from deepcall_async.__main__ import main

    return main()


def _stream(number: int, mode: str) -> Any:
    return open(number, mode, encoding="utf-8", buffering=1 if number == 2 else -1, closefd=False)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
