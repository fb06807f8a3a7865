"""The judge of the movement scenario finds what it is there to find."""

from collections.abc import Iterable

from loadtests.movement import Movement, Step

KEYS = 4000


def keys(numbers: Iterable[int]) -> frozenset[str]:
    return frozenset(f"user-{number}" for number in numbers)


def test_a_run_that_moves_as_it_should_passes() -> None:
    movement = Movement(KEYS)
    movement.add(Step("canary", 0.25, 1, keys(range(1000))))
    movement.add(Step("canary", 0.5, 2, keys(range(2010))))
    assert "1010 moved (least: 1010), the same 1000 keys" in movement.add(Step("canary", 0.25, 3, keys(range(1000))))
    assert "0 moved" in movement.add(Step("ab", 0.25, 4, keys(range(1000))))
    assert movement.problems == []


def test_a_share_beyond_four_sigma_is_found() -> None:
    movement = Movement(KEYS)
    movement.add(Step("canary", 0.25, 1, keys(range(1120))))
    assert movement.problems == ["canary 25%, revision 1: 1120 of 4000 is not 25.00%: 1000 +- 110 were expected"]


def test_keys_that_change_places_are_found() -> None:
    movement = Movement(KEYS)
    movement.add(Step("canary", 0.25, 1, keys(range(1000))))
    movement.add(Step("canary", 0.5, 2, keys(range(1, 2001))))
    assert movement.problems == ["canary 50%, revision 2: 1002 keys moved, 1000 had to"]


def test_other_keys_at_the_same_weight_are_found() -> None:
    movement = Movement(KEYS)
    movement.add(Step("canary", 0.25, 1, keys(range(1000))))
    movement.add(Step("canary", 0.5, 2, keys(range(2000))))
    movement.add(Step("ab", 0.25, 3, keys(range(1000, 2000))))
    assert movement.problems == ["ab 25%, revision 3: 2000 keys are not where they were at this weight before"]
