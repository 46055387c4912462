"""``deepcall watch``: its options, whom it tells and how, what it serves, and how it ends."""

from __future__ import annotations

import asyncio
import http.server
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

import aiohttp
import pytest
from msgspec.structs import replace

from deepcall_async.audit.change import Change
from deepcall_async.audit.watch import State, step
from deepcall_async.cli.app import build_app
from deepcall_async.cli.exits import UsageError
from deepcall_async.cli.watch_notify import Channel, channels_in, deliver, send_heartbeats
from deepcall_async.cli.watch_serve import address_of, serve
from deepcall_async.watch import Look, WentDark
from tests.audit.test_page_in_browser import CHROMIUM, SIZES, script, told  # noqa: F401  (a fixture)
from tests.support.audit_accounts import NOW
from tests.support.command import called, environment, started, wait_until
from tests.support.hazards import refused_port
from tests.support.watched import BLIND, seen

# Apprise looks whether Python still has that module; it does before 3.13.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

DARK = (WentDark(number=1, at=NOW, group_id=1, name="Sales", members=2, since=NOW),)
SECRET = "S3CRET"


class Webhook(http.server.ThreadingHTTPServer):
    """Takes what is sent to it; refuses it while ``refusing``."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict]] = []
        self.refusing = False
        super().__init__(("127.0.0.1", 0), _Taker)


class _Taker(http.server.BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(body)

    def do_GET(self):
        self._answer({})

    def _answer(self, body):
        if not self.server.refusing:
            self.server.got.append((self.path, body))
        self.send_response(500 if self.server.refusing else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def urls(folder: Path, *lines: str) -> Path:
    file = folder / "urls.txt"
    file.write_text("\n".join(lines) + "\n")
    file.chmod(0o600)
    return file


# The command


def test_a_state_file_that_cannot_be_and_a_port_that_is_taken(deepcall_sandbox, webhook, tmp_path):
    env = environment(deepcall_sandbox)
    done = called("watch", "--state", tmp_path / "no" / "watch.db", env=env)
    assert done.returncode == 2
    assert "no folder" in done.stderr
    taken = f"127.0.0.1:{webhook.server_port}"
    done = called("watch", "--state", tmp_path / "watch.db", "--listen", taken, env=env)
    assert done.returncode == 2
    assert f"--listen {taken}" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.deepcall_sandbox(groups=40)
def test_it_tells_serves_and_ends(deepcall_sandbox, webhook, tmp_path):
    here = f"127.0.0.1:{webhook.server_port}"
    arguments = [
        *("watch", "--state", tmp_path / "watch.db", "--every", "1s", "--listen", "127.0.0.1:0"),
        *("--notify", urls(tmp_path, "# mine", "", f"json://{here}/{SECRET}")),
        *("--heartbeat", f"http://{here}/beat/{SECRET}"),
    ]
    env = environment(deepcall_sandbox)
    with started(*arguments, env=env) as process:
        address = process.stderr.readline().split()[1]
        wait_until(lambda: {f"/{SECRET}", f"/beat/{SECRET}"} <= {path for path, _ in webhook.got})
        with urlopen(f"{address}healthz") as answer:
            assert json.load(answer)["healthy"] is True
        with urlopen(f"{address}metrics") as answer:
            metrics = answer.read().decode()
        # Nobody else may use the file meanwhile.
        second = called("watch", "--state", tmp_path / "watch.db", env=env)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "deepcall_watch_dark_groups 2.0" in metrics
    assert "deepcall_watch_groups 40.0" in metrics
    assert second.returncode == 2
    assert "another watch is using this state file" in second.stderr
    assert out.count("\n") == 1
    assert "The watch began with 40 groups: 2 dark" in out
    assert err == ""
    (message,) = [body for path, body in webhook.got if path == f"/{SECRET}"]
    assert message["title"] == "First look"
    assert message["message"].endswith("\n\nDeepCall at 127.0.0.1")
    assert SECRET not in out + err + metrics
    assert SECRET.encode() not in (tmp_path / "watch.db").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.deepcall_sandbox(groups=3)
def test_killed_it_goes_on_and_repeats_nothing(deepcall_sandbox, tmp_path):
    state = tmp_path / "watch.db"
    arguments, env = ("watch", "--state", state, "--every", "1s"), environment(deepcall_sandbox)
    with started(*arguments, env=env) as process:
        assert "The watch began" in process.stdout.readline()
        looked = deepcall_sandbox.requests["list"]
        wait_until(lambda: deepcall_sandbox.requests["list"] > looked)
        process.kill()
        process.wait()
    deepcall_sandbox.add_group("New")
    with started(*arguments, env=env) as process:
        assert "New (" in process.stdout.readline()
        # In the middle of a look it need not wait for the answer.
        deepcall_sandbox.latency, looked = 60, deepcall_sandbox.requests["list"]
        wait_until(lambda: deepcall_sandbox.requests["list"] > looked)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_wrong_credentials_end_it(deepcall_sandbox, tmp_path):
    env = environment(deepcall_sandbox, DEEPCALL_TOKEN="wrong")
    done = called("watch", "--state", tmp_path / "watch.db", env=env)
    assert done.returncode == 4
    assert "deepcall check" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--every", "5"), "is not a duration such as 30s, 5m or 2h"),
        (("--every", "0.5s"), "--every must be from 1"),
        (("--cooldown", "1w"), "is not a duration"),
        (("--confirm", "0"), "--confirm must be from 1"),
        (("--listen", "0.0.0.0:9109"), "--allow-remote"),
        (("--listen", "brand.example:80"), "--allow-remote"),
        (("--listen", ":80"), "give HOST:PORT"),
        (("--listen", "127.0.0.1:66000"), "give HOST:PORT"),
        (("--allow-remote",), "--listen"),
        (("--heartbeat", f"ftp://host/{SECRET}"), "--heartbeat must be a URL"),
        (("--notify", "nowhere.txt"), "nowhere.txt"),
        (("--notify", "./watch.db"), "is the file of --notify"),
    ],
)
def test_wrong_usage(arguments, said, deepcall_sandbox, tmp_path):
    env = environment(deepcall_sandbox)
    done = called("watch", "--state", "watch.db", *arguments, env=env, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert SECRET not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_its_help():
    shown = called("watch", "--help").stdout
    assert "[default: 5m]" in shown
    assert "[default: 1h]" in shown
    examples = re.findall(r"^  deepcall (.*)$", shown, re.MULTILINE)
    assert len(examples) >= 3
    for example in examples:
        build_app(plain=True).parse_args(example.split(), print_error=False, exit_on_error=False)


# Messages


def test_a_line_that_is_no_url_is_named_by_its_number_alone(tmp_path, capfd):
    for line in (f"nothing://{SECRET}", SECRET, f"discord://{SECRET}"):
        with pytest.raises(UsageError, match="line 2 is not a URL that Apprise knows") as caught:
            channels_in(urls(tmp_path, "json://127.0.0.1/x", line), "")
        assert SECRET not in str(caught.value)
    assert SECRET not in "".join(capfd.readouterr())
    with pytest.raises(UsageError, match="holds no URL"):
        channels_in(urls(tmp_path, "# none", ""), "")


def test_a_file_that_others_can_read_is_warned_of(tmp_path, capfd):
    file = urls(tmp_path, f"json://127.0.0.1/{SECRET}")
    file.chmod(0o644)
    (channel,) = channels_in(file, "")
    assert "others can read" in capfd.readouterr().err
    assert SECRET not in repr(channel)
    assert channel.label == "line 1 (JSON)"


@pytest.mark.anyio
async def test_each_result_is_checked(tmp_path, webhook, capfd):
    file = urls(
        tmp_path,
        f"json://127.0.0.1:{webhook.server_port}/{SECRET}",
        f"json://127.0.0.1:{webhook.server_port}/{SECRET}",  # once is enough
    )
    (channel,) = channels_in(file, "a footer")
    webhook.refusing = True
    assert await channel.send(DARK) is False
    webhook.refusing = False
    assert await channel.send(DARK) is True
    ((_, body),) = webhook.got
    assert (body["title"], body["type"]) == ("1 group went dark", "failure")
    assert body["message"].startswith("Sales (1) went dark: none of its 2 agents")
    assert SECRET not in "".join(capfd.readouterr())


class Given:
    """Gives changes as a follower does, and notes when the next were asked for."""

    def __init__(self, *batches: tuple[Change, ...]) -> None:
        self._batches = [*batches]
        self.asked = 0

    def __aiter__(self):
        return self

    async def __anext__(self) -> tuple[Change, ...]:
        self.asked += 1
        if not self._batches:
            raise StopAsyncIteration
        return self._batches.pop(0)


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_what_is_not_delivered_is_tried_again_later_and_later_and_in_order(capfd):
    loop, sent, tries, given = asyncio.get_running_loop(), [], [], Given(DARK, DARK[:1])

    async def send(changes: Sequence[Change]) -> bool:
        tries.append(loop.time())
        if len(tries) < 10:
            return False
        sent.append((given.asked, changes))
        return True

    failures: Counter[str] = Counter()
    await deliver(given, Channel("key", "line 1 (JSON)", send), failures, random.Random(0))
    waits = [later - earlier for earlier, later in pairwise(tries[:9])]
    for place, wait in enumerate(waits):
        most = min(5 * 2**place, 600)
        assert most / 2 <= wait <= most + 0.01
    assert sent == [(1, DARK), (2, DARK)]  # acknowledged by asking for the next, and not before
    assert failures == {"line 1 (JSON)": 9}
    assert "a message to line 1 (JSON) could not be delivered" in capfd.readouterr().err


class Looks:
    """Looks that have finished, one each time that is asked for."""

    def __init__(self, *looks: Look) -> None:
        self._looks = [*looks]

    async def next_look(self) -> Look:
        if not self._looks:
            raise EOFError
        return self._looks.pop(0)


@pytest.mark.anyio
async def test_a_heartbeat_for_each_look_that_saw_the_account(webhook, capfd):
    url = f"http://127.0.0.1:{webhook.server_port}/beat/{SECRET}"
    saw = Look(number=1, started=NOW, seconds=1)
    looks = [saw, replace(saw, blind=True), replace(saw, error="not written"), saw]
    with pytest.raises(EOFError):
        await send_heartbeats(Looks(*looks), url)
    assert [path for path, _ in webhook.got] == [f"/beat/{SECRET}"] * 2
    assert capfd.readouterr().err == ""
    webhook.refusing = True
    with pytest.raises(EOFError):
        await send_heartbeats(Looks(saw), url)
    with refused_port() as port, pytest.raises(EOFError):
        await send_heartbeats(Looks(saw), f"http://127.0.0.1:{port}/beat/{SECRET}")
    refused, unreached = capfd.readouterr().err.splitlines()
    assert refused == "deepcall: the heartbeat to 127.0.0.1 was not taken: it answered HTTP 500"
    assert unreached.startswith("deepcall: the heartbeat to 127.0.0.1 was not taken: Client")
    assert SECRET not in unreached


# What is served


class Shown:
    """A watch as the pages see it."""

    every = 300.0
    seconds_since_look = 10.0

    def __init__(self, state: State, changes: Sequence[Change] = (), last: Look | None = None):
        self.state, self.changes, self.last = state, changes, last

    async def recent(self, limit: int) -> list[Change]:
        return [*self.changes][::-1][:limit]

    async def waiting(self) -> int:
        return 3


def looked_at(*looks: dict[int, str] | None, end=NOW, name: str | None = None) -> Shown:
    """What is known after some looks, the last of them at ``end``."""
    state, out = State(), []
    for turn, groups in enumerate(looks):
        now = end - timedelta(minutes=5 * (len(looks) - 1 - turn))
        snapshot = BLIND if groups is None else seen(groups, name)
        state, changes = step(state, snapshot, now, reason=name or "no answer")
        out += changes
    last = Look(
        number=len(looks),
        started=end,
        seconds=0.3,
        late=12,
        groups=4,
        read=3,
        error=name or "",
        blind=looks[-1] is None,
    )
    return Shown(state, out, last)


@asynccontextmanager
async def served(shown: Shown) -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    failures = Counter({"line 1 (JSON)": 2})
    async with (
        serve(
            "127.0.0.1:0", shown, failures, account="https://brand.example", allow_remote=False
        ) as url,
        aiohttp.ClientSession() as session,
    ):
        yield url, session


async def page_of(shown: Shown) -> str:
    async with served(shown) as (url, session), session.get(url) as answer:
        assert answer.status == 200
        return await answer.text()


DAY = looked_at(
    {1: "g", 2: "d", 3: "t", 4: "o"},
    *[{1: "d", 2: "d", 3: "t", 4: "o"}] * 2,
    {1: "d", 2: "d", 3: "d", 4: "u"},
)


@pytest.mark.anyio
async def test_the_page_says_what_is_dark_and_since_when():
    page = await page_of(DAY)
    assert '<h1 class="bad">3 of 4 groups are dark.</h1>' in page
    rows = page.partition("<tbody>")[2].partition("</tbody>")[0]
    assert rows.index("Group C") < rows.index("Group B") < rows.index("Group D")  # the oldest first
    assert "2026-06-01 11:50" in rows
    assert rows.count("to be confirmed") == 1
    assert "3 of 4 groups read in 0.3 s, 12 s late" in page
    assert "Group B (1) went dark" in page
    assert "The watch began with 4 groups" in page
    nothing = await page_of(looked_at({1: "g"}))
    assert "No group is dark." in nothing
    new = await page_of(Shown(State()))
    assert "was not read yet" in new
    blind = await page_of(looked_at({1: "g"}, None, None, None))
    assert "Nothing could be read since" in blind


@pytest.mark.anyio
async def test_names_are_escaped_and_the_page_asks_for_nothing():
    name = "</td><script>alert(1)</script><img src=x>\u202e"
    shown = looked_at({1: "d"}, None, None, None, name=name)
    async with served(shown) as (url, session), session.get(url) as answer:
        page = await answer.text()
        policy = answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.count("<script>") == 1
    assert "<img" not in page
    assert "\u202e" not in page
    assert "&lt;/td&gt;&lt;script&gt;" in page
    assert "http-equiv" not in page
    assert "//" not in page.replace("https://brand.example", "")


@pytest.mark.anyio
async def test_metrics_and_health():
    shown = looked_at(*[{1: "g", 2: "d", 3: "t", 4: "o"}] * 2, end=datetime.now(UTC))
    async with served(shown) as (url, session):
        async with session.get(f"{url}metrics") as answer:
            assert answer.content_type == "text/plain"
            lines = (await answer.text()).splitlines()
        async with session.get(f"{url}healthz") as answer:
            assert (answer.status, (await answer.json())["healthy"]) == (200, True)
        # A watch whose looks stopped a while ago.
        shown.seconds_since_look = 901.0
        async with session.get(f"{url}healthz") as answer:
            assert (answer.status, (await answer.json())["healthy"]) == (503, False)
        async with session.get(url) as answer:
            assert "No look has finished for three intervals." in await answer.text()
    expected = {"groups 4.0", "dark_groups 1.0", "thin_groups 1.0", "off_groups 1.0"}
    expected |= {"unread_groups 1.0", "looks_total 2.0", "changes_total 1.0", "changes_waiting 3.0"}
    expected |= {'delivery_failures_total{channel="line 1 (JSON)"} 2.0', "blind_looks 0.0"}
    assert {f"deepcall_watch_{each}" for each in expected} <= {*lines}
    assert not [line for line in lines if "Group" in line and "HELP" not in line]


@pytest.mark.parametrize(
    ("listen", "remote", "expected"),
    [
        ("127.0.0.1:9109", False, ("127.0.0.1", 9109)),
        ("127.9.9.9:0", False, ("127.9.9.9", 0)),
        ("[::1]:9109", False, ("::1", 9109)),
        ("localhost:9109", False, ("localhost", 9109)),
        ("0.0.0.0:9109", True, ("0.0.0.0", 9109)),
        ("[::]:9109", True, ("::", 9109)),
        ("[::]:9109", False, None),
        ("192.0.2.1:9109", False, None),
        ("brand.example:9109", False, None),
        ("9109", False, None),
        ("127.0.0.1", False, None),
        ("127.0.0.1:", False, None),
        ("127.0.0.1:-1", False, None),
        ("127.0.0.1:http", False, None),
    ],
)
def test_where_to_listen(listen, remote, expected):
    if expected is None:
        with pytest.raises(UsageError):
            address_of(listen, allow_remote=remote)
    else:
        assert address_of(listen, allow_remote=remote) == expected


BLIND_PAGE = looked_at({1: "d"}, None, None, None, name="</td><img src=x>" * 9)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("shown", "options"),
    [(DAY, (*SIZES["phone"], SIZES["dark"][1])), (BLIND_PAGE, SIZES["wide"])],
    ids=["day", "blind"],
)
def test_axe_finds_nothing(shown, options, script, tmp_path):  # noqa: F811  (the fixture)
    page = asyncio.run(page_of(shown))
    run = f"(function () {{ {script}; return axe.run() }})()"
    result = told(page, run, tmp_path, *options)
    assert len(result["passes"]) > 10
    assert [(each["id"], each["nodes"][0]["html"]) for each in result["violations"]] == []


@pytest.mark.thorough
@pytest.mark.anyio
async def test_the_open_page_follows_what_happens(script, tmp_path):  # noqa: F811  (skips without)
    """In a browser, under the page's own policy; half a minute is a moment of virtual time."""
    shown = looked_at({1: "d"})
    async with served(shown) as (url, _):
        first = shown.recent

        async def recent(limit: int) -> list[Change]:
            shown.recent, shown.state = first, looked_at({1: "d"}, {1: "g"}).state
            return await first(limit)

        shown.recent = recent
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += [f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=40000", url]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=True, timeout=60
        )
    assert "No group is dark." in done.stdout
    assert "<title>DeepCall watch</title>" in done.stdout


# The unit in the README


def test_the_unit_for_systemd_calls_what_there_is(tmp_path):
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    (unit,) = re.findall(r"^```text\n(\[Unit\].*?)^```$", readme, re.MULTILINE | re.DOTALL)
    (line,) = re.findall(r"^ExecStart=(\S+ .*?[^\\])$", unit, re.MULTILINE | re.DOTALL)
    _, *words = line.replace("\\\n", " ").split()
    build_app(plain=True).parse_args(words, print_error=False, exit_on_error=False)
    for name in re.findall(r"\$\{CREDENTIALS_DIRECTORY\}/(\w+)", unit):
        assert f"\nLoadCredential={name}:" in unit
    if (systemd := shutil.which("systemd-analyze")) is not None:
        file = tmp_path / "deepcall-watch.service"
        file.write_text(unit.replace(line.split()[0], sys.executable))
        done = subprocess.run([systemd, "verify", file], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "")
        assert file.name not in done.stderr  # it warns of other units of this machine, too
