"""What is foreseen of a message by the one before it."""

import pytest

from gateway.rpc.precedent import Precedents

S = 1_000_000_000


def test_a_message_is_like_the_last_of_its_caller_and_method() -> None:
    precedents = Precedents()
    assert precedents.find("a", "/m", 0) is None
    precedents.note("a", "/m", "x", b"lead", 7, S)
    last = precedents.find("a", "/m", S + 1)
    assert last is not None
    assert (last.subject, last.lead, last.size_bytes) == ("x", b"lead", 7)
    assert last.decides(S + 1)
    assert precedents.find("b", "/m", S + 1) is None
    assert precedents.find("a", "/n", S + 1) is None


def test_while_nothing_is_read_one_call_in_a_second_shows_what_its_caller_wants() -> None:
    precedents = Precedents()
    precedents.note("a", "/m", "x", b"", 7, S)
    last = precedents.find("a", "/m", S)
    assert last is not None
    assert not last.probes(2 * S - 1)
    assert [last.probes(2 * S + later) for later in (0, 1, S - 1, S, S + 1)] == [True, False, False, True, False]
    assert last.decides(2 * S)


def test_a_message_that_was_read_long_ago_says_nothing() -> None:
    precedents = Precedents()
    precedents.note("a", "/m", "x", b"", 7, S)
    assert precedents.find("a", "/m", 61 * S - 1) is not None
    assert precedents.find("a", "/m", 61 * S) is None


@pytest.mark.parametrize("later_ns", [1, S // 2, 5 * S])
def test_who_sends_this_and_that_is_asked_until_it_has_sent_one_kind_for_a_minute(later_ns: int) -> None:
    precedents = Precedents()
    precedents.note("a", "/m", "x", b"", 7, S)
    mixed_ns = S + later_ns
    for read_ns in (mixed_ns, mixed_ns + 30 * S, mixed_ns + 60 * S - 1):
        precedents.note("a", "/m", "y", b"", 7, read_ns)
        last = precedents.find("a", "/m", read_ns)
        assert last is not None
        assert not last.decides(read_ns)
        assert last.likely_bytes == 7  # what is on its way counts all the same
    last = precedents.find("a", "/m", mixed_ns + 60 * S)
    assert last is not None
    assert last.decides(mixed_ns + 60 * S)
    assert last.subject == "y"


def test_callers_without_end_are_forgotten_the_longest_unheard_first() -> None:
    precedents = Precedents()
    for number in range(5000):
        precedents.note("kept", "/m", "x", b"", 7, S)
        precedents.note(str(number), "/m", "x", b"", 7, S)
    assert precedents.find("kept", "/m", S) is not None
    assert precedents.find("0", "/m", S) is None
    assert sum(precedents.find(str(number), "/m", S) is not None for number in range(5000)) == 4095


def test_a_message_is_taken_for_the_smaller_of_the_last_two() -> None:
    precedents = Precedents()
    likely = []
    for place, size_bytes in enumerate((60, 1, 60, 60, 2, 3)):
        precedents.note("a", "/m", "x", b"", size_bytes, place)
        last = precedents.find("a", "/m", place)
        assert last is not None
        likely.append(last.likely_bytes)
    assert likely == [0, 1, 1, 60, 2, 2]


def test_nobody_is_judged_by_what_it_may_not_know_of() -> None:
    precedents = Precedents()
    precedents.deny("a", "/m")
    precedents.note("a", "/m", "x", b"", 7, S)
    precedents.deny("a", "/m")
    last = precedents.find("a", "/m", S)
    assert last is not None
    assert not last.decides(S)
    precedents.note("a", "/m", "x", b"", 7, 2 * S)
    last = precedents.find("a", "/m", 2 * S)
    assert last is not None
    assert last.decides(2 * S)
