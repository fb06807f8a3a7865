"""How far a mirrored answer is from the one served: against plain arithmetic, and at the edges of numbers."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.routing.document.mirror import Tolerance
from gateway.serving.mirror_comparison import MAX_ELEMENTS, compare
from gateway.tensor import Datatype, TensorSpec

SCORES = TensorSpec("score", Datatype.FP32, (-1, 3))
LABEL = TensorSpec("label", Datatype.INT64, (-1,))
TEXT = TensorSpec("text", Datatype.BYTES, (-1, 1))
EXACT = {"score": Tolerance("score")}


def scores(*rows: tuple[float, float, float]) -> npt.NDArray[np.float32]:
    return np.array(rows, np.float32)


def within(absolute: float = 0.0, relative: float = 0.0) -> dict[str, Tolerance]:
    return {"score": Tolerance("score", False, absolute, relative)}


def test_equal_answers_agree() -> None:
    answer = [scores((1, 2, 3), (3, 2, 1)), np.array([2, 0]), np.array([[b"a"], [b"b"]], object)]
    comparison = compare((SCORES, LABEL, TEXT), answer, [array.copy() for array in answer], EXACT)
    assert (comparison.agrees, comparison.rows, comparison.same_rows, comparison.max_difference) == (True, 2, 2, 0.0)


def test_without_tolerances_the_highest_scores_decide() -> None:
    served = scores((1, 2, 3), (3, 2, 1))
    near, other = scores((1, 2, 2.5), (3, 2, 1)), scores((1, 4, 3), (3, 2, 1))
    assert compare((SCORES,), [served], [near], {}).agrees
    comparison = compare((SCORES,), [served], [other], {})
    assert (comparison.agrees, comparison.rows, comparison.same_rows, comparison.max_difference) == (False, 2, 1, 2.0)


def test_without_tolerances_and_scores_everything_has_to_be_equal() -> None:
    assert compare((LABEL,), [np.array([1, 2])], [np.array([1, 2])], {}).agrees
    assert not compare((LABEL,), [np.array([1, 2])], [np.array([1, 3])], {}).agrees
    assert not compare((TEXT,), [np.array([[b"a"]], object)], [np.array([[b"b"]], object)], {}).agrees


def test_only_outputs_with_a_tolerance_decide_where_there_is_one() -> None:
    answers = [scores((1, 2, 3)), np.array([2])], [scores((3, 2, 1)), np.array([2])]
    label_only = {"label": Tolerance("label")}
    comparison = compare((SCORES, LABEL), *answers, label_only)
    assert (comparison.agrees, comparison.same_rows) == (True, 0)


@pytest.mark.parametrize(
    ("served", "shadow", "agrees"),
    [
        (1.0, 1.5, True),
        (1.0, 1.75, False),
        (float("nan"), float("nan"), True),
        (float("nan"), 1.0, False),
        (float("inf"), float("inf"), True),
        (float("inf"), float("-inf"), False),
        (float("inf"), 1.0, False),
    ],
)
def test_tolerances_at_the_edges(served: float, shadow: float, agrees: bool) -> None:
    comparison = compare((SCORES,), [scores((served, 0, 0))], [scores((shadow, 0, 0))], within(0.5))
    assert comparison.agrees == agrees
    assert np.isfinite(comparison.max_difference)


def test_a_relative_tolerance_is_measured_by_what_was_served() -> None:
    assert compare((SCORES,), [scores((100, 0, 0))], [scores((109, 0, 0))], within(relative=0.1)).agrees
    assert not compare((SCORES,), [scores((100, 0, 0))], [scores((111, 0, 0))], within(relative=0.1)).agrees


def test_other_shapes_never_agree() -> None:
    comparison = compare((SCORES,), [scores((1, 2, 3))], [scores((1, 2, 3), (1, 2, 3))], {})
    assert (comparison.agrees, comparison.rows) == (False, 0)


def test_bf16_is_compared_as_numbers() -> None:
    spec = TensorSpec("score", Datatype.BF16, (-1, 2))
    one, two = (np.array([[value, 0]], np.float32).view(np.uint32) >> 16 for value in (1.0, 2.0))
    comparison = compare((spec,), [one.astype(np.uint16)], [two.astype(np.uint16)], within(0.5))
    assert (comparison.agrees, comparison.max_difference) == (False, 1.0)


def test_only_the_beginning_of_a_large_output_is_looked_at() -> None:
    spec = TensorSpec("score", Datatype.FP32, (-1, 1000))
    served = np.zeros((100, 1000), np.float32)
    shadow = served.copy()
    shadow[MAX_ELEMENTS // 1000 + 1 :] = 5
    comparison = compare((spec,), [served], [shadow], EXACT)
    assert (comparison.agrees, comparison.rows, comparison.max_difference) == (True, MAX_ELEMENTS // 1000, 0.0)
    shadow[0, 0] = 5
    assert not compare((spec,), [served], [shadow], EXACT).agrees


numbers = st.floats(-1e6, 1e6, width=32)
ROWS = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=5)


@settings(max_examples=80, deadline=None)
@given(ROWS, st.data(), st.floats(0, 10), st.floats(0, 1))
def test_it_agrees_with_arithmetic(
    rows: list[tuple[float, float, float]], data: st.DataObject, absolute: float, relative: float
) -> None:
    other = data.draw(st.lists(st.tuples(numbers, numbers, numbers), min_size=len(rows), max_size=len(rows)))
    served, shadow = scores(*rows), scores(*other)
    comparison = compare((SCORES,), [served], [shadow], within(absolute, relative))
    assert comparison.max_difference == float(np.abs(served - shadow).max())
    assert comparison.same_rows == int((served.argmax(1) == shadow.argmax(1)).sum())
    assert comparison.agrees == bool((np.abs(served - shadow) <= absolute + relative * np.abs(served)).all())
