"""The recipes of this folder at work: each in its real framework, against the sandbox.

Where a framework is not installed its tests are skipped. ``pip install -e '.[test,recipes]'`` has
them all.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from deepcall_async import (
    ClientClosed,
    DeepCall,
    GroupUnavailable,
    ServerFault,
    UserToken,
)
from deepcall_async.sandbox import Sandbox

HERE = Path(__file__).parent
RECIPES = sorted(each for each in HERE.glob("*.py") if not each.name.startswith(("test_", "__")))


def needs(*modules: str) -> None:
    for each in modules:
        pytest.importorskip(each, reason=f"{each} is not installed: extra `recipes`")


@pytest.fixture
def server(deepcall_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    monkeypatch.setenv("DEEPCALL_USER_ID", deepcall_sandbox.user_id)
    monkeypatch.setenv("DEEPCALL_TOKEN", deepcall_sandbox.token)
    monkeypatch.setenv("DEEPCALL_BASE_URL", deepcall_sandbox.base_url)
    return deepcall_sandbox


def of(server: Sandbox) -> DeepCall:
    return DeepCall(UserToken(server.user_id, server.token), base_url=server.base_url)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_short_says_what_it_is_and_stands_in_the_readme(path: Path) -> None:
    text = path.read_text("utf-8")
    assert 10 <= len(text.splitlines()) <= 40
    assert re.match(r'"""[^\n]+\.', text)
    assert f"(tests/recipes/{path.name})" in (HERE.parents[1] / "README.md").read_text("utf-8")


@asynccontextmanager
async def served(app: Any):
    """A running uvicorn, and its port."""
    import uvicorn

    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="on", ws="none")
    uvicorn_server = uvicorn.Server(config)
    task = asyncio.create_task(uvicorn_server.serve())
    while not uvicorn_server.started:
        assert not task.done()
        await asyncio.sleep(0.01)
    try:
        yield uvicorn_server.servers[0].sockets[0].getsockname()[1]
    finally:
        uvicorn_server.should_exit = True
        await task


def browser(port: int) -> Any:
    import httpx

    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60)


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_fastapi(server: Sandbox) -> None:
    needs("fastapi", "uvicorn", "httpx")
    from tests.recipes.fastapi_app import app

    async with served(app) as port, browser(port) as get:
        found = (await get.get("/groups/28")).json()
        assert found["group"]["name"] == "Mahipal singh"
        assert (await get.get("/groups/404404")).status_code == 404
        schema = (await get.get("/openapi.json")).json()
        answer = schema["paths"]["/groups/{group_id}"]["get"]["responses"]["200"]
        assert set(answer["content"]["application/json"]["schema"]["properties"]) == set(found)


@pytest.mark.anyio
async def test_fastapi_cancels_a_lookup_when_the_browser_leaves(server: Sandbox) -> None:
    needs("fastapi", "uvicorn", "httpx")
    from tests.recipes import fastapi_app

    server.latency = 60.0
    async with served(fastapi_app.app) as port:
        dc = of(server)
        fastapi_app.app.dependency_overrides[fastapi_app.client] = lambda: dc
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /groups/28 HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: dc.stats.active == 1)
            writer.close()
            await until(lambda: dc.stats.active == 0)
        finally:
            fastapi_app.app.dependency_overrides.clear()
            await dc.aclose()


@pytest.mark.anyio
async def test_fastapi_streams_a_fan_out_that_ends_with_its_browser(server: Sandbox) -> None:
    needs("fastapi", "uvicorn", "httpx")
    from fastapi import FastAPI

    from tests.recipes.fastapi_app import lifespan
    from tests.recipes.fastapi_stream import router

    app = FastAPI(lifespan=lifespan)
    app.include_router(router)
    async with served(app) as port, browser(port) as get:
        lines = (await get.get("/receivers")).text.splitlines()
        assert {json.loads(each)["group"] for each in lines} == set(range(1, 301))
        asked = len(server.calls)
        server.latency = 0.05
        async with get.stream("GET", "/receivers") as answer:
            async for line in answer.aiter_lines():
                assert "receivers" in line
                break
        await asyncio.sleep(0.3)
        seen = len(server.calls)
        await asyncio.sleep(0.3)
        assert len(server.calls) == seen < asked + 300


@pytest.mark.anyio
async def test_litestar(server: Sandbox) -> None:
    needs("litestar", "httpx")
    from litestar.testing import AsyncTestClient

    from tests.recipes.litestar_app import app

    async with AsyncTestClient(app) as get:
        assert (await get.get("/groups/28")).json()["group"]["unique_id"] == 28
        members = (await get.get("/groups/28/members")).json()["members"]
        assert [each["agent_id"] for each in members] == [3, 8, 2]
        assert (await get.get("/schema/openapi.json")).status_code == 200


@pytest.mark.anyio
async def test_aiohttp(server: Sandbox) -> None:
    from aiohttp.test_utils import TestClient, TestServer

    from tests.recipes.aiohttp_app import CLIENT, application

    app = application()
    async with TestClient(TestServer(app)) as get:
        assert (await (await get.get("/groups/28")).json())["group"]["unique_id"] == 28
        assert (await get.get("/groups/404404")).status == 404
    with pytest.raises(ClientClosed):
        await app[CLIENT].groups.list()


def test_django(server: Sandbox) -> None:
    needs("django")
    import django
    from django.conf import settings
    from django.test import AsyncClient, Client

    from tests.recipes import django_views

    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=django_views.__name__, ALLOWED_HOSTS=["*"], DEBUG_PROPAGATE_EXCEPTIONS=True
        )
        django.setup()
    django_views.client.cache_clear()

    async def asynchronously() -> None:
        get = AsyncClient()
        assert (await get.get("/groups/28")).json()["unknown_agent_ids"] == []
        assert (await get.get("/groups/404404")).status_code == 404

    asyncio.run(asynchronously())
    # A synchronous client runs each request on a loop of its own.
    get = Client()
    for _ in range(2):
        assert get.get("/groups/28").json()["group"]["unique_id"] == 28


@pytest.fixture
def as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_celery(server: Sandbox, as_before: None) -> None:
    needs("celery")
    from celery.contrib.testing.worker import start_worker

    from tests.recipes.celery_tasks import app, receivers

    app.conf.update(
        worker_hijack_root_logger=False, broker_transport_options={"polling_interval": 0.01}
    )
    with start_worker(app, pool="solo", perform_ping_check=False, loglevel="CRITICAL"):
        assert receivers.delay([28]).get(timeout=60, interval=0.01) == {"28": [3, 8, 2]}
        with pytest.raises(GroupUnavailable) as raised:
            receivers.delay([404404]).get(timeout=60, interval=0.01)
    assert (raised.value.code, raised.value.http_status) == (1503, 200)
    assert raised.value.endpoint == "groups.agent_relation"


@pytest.mark.anyio
async def test_taskiq(server: Sandbox) -> None:
    needs("taskiq")
    from tests.recipes.taskiq_tasks import broker, receivers

    await broker.startup()
    try:
        result = await (await receivers.kiq(28)).wait_result(timeout=60)
        assert result.return_value == [3, 8, 2]
    finally:
        await broker.shutdown()


@pytest.mark.anyio
@pytest.mark.deepcall_sandbox(groups=3)
async def test_bot(server: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    from tests.recipes.bot import watch

    told: list[str] = []
    group = server.add_group("Night shift")
    async with of(server) as dc:
        task = asyncio.create_task(watch(dc, told.append, every=0.01))
        await until(lambda: any("Night shift" in each for each in told))
        server.fail_next("list", times=4, code=1009)
        await until(lambda: "looking again" in caplog.text)
        await dc.groups.assign_agents(group, [3], receive_call=[3])
        await until(lambda: told[-1] == "Night shift is reachable again")
        server.fail_next("list", code=1014)
        with pytest.raises(Exception, match="1014"):
            await task
    assert told.count("nobody receives calls to Night shift") == 1


def test_notebook(server: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    needs("IPython")
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    for cell in (HERE / "notebook.py").read_text("utf-8").split("\n# %%\n"):
        shell.run_cell(cell).raise_error()
    assert re.search(r"\d+ of 300 groups ring nobody", capsys.readouterr().out)


@pytest.mark.anyio
async def test_structlog(
    server: Sandbox, as_before: None, capfd: pytest.CaptureFixture[str]
) -> None:
    needs("structlog")
    import structlog

    from tests.recipes.structlog_logs import CallLog, configure

    configure(logging.DEBUG)
    try:
        async with of(server).with_options(observers=[CallLog()]) as dc:
            with suppress(GroupUnavailable):
                await dc.groups.agent_relation(404404)
        structlog.get_logger().warning("mine", token=server.token)
    finally:
        structlog.reset_defaults()
    shown = capfd.readouterr().err
    lines = [json.loads(each) for each in shown.splitlines() if each.startswith("{")]
    (call,) = (each for each in lines if each.get("logger") == "calls")
    assert (call["event"], call["error"], call["code"]) == (
        "groups.agent_relation",
        "GroupUnavailable",
        1503,
    )
    assert any("attempt=1" in each["event"] for each in lines if each["level"] == "debug")
    assert [each["token"] for each in lines if each["event"] == "mine"] == ["***"]
    assert server.token not in shown


@pytest.mark.anyio
async def test_sentry(server: Sandbox) -> None:
    needs("sentry_sdk")
    import sentry_sdk

    from tests.recipes.sentry_errors import tag

    events: list[Any] = []

    class Kept(sentry_sdk.Transport):
        def capture_envelope(self, envelope: Any) -> None:
            events.append(envelope.get_event())

    with sentry_sdk.isolation_scope() as scope:
        sentry = sentry_sdk.Client(
            "https://key@sentry.invalid/1",
            before_send=tag,
            transport=Kept,
            default_integrations=False,
        )
        scope.set_client(sentry)
        async with of(server) as dc:
            server.fail_next("add", code=1009)
            try:
                await dc.groups.add("Sales")
            except Exception:
                sentry_sdk.capture_exception()
    (event,) = events
    assert event["tags"] == {"deepcall.endpoint": "groups.add", "deepcall.attempts": "1"}
    assert event["fingerprint"] == ["OutcomeUnknown", "groups.add"]
    assert server.token not in json.dumps(event, default=repr)


@pytest.mark.anyio
async def test_private_ca(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.recipes.private_ca import main

    async with Sandbox(tls=True) as server:
        (tmp_path / "ca.pem").write_text(server.ca_pem)
        monkeypatch.setenv("COMPANY_CA", str(tmp_path / "ca.pem"))
        monkeypatch.setenv("DEEPCALL_USER_ID", server.user_id)
        monkeypatch.setenv("DEEPCALL_TOKEN", server.token)
        monkeypatch.setenv("DEEPCALL_BASE_URL", server.base_url)
        await main()
    assert capsys.readouterr().out == "300 groups\n"


@pytest.mark.anyio
async def test_proxy(
    server: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.recipes.proxy import main
    from tests.support.proxy import Proxy

    async with Proxy("me:pass") as proxy:
        for password in ("pass", "wrong"):
            monkeypatch.setenv("COMPANY_PROXY", f"http://me:{password}@127.0.0.1:{proxy.port}")
            await main()
    right, wrong = capsys.readouterr().out.splitlines()
    assert right == "300 groups"
    assert "wrong" not in wrong


def test_fast_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("aiofastnet")
    from tests.recipes.fast_tls import main, run

    async def ask() -> None:
        async with Sandbox(tls=True) as server:
            (tmp_path / "ca.pem").write_text(server.ca_pem)
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
            monkeypatch.setenv("DEEPCALL_USER_ID", server.user_id)
            monkeypatch.setenv("DEEPCALL_TOKEN", server.token)
            monkeypatch.setenv("DEEPCALL_BASE_URL", server.base_url)
            await main()

    run(ask())
    assert capsys.readouterr().out == "300 groups\n"


@pytest.mark.anyio
async def test_prometheus(server: Sandbox) -> None:
    needs("prometheus_client")
    from prometheus_client import CollectorRegistry, generate_latest

    from tests.recipes.prometheus_metrics import Metrics

    metrics = Metrics(CollectorRegistry())
    async with of(server).with_options(observers=[metrics]) as dc:
        metrics.watch(dc)
        await dc.groups.list()
        server.fail_next("list", times=4, code=1032)
        with pytest.raises(ServerFault):
            await dc.groups.list()
        text = generate_latest(metrics.registry).decode()
    assert 'deepcall_calls_total{endpoint="groups.list",outcome="ok"} 1.0' in text
    assert 'deepcall_calls_total{endpoint="groups.list",outcome="ServerFault"} 1.0' in text
    assert 'deepcall_call_seconds_count{endpoint="groups.list"} 2.0' in text
    assert "deepcall_requests 5.0" in text
    assert "deepcall_retries 3.0" in text
    assert "deepcall_idle 1.0" in text
