"""The command where POSIX's signals, modules and calls are missing, as on Windows.

They are taken away from an interpreter of this system: what asks for one of them fails here too.
"""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys

import pytest

from deepcall_async.cli.exits import OutputError, PipeClosed
from deepcall_async.cli.terminal import emit
from tests.support.command import environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there they are missing anyway")

WITHOUT = """\
import asyncio, os, select, selectors, signal, subprocess, sys, tempfile
from asyncio import base_events, selector_events

for module in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty", "uvloop"):
    sys.modules[module] = None
KEPT = ("SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN")
for name in [name for name in vars(signal) if name.startswith("SIG") and name not in KEPT]:
    delattr(signal, name)
for name in ("pthread_sigmask", "sigwait", "alarm", "setitimer", "siginterrupt"):
    delattr(signal, name)
for name in ("fork", "forkpty", "register_at_fork", "uname", "fchmod",
             "chown", "killpg", "setsid", "getpgid", "mkfifo", "openpty", "sendfile", "pread"):
    delattr(os, name)
for name in ("poll", "epoll"):
    delattr(select, name)
selectors.DefaultSelector = selectors.SelectSelector

def missing(*_, **__):
    raise NotImplementedError

for loop in (asyncio.SelectorEventLoop, selector_events.BaseSelectorEventLoop):
    for name in ("add_signal_handler", "remove_signal_handler", "add_reader", "add_writer"):
        setattr(loop, name, missing)
"""

RUN = """\
import gc, importlib, json, pkgutil, sys
import deepcall_async.cli, deepcall_async.record, deepcall_async.options
from deepcall_async.cli.process import main

for module in pkgutil.iter_modules(deepcall_async.cli.__path__, "deepcall_async.cli."):
    importlib.import_module(module.name)
codes = [main(words) for words in json.loads(sys.argv[1])]
assert gc.get_freeze_count(), "the interpreter would look for garbage at its end"
print(json.dumps(codes))
"""


def test_audits_are_made_kept_and_reported(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    record, report, nights = tmp_path / "run.jsonl", tmp_path / "report.html", tmp_path / "nights"
    commands = [
        ["audit", "--sandbox", "20", "-o", f"jsonl:{record}", "-o", f"html:{report}", "-v"],
        ["audit", "--sandbox", "20", "--resume", record, "-q", "-o", f"jsonl:{record}"],
        ["audit", "--sandbox", "20", "--nightly", nights, "-q", "-o", f"csv:{tmp_path / 'a.csv'}"],
        ["report", record, "-o", f"md:{report}"],
        ["diff", record, record, "-o", f"md:{tmp_path / 'diff.md'}"],
        ["check"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands, default=str)],
        env=environment(PYTHONPATH=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [1, 1, 1, 1, 0, 2], done.stderr
    assert "Traceback" not in done.stderr
    assert (nights / "last.jsonl").exists()
    assert report.read_text().startswith("# Group audit")


def test_a_closed_pipe_is_known_by_what_windows_says_of_it(monkeypatch):
    class Closed(io.StringIO):
        def flush(self):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(OutputError):
        emit("text")
    with pytest.raises(PipeClosed), monkeypatch.context() as changed:
        changed.setattr(os, "name", "nt")
        emit("text")
