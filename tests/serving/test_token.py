"""Feedback tokens: they say what answered, and nobody without the key can make or change one."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.api.feedback_token import KEY_BYTES, LIMIT, Token, Tokens, load_key
from gateway.errors import FailedPrecondition, InvalidArgument

KEY = bytes(range(KEY_BYTES))
AT_NS = 1_790_000_000_123_456_789
TOKENS = Tokens(KEY, clock=lambda: AT_NS)
NAMES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@settings(max_examples=60, deadline=None)
@given(NAMES, NAMES, st.one_of(NAMES, st.just("")), st.integers(0, 2**63), st.text(max_size=80))
def test_a_token_says_what_it_was_made_for(model: str, version: str, arm: str, revision: int, request_id: str) -> None:
    text = TOKENS.stamp(model, version, arm, revision).mint(request_id).decode()
    token = TOKENS.verify(text)
    assert (token.model, token.version, token.arm, token.revision) == (model, version, arm, revision)
    assert token.at_ms == AT_NS // 1_000_000
    assert token.is_of(request_id)
    assert not token.is_of(request_id + "x")
    assert len(text) <= LIMIT
    assert text.isascii()
    assert text.isprintable()


def test_the_longest_names_make_a_token_within_the_limit() -> None:
    text = TOKENS.stamp("m" * 128, "v" * 64, "a" * 64, 2**63).mint("r" * 10_000).decode()
    assert TOKENS.verify(text).model == "m" * 128


def test_the_form_does_not_change() -> None:
    """Tokens live as long as feedback takes: a release must read those of the one before it."""
    text = "1.BWZyYXVkAjEyBnN0YWJsZQAAAAAAAABN.AaDEUGx7N4pcedegwp-QF7yWaRngvhs7rHo"
    assert TOKENS.stamp("fraud", "12", "stable", 77).mint("request-1").decode() == text
    assert TOKENS.verify(text) == Token(
        "fraud", "12", "stable", 77, AT_NS // 1_000_000, TOKENS.verify(text).request_hash
    )


GOOD = TOKENS.stamp("fraud", "12", "stable", 77).mint("request-1").decode()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.characters(codec="utf-8"))
@example(0, "a")
@example(len(GOOD) - 1, "=")
def test_a_token_with_one_other_character_is_refused(place: int, character: str) -> None:
    changed = GOOD[:place] + character + GOOD[place + 1 :]
    if changed != GOOD:
        with pytest.raises(InvalidArgument, match="feedback token"):
            TOKENS.verify(changed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "1..",
        "2" + GOOD[1:],
        GOOD[:-1],
        GOOD + "A",
        GOOD + "=",
        GOOD.replace(".", "", 1),
        "1." * 2000,
        "1.A.A",
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="feedback token"):
        TOKENS.verify(text)


@given(st.text(max_size=200))
@example("")
@example("." * 200)
def test_no_text_is_more_than_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        TOKENS.verify(text)


def test_the_token_of_another_key_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="not made by this gateway"):
        Tokens(bytes(KEY_BYTES)).verify(GOOD)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Tokens(b"short")


def test_whoever_asks_first_makes_the_key_for_all(tmp_path: Path) -> None:
    path = tmp_path / "state" / "token.key"
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(lambda _: load_key(path), range(32)))
    assert keys == {path.read_bytes()}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["token.key"]
    assert load_key(path) in keys


def test_a_damaged_key_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "token.key"
    path.write_bytes(b"half")
    with pytest.raises(FailedPrecondition, match=r"token\.key holds 4 bytes"):
        load_key(path)
    assert path.read_bytes() == b"half"
