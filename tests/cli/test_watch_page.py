"""The watch's page: by which names it is given, and that it claims no more than was read."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from urllib.parse import urlsplit

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deepcall_async.audit.watch import State
from deepcall_async.cli.watch_serve import serve
from tests.cli.test_watch import DAY, Shown, looked_at, page_of, served

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:9109", "127.0.0.1", "127.0.0.1:80", "127.8.9.1:1", "[::1]:9109"],
)
@pytest.mark.parametrize("path", ["", "metrics", "healthz"])
async def test_it_is_given_by_this_machines_own_names(host, path):
    async with served(DAY) as (url, session):
        async with session.get(url + path, headers={"Host": host}) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "attacker.example:9109",
        "127.0.0.1.attacker.example",
        "localhost.attacker.example",
        "attacker.example@127.0.0.1.attacker.example",
        "192.0.2.1:9109",
        "[2001:db8::1]",
        "[::1",
        "",
        "/",
    ],
)
@pytest.mark.parametrize("path", ["", "metrics", "healthz", "nowhere"])
async def test_it_is_not_given_by_a_name_that_was_made_to_mean_this_machine(host, path):
    async with served(DAY) as (url, session):
        async with session.get(url + path, headers={"Host": host}) as answer:
            text = await answer.text()
            assert answer.status == 421
    assert "Group" not in text
    assert "attacker" not in text
    assert "--allow-remote" in text


async def test_who_sends_no_host_is_no_browser():
    async with served(DAY) as (url, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"200"
        writer.close()
        await writer.wait_closed()


async def test_others_may_call_it_what_they_like():
    """A proxy before it, or a scraper in a cluster, uses names that the watch cannot know."""
    async with (
        serve("127.0.0.1:0", DAY, Counter(), account="x", allow_remote=True) as url,
        aiohttp.ClientSession() as session,
        session.get(url, headers={"Host": "watch.brand.example"}) as answer,
    ):
        assert answer.status == 200


async def test_a_port_that_is_taken_is_named():
    from deepcall_async.cli.exits import UsageError

    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError, match=f"--listen {place}"):
            async with serve(place, DAY, Counter(), account="x", allow_remote=False):
                pass


GOOD = '<h1 class="good">'


async def test_it_is_green_only_when_all_was_read_and_lately():
    assert f"{GOOD}No group is dark." in await page_of(looked_at({1: "g", 2: "o"}))
    for shown in (
        looked_at({1: "g", 2: "g"}, {1: "g", 2: "u"}),  # one could not be read
        looked_at({1: "g"}, None),
        looked_at({1: "g"}, None, None, None),
    ):
        page = await page_of(shown)
        assert GOOD not in page
        assert "No group was dark when it was last read." in page
    late = looked_at({1: "g"})
    late.seconds_since_look = 901.0
    assert GOOD not in await page_of(late)


async def test_groups_that_were_never_read_are_counted():
    page = await page_of(looked_at({1: "g", 2: "u", 3: "u"}))
    assert "2 were never read" in page
    assert GOOD not in page


async def test_an_account_without_groups_has_no_good_news():
    page = await page_of(looked_at({}))
    assert "The account has no groups." in page
    assert GOOD not in page


async def test_an_account_that_was_never_read_is_said_to_be_so():
    page = await page_of(looked_at(None))
    assert "The account was not read yet." in page
    assert "Nothing could be read since" in page


async def test_many_dark_groups_are_cut_and_counted():
    shown = Shown(looked_at(dict.fromkeys(range(1, 700), "d")).state)
    page = await page_of(shown)
    assert "699 of 699 groups are dark." in page
    assert "… and 199 more." in page


@pytest.mark.parametrize(
    "shown", [DAY, Shown(State()), looked_at(None)], ids=["day", "new", "blind"]
)
async def test_the_metrics_are_what_prometheus_reads(shown):
    async with served(shown) as (url, session), session.get(f"{url}metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        text = await answer.text()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    ours = {name: each for name, each in families.items() if name.startswith("deepcall_watch_")}
    assert len(ours) >= 10
    for family in ours.values():
        assert family.documentation
        assert family.type in ("gauge", "counter")
        assert len(family.samples) == 1
    labels = [sample.labels for sample in ours["deepcall_watch_delivery_failures"].samples]
    assert labels == [{"channel": "line 1 (JSON)"}]
