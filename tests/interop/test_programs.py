"""How programs are started: one that is missing skips a test, one that fails says why."""

from __future__ import annotations

import sys

import pytest

from tests.interop.programs import find, running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing is started there")


def test_a_program_that_is_missing_skips_the_test_and_says_so():
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        find("no-such-program")


def test_a_program_that_does_not_start_is_told_with_what_it_wrote():
    def command(folder, ports):
        return [sys.executable, "-c", f"raise SystemExit('cannot listen on {ports[0]}')"]

    with (
        pytest.raises(RuntimeError, match=r"does not start:\n.*cannot listen on \d+"),
        running(command, ports=1),
    ):
        pytest.fail("it runs")


def test_a_program_has_ended_and_its_folder_is_gone_afterwards():
    serve = (
        "import socket, time; s = socket.create_server(('127.0.0.1', {}), backlog=9);"
        "print('listening', flush=True); time.sleep(600)"
    )

    def command(folder, ports):
        return [sys.executable, "-c", serve.format(ports[0])]

    with running(command, ports=1) as program:
        assert program.lines("output.txt") == ["listening"]
        assert program.lines("no-such-file") == []
    assert program.process.poll() is not None
    assert not program.folder.exists()
