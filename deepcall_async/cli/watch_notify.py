"""Where a watch's messages go, and how they get there: stdout, and services through Apprise.

A message that cannot be delivered is tried again until it is; the looks never wait for that. URLs
hold secrets: a service is called by its line in the file and its kind, never by its URL.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from deepcall_async.audit.change import Change, Digest, digest
from deepcall_async.cli.config import warn_if_exposed
from deepcall_async.cli.exits import PipeClosed, UsageError, usage_errors
from deepcall_async.cli.loop import in_daemon_thread
from deepcall_async.cli.terminal import say, write_all_of
from deepcall_async.watch import Follower

if TYPE_CHECKING:
    from apprise import Apprise

    from deepcall_async.watch import Watch

__all__ = [
    "Channel",
    "channels_in",
    "deliver",
    "heartbeat_file",
    "heartbeat_url",
    "send_heartbeats",
    "stdout_channel",
]

_FIRST_DELAY, _LONGEST_DELAY = 5.0, 600.0
"""Seconds until a message that could not be delivered is tried again; they double."""

_SLOW = 60.0
"""Seconds after which it is said that a message is still under way."""
_HEARTBEAT_TIMEOUT = 10.0


class Channel(NamedTuple):
    """One way to tell somebody.

    ``key`` is what is kept of it on disk, ``label`` what it is called in messages; ``send`` says
    whether the message was delivered.
    """

    key: str
    label: str
    send: Callable[[tuple[Change, ...]], Awaitable[bool]]


def stdout_channel() -> Channel:
    """Print each change on a line of its own."""

    async def send(changes: tuple[Change, ...]) -> bool:
        lines = "".join(f"{change.at:%Y-%m-%d %H:%M:%S} UTC  {change}\n" for change in changes)
        try:
            await in_daemon_thread(partial(_print, lines))
        except BrokenPipeError:
            raise PipeClosed from None
        except OSError:
            return False
        return True

    return Channel("stdout", "stdout", send)


def channels_in(file: Path, footer: str) -> list[Channel]:
    """Read Apprise URLs from a file: one a line, blank lines and those that begin with # left out.

    Args:
        file: where they stand.
        footer: the last line of every message, such as which account it is about.

    Raises:
        UsageError: the file cannot be read, or a line is not such a URL; no line is ever quoted.
    """
    warn_if_exposed(file)
    with usage_errors(file):
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    try:
        from apprise import Apprise, AppriseAsset
    except ImportError:
        raise UsageError("--notify needs the extra: pip install 'deepcall-async[watch]'") from None
    # It logs URLs, and what services answered.
    log = logging.getLogger("apprise")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    # It sends in the thread that calls it: the end of the process would wait for those of its pool.
    asset = AppriseAsset(async_mode=False, service_timeout=0)
    channels: dict[str, Channel] = {}
    for number, line in enumerate(lines, 1):
        url = line.strip()
        if not url or url.startswith("#"):
            continue
        service = Apprise(asset=asset)
        if not service.add(url):
            raise UsageError(
                f"{file}: line {number} is not a URL that Apprise knows, such as json://host/path"
            )
        if len(service) > 1:
            # While one of them fails, all the others would be told again and again.
            raise UsageError(f"{file}: line {number} holds several URLs; give each its own line")
        key = hashlib.sha256(url.encode()).hexdigest()[:16]
        label = f"line {number} ({service[0].service_name})"
        channels[key] = Channel(key, label, partial(_send, service, footer))
    if not channels:
        raise UsageError(f"{file} holds no URL")
    return list(channels.values())


async def deliver(
    follower: Follower, channel: Channel, failures: Counter[str], pick: random.Random
) -> None:
    """Send all that a follower is given, one look's changes at a time, each until it arrives.

    Args:
        follower: gives the changes.
        channel: where to.
        failures: counts failed attempts by the channel's label.
        pick: spreads the attempts.
    """
    async for changes in follower:
        delay = _FIRST_DELAY
        while not await _sent(channel, changes, failures):
            failures[channel.label] += 1
            wait = delay * pick.uniform(0.5, 1)
            say(
                f"deepcall: a message to {channel.label} could not be delivered; trying again in"
                f" {wait:.0f} s"
            )
            await asyncio.sleep(wait)
            delay = min(2 * delay, _LONGEST_DELAY)


def heartbeat_file(given: str) -> Path | None:
    """Give the file that ``file:PATH`` names, or None when it is no such reference."""
    path = given.removeprefix("file:")
    return None if path == given else Path(path).expanduser()


def heartbeat_url(given: str) -> str:
    """Take a heartbeat's URL as it is, or out of the file that ``file:PATH`` names.

    Args:
        given: the URL or the reference; other processes see the arguments of ours.

    Raises:
        UsageError: it is no URL, or the file cannot be read; a URL is never quoted.
    """
    url = given
    if (file := heartbeat_file(given)) is not None:
        warn_if_exposed(file)
        with usage_errors(file):
            url = file.read_bytes().decode("utf-8-sig").strip()
    host = b""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.port != 0:
            host = (parts.hostname or "").encode("idna")
    if not host:
        raise UsageError(
            "--heartbeat must be a URL, such as https://hc.example/ping/ID, or file:PATH of a file"
            " that holds one"
        )
    return url


async def send_heartbeats(watch: Watch, url: str) -> None:
    """Call a URL after each look that saw the account; that it fails is said, and no more.

    Args:
        watch: whose looks.
        url: what to call; the path is often a secret, so only its host is ever shown.
    """
    from aiohttp import ClientError, ClientSession, ClientTimeout

    async with ClientSession(
        timeout=ClientTimeout(total=_HEARTBEAT_TIMEOUT), trust_env=True
    ) as session:
        while True:
            look = await watch.next_look()
            if look.blind or look.error:
                continue
            try:
                async with session.get(url) as answer:
                    problem = "" if answer.ok else f"it answered HTTP {answer.status}"
            except (ClientError, TimeoutError, OSError, UnicodeError) as error:
                # The last is about a host that no DNS name can be, such as in a redirect.
                problem = type(error).__name__
            if problem:
                host = urlsplit(url).hostname
                say(f"deepcall: the heartbeat to {host} was not taken: {problem}")


async def _sent(channel: Channel, changes: tuple[Change, ...], failures: Counter[str]) -> bool:
    def slow() -> None:
        # It is not tried again meanwhile: each attempt would leave one more thread behind.
        failures[channel.label] += 1
        say(f"deepcall: a message to {channel.label} is under way for {_SLOW:.0f} s")

    timer = asyncio.get_running_loop().call_later(_SLOW, slow)
    try:
        return await channel.send(changes)
    finally:
        timer.cancel()


def _print(lines: str) -> None:
    try:
        stdout = sys.stdout.fileno()
    except OSError:  # a stand-in for stdout
        sys.stdout.write(lines)
        return
    # Not through `sys.stdout`: while nobody reads it, its lock would hold up the end.
    write_all_of(stdout, lines)


async def _send(service: Apprise, footer: str, changes: tuple[Change, ...]) -> bool:
    return await in_daemon_thread(
        partial(_notify, service, digest(changes), footer, worst=_kind(changes))
    )


def _notify(service: Apprise, message: Digest, footer: str, worst: str) -> bool:
    from apprise import NotifyFormat, NotifyType

    try:
        sent = service.notify(
            title=message.title,
            body=f"{message.body}\n\n{footer}",
            notify_type=NotifyType(worst),
            body_format=NotifyFormat.TEXT,
        )
    except Exception:
        return False
    return bool(sent)


def _kind(changes: Iterable[Change]) -> str:
    """Apprise's kind of a message, from which services take a colour or a sign."""
    tags = {type(change).__name__ for change in changes}
    if tags & {"Blind", "WentDark"}:
        return "failure"
    if tags & {"SwitchedOff", "Thin", "Vanished"}:
        return "warning"
    return "success" if tags & {"Recovered", "SightAgain"} else "info"
