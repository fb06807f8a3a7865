"""What passes the checklist, from what was measured."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import InvalidArgument
from gateway.publish.checklist import (
    Check,
    Checklist,
    CheckState,
    CostBudget,
    GoldenOutcome,
    Measured,
    contract_check,
    golden_check,
    latency_check,
    memory_check,
    quantile,
    rows_check,
)
from gateway.publish.checklist_page import render_checklist
from gateway.publish.golden_requests import difference, read_golden
from gateway.replay.run_message import sent
from gateway.tensor import Datatype, TensorSpec

X = TensorSpec("x", Datatype.FP32, (-1, 4))
Y = TensorSpec("y", Datatype.FP32, (-1, 4))
ACTIVE = Measured((X,), (Y,), run_us=(100.0,) * 100, peak_bytes=100 << 20, rows_independent=True)


@pytest.mark.parametrize(
    ("inputs", "outputs", "broken"),
    [
        ((X,), (Y,), ""),
        ((TensorSpec("x", Datatype.FP32, (-1, -1)),), (Y,), ""),  # takes more
        ((X, TensorSpec("z", Datatype.FP32, (-1,), optional=True)), (Y, TensorSpec("w", Datatype.BOOL, (-1,))), ""),
        ((X,), (TensorSpec("y", Datatype.FP32, (2, 4)),), ""),  # answers less
        ((TensorSpec("x", Datatype.FP64, (-1, 4)),), (Y,), "input 'x' is FP64, it was FP32"),
        ((TensorSpec("x", Datatype.FP32, (-1, 5)),), (Y,), r"input 'x' has shape \[-1, 5\]"),
        ((TensorSpec("x", Datatype.FP32, (4,)),), (Y,), r"input 'x' has shape \[4\]"),
        ((), (Y,), "input 'x' is gone"),
        ((X, TensorSpec("z", Datatype.FP32, (-1,))), (Y,), "input 'z' is new, and must be sent"),
        ((X,), (), "output 'y' is gone"),
        ((X,), (TensorSpec("y", Datatype.INT64, (-1, 4)),), "output 'y' is INT64"),
        ((X,), (TensorSpec("y", Datatype.FP32, (-1, -1)),), r"output 'y' has shape \[-1, -1\]"),
        ((X,), (TensorSpec("y", Datatype.FP32, (), any_shape=True),), "output 'y' has shape"),
    ],
)
def test_a_contract_that_breaks_callers_fails(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], broken: str
) -> None:
    check = contract_check(Measured(inputs, outputs), ACTIVE, "3")
    assert check.state is (CheckState.FAIL if broken else CheckState.PASS)
    assert re.search(broken, check.text)
    allowed = contract_check(Measured(inputs, outputs), ACTIVE, "3", may_break=True)
    assert allowed.state is (CheckState.WARN if broken else CheckState.PASS)


def test_an_input_that_was_optional_and_is_not_breaks_callers() -> None:
    active = Measured((TensorSpec("x", Datatype.FP32, (-1, 4), optional=True),), (Y,))
    assert contract_check(Measured((X,), (Y,)), active, "3").state is CheckState.FAIL


def test_the_first_version_has_nothing_to_compare_with() -> None:
    assert contract_check(ACTIVE, None, "").state is CheckState.SKIPPED


@pytest.mark.parametrize("tolerance", ["-1", "1.5", "1e308"])
def test_a_tolerance_that_any_answer_keeps_is_refused(tolerance: str, tmp_path: Path) -> None:
    tensor = '[{"name": "y", "datatype": "FP32", "shape": [1], "data": [1.0]}]'
    golden = tmp_path / "golden.jsonl"
    golden.write_text(f'{{"inputs": {tensor}, "outputs": {tensor}, "tolerance": {tolerance}}}')
    with pytest.raises(InvalidArgument, match="allowed: 0 to 1"):
        read_golden(golden)


def test_golden_requests_must_be_answered_as_expected() -> None:
    assert golden_check(None).state is CheckState.SKIPPED
    assert golden_check(GoldenOutcome(0)).state is CheckState.FAIL  # nothing proves nothing
    assert golden_check(GoldenOutcome(2)).state is CheckState.PASS
    failed = golden_check(GoldenOutcome(9, tuple("abcd")))
    assert failed == Check("golden", CheckState.FAIL, "4 of 9 requests are answered otherwise: a; b; c and 1 more")


@pytest.mark.parametrize(
    ("datatype", "expected", "answered", "text"),
    [
        (Datatype.INT64, np.array([1, 2]), np.array([1, 3]), "at 1: 3, expected 2"),
        (Datatype.BOOL, np.array([True]), np.array([False]), "at 0: False, expected True"),
        (Datatype.FP32, np.array([0.5], "<f4"), np.array([0.75], "<f4"), "at 0: 0.75, expected 0.5"),
        (Datatype.BYTES, np.array([b"a"], object), np.array([b"b"], object), "at 0: b'b', expected b'a'"),
    ],
)
def test_an_answer_that_differs_is_told_by_its_values(
    datatype: Datatype, expected: np.ndarray, answered: np.ndarray, text: str
) -> None:
    told = difference([sent("y", datatype, expected)], [sent("y", datatype, answered)], 0.0)
    assert told == f"output 'y': 1 of {expected.size} elements differ, the first {text}"


def test_budgets_are_held() -> None:
    new = Measured(run_us=(100.0,) * 98 + (900.0,) * 2, peak_bytes=100 << 20)
    assert latency_check(new, None, CostBudget(), "").state is CheckState.PASS
    assert latency_check(new, None, CostBudget(latency_us=899), "").state is CheckState.FAIL
    assert latency_check(new, None, CostBudget(latency_us=0.2), "").text.endswith("the budget of 0.0002 ms")
    assert latency_check(new, None, CostBudget(latency_us=900), "").state is CheckState.PASS
    assert latency_check(Measured(run_us=(1.0,)), None, CostBudget(latency_us=900), "").state is CheckState.WARN
    assert latency_check(Measured(), None, CostBudget(), "").state is CheckState.SKIPPED
    assert (
        latency_check(Measured(), None, CostBudget(latency_us=900), "").state is CheckState.FAIL
    )  # not known is not well
    assert latency_check(Measured(run_us=(151.0,) * 100), ACTIVE, CostBudget(), "3").state is CheckState.WARN
    assert memory_check(new, None, CostBudget(memory_bytes=100 << 20), "").state is CheckState.PASS
    assert memory_check(new, None, CostBudget(memory_bytes=99 << 20), "").state is CheckState.FAIL
    assert memory_check(Measured(peak_bytes=151 << 20), ACTIVE, CostBudget(), "3").state is CheckState.WARN


def test_rows_that_depend_on_each_other_are_told() -> None:
    assert rows_check(Measured(rows_independent=None), None).state is CheckState.SKIPPED
    assert rows_check(ACTIVE, None).state is CheckState.PASS
    assert "those of the active version do not" in rows_check(Measured(rows_independent=False), ACTIVE).text


@given(values=st.lists(st.floats(0, 1e9), max_size=50), share=st.floats(0.01, 1.0))
@example(values=[], share=0.5)
@example(values=[7.0], share=0.99)
@example(values=[1.0] * 9, share=0.5)
def test_a_quantile_is_exceeded_by_no_more_than_the_rest(values: list[float], share: float) -> None:
    value = quantile(values, share)
    if not values:
        assert value == 0.0
        return
    assert value in values
    assert sum(one <= value for one in values) >= share * len(values) - 1e-9
    assert sum(one < value for one in values) < share * len(values) + 1e-9


def test_a_page_says_what_must_not_be_published_and_escapes_what_it_shows() -> None:
    checks = (Check("load", CheckState.FAIL, "<script>alert(1)</script>"), Check("rows", CheckState.SKIPPED, "-"))
    page = render_checklist(Checklist("m", "ab" * 32, 7, "3", checks))
    assert "Must not be published" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "May be published" in render_checklist(Checklist("m", "", 0, "", checks[1:], published="4"))
