import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.records.worker.frame import HEAD, Damage, Frame, frame, scan

SEED = 77


def _bodies(data: bytes, seed: int = SEED) -> list[bytes]:
    return [bytes(part.body) for part in scan(data, seed=seed) if isinstance(part, Frame)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=8), st.data())
def test_one_flipped_bit_costs_one_frame_and_is_reported_where_it_is(bodies: list[bytes], data: st.DataObject) -> None:
    frames = [frame(body, seed=SEED) for body in bodies]
    raw = bytearray(b"".join(frames))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    hit, begin = 0, 0
    while begin + len(frames[hit]) <= place:
        begin += len(frames[hit])
        hit += 1
    assert _bodies(bytes(raw)) == bodies[:hit] + bodies[hit + 1 :]
    damages = [part for part in scan(bytes(raw), seed=SEED) if isinstance(part, Damage)]
    assert [(damage.offset, damage.length) for damage in damages] == [(begin, len(frames[hit]))]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=100), min_size=1, max_size=6), st.data())
def test_a_torn_tail_ends_at_the_last_whole_frame(bodies: list[bytes], data: st.DataObject) -> None:
    frames = [frame(body, seed=SEED) for body in bodies]
    raw = b"".join(frames)
    cut = data.draw(st.integers(0, len(raw)))
    whole = 0
    while sum(map(len, frames[: whole + 1])) <= cut and whole < len(frames):
        whole += 1
    assert _bodies(raw[:cut]) == bodies[:whole]
    rest = cut - sum(map(len, frames[:whole]))
    damages = [part for part in scan(raw[:cut], seed=SEED) if isinstance(part, Damage)]
    assert [(damage.length, damage.torn) for damage in damages] == ([(rest, True)] if rest else [])


def test_a_frame_inside_a_clients_bytes_is_not_taken_for_one_after_damage() -> None:
    planted = frame(b"planted", seed=0)
    raw = bytearray(frame(b"first" + planted * 3, seed=SEED) + frame(b"second", seed=SEED))
    raw[HEAD.size] ^= 1
    assert _bodies(bytes(raw)) == [b"second"]


def test_random_bytes_are_no_frames() -> None:
    assert _bodies(random.Random(3).randbytes(200_000)) == []


def test_an_empty_body_is_refused() -> None:
    with pytest.raises(ValueError, match="0 bytes"):
        frame(b"", seed=SEED)
