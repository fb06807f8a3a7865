import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ResourceExhausted
from gateway.rpc.message import Assembler, BadMessage, ByteBudget, frame, inflate


def assembler(limit_bytes: int = 1 << 20, budget: ByteBudget | None = None) -> Assembler:
    return Assembler(limit_bytes, budget or ByteBudget(1 << 30), gzip=True)


@given(
    st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=6), st.lists(st.integers(0, 2000), max_size=12)
)
def test_messages_come_out_whole_however_the_bytes_are_cut(messages: list[tuple[bytes, bool]], cuts: list[int]) -> None:
    wire = b"".join(frame(body, compress=compress) for body, compress in messages)
    places = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    made = assembler()
    for start, end in pairwise(places):
        made.feed(wire[start:end])
    assert list(made.messages) == [body for body, _ in messages]
    assert not made.partial


def test_limits_are_read_from_the_prefix() -> None:
    with pytest.raises(ResourceExhausted, match="1001"):
        assembler(1000).feed(b"\0" + (1001).to_bytes(4, "big"))
    with pytest.raises(BadMessage, match="flag is 2"):
        assembler().feed(b"\2\0\0\0\0")
    with pytest.raises(BadMessage, match="compress"):
        Assembler(1000, ByteBudget(1000), gzip=False).feed(b"\1\0\0\0\0")


def test_large_messages_hold_their_bytes_until_they_are_taken() -> None:
    budget = ByteBudget(200_000)
    first, second = assembler(budget=budget), assembler(budget=budget)
    first.feed(frame(b"x" * 150_000))
    with pytest.raises(ResourceExhausted):
        second.feed(frame(b"x" * 70_000))
    third = assembler(budget=budget)
    third.feed(frame(b"small"))
    assert third.pop() == b"small"
    assert first.pop() == b"x" * 150_000
    assert budget.free_bytes == 200_000
    second = assembler(budget=budget)
    second.feed(frame(b"x" * 70_000)[:50_000])
    second.release()
    assert budget.free_bytes == 200_000


def test_inflating_stops_at_the_limit() -> None:
    assert inflate(gzip.compress(b"x" * 1000), 1000) == b"x" * 1000
    with pytest.raises(ResourceExhausted):
        inflate(gzip.compress(b"\0" * 50_000_000), 1000)
    for bad in (b"", b"no", gzip.compress(b"x")[:-3], gzip.compress(b"x") + b"more", zlib.compress(b"x")):
        with pytest.raises(BadMessage):
            inflate(bad, 1000)
