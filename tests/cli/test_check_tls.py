"""What ``deepcall check`` advises about TLS: nothing that would not mend it."""

from __future__ import annotations

import ssl

import pytest

from deepcall_async import SessionId
from deepcall_async.cli.connect import Target
from deepcall_async.cli.service import _check
from tests.support.faultserver import FaultServer
from tests.support.hazards import Certificates
from tests.support.replies import serve

pytestmark = pytest.mark.anyio


async def checked(
    certificates: Certificates, server: ssl.SSLContext, capsys: pytest.CaptureFixture[str]
) -> str:
    async with FaultServer(serve, ssl=server) as service:
        target = Target(
            base_url=service.base_url, credentials=SessionId("abc"), ssl=certificates.client()
        )
        assert await _check(target) == 3
    return capsys.readouterr().out


@pytest.mark.parametrize(("kind", "advised"), [("untrusted", True), ("expired", False)])
async def test_an_authority_is_named_only_where_it_would_help(kind, advised, capsys):
    certificates = Certificates()
    said = await checked(certificates, getattr(certificates, kind), capsys)
    assert "FAIL  TLS" in said
    assert ("--ca FILE" in said) is advised


async def test_a_certificate_that_is_wanted_does_not_come_with_time(capsys):
    certificates = Certificates()
    server = certificates.good
    certificates.authority.configure_trust(server)
    server.verify_mode = ssl.CERT_REQUIRED
    said = await checked(certificates, server, capsys)
    assert "wants a client certificate" in said
    assert "try again later" not in said
