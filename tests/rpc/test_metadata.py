import itertools

import ngh2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import InvalidArgument, Overloaded, ResourceExhausted
from gateway.rpc.handler import Metadata, OwnMetadatum
from gateway.rpc.metadata import (
    Pair,
    RefusalFields,
    decode,
    encode,
    ok_trailers,
    overload_trailers,
    percent_encoded,
    status_trailers,
)
from gateway.rpc.status_codes import status_of

KEYS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_.-", min_size=1, max_size=12).map("x-".__add__)
TEXTS = st.tuples(
    KEYS.filter(lambda key: not key.endswith("-bin")), st.text(st.characters(min_codepoint=32, max_codepoint=126))
)
RAWS = st.tuples(KEYS.map(lambda key: key + "-bin"), st.binary(max_size=40))


@given(st.lists(st.one_of(TEXTS, RAWS), max_size=8))
@example([])
@example([("a", "")])
@example([("a-bin", b"")] * 8)
def test_what_is_encoded_is_decoded(pairs: list[tuple[str, str | bytes]]) -> None:
    assert decode(encode(pairs)) == tuple(pairs)


def test_fields_of_http2_and_of_grpc_are_not_metadata() -> None:
    headers = (
        (b":path", b"/x"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"grpc-timeout", b"1S"),
    )
    assert decode((*headers, (b"user-agent", b"me"))) == (Pair("user-agent", "me"),)


def test_binary_values_may_be_padded_and_joined() -> None:
    assert decode(((b"x-bin", b"AAE=,AAE, AA=="),)) == (("x-bin", b"\0\1"), ("x-bin", b"\0\1"), ("x-bin", b"\0"))
    with pytest.raises(InvalidArgument, match="x-bin"):
        decode(((b"x-bin", b"!!!"),))


@pytest.mark.parametrize(
    "pair",
    [
        ("X-Upper", "a"),
        ("", "a"),
        ("x y", "a"),
        ("grpc-timeout", "1S"),
        ("x", "line\nbreak"),
        ("x", "\u00e9"),
        (":path", "/"),
    ],
)
def test_what_cannot_be_sent_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        encode((pair,))


@pytest.mark.parametrize("own", [("x-token", b"a\nb"), ("x-token", b"\x80"), ("X-Token", b"a"), ("grpc-x", b"a")])
def test_what_cannot_be_sent_with_one_call_is_refused(own: tuple[str, bytes]) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        ok_trailers((), own)


def test_trailers_are_encoded_once_for_each_tuple() -> None:
    pairs = (("x-version", "2"), ("x-arm", "a"))
    first = ok_trailers(pairs, None)
    assert first == ((b"grpc-status", b"0"), (b"x-version", b"2"), (b"x-arm", b"a"))
    assert ok_trailers(pairs, None) is first
    assert ok_trailers(pairs, ("x-token", b"t")) == (*first, (b"x-token", b"t"))
    for number in range(10_000):
        made = (("x-number", str(number)),)
        assert ok_trailers(made, None)[1] == (b"x-number", b"%d" % number)


def test_what_differs_from_refusal_to_refusal_is_kept_out_of_the_table_of_fields() -> None:
    status = status_of(ResourceExhausted("a queue of 12 ms", retry_after_ms=34), "/x")
    fields = status_trailers(status, (("x-version", "2"),), ("x-id", b"7f"))
    assert fields == (
        (b"grpc-status", b"8"),
        (b"grpc-message", b"a queue of 12 ms"),
        (b"grpc-retry-pushback-ms", b"34"),
        (b"x-id", b"7f"),
        (b"x-version", b"2"),
    )
    kinds = [isinstance(field, ngh2.NeverIndexedHeader) for field in fields]
    assert kinds == [False, True, True, True, False]


@given(text=st.text(max_size=20), after_ms=st.none() | st.integers(-1, 5000), has_own=st.booleans())
@example(text="", after_ms=None, has_own=False)
@example(text="10 %", after_ms=50, has_own=True)
def test_a_refusal_that_is_one_of_many_says_what_any_other_does(text: str, after_ms: int | None, has_own: bool) -> None:
    own: OwnMetadatum | None = ("x-id", b"7f") if has_own else None
    for metadata in ((), (("x-version", "2"),)):
        given: Metadata = metadata
        error = Overloaded(text, retry_after_ms=after_ms)
        assert overload_trailers(error, given, own) == status_trailers(status_of(error, "/x"), given, own)


def test_what_a_refusal_alone_says_is_kept_out_of_the_table_of_fields() -> None:
    fields = overload_trailers(Overloaded("told once", retry_after_ms=34), (), ("x-id", b"7f"))
    kinds = {field[0]: isinstance(field, ngh2.NeverIndexedHeader) for field in fields}
    assert kinds == {b"grpc-status": False, b"grpc-message": True, b"grpc-retry-pushback-ms": True, b"x-id": True}


def _shared(kept: RefusalFields, text: str) -> bool:
    _, message = kept.beginning(text)
    return not isinstance(message, ngh2.NeverIndexedHeader)


def test_a_text_that_is_told_again_is_in_the_table_of_fields() -> None:
    kept = RefusalFields()
    assert [_shared(kept, "a queue of 12 ms") for _ in range(3)] == [False, True, True]


def test_texts_of_another_moment_leave_the_table_to_those_of_now() -> None:
    kept = RefusalFields()
    for _ in range(2):
        for number in range(8):
            _shared(kept, f"another moment {number}")
    told = [_shared(kept, "a queue of 12 ms") for _ in range(300)]
    assert not any(told[:256])
    assert all(told[258:])


def test_many_texts_leave_the_table_to_the_fields_that_repeat() -> None:
    kept = RefusalFields()
    once = [_shared(kept, f"a queue of {number} ms") for number in range(1000, 6000)]
    assert not any(once)
    told = [{number for number in range(7000, 7100) if _shared(kept, f"a queue of {number} ms")} for _ in range(40)]
    assert not told[0]
    changes = sum(len(after - before) for before, after in itertools.pairwise(told))
    assert 8 <= changes < 40 * 100 / 10


@pytest.mark.parametrize("own", [("x-token", b"a\nb"), ("X-Token", b"a")])
def test_what_cannot_be_sent_with_a_refusal_is_refused(own: tuple[str, bytes]) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        status_trailers(status_of(ResourceExhausted(""), "/x"), (), own)
    with pytest.raises(ValueError, match="cannot be sent"):
        overload_trailers(Overloaded(""), (), own)


@given(st.text())
@example("")
@example("%" * 10)
def test_status_texts_are_printable_and_can_be_read_back(text: str) -> None:
    from urllib.parse import unquote_to_bytes

    encoded = percent_encoded(text)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert unquote_to_bytes(encoded) == text.encode("utf-8", "replace")
