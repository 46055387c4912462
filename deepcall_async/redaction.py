"""A server's text, made safe to show.

Pure functions of text. No secret is left in what they return, however it is spelled.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

__all__ = ["Secrets", "printable", "safe_text"]

LONGEST_TEXT = 200
_LONGEST_SEARCHED = 20_000
_LONGEST_SPELLING = 16
_SEEN = (
    "\u200c\u200d\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
    "\u2008\u2009\u200a\u202f\u205f\u3000"
)
"""Joiners, with which Indic names and emoji are written, and spaces: harmless, unlike their kin."""


class Secrets:
    """What must not be shown, recognised as it is or escaped for JSON, Python, URLs or HTML."""

    __slots__ = ("_compiled", "_known")

    def __init__(self, secrets: Iterable[str]) -> None:
        self._known = sorted({secret for secret in secrets if secret}, key=len, reverse=True)
        self._compiled: re.Pattern[str] | None = None

    def hide(self, text: str) -> str:
        """Replace every secret; a very long text is cut first, clear of any half of a secret."""
        hidden = self._pattern().sub("***", text[:_LONGEST_SEARCHED])
        if len(text) > _LONGEST_SEARCHED:
            reach = max(map(len, self._known), default=0) * _LONGEST_SPELLING
            return hidden[:-reach] if reach else hidden
        return hidden

    def found_in(self, text: str) -> bool:
        """Whether a text holds any of them."""
        return self._pattern().search(text) is not None

    def _pattern(self) -> re.Pattern[str]:
        # Made when a server first has something to say: most identities never need it.
        if self._compiled is None:
            spelled = ("".join(map(_spellings, secret)) for secret in self._known)
            self._compiled = re.compile("|".join(spelled) or r"(?!)")
        return self._compiled


def printable(text: str, *, keep: str = _SEEN) -> str:
    r"""Show as escapes the characters that a reader cannot see but that change what is shown.

    Control characters, text direction marks, line separators and lone surrogates become ``\x1b``,
    ``\u202e`` and so on. The result is one line and safe to print on a terminal.

    Args:
        text: any text, such as a name that a server sent.
        keep: characters to leave as they are; by default joiners and spaces.
    """
    if text.isprintable():
        return text
    return "".join(
        [char if char.isprintable() or char in keep else ascii(char)[1:-1] for char in text]
    )


def safe_text(text: str, secrets: Secrets) -> str:
    """Make a server's words fit to show: no secrets, no control characters, not too long.

    Args:
        text: what the server said.
        secrets: what must not appear.
    """
    # Looked for before and after shortening and escaping, which could hide or complete a secret.
    text = secrets.hide(text)
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT] + "\u2026"
    text = printable(text, keep="")
    text = secrets.hide(text)
    return "" if secrets.found_in(text) else text


def _spellings(char: str) -> str:
    """A pattern for every usual way to write a character."""
    code = ord(char)
    percent = "".join(f"%{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))
    ways = {
        re.escape(char),
        f"(?i:{percent})",
        f"u(?i:{code:04x})",
        f"x(?i:{code:02x})",
        f"(?i:&\\#x0*{code:x};)",
        f"&\\#0*{code};",
        re.escape(html.escape(char)),
    }
    if code > 0xFFFF:
        high, low = 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF)
        ways.add(f"u(?i:{high:04x})\\\\{{1,4}}u(?i:{low:04x})")
        ways.add(f"U(?i:{code:08x})")
    if char == " ":
        ways.add(r"\+")
    # Each level of quoting puts more backslashes before what it escapes.
    return r"(?:\\|%5[cC]){0,8}(?:" + "|".join(sorted(ways, key=lambda way: (-len(way), way))) + ")"
