"""Profiles: the settings of accounts in ``config.toml``, by name.

The file is read here; what it refers to is resolved in ``connect``. It holds no secret.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path

import msgspec
from msgspec import Struct

from deepcall_async.cli.exits import UsageError, usage_errors
from deepcall_async.cli.terminal import say

__all__ = ["Profile", "config_file", "read_profile", "warn_if_exposed"]

DEFAULT_PROFILE = "default"


class Profile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One account's settings. ``credentials`` is a reference; paths are relative to the file."""

    base_url: str | None = None
    credentials: str | None = None
    proxy: str | None = None
    ca: str | None = None
    cert: str | None = None


class _Config(Struct, frozen=True, forbid_unknown_fields=True):
    profile: dict[str, Profile] = {}


def config_file() -> Path:
    """Where the profiles stand, such as ``~/.config/deepcall/config.toml``."""
    import platformdirs

    return platformdirs.user_config_path("deepcall", appauthor=False) / "config.toml"


def read_profile(name: str | None) -> tuple[str, Profile]:
    """Read a profile.

    Args:
        name: the profile's name; None for "default", which need not exist.

    Returns:
        The name and the profile, which is empty when none was asked for and there is none.
    """
    file = config_file()
    with usage_errors(file):
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except FileNotFoundError:
            if name is None:
                return DEFAULT_PROFILE, Profile()
            raise UsageError(f"--profile {name}: there is no {file}") from None
        try:
            profiles = msgspec.convert(tomllib.loads(text), _Config).profile
        except msgspec.ValidationError as error:
            raise UsageError(f"{file}: {error}") from None
    if name is None and DEFAULT_PROFILE not in profiles:
        return DEFAULT_PROFILE, Profile()
    chosen = name or DEFAULT_PROFILE
    if chosen not in profiles:
        near = difflib.get_close_matches(chosen, profiles, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(profiles) or 'none'}"
        raise UsageError(f"--profile {chosen}: no such profile in {file}; {hint}")
    warn_if_exposed(file)
    return chosen, profiles[chosen]


def warn_if_exposed(file: Path) -> None:
    """Warn about a file with secrets, or the way to them, that other users can read."""
    if os.name != "posix":
        return
    try:
        mode = file.stat().st_mode
    except OSError:
        return
    if mode & 0o044:
        say(f"deepcall: warning: others can read {file}: chmod 600 {file}")
