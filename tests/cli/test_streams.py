"""The command's standard streams: closed, full, no terminal, no UTF-8, and terminals of any width."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from tests.support.command import COMMAND, deepcall, environment
from tests.support.rows import mostly_thorough

pytestmark = [
    pytest.mark.deepcall_sandbox(groups=40),
    pytest.mark.skipif(sys.platform == "win32", reason="descriptors are POSIX's"),
]

DEMO = ("audit", "--sandbox", "40", "--progress", "none")


def in_shell(line: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = " ".join(COMMAND)
    return subprocess.run(
        ["sh", "-c", line.replace("deepcall", command)],
        capture_output=True,
        encoding="utf-8",
        env=environment() if env is None else env,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("closed", mostly_thorough(["<&- >&- 2>&-", "<&-", ">&- 2>&-"]))
def test_a_stream_that_is_closed_harms_nothing(closed, tmp_path):
    report = tmp_path / "report.json"
    done = in_shell(f"deepcall audit --sandbox 40 -o json:{report} -o table:- {closed}")
    assert done.returncode == 1
    assert json.loads(report.read_bytes())["summary"]["complete"] is True
    assert "Traceback" not in done.stderr
    # What is printed never ends in a file or a socket that took a closed stream's number.
    assert report.read_bytes().startswith(b"{")


@pytest.mark.parametrize(
    "command", mostly_thorough(["rules", "--version", "--help", "audit --sandbox 40"], but=2)
)
def test_a_full_stdout_is_told(command):
    done = in_shell(f"deepcall {command} >/dev/full")
    assert done.returncode == 5
    assert "no space left on device" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_a_full_stderr_is_no_reason_to_end_a_run(tmp_path):
    done = in_shell(
        f"deepcall audit --sandbox 40 --progress bar -o json:{tmp_path / 'r'} 2>/dev/full"
    )
    assert done.returncode == 1
    assert (tmp_path / "r").stat().st_size > 1000


@pytest.mark.parametrize(
    ("locale", "arguments"),
    mostly_thorough(
        [
            ({"PYTHONIOENCODING": "ascii"}, ("audit", "40", "41", "--fail-on", "never")),
            ({"LC_ALL": "C"}, ("groups", "list")),
        ]
    ),
)
def test_names_come_out_as_utf_8_whatever_the_locale(deepcall_sandbox, locale, arguments):
    name = "Zürich \N{SNOWMAN} मुंबई"
    env = environment(deepcall_sandbox)
    assert deepcall("groups", "add", name, "--yes", env=env).returncode == 0
    env |= locale | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = deepcall(*arguments, env=env)
    assert done.returncode == 0
    assert name in done.stdout


def test_a_name_is_text_and_never_markup_or_an_emoji_code(deepcall_sandbox):
    env = environment(deepcall_sandbox)
    for name in (":fire: sale", "[bold red]sale[/]"):
        assert deepcall("groups", "add", name, "--yes", env=env).returncode == 0
    listed = on_a_terminal("groups", "list", "--name", "sale", env=env)
    assert ":fire: sale" in listed
    assert "[bold red]sale[/]" in listed
    shown = on_a_terminal("groups", "show", "41", env=env)
    assert ":fire: sale" in shown


@pytest.mark.parametrize(
    "arguments",
    [("rules",), ("groups", "list"), ("groups", "show", "28"), ("--help",), ("audit", "-h")],
)
def test_no_boxes_in_a_pipe(deepcall_sandbox, arguments):
    done = deepcall(*arguments, env=environment(deepcall_sandbox))
    assert done.returncode == 0
    assert not set("│─╭╰┃━┏") & set(done.stdout)
    assert "\x1b" not in done.stdout


def test_a_row_is_a_line_in_a_pipe(deepcall_sandbox):
    done = deepcall("groups", "list", env=environment(deepcall_sandbox))
    lines = done.stdout.splitlines()
    assert lines[0] == "40 groups"
    assert lines[2].split() == ["Id", "Name", "Status", "Created"]
    assert len(lines) == 43


@pytest.mark.parametrize("columns", [1, 2, 20])
@pytest.mark.parametrize("arguments", [("--help",), ("audit", "--help"), ("rules",)])
def test_a_terminal_of_any_width_is_printed_to(columns, arguments):
    shown = on_a_terminal(*arguments, columns=columns)
    assert "audit" in shown or "G001" in shown


def test_no_color_is_honoured():
    assert "\x1b[" in on_a_terminal("audit", "--sandbox", "40", "--progress", "none")
    plain = on_a_terminal(
        "audit", "--sandbox", "40", "--progress", "none", env=environment(NO_COLOR="1")
    )
    assert "\x1b[3" not in plain
    assert "G002" in plain


def on_a_terminal(*arguments: str, columns: int = 100, env: dict[str, str] | None = None) -> str:
    """Run the command on a terminal of its own, and give what it shows."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = dict(environment() if env is None else env, TERM="xterm")
    del env["COLUMNS"]
    terminal = open(theirs, "r+b", buffering=0)  # noqa: PTH123, SIM115  (closed when the run ends)
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    shown = b""
    try:
        with ThreadPoolExecutor(1) as pool:
            run = pool.submit(deepcall, *arguments, env=env, **streams)
            run.add_done_callback(lambda _: terminal.close())
            with suppress(OSError):  # the terminal's other end is closed
                while part := os.read(ours, 65536):
                    shown += part
            run.result()
    finally:
        os.close(ours)
    return shown.decode()


def test_what_is_not_whole_says_so_in_its_first_line_on_a_terminal_too(deepcall_sandbox):
    deepcall_sandbox.error_rate = {1015: 0.9}
    env = environment(deepcall_sandbox, NO_COLOR="1")
    shown = on_a_terminal("audit", *map(str, range(1, 21)), "--progress", "none", env=env)
    assert shown.lstrip("\x1b[1m").startswith("Incomplete: ")
