"""The engine for Dask, on a real scheduler and two real workers on loopback.

They start and die in seconds, so there are three tests only. What is at stake, thousands of
lookups, is measured by ``benchmarks/fleet.py``.
"""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager

import pytest

from deepcall_async.errors import ConnectFailed
from deepcall_async.fleet import Account, AuditPlan, audit_fleet, read_fleet
from deepcall_async.sandbox import SandboxFleet
from tests.support.command import environment

pytest.importorskip("distributed", reason="pip install 'deepcall-async[dask]'")

from distributed.core import clean_exception, error_message

from deepcall_async.engines import dask

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX's"),
    # Dask's own: sockets and loops of a cluster that was killed.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:distributed"),
]

GROUPS, ACCOUNTS = 30, 8
_LONGEST = 60


@contextmanager
def process(*words, env, cwd):
    child = subprocess.Popen(
        [sys.executable, "-m", *words], env=env, cwd=cwd,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.communicate(timeout=_LONGEST)


def address_of(scheduler):
    for line in scheduler.stderr:
        if found := re.search(r"tcp://127\.0\.0\.1:\d+", line):
            return found[0]
    raise AssertionError("the scheduler ended")


@contextmanager
def cluster(env, cwd, workers=2):
    """A scheduler, and workers of two threads each without a nanny: who is killed stays dead."""
    with ExitStack() as stack:
        quiet = env | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "2s"}
        words = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0")
        start = lambda *more: stack.enter_context(process(*more, env=quiet, cwd=cwd))  # noqa: E731
        scheduler = start(*words, "--no-dashboard")
        address = address_of(scheduler)
        worker = (
            "distributed.cli.dask_worker",
            address,
            "--nthreads",
            "2",
            "--no-nanny",
            "--no-dashboard",
        )
        yield address, scheduler, [start(*worker, "--death-timeout", "5") for _ in range(workers)]


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def service():
    async with SandboxFleet(ACCOUNTS, groups=GROUPS) as server:
        yield server


@pytest.fixture
def env(service):
    more = {"DEEPCALL_BASE_URL": service.base_url}
    for number, account in enumerate(service.accounts):
        account.latency = 0.02
        more |= {f"A{number}_USER_ID": account.user_id, f"A{number}_TOKEN": account.token}
    return environment(**more)


def fleet(service):
    return [Account(f"acme {i}", f"env:A{i}", service.base_url) for i in range(ACCOUNTS)]


def doubled(service):
    """How many lookups were made twice; each must have been made once."""
    total = 0
    for account in service.accounts:
        planted = account.planted["R004"]
        found = Counter(
            int(call.fields["groupId"]) for call in account.calls
            if call.endpoint == "getGroupAgentRelation"
        )  # fmt: skip
        assert len(found) == GROUPS
        total += sum(number - 1 for group, number in found.items() if group not in planted)
    return total


PLAN = AuditPlan(concurrency=2)
UNTAKEN = 2 + 2 * 2
"""Lookups of an account that a death may cost: those in flight, and twice as many whose answers
have come and wait to be taken, as `fan_out` lets them."""


@pytest.mark.anyio
async def test_a_worker_killed_midway_and_one_during_the_last_accounts(service, env, tmp_path):
    async def run(address, kill):
        names = []
        async with dask.connected(address, at_once=4) as engine:
            reports = audit_fleet(
                fleet(service), folder=tmp_path, at_once=4, plan=PLAN, fan_out=engine
            )
            async for report in reports:
                assert report.complete
                names.append(report.name)
                if len(names) in kill:
                    os.kill(kill[len(names)], signal.SIGKILL)
        return names

    with cluster(env, tmp_path, workers=3) as (address, _, workers):
        names = await run(address, {2: workers[0].pid, ACCOUNTS - 2: workers[1].pid})
    assert sorted(names) == [f"acme {i}" for i in range(ACCOUNTS)]
    assert read_fleet([tmp_path]).complete
    # What the dead had in flight is asked again, and nothing that had landed.
    assert doubled(service) <= 2 * 2 * UNTAKEN


@pytest.mark.anyio
async def test_the_scheduler_killed_and_the_same_run_again(service, env, tmp_path):
    with cluster(env, tmp_path) as (address, scheduler, _):
        seen = []
        with pytest.raises(dask.SchedulerLost):
            async with dask.connected(address, at_once=4) as engine:
                reports = audit_fleet(
                    fleet(service), folder=tmp_path, at_once=4, plan=PLAN, fan_out=engine
                )
                async for report in reports:
                    seen.append(report.name)
                    if len(seen) == 2:
                        scheduler.kill()
        assert len(seen) < ACCOUNTS
    finished = {each.name for each in read_fleet([tmp_path]).accounts if each.complete}
    assert finished >= set(seen)
    with cluster(env, tmp_path) as (address, _, _):
        async with dask.connected(address, at_once=4) as engine:
            reports = audit_fleet(
                fleet(service), folder=tmp_path, at_once=4, plan=PLAN, fan_out=engine
            )
            names = [report.name async for report in reports if report.complete]
    assert sorted(names) == [f"acme {i}" for i in range(ACCOUNTS)]
    assert doubled(service) <= 4 * UNTAKEN


@pytest.mark.anyio
async def test_no_secret_is_in_the_scheduler(service, env, tmp_path):
    from distributed import Client

    with cluster(env, tmp_path, workers=1) as (address, _, _):
        async with (
            dask.connected(address, at_once=4) as engine,
            Client(address, asynchronous=True) as client,
        ):
            reports = audit_fleet(
                fleet(service), folder=tmp_path, at_once=4, plan=PLAN, fan_out=engine
            )
            states = []
            async for report in reports:
                assert report.complete
                states.append(await client.run_on_scheduler(_state))
    held = b"".join(states)
    assert b"acme 7" in held  # what was looked at is where the accounts are
    for account in service.accounts:
        assert account.token.encode() not in held
        assert account.token.encode() not in b"".join(
            path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
        )


def _state(dask_scheduler):
    """All that the scheduler keeps of its tasks, as bytes."""
    import pickle

    found = []
    for task in dask_scheduler.tasks.values():
        spec = task.run_spec
        try:
            found.append(pickle.dumps(spec))
        except Exception:
            found.append(repr(spec).encode())
        for frame in getattr(spec, "frames", ()) or ():
            found.append(bytes(frame))
        found.append(repr((task.key, task.annotations, task.exception_text)).encode())
    found.append(repr(list(dask_scheduler.transition_log)).encode())
    return b"".join(found)


@pytest.mark.anyio
async def test_a_cluster_without_workers_is_told_of(env, tmp_path, caplog):
    with cluster(env, tmp_path, workers=0) as (address, _, _):
        async with dask.connected(address, at_once=2):
            assert f"the Dask cluster at {address} has no workers" in caplog.text


async def cannot_connect(key):
    # As those of aiohttp that hold a context of TLS, it cannot be pickled.
    raise ConnectFailed(f"no answer to {key}") from OSError(ssl.create_default_context())


def test_an_error_of_a_worker_comes_as_what_it_is():
    with pytest.raises(ConnectFailed) as caught:
        dask._run(cannot_connect, 28)
    # What a worker makes of what was raised, and what its client makes of that.
    said = error_message(caught.value)
    _, error, _ = clean_exception(said["exception"].data, None)
    assert isinstance(error, ConnectFailed)
    assert str(error) == "no answer to 28"
