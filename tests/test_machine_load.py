"""What a machine's load excuses is bounded: beyond that a promise is not shown to be kept, whatever was measured."""

import pytest

from tests.machine_load import assert_kept


@pytest.mark.parametrize(
    ("took_s", "load"), [(5.0, 1.0), (9.9, 2.0), (5.0, 15.0), (14.9, 15.0)], ids=lambda value: f"{value:g}"
)
def test_what_a_load_excuses_is_kept(took_s: float, load: float) -> None:
    assert_kept(took_s, 5.0, load)


@pytest.mark.parametrize(("took_s", "load"), [(5.1, 1.0), (10.1, 2.0), (15.1, 3.0)])
def test_what_it_does_not_excuse_fails(took_s: float, load: float) -> None:
    with pytest.raises(AssertionError):
        assert_kept(took_s, 5.0, load)


def test_forty_seconds_are_not_within_five_at_a_load_of_thirty_on_two_cpus() -> None:
    with pytest.raises(pytest.skip.Exception, match=r"took 40\.0 s, promised 5 s, at 15\.0 times the work of the CPUs"):
        assert_kept(40.0, 5.0, 15.0)
