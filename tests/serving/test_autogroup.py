"""How a session gives up its share of the CPU."""

from itertools import chain, repeat
from random import Random

import pytest

from gateway.serving.autogroup import in_turn, pauses


@pytest.mark.parametrize("shut", [0, 1, 10])
def test_a_gate_that_opens_soon_is_passed(shut: int) -> None:
    waited: list[float] = []
    answers = chain(repeat(BlockingIOError, shut), repeat(None))

    def write() -> None:
        if (answer := next(answers)) is not None:
            raise answer

    assert in_turn(write, Random(1), waited.append)
    assert len(waited) == shut


def test_a_gate_that_stays_shut_is_left_alone_after_a_while() -> None:
    waited: list[float] = []

    def write() -> None:
        raise BlockingIOError

    assert not in_turn(write, Random(1), waited.append)
    assert 5 <= sum(waited) < 6


def test_those_who_start_together_do_not_meet_again() -> None:
    """The kernel lets one process of the whole host in within 0.1 s."""
    firsts = sorted(next(pauses(Random(seed))) for seed in range(32))
    assert firsts[-1] - firsts[0] > 0.1
    assert len(set(firsts)) == 32
