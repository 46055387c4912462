"""The real command as a process, with an account of its own in the environment."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

from deepcall_async.cli import run
from tests.support.forked import ForkedProcess

_always_spawned = sys.platform == "win32"
COMMAND = (sys.executable, "-m", "deepcall_async")
Process: TypeAlias = subprocess.Popen[str] | ForkedProcess
_LONGEST = 60
_OURS = ("DEEPCALL_SSID", "DEEPCALL_USER_ID", "DEEPCALL_TOKEN", "DEEPCALL_BASE_URL")


def environment(server: Any = None, **more: str) -> dict[str, str]:
    """The environment without what this machine may have set, and with the sandbox's account."""
    clean = {name: value for name, value in os.environ.items() if name not in _OURS}
    for name in [name for name in clean if name.lower().endswith("_proxy")]:
        del clean[name]
    clean |= {"COLUMNS": "100", "XDG_CONFIG_HOME": "/nonexistent"}
    if server is not None:
        clean |= {
            "DEEPCALL_BASE_URL": server.base_url,
            "DEEPCALL_USER_ID": server.user_id,
            "DEEPCALL_TOKEN": server.token,
        }
    return clean | more


def spawn_always() -> None:
    """Let each run of the command have an interpreter of its own, as users' runs have."""
    global _always_spawned
    _always_spawned = True


def deepcall(
    *arguments: object, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, in a process of its own; options as for `subprocess.run`."""
    words = [*map(str, arguments)]
    env = environment() if env is None else env
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    if "stdin" not in options:
        options = {"input": ""} | options
    if not _may_be_forked(env, options):
        return subprocess.run(
            [*COMMAND, *words],
            env=env,
            timeout=_LONGEST,
            encoding="utf-8",
            check=False,
            **options,
        )
    with ExitStack() as stack:
        taken = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        taken[0].write(options.get("input", "").encode())
        taken[0].seek(0)
        given = [options.get("stdin", subprocess.PIPE), options["stdout"], options["stderr"]]
        files = [
            own if file == subprocess.PIPE else file for own, file in zip(taken, given, strict=True)
        ]
        process = ForkedProcess(
            words,
            env=env,
            cwd=str(options.get("cwd") or Path.cwd()),
            stdin=files[0],
            stdout=files[1],
            stderr=files[2],
        )
        try:
            code = process.wait(_LONGEST)
        finally:
            process.kill()
        for file in taken[1:]:
            file.seek(0)
        out, err = (file.read().decode() for file in taken[1:])
    return subprocess.CompletedProcess(words, code, out, err)


def _may_be_forked(env: dict[str, str], options: dict[str, Any]) -> bool:
    # What the interpreter reads when it starts needs one that starts.
    own = env.items() - os.environ.items()
    of_interpreter = any(name.startswith(("PYTHON", "LC_")) for name, _ in own)
    return not (_always_spawned or of_interpreter or "preexec_fn" in options)


def called(
    *arguments: object,
    env: dict[str, str] | None = None,
    input: str = "",  # noqa: A002  (as `subprocess.run` calls it)
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the command in this process: for what has nothing to do with streams and signals."""
    words = [*map(str, arguments)]
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
    with (
        mock.patch.dict(os.environ, environment() if env is None else env, clear=True),
        chdir(cwd or Path.cwd()),
        mock.patch.object(sys, "stdin", io.StringIO(input)),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = run(words)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(words, code, *texts)


@contextmanager
def started(
    *arguments: object, env: dict[str, str] | None = None, **options: Any
) -> Iterator[Process]:
    """Start the command, and see to it that it is gone afterwards."""
    words = [*map(str, arguments)]
    env = environment() if env is None else env
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    options = {"stdin": subprocess.DEVNULL} | pipes | options
    process: Process
    if _may_be_forked(env, options):
        options["cwd"] = str(options.get("cwd") or Path.cwd())
        process = ForkedProcess(words, env=env, **options)
    else:
        process = subprocess.Popen([*COMMAND, *words], env=env, encoding="utf-8", **options)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=_LONGEST)


def wait_until(holds: Any, *, process: Process | None = None) -> None:
    """Wait until something holds; a process that ends before is a failure."""
    end = time.monotonic() + _LONGEST
    while not holds():
        assert time.monotonic() < end
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a record."""
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]


def no_room() -> None:
    """Let no file of a process that is about to start grow beyond 32 KiB, as on a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (32768, 32768))


def groups_in(path: Path) -> list[int]:
    """The groups that a record has read, or tried to, each once."""
    if not path.exists():
        return []
    found = (line["group_id"] for line in lines_of(path) if line["type"] == "group")
    return [*dict.fromkeys(found)]


def looked_up(server: Any) -> list[int]:
    """The groups that were looked up, in this order, as often as they were.

    But for those whose labels differ from their relations: they are looked up once more at the end.
    """
    asked = (call for call in server.calls if call.endpoint == "getGroupAgentRelation")
    found = (int(call.fields["groupId"]) for call in asked)
    return [group_id for group_id in found if group_id not in server.planted["R004"]]
