"""Settings: arguments, then the environment; what is refused says what to do and quotes no secret."""

from __future__ import annotations

import math
import platform
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepcall_async import DeepCall, SessionId, UserToken, __version__
from deepcall_async import options as rules
from tests.support.faultserver import FaultServer
from tests.support.replies import serve

SECRET = "s3cr3t-canary"
NAMES = ("DEEPCALL_SSID", "DEEPCALL_USER_ID", "DEEPCALL_TOKEN", "DEEPCALL_BASE_URL")
ME = UserToken("7", "t0ken")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


# Credentials from the environment.


def test_the_environment_gives_either_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPCALL_SSID", "s3ssion")
    assert rules.credentials_from_environment() == SessionId("s3ssion")
    monkeypatch.delenv("DEEPCALL_SSID")
    monkeypatch.setenv("DEEPCALL_USER_ID", "7")
    monkeypatch.setenv("DEEPCALL_TOKEN", "t0ken")
    assert rules.credentials_from_environment() == ME


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPCALL_SSID", "")
    monkeypatch.setenv("DEEPCALL_USER_ID", "7")
    monkeypatch.setenv("DEEPCALL_TOKEN", "t0ken")
    assert rules.credentials_from_environment() == ME


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((), "DEEPCALL_SSID"),
        (("DEEPCALL_USER_ID",), "DEEPCALL_TOKEN"),
        (("DEEPCALL_TOKEN",), "DEEPCALL_USER_ID"),
        (("DEEPCALL_SSID", "DEEPCALL_TOKEN"), "both kinds"),
        (("DEEPCALL_SSID", "DEEPCALL_USER_ID"), "both kinds"),
        (("DEEPCALL_SSID", "DEEPCALL_USER_ID", "DEEPCALL_TOKEN"), "both kinds"),
    ],
)
def test_both_kinds_half_a_kind_and_none_are_refused(
    names: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in names:
        monkeypatch.setenv(name, SECRET)
    with pytest.raises(ValueError, match=says) as caught:
        DeepCall()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", [" ", f"{SECRET}\n", f"\t{SECRET}"])
def test_unprintable_variables_are_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPCALL_SSID", value)
    with pytest.raises(ValueError, match="ssid") as caught:
        DeepCall()
    assert SECRET not in str(caught.value)


@pytest.mark.anyio
async def test_a_client_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FaultServer(serve) as server:
        monkeypatch.setenv("DEEPCALL_BASE_URL", server.base_url)
        monkeypatch.setenv("DEEPCALL_SSID", "from-outside")
        async with DeepCall() as dc:
            await dc.groups.list()
        assert server.ledger[0].body == {"ssid": "from-outside"}
        # What is given wins, and the environment is then not looked at.
        monkeypatch.setenv("DEEPCALL_TOKEN", "both")
        async with DeepCall(ME, base_url=server.base_url) as dc:
            await dc.groups.list()
        assert server.ledger[1].body == {"userId": "7", "token": "t0ken"}


# The address.


def address(url: str | None, *, allow_http: bool = False) -> str:
    return rules.base_url(url, allow_http=allow_http)


def test_without_an_address_it_is_the_vendors(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address(None) == "https://v4-api.deepcall.com"
    monkeypatch.setenv("DEEPCALL_BASE_URL", "")
    assert address(None) == "https://v4-api.deepcall.com"
    monkeypatch.setenv("DEEPCALL_BASE_URL", "https://brand.example/")
    assert address(None) == "https://brand.example"
    assert address("https://other.example") == "https://other.example"


@pytest.mark.parametrize(
    ("url", "used"),
    [
        ("https://brand.example", "https://brand.example"),
        ("https://brand.example/", "https://brand.example"),
        ("https://brand.example:8443/api/", "https://brand.example:8443/api"),
        ("HTTPS://Brand.Example", "HTTPS://Brand.Example"),
        ("https://brånd.example", "https://brånd.example"),
        ("https://[2001:db8::1]:443", "https://[2001:db8::1]:443"),
    ],
)
def test_addresses_that_are_taken(url: str, used: str) -> None:
    assert address(url) == used


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1", "http://127.0.0.1:8080", "http://127.9.9.9", "http://localhost:80",
     "http://LOCALHOST", "http://localhost.", "http://[::1]:8080", "http://[::1]"],
)  # fmt: skip
def test_plain_http_to_this_machine_is_allowed(url: str) -> None:
    assert address(url) == url


@pytest.mark.parametrize(
    "url",
    ["http://brand.example", "http://10.0.0.1", "http://0.0.0.0", "http://[::2]:80", "http://[::]",
     "http://127.0.0.1.evil.example", "http://localhost.evil.example", "http://128.0.0.1",
     "http://xlocalhost", "http://2130706433", "http://127.1", "HTTP://brand.example"],
)  # fmt: skip
def test_plain_http_elsewhere_is_refused_unless_allowed(url: str) -> None:
    with pytest.raises(ValueError, match="allow_http"):
        address(url)
    assert address(url, allow_http=True) == url
    with pytest.raises(ValueError, match="allow_http"):
        DeepCall(ME, base_url=url)


@pytest.mark.parametrize(
    "url",
    [
        f"https://me:{SECRET}@brand.example",
        f"https://{SECRET}@brand.example",
        f"https://:{SECRET}@brand.example",
        f"https://@brand.example/{SECRET}",
        f"http://me:{SECRET}@127.0.0.1",
        f"https://brand.example?token={SECRET}",
        f"https://brand.example/#{SECRET}",
        f"https://brand.example/ {SECRET}",
        f"https://brand.example/{SECRET}\n",
        f"https://brand.example/{SECRET}\0",
        f"https://brand.example:{SECRET}",
        f"https://brand.example:99999/{SECRET}",
        f"ftp://brand.example/{SECRET}",
        f"brand.example/{SECRET}",
        f"//brand.example/{SECRET}",
        f"https:///{SECRET}",
        f"https://[::1/{SECRET}",
        f"file:///{SECRET}",
        "",
        " ",
        "https://",
        "http://",
    ],
)
@pytest.mark.parametrize("allow_http", [True, False])
def test_addresses_that_are_refused_without_being_quoted(url: str, allow_http: bool) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        address(url, allow_http=allow_http)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("url", [b"https://brand.example", 7, object()])
def test_an_address_of_another_type_is_refused(url: Any) -> None:
    with pytest.raises(TypeError, match="base_url"):
        address(url)


@given(st.text())
def test_any_text_is_an_address_or_refused(url: str) -> None:
    try:
        used = address(url)
    except ValueError as error:
        assert "base_url" in str(error)
    else:
        assert used.lower().startswith(("https://", "http://"))


# The User-Agent.


@pytest.mark.parametrize(
    ("base_url", "asked"),
    [
        ("https://brand.example", "gzip, deflate"),
        ("https://brand.example:8443/prefix", "gzip, deflate"),
        ("http://10.0.0.7", "gzip, deflate"),
        ("http://127.0.0.1:8080", "identity"),
        ("https://[::1]", "identity"),
        ("http://localhost", "identity"),
    ],
)
def test_compressed_replies_are_asked_for_except_from_this_machine(
    base_url: str, asked: str
) -> None:
    assert rules.accept_encoding(None, base_url) == asked
    assert rules.accept_encoding(True, base_url) == "gzip, deflate"
    assert rules.accept_encoding(False, base_url) == "identity"


def test_compress_is_a_switch() -> None:
    with pytest.raises(TypeError, match="compress must be True or False, not str"):
        DeepCall(UserToken("29791451", "t0ken"), compress="gzip")  # type: ignore[arg-type]


def test_the_user_agent_ends_with_what_the_program_calls_itself() -> None:
    own = f"deepcall-async/{__version__} Python/{platform.python_version()}"
    assert rules.user_agent(None) == own
    assert rules.user_agent("audit-bot/2.1") == f"{own} audit-bot/2.1"
    assert rules.user_agent("  audit-bot/2.1 (eu) ") == f"{own} audit-bot/2.1 (eu)"


@pytest.mark.parametrize("bad", ["", "  ", "bot\r\nX: 1", "bot\n", "bot\0", "bøt/1", "bot\t1"])
def test_a_name_that_is_no_header_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="app_info"):
        DeepCall(ME, app_info=bad)


@pytest.mark.parametrize("bad", [7, b"bot/1", ("bot", "1")])
def test_a_name_that_is_no_text_is_refused(bad: Any) -> None:
    with pytest.raises(TypeError, match="app_info"):
        DeepCall(ME, app_info=bad)


@pytest.mark.parametrize(
    ("name", "bad"), [("retry", None), ("retry", 3), ("session", "x"), ("session", ME)]
)
def test_objects_of_another_class_are_refused(name: str, bad: Any) -> None:
    with pytest.raises(TypeError, match=name):
        DeepCall(ME, **{name: bad})


def test_a_sibling_is_as_strict() -> None:
    with pytest.raises(TypeError, match="retry"):
        DeepCall(ME).with_options(retry=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", "brand.example\\x"])
def test_hosts_that_nobody_can_have_are_refused(host: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        address(f"https://{host}")


# Numbers.


@pytest.mark.parametrize("name", ["timeout", "per_second"])
@pytest.mark.parametrize("bad", [0, -1, -0.5, math.nan, math.inf, -math.inf])
def test_seconds_and_rates_must_be_finite_and_above_zero(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=name):
        DeepCall(ME, **{name: bad})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["timeout", "per_second", "max_connections", "max_response_bytes"])
@pytest.mark.parametrize("bad", ["5", True, [5], b"5"])
def test_numbers_must_be_numbers(name: str, bad: Any) -> None:
    with pytest.raises(TypeError, match=name):
        DeepCall(ME, **{name: bad})


@pytest.mark.parametrize("name", ["max_connections", "max_response_bytes"])
def test_counts_must_be_whole_and_above_zero(name: str) -> None:
    for bad in (0, -1):
        with pytest.raises(ValueError, match=name):
            DeepCall(ME, **{name: bad})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=name):
        DeepCall(ME, **{name: 2.0})  # type: ignore[arg-type]


def test_no_timeout_at_all_is_refused() -> None:
    with pytest.raises(TypeError, match="timeout"):
        DeepCall(ME, timeout=None)  # type: ignore[arg-type]
