"""The command in children of one process that has imported it: a run takes no time to start.

To import the command takes longer than most of what the tests ask of it. Each worker of the tests
has one such process, and every run is a child of it with descriptors, environment and folder of its
own. What depends on how the interpreter starts needs a process of its own, and so do signals.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["run_forked"]

_PRELOADED = (
    "deepcall_async.audit.formats.html",
    "deepcall_async.audit.formats.jsonl",
    "deepcall_async.audit.formats.text",
    "deepcall_async.cli.app",
    "deepcall_async.cli.audit_run",
    "deepcall_async.cli.offline",
    "deepcall_async.cli.groups",
    "deepcall_async.cli.process",
    "deepcall_async.cli.sandbox",
    "deepcall_async.cli.service",
    "deepcall_async.sandbox.server",
    "deepcall_async.transport.direct",
    "rich.markdown",
    "rich.progress",
    "rich.table",
    "uvloop",
)
_REQUEST = 1 << 20


def run_forked(
    arguments: list[str], *, env: dict[str, str], cwd: str, descriptors: list[int], timeout: float
) -> int:
    """Run the command to its end.

    Args:
        arguments: the command line's, without the program's name.
        env: its environment.
        cwd: its folder.
        descriptors: its stdin, stdout and stderr.
        timeout: seconds; a run that takes longer is killed.

    Returns:
        The exit code, or the negative number of the signal that ended it.
    """
    server = _server()
    request = json.dumps([arguments, env, cwd]).encode()
    socket.send_fds(server, [request], descriptors)
    server.settimeout(timeout)
    pid = int(server.recv(100))
    try:
        return os.waitstatus_to_exitcode(int(server.recv(100)))
    except TimeoutError:
        os.kill(pid, 9)
        server.recv(100)
        raise subprocess.TimeoutExpired(arguments, timeout) from None


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
    gc.freeze()
    while True:
        request, descriptors, _, _ = socket.recv_fds(connection, _REQUEST, 3)
        if not request:
            return
        pid = os.fork()
        if pid == 0:
            connection.close()
            os._exit(_run(*json.loads(request), descriptors))
        for each in descriptors:
            os.close(each)
        connection.send(str(pid).encode())
        connection.send(str(os.waitpid(pid, 0)[1]).encode())


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
