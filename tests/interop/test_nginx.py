"""nginx, which stands before many a service: certificates, packed answers, limits and reloads."""

from __future__ import annotations

import signal
import ssl
from collections import Counter
from uuid import uuid4

import anyio
import pytest
import trustme

from deepcall_async import (
    ConnectFailed,
    DeepCallError,
    Ok,
    OutcomeUnknown,
    RetryPolicy,
    ServerFault,
    UnexpectedReply,
    UserToken,
    collect,
    fan_out,
)
from tests.interop import peers
from tests.interop.jobs import fan_out_of_a_thousand, six_endpoints
from tests.interop.peers import GROUPS
from tests.support.hazards import Certificates, refused_port

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]


@pytest.fixture(scope="module")
def nginx(sandboxes):
    with refused_port() as port, peers.nginx(sandboxes[0], dead_port=port) as peer:
        yield peer


@pytest.fixture
def mark() -> str:
    """What the requests of this test carry in a header, so that the log tells them apart."""
    return uuid4().hex


async def logged(peer, mark: str, count: int) -> list[dict[str, str]]:
    """What nginx writes of each answer to this test's requests, when it has written all."""
    names = ("connection", "requests", "encoding", "protocol", "verified", "status")
    lines: list[list[str]] = []
    with anyio.fail_after(30):
        while len(lines) < count:
            await anyio.sleep(0.01)
            lines = [line.split() for line in peer.program.lines("access.log")]
            lines = [fields[1:] for fields in lines if fields[0] == mark]
    return [dict(zip(names, fields, strict=True)) for fields in lines]


async def test_answers_are_packed_and_connections_end_when_nginx_says(nginx, scheme, mark):
    async with nginx.client(scheme, headers={"X-Test": mark}, compress=True) as dc:
        ids = [group.unique_id for group in await dc.groups.list()]
        batch = await collect(dc.groups.agent_relation, ids, concurrency=16)
        requests = dc.stats.requests
    assert len(batch.ok) == GROUPS
    assert requests == GROUPS + 1
    answers = await logged(nginx, mark, requests)
    assert {answer["encoding"] for answer in answers} == {"gzip"}
    assert all((answer["protocol"] == "-") == (scheme == "http") for answer in answers)
    # Each tenth answer ends its connection and says so: nobody sends an eleventh request there.
    on_each = Counter(answer["connection"] for answer in answers)
    assert max(on_each.values()) == 10
    assert len(answers) == requests


async def test_a_packed_answer_is_the_same_as_a_plain_one(nginx, scheme):
    sandbox = nginx.sandboxes[scheme]
    direct = nginx.client(scheme, base_url=sandbox.base_url, ssl=None)
    async with nginx.client(scheme) as dc, direct:
        assert await dc.groups.list() == await direct.groups.list()
        assert await dc.groups.agent_relation(28) == await direct.groups.agent_relation(28)


async def test_a_reload_under_load_loses_no_lookup(nginx, scheme):
    seen: Counter[int] = Counter()
    async with nginx.client(scheme) as dc:
        ids = [group.unique_id for group in await dc.groups.list()]
        async with fan_out(dc.groups.agent_relation, ids, concurrency=32) as outcomes:
            async for outcome in outcomes:
                assert isinstance(outcome, Ok), outcome
                assert outcome.value.group.unique_id == outcome.key
                seen[outcome.key] += 1
                if len(seen) % 200 == 100:
                    nginx.program.process.send_signal(signal.SIGHUP)
        requests = dc.stats.requests
    assert seen == Counter(ids)
    assert requests <= 1.5 * GROUPS


async def test_a_reload_under_load_repeats_no_change(nginx, scheme):
    """An old worker closes idle connections at once: a change may meet that, and is not repeated."""
    sandbox = nginx.sandboxes[scheme]
    names = [f"Team number {number}." for number in range(200)]
    asked: list[str] = []

    async with nginx.client(scheme, max_connections=16) as dc:

        async def add(name: str) -> int:
            asked.append(name)
            if len(asked) % 50 == 25:
                nginx.program.process.send_signal(signal.SIGHUP)
            return (await dc.groups.add(name)).group_id

        batch = await collect(add, names, concurrency=16)
    made = Counter(call.fields["name"] for call in sandbox.calls if call.endpoint == "add")
    assert max(made.values()) == 1
    assert all(made[name] == 1 for name in batch.ok)
    assert {type(error) for error in batch.failed.values()} <= {OutcomeUnknown}
    assert len(batch.failed) <= len(names) // 10


async def test_a_rate_limit_loses_no_lookup(nginx, scheme, mark):
    """Twenty a second are let through; others get a bare 429, without ``Retry-After``."""
    few = nginx.urls[scheme] + "/few"
    async with nginx.client(scheme, base_url=few, headers={"X-Test": mark}) as dc:
        batch = await collect(dc.groups.agent_relation, range(1, 61), concurrency=32)
        assert not batch.failed
        requests = dc.stats.requests
    assert requests <= 2 * 60 + 32
    answers = await logged(nginx, mark, requests)
    assert Counter(answer["status"] for answer in answers).keys() == {"200", "429"}


async def test_a_backend_that_is_down(nginx, scheme):
    url = nginx.urls[scheme] + "/dead"
    quick = RetryPolicy(attempts=2, base_delay=0.01)
    async with nginx.client(scheme, base_url=url, retry=quick) as dc:
        with pytest.raises(ServerFault) as failed:
            await dc.groups.agent_relation(28)
        assert (failed.value.http_status, failed.value.attempts) == (502, 2)
        with pytest.raises(OutcomeUnknown):
            await dc.groups.add("Sales")


async def test_a_request_that_is_too_large(nginx, scheme):
    async with nginx.client(scheme) as dc:
        with pytest.raises(UnexpectedReply, match="the request is too large") as failed:
            await dc.groups.assign_agents(28, range(1, 20_000))
        assert failed.value.http_status == 413
        assert (await dc.groups.agent_relation(28)).group.unique_id == 28


async def test_an_unknown_authority_is_tried_once_and_said(nginx):
    strict = ssl.create_default_context()
    for context in (None, strict):
        async with nginx.client("https", ssl=context) as dc:
            with pytest.raises(ConnectFailed, match="its issuer is not known") as failed:
                await dc.groups.add("Sales")
            assert failed.value.attempts == 1


async def test_plain_http_to_a_tls_port_and_the_other_way(nginx):
    http, https = nginx.urls["http"], nginx.urls["https"]
    async with nginx.client("https", base_url=http.replace("http:", "https:")) as dc:
        with pytest.raises(ConnectFailed, match="does not speak TLS") as failed:
            await dc.groups.add("Sales")
        assert failed.value.attempts == 1
    async with nginx.client("http", base_url=https.replace("https:", "http:")) as dc:
        with pytest.raises(UnexpectedReply) as odd:
            await dc.groups.add("Sales")
        assert odd.value.http_status == 400
    assert not nginx.sandboxes["http"].calls


TLS_VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", TLS_VERSIONS, ids=lambda version: version.name)
async def test_a_client_certificate_is_shown(nginx, version, mark):
    context = peers.client_certificate()
    context.minimum_version = context.maximum_version = version
    await six_endpoints(nginx, "mtls", ssl=context, headers={"X-Test": mark})
    await fan_out_of_a_thousand(nginx, "mtls", ssl=context, headers={"X-Test": mark})
    answers = await logged(nginx, mark, GROUPS + 8)
    assert {answer["verified"] for answer in answers} == {"SUCCESS"}
    assert {answer["protocol"] for answer in answers} == {version.name.replace("_", ".")}


@pytest.mark.parametrize("version", TLS_VERSIONS, ids=lambda version: version.name)
async def test_a_missing_client_certificate_is_said_and_tried_once(nginx, version):
    context = Certificates().client()
    context.minimum_version = context.maximum_version = version
    async with nginx.client("mtls", ssl=context) as dc:
        with pytest.raises(DeepCallError, match="wants a client certificate") as failed:
            await dc.groups.add("Sales")
    assert failed.value.attempts == 1
    assert not isinstance(failed.value, OutcomeUnknown)
    assert not nginx.sandboxes["mtls"].calls


async def test_a_client_certificate_of_another_authority_is_refused(nginx):
    context = peers.client_certificate(trustme.CA())
    async with nginx.client("mtls", ssl=context) as dc:
        with pytest.raises(DeepCallError) as failed:
            await dc.groups.add("Sales")
    assert failed.value.attempts == 1
    assert not isinstance(failed.value, OutcomeUnknown)
    assert not nginx.sandboxes["mtls"].calls


async def test_a_wrong_token_behind_it_ends_a_fan_out(nginx, scheme):
    sandbox = nginx.sandboxes[scheme]
    async with nginx.client(scheme) as dc:
        other = dc.with_options(credentials=UserToken(sandbox.user_id, "wrong"))
        with pytest.raises(DeepCallError) as failed:
            await collect(other.groups.agent_relation, range(1, 1000))
    assert failed.value.code in (1014, 1020)
    assert sum(sandbox.requests.values()) < 100
