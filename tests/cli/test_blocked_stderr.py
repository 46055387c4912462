"""A stderr that nobody reads: what runs for long goes on, and ends when it is told to."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from deepcall_async.cli.terminal import say, unhurried_stderr
from tests.support.command import environment, started, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


@contextmanager
def full_pipe() -> Iterator[int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x")
    os.set_blocking(writing, True)
    try:
        yield writing
    finally:
        os.close(reading)
        os.close(writing)


def test_a_watch_looks_and_ends(deepcall_sandbox, tmp_path):
    looks = deepcall_sandbox.requests
    with (
        full_pipe() as stderr,
        started(
            *("watch", "--state", tmp_path / "watch.db", "--every", "1s", "-v"),
            stderr=stderr,
            env=environment(deepcall_sandbox),
        ) as process,
    ):
        wait_until(lambda: looks["list"] >= 2, process=process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_what_is_said_is_read_in_order(capfd):
    with unhurried_stderr():
        for number in range(100):
            say(f"line {number}")
    assert capfd.readouterr().err == "".join(f"line {number}\n" for number in range(100))


def test_a_stand_in_for_stderr_is_written_at_once(capsys):
    with unhurried_stderr():
        say("here")
        assert capsys.readouterr().err == "here\n"
