"""``--processes``: shards of a fleet as child processes, begun anew when one of them dies.

A child reads what to do from its stdin, and ends when that is closed: so none is left behind by a
parent that was killed. All state is in the fleet's folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from deepcall_async.audit.accounts import Account
from deepcall_async.cli.exits import BUG, UNWRITTEN, USAGE, OutputError, Stopped, UsageError, ending
from deepcall_async.cli.logs import log_to_stderr
from deepcall_async.cli.loop import run_async
from deepcall_async.cli.terminal import say
from deepcall_async.fanout import Progress
from deepcall_async.fleet import AuditPlan, audit_fleet
from deepcall_async.fleet.folder import part_file

__all__ = ["TOLD_EVERY", "Shards", "child", "progress_of", "supervise"]

TOLD_EVERY = 60.0
"""Seconds after which the same trouble, such as a service that is away, is told again."""

_MOST_DEATHS = 3
"""How often in a row a child may die without having finished an account."""

_LOOK_EVERY = 0.1
_LAST_SECONDS = 5.0
"""How long children may take to end in order, before they are killed."""

_CHILD = "from deepcall_async.cli.shards import child; raise SystemExit(child())"


class Shards(Struct, frozen=True, kw_only=True):
    """What the children are to do; it holds no secret."""

    accounts: tuple[Account, ...]
    folder: str
    again: bool
    at_once: int
    plan: AuditPlan
    quiet: bool = False
    shard: tuple[int, int] = (0, 1)


def supervise(
    shards: Shards, processes: int, progress: Callable[[Progress], object] | None
) -> None:
    """Audit a fleet in child processes; what they came to is in the folder.

    Args:
        shards: what to do.
        processes: how many children.
        progress: called with a `Progress` of accounts, about once a second.

    Raises:
        OutputError: a child could not write its records.
        UsageError: a child could not begin; it has said why.
    """
    children = [_Child(replace(shards, shard=(i, processes))) for i in range(processes)]
    began = last = time.monotonic()
    try:
        for each in children:
            each.start()
        while [each for each in children if each.look()]:
            now = time.monotonic()
            told = _sum(children, len(shards.accounts), now - began)
            if progress is not None and now - last >= 1 and told.done < len(shards.accounts):
                last = now
                progress(told)
            time.sleep(_LOOK_EVERY)
    finally:
        for each in children:
            each.stop()
        end = time.monotonic() + _LAST_SECONDS
        for each in children:
            each.wait(end)
    if progress is not None:
        progress(_sum(children, len(shards.accounts), time.monotonic() - began))
    if any(each.code == UNWRITTEN for each in children):
        raise OutputError(f"{shards.folder}: not all could be written there")
    if any(each.code == USAGE for each in children):
        raise UsageError(
            "not all processes could begin: mend that, then run the same command again"
        )
    if any(each.code not in (0, None) for each in children):
        say("deepcall: not all processes came to their end; the same command goes on")


def progress_of(done: int, failed: int, total: int, seconds: float) -> Progress:
    """Make the progress of a fleet, whose unit is the account."""
    rate = done / seconds if seconds else 0.0
    left = (total - done) / rate if rate else None
    return Progress(done=done, failed=failed, total=total, seconds=seconds, rate=rate, eta=left)


def child() -> int:
    """Audit one shard, told on stdin, until done or until stdin is closed."""
    shards = msgspec.json.decode(sys.stdin.buffer.readline(), type=Shards)
    threading.Thread(target=_watch, args=(sys.stdin.fileno(),), daemon=True).start()
    told = log_to_stderr(
        verbose=False, quiet=shards.quiet, patience=shards.plan.patience, pause=TOLD_EVERY
    )
    try:
        with told:
            run_async(_work(shards))
    except BaseException as error:
        code, text = _ending(error)
        if text and not isinstance(error, Stopped):
            say(f"deepcall: shard {shards.shard[0]}: {text}")
        return code
    return 0


def _ending(error: BaseException) -> tuple[int, str]:
    if isinstance(error, OSError):
        return UNWRITTEN, str(error)
    # What `audit_fleet` says of its arguments and of the folder.
    return (USAGE, str(error)) if isinstance(error, ValueError) else ending(error)


async def _work(shards: Shards) -> None:
    async for _ in audit_fleet(
        shards.accounts,
        folder=shards.folder,
        at_once=shards.at_once,
        again=shards.again,
        shard=shards.shard,
        plan=shards.plan,
    ):
        pass


def _watch(stdin: int) -> None:
    # Not through Python's own buffer, whose lock would be held when the interpreter ends.
    while os.read(stdin, 4096):
        pass
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGTERM)
    else:
        os._exit(1)


class _Child:
    """One child process, and how many accounts it has reported."""

    def __init__(self, shards: Shards) -> None:
        self.code: int | None = None
        self.done = 0
        self._shards = shards
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths = 0
        self._seen = 0
        self._file = part_file(Path(shards.folder), shards.shard)

    def start(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603  (this interpreter and our own line)
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None  # noqa: S101  (a pipe was asked for)
        try:
            self._process.stdin.write(msgspec.json.encode(self._shards) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return  # it is dead already; look() sees to that

    def look(self) -> bool:
        """Begin it anew if it died, and say whether it is still at work."""
        if self._process is None:
            return False
        self._count()
        code = self._process.poll()
        if code is None:
            return True
        self._close()
        if code in (0, USAGE, UNWRITTEN, BUG):
            self.code, self._process = code, None
            return False
        self._deaths = 0 if self.done > self._seen else self._deaths + 1
        self._seen = self.done
        if self._deaths > _MOST_DEATHS:
            self.code, self._process = code, None
            return False
        self.start()
        return True

    def stop(self) -> None:
        self._close()

    def wait(self, end: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                return

    def _count(self) -> None:
        try:
            self.done = max(0, self._file.read_bytes().count(b'{"type":"account"'))
        except OSError:
            return


def _sum(children: list[_Child], total: int, seconds: float) -> Progress:
    return progress_of(min(total, sum(each.done for each in children)), 0, total, seconds)
