from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import ResourceExhausted
from gateway.rpc.inflation import Inflation
from gateway.rpc.message import Assembler, BadMessage, ByteBudget, Compressed, frame


def inflated(message: Compressed) -> bytes | None:
    return Inflation(message, 1 << 20, ByteBudget(1 << 20)).begin()


def assembler(limit_bytes: int = 1 << 20, budget: ByteBudget | None = None) -> Assembler:
    return Assembler(limit_bytes, budget or ByteBudget(1 << 30), encoding=b"gzip")


@given(
    st.lists(st.tuples(st.binary(max_size=300), st.booleans()), max_size=6), st.lists(st.integers(0, 2000), max_size=12)
)
@example([], [])
@example([(b"", True)], [0])
@example([(b"a" * 300, True)] * 6, [1] * 12)
def test_messages_come_out_whole_however_the_bytes_are_cut(messages: list[tuple[bytes, bool]], cuts: list[int]) -> None:
    wire = b"".join(frame(body, compress=compress) for body, compress in messages)
    places = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    made = assembler()
    for start, end in pairwise(places):
        made.feed(wire[start:end])
    contents = [inflated(message) if isinstance(message, Compressed) else message for message in made.messages]
    assert contents == [body for body, _ in messages]
    assert not made.partial


def test_limits_are_read_from_the_prefix() -> None:
    with pytest.raises(ResourceExhausted, match="1001"):
        assembler(1000).feed(b"\0" + (1001).to_bytes(4, "big"))
    with pytest.raises(BadMessage, match="flag is 2"):
        assembler().feed(b"\2\0\0\0\0")
    with pytest.raises(BadMessage, match="compress"):
        Assembler(1000, ByteBudget(1000)).feed(b"\1\0\0\0\0")


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


def test_unfinished_messages_count_however_small() -> None:
    budget = ByteBudget(100_000)
    held = [assembler(budget=budget) for _ in range(10)]
    for one in held:
        one.feed(frame(b"x" * 10_000)[:6])
    with pytest.raises(ResourceExhausted, match="100000 of 100000"):
        assembler(budget=budget).feed(frame(b"x")[:5])
    for one in held:
        one.release()
    assert budget.free_bytes == 100_000


def test_a_message_in_tiny_parts_is_held_in_few_objects() -> None:
    made = assembler()
    body = bytes(range(250)) * 260
    for byte in frame(body)[:-1]:
        made.feed(bytes((byte,)))
    assert len(made._parts) < 600
    made.feed(body[-1:])
    assert made.pop() == body
