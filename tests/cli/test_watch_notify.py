"""Messages that nobody takes hold up neither looks nor the end; heartbeats' URLs in files."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import subprocess
import threading
from collections import Counter
from contextlib import suppress

import pytest

from deepcall_async.cli.exits import UsageError
from deepcall_async.cli.loop import in_daemon_thread
from deepcall_async.cli.watch_notify import (
    Channel,
    channels_in,
    deliver,
    heartbeat_url,
    send_heartbeats,
    stdout_channel,
)
from deepcall_async.cli.watch_options import TellOptions, WatchOptions
from deepcall_async.watch import Look
from tests.cli.test_watch import DARK, SECRET, Given, Looks, urls
from tests.support.audit_accounts import NOW
from tests.support.command import environment, started, wait_until
from tests.support.hazards import refused_port

# Apprise looks whether Python still has that module; it does before 3.13.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


@pytest.mark.anyio
async def test_work_in_a_daemon_thread_gives_its_result_or_its_error():
    assert await in_daemon_thread(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await in_daemon_thread(lambda: 1 // 0)


@pytest.mark.anyio
async def test_nobody_waits_for_work_that_hangs():
    go_on, at_work = threading.Event(), threading.Event()

    def hang() -> None:
        at_work.set()
        go_on.wait()

    task = asyncio.create_task(in_daemon_thread(hang))
    await asyncio.to_thread(at_work.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (thread,) = [each for each in threading.enumerate() if each.name == "deepcall-work"]
    assert thread.daemon
    go_on.set()
    await asyncio.to_thread(thread.join)


@pytest.mark.anyio
async def test_a_service_that_hangs_is_waited_for_in_a_thread_of_ours_alone(tmp_path):
    """The process would wait for a thread of an executor's, such as those of Apprise."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = urls(tmp_path, f"json://127.0.0.1:{silent.getsockname()[1]}/?rto=60&cto=60")
        (channel,) = channels_in(file, "")
        before = {*threading.enumerate()}
        task = asyncio.create_task(channel.send(DARK))
        connection, _ = await asyncio.to_thread(silent.accept)
        new = {*threading.enumerate()} - before
        assert [each.name for each in new if not each.name.startswith("asyncio_")] == [
            "deepcall-work"
        ]
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        connection.close()


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_message_that_hangs_is_said_once_and_not_tried_again_meanwhile(capfd):
    tries, failures = 0, Counter()

    async def send(_: object) -> bool:
        nonlocal tries
        tries += 1
        await asyncio.sleep(3600)
        return True

    await deliver(Given(DARK), Channel("key", "line 1 (JSON)", send), failures, random.Random(0))
    assert tries == 1
    assert failures == {"line 1 (JSON)": 1}
    assert capfd.readouterr().err == "deepcall: a message to line 1 (JSON) is under way for 60 s\n"


@pytest.mark.anyio
async def test_changes_are_printed_on_a_stand_in_too(capsys):
    assert await stdout_channel().send(DARK) is True
    assert "Sales (1) went dark" in capsys.readouterr().out


def test_with_a_stdout_that_nobody_reads_it_looks_and_ends(deepcall_sandbox, tmp_path):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    looks = deepcall_sandbox.requests
    with started(
        "watch",
        "--state",
        str(tmp_path / "watch.db"),
        "--every",
        "1s",
        stdout=writing,
        stderr=subprocess.DEVNULL,
        env=environment(deepcall_sandbox),
    ) as process:
        wait_until(lambda: looks["list"] >= 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    os.close(reading)
    os.close(writing)


@pytest.mark.anyio
async def test_what_apprise_logs_of_its_urls_goes_nowhere(tmp_path):
    said: list[str] = []

    class Root(logging.Handler):  # caplog would listen to a logger that does not propagate, too
        def emit(self, record: logging.LogRecord) -> None:
            if record.name.startswith("apprise"):
                said.append(record.getMessage())

    handler, log = Root(), logging.getLogger("apprise")
    level, log.propagate = log.level, True
    log.setLevel("DEBUG")
    logging.getLogger().addHandler(handler)
    try:
        with refused_port() as port:
            (channel,) = channels_in(urls(tmp_path, f"json://127.0.0.1:{port}/{SECRET}"), "")
            assert await channel.send(DARK) is False
    finally:
        logging.getLogger().removeHandler(handler)
        log.setLevel(level)
    assert SECRET not in "".join(said)


def test_urls_that_share_a_line_are_refused(tmp_path):
    one = f"json://127.0.0.1/{SECRET}"
    for line in (f"{one}, {one}x", f"{one} {one}x"):
        with pytest.raises(UsageError, match="line 1 holds several URLs") as caught:
            channels_in(urls(tmp_path, line), "")
        assert SECRET not in str(caught.value)


# Heartbeats


def test_a_heartbeats_url_may_stand_in_a_file(tmp_path, capfd):
    url = f"https://hc.example/ping/{SECRET}"
    file = urls(tmp_path, url)
    assert heartbeat_url(url) == url
    assert heartbeat_url(f"file:{file}") == url
    assert capfd.readouterr().err == ""
    file.chmod(0o644)
    heartbeat_url(f"file:{file}")
    assert "others can read" in capfd.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        f"ftp://{SECRET}",
        SECRET,
        "",
        f"http://[{SECRET}",
        f"http://a..example/{SECRET}",
        f"http://{'x' * 64}.example/{SECRET}",
        f"http://hc.example:99999/{SECRET}",
    ],
)
def test_what_is_no_heartbeat_url_is_not_quoted(tmp_path, content):
    for given in (content, f"file:{urls(tmp_path, content)}"):
        with pytest.raises(UsageError, match="--heartbeat must be a URL") as caught:
            heartbeat_url(given)
        assert SECRET not in str(caught.value)
    with pytest.raises(UsageError, match="no such file"):
        heartbeat_url(f"file:{tmp_path}/nowhere")


@pytest.mark.anyio
async def test_a_heartbeat_that_is_sent_on_to_nowhere_is_said_to_have_failed(capfd):
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        location = b"http://a..example/" + SECRET.encode()
        writer.write(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %b\r\n\r\n" % location)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(EOFError):
            await send_heartbeats(Looks(Look(number=1, started=NOW, seconds=1)), url)
    said = capfd.readouterr().err
    assert said.startswith("deepcall: the heartbeat to 127.0.0.1 was not taken: ")
    assert SECRET not in said


def test_the_state_is_not_the_heartbeats_file(tmp_path):
    from deepcall_async.cli.parameters import ConnectOptions
    from deepcall_async.cli.watch_run import watch_account

    state = tmp_path / "same"
    with pytest.raises(UsageError, match="is the file of --heartbeat"):
        watch_account(
            state,
            looking=WatchOptions(),
            telling=TellOptions(heartbeat=f"file:{state}"),
            connect=ConnectOptions(),
        )
