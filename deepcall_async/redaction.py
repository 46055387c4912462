"""Other people's words, made fit to show.

Law: pure text in, text out, and no secret survives it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import quote

__all__ = ["safe_text", "spellings"]

LONGEST_TEXT = 200


def safe_text(text: str, secrets: tuple[str, ...]) -> str:
    """Make a server's words fit to show: no secrets, no control characters, not too long.

    Args:
        text: what the server said.
        secrets: what must not appear, in every spelling.
    """
    # Looked for before and after shortening and escaping, which could hide or complete a secret.
    text = _hide(text, secrets)
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT] + "…"
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    text = _hide(text, secrets)
    return "" if any(secret in text for secret in secrets) else text


def _hide(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, "***")
    return text


def spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """Every form in which a secret could come back: plain, or escaped for JSON, Python or URLs."""
    spelled = {
        form
        for secret in secrets
        for form in (
            secret,
            json.dumps(secret, ensure_ascii=False)[1:-1],
            ascii(secret)[1:-1],
            quote(secret, safe=""),
        )
    }
    # Longest first, so that no part of a longer spelling is left standing.
    return tuple(sorted(spelled, key=lambda form: (-len(form), form)))
