"""Redaction: whatever a server says, in whatever spelling, the secret does not come through."""

from __future__ import annotations

import html
import json
import re
from urllib.parse import quote, quote_plus, unquote, unquote_plus

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from deepcall_async import ApiError, SessionId, UserToken, replies, wire
from deepcall_async.redaction import printable

SPELLINGS = {
    "plain": lambda secret: secret,
    "JSON": lambda secret: json.dumps(secret)[1:-1],
    "JSON, not ASCII": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "JSON in JSON": lambda secret: json.dumps(json.dumps(secret))[2:-2],
    "JSON with slashes escaped": lambda secret: json.dumps(secret)[1:-1].replace("/", "\\/"),
    "JSON, all escaped": lambda secret: "".join(
        f"\\u{unit:04x}"
        for unit in memoryview(secret.encode("utf-16-le")).cast("H")  # type: ignore[var-annotated]
    ),
    "JSON, upper case": lambda secret: "".join(
        f"\\u{unit:04X}"
        for unit in memoryview(secret.encode("utf-16-le")).cast("H")  # type: ignore[var-annotated]
    ),
    "Python": lambda secret: ascii(secret)[1:-1],
    "percent": lambda secret: quote(secret),
    "percent, strict": lambda secret: quote(secret, safe=""),
    "percent, lower case": lambda secret: re.sub(
        "%[0-9A-F]{2}", lambda found: found[0].lower(), quote(secret, safe="")
    ),
    "percent, all": lambda secret: "".join(f"%{byte:02X}" for byte in secret.encode()),
    "form": lambda secret: quote_plus(secret),
}
every_spelling = pytest.mark.parametrize("spelling", SPELLINGS)

SECRETS = st.text(
    st.characters(categories=["L", "N", "P", "S"], include_characters=" "), min_size=1, max_size=40
).filter(lambda text: text.isprintable() and text.strip())
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)


def shown(message: object, secret: str, *, as_token: bool = False) -> str:
    """What is left of a server's message."""
    credentials = UserToken("7", secret) if as_token else SessionId(secret)
    body = json.dumps({"status": "error", "message": message, "code": 1000}).encode()
    identity, rosters = wire.Identity(credentials), replies.Rosters()
    error = wire.decode(wire.delete(1), 200, {}, body, identity, rosters, lambda: 0.0)
    assert isinstance(error, ApiError)
    assert error.message in str(error) or not error.message
    return error.message


def readings(text: str) -> list[str]:
    """The text as whoever undoes an escape or two would read it."""
    found = [text]
    for _ in range(2):
        found += [undo(each) for each in found for undo in (unquote, unquote_plus, unescaped)]
    return found


def unescaped(text: str) -> str:
    # Pairs of \u escapes are put together as UTF-16 is.
    plain = re.sub(
        r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))",
        lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else m[3],
        text,
    )
    return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@every_spelling
@pytest.mark.parametrize("as_token", [True, False], ids=["token", "ssid"])
@pytest.mark.parametrize(
    "secret", ["abcdef0123456789", 'q"uo\\te/sl ash+plus', "ünï çødé 🔑", "<&>'%41%", "***"]
)
def test_no_spelling_of_a_secret_is_shown(spelling: str, as_token: bool, secret: str) -> None:
    spelled = SPELLINGS[spelling](secret)
    for text in (
        spelled,
        f"invalid token {spelled} given",
        f"{spelled}{spelled}",
        "x" * (200 - len(spelled) // 2) + spelled,
        html.escape(f"<b>{spelled}", quote=False) if spelling == "percent" else spelled,
    ):
        left = shown(text, secret, as_token=as_token)
        assert all(secret not in each for each in readings(left)), left


@every_spelling
def test_no_spelling_of_any_secret_is_shown(spelling: str) -> None:
    @given(SECRETS, WORDS, WORDS)
    @example("0", "", "")
    @example("*", "**", "")
    @example("aa", "a", "a")
    @example("\\", "", "n")
    @example("…", "x" * 200, "")
    @example("%", "", "41")
    @example("u", "", "")
    @example("\\n", "", "\n")
    @example("\\x00", "", "\0")
    @example("ab", "x" * 199, "")
    def check(secret: str, before: str, after: str) -> None:
        left = shown(before + SPELLINGS[spelling](secret) + after, secret)
        assert secret not in left
        assert SPELLINGS[spelling](secret) not in left

    check()


@given(SECRETS.filter(lambda secret: len(secret) >= 6), st.data())
def test_no_mixture_of_spellings_of_a_real_secret_is_shown(
    secret: str, data: st.DataObject
) -> None:
    assume(len(set(secret)) > 3)
    spelled = ""
    for char in secret:
        spelled += SPELLINGS[data.draw(st.sampled_from(list(SPELLINGS)))](char)
    # Only if there is one unambiguous way to read it is it an echo of the secret.
    assume(secret in readings(spelled))
    left = shown(f"bad token: {spelled}!", secret)
    assert all(secret not in each for each in readings(left))


@given(WORDS | st.lists(WORDS) | st.dictionaries(WORDS, WORDS) | st.integers() | st.none())
@example("\x1b[2J\x1b[31mred")
@example("line\nbreak\r\x85\u2028\u2029")
@example("\u202eright to left")
@example("\0" * 5000)
@example("x" * 100_000)
@example("🔑" * 5000)
@example({"deep": [{"er": ["\n"]}]})
def test_what_is_shown_is_printable_and_short(message: object) -> None:
    left = shown(message, "s3cret-ssid")
    assert left.isprintable()
    assert len(left) <= 2100


@pytest.mark.parametrize("text", ["Invalid parameters", "Группа не найдена", 'say "no"', "50% + 1"])
def test_harmless_words_are_left_alone(text: str) -> None:
    assert shown(text, "s3cret-ssid") == text


def test_all_of_a_message_is_searched_before_it_is_shortened() -> None:
    secret = "abcdefghijklmnopqrstuvwxyz"
    for length in range(150, 210):
        left = shown("-" * length + secret, secret)
        assert not any(secret[start : start + 6] in left for start in range(20))


def test_a_content_type_is_made_fit_as_well() -> None:
    identity, secret = wire.Identity(SessionId("abc/def-ssid")), "abc/def-ssid"
    for kind in (secret, quote(secret), quote(secret, safe=""), f"text/html; x={secret}"):
        headers = {"Content-Type": kind}
        error = wire.decode(
            wire.delete(1), 404, headers, b"<html>", identity, replies.Rosters(), lambda: 0.0
        )
        assert secret not in unquote(str(error))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Sales \U0001f511", "Sales \U0001f511"),
        (
            "\u092c\u093f\u0915\u094d\u200d\u0930\u0940\u3000x",
            "\u092c\u093f\u0915\u094d\u200d\u0930\u0940\u3000x",
        ),
        ("\x1b[31m\r\n\x85", "\\x1b[31m\\r\\n\\x85"),
        ("\u202eevil\ud800\u2028\U000e0041", "\\u202eevil\\ud800\\u2028\\U000e0041"),
    ],
)
def test_names_are_made_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
