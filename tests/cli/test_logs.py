"""What the client logs, as commands tell it on stderr."""

from __future__ import annotations

import logging

from deepcall_async.cli.logs import log_to_stderr


def test_the_same_trouble_is_told_once_in_a_while(capsys):
    log = logging.getLogger("deepcall_async.somewhere")
    with log_to_stderr(verbose=False, quiet=False, patience=5, pause=60):
        for _ in range(3):
            log.warning("no answer from %s (%s)", "one.invalid:443", "ConnectFailed")
            log.warning("no answer from %s (%s)", "two.invalid:443", "ConnectFailed")
            log.warning("another process")
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in told] == [
        "deepcall: no answer from one.invalid:443",
        "deepcall: no answer from two.invalid:443",
        "deepcall: another process",
    ]
    with log_to_stderr(verbose=False, quiet=False, patience=5):
        log.warning("no answer from %s (%s)", "one.invalid:443", "ConnectFailed")
        log.warning("no answer from %s (%s)", "one.invalid:443", "ConnectFailed")
    assert len(capsys.readouterr().err.splitlines()) == 2
