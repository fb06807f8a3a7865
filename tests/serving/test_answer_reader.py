"""What an answer says: whether its numbers are numbers, and which prediction its first row makes."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import Code
from gateway.routing.document.guardrail import ANSWERS, PREDICTIONS
from gateway.serving.answer_reader import CLASS_PLACES, AnswerReader, score_place
from gateway.serving.arm_tally import PREDICTIONS_A_SECOND, ArmTally
from gateway.serving.model_config import ModelConfig
from gateway.serving.version import Version
from gateway.tensor import Datatype, TensorSpec

FLOATS = [datatype for datatype in Datatype if datatype.is_float]
NAN, INF = math.nan, math.inf


def version_of(*outputs: TensorSpec, batches: bool = True) -> Version:
    version = Version("m", "1")
    version._describe(ModelConfig(name="m", outputs=outputs, max_batch_size=8 if batches else 0))
    return version


def numbers(datatype: Datatype, values: list[float]) -> bytes:
    if datatype is Datatype.BF16:
        return (np.array(values, np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return np.array(values, datatype.dtype).tobytes()


@pytest.mark.parametrize("datatype", FLOATS)
@pytest.mark.parametrize("width", [3, 300])
@given(place=st.integers(0, 299), bad=st.sampled_from([NAN, INF, -INF]))
def test_one_that_is_no_number_makes_an_answer_unsound(datatype: Datatype, width: int, place: int, bad: float) -> None:
    reader = AnswerReader(version_of(TensorSpec("y", datatype, (-1, width))))
    values = [1.5] * width
    good = numbers(datatype, values)
    values[place % width] = bad
    told = numbers(datatype, values)
    for kept in (bytes, lambda raw: np.frombuffer(raw, datatype.dtype)):
        assert reader.is_sound([kept(good)], None)
        assert not reader.is_sound([kept(told)], None)
        assert not reader.is_sound([kept(good + told)], None)


def test_large_numbers_are_sound_though_their_sum_is_not() -> None:
    reader = AnswerReader(version_of(TensorSpec("y", Datatype.FP64, (-1, 2))))
    assert reader.is_sound([np.array([1.7e308, 1.7e308]).tobytes()], None)


def test_an_output_without_elements_is_missing_and_one_that_was_not_asked_for_is_not() -> None:
    reader = AnswerReader(
        version_of(TensorSpec("y", Datatype.FP32, (-1, 2)), TensorSpec("label", Datatype.INT64, (-1,)))
    )
    y, label = np.zeros(2, np.float32).tobytes(), np.zeros(1, np.int64).tobytes()
    assert reader.is_sound([y, label], None)
    assert reader.is_sound([label], (1,))
    assert not reader.is_sound([y, b""], None)
    assert not reader.is_sound([np.zeros((0, 2), np.float32), label], None)


@pytest.mark.parametrize(
    ("spec", "row", "said"),
    [
        (TensorSpec("label", Datatype.INT64, (-1,)), np.array([7], np.int64), (True, 7)),
        (TensorSpec("label", Datatype.INT64, (-1, 1)), np.array([[39]], np.int64), (True, 39 % CLASS_PLACES)),
        (TensorSpec("p", Datatype.FP32, (-1, 3)), np.array([[0.2, 0.5, 0.3]], np.float32), (True, 1)),
        (TensorSpec("logits", Datatype.FP32, (-1, 3)), np.array([[-2.0, -9.0, 5.0]], np.float32), (True, 2)),
        (TensorSpec("y", Datatype.FP32, (-1, 3)), np.array([[-2.0, -9.0, 5.0]], np.float32), (False, score_place(-2))),
        (TensorSpec("y", Datatype.FP64, (-1,)), np.array([0.25]), (False, score_place(0.25))),
        (TensorSpec("y", Datatype.BF16, (-1, 1)), np.array([[0x4000]], np.uint16), (False, score_place(2.0))),
        (TensorSpec("y", Datatype.FP32, (-1, 2)), np.array([[NAN, 1.0]], np.float32), None),
        (TensorSpec("y", Datatype.FP32, (-1, 2, 2)), np.zeros((1, 2, 2), np.float32), None),
    ],
)
def test_the_first_row_says_a_class_or_a_score(
    spec: TensorSpec, row: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", said: tuple[bool, int] | None
) -> None:
    reader = AnswerReader(version_of(spec))
    assert reader.prediction([row], None) == said
    assert reader.prediction([row.tobytes()], None) == said
    assert reader.prediction([row.tobytes() * 3], None) == said
    assert reader.prediction([], ()) is None


def test_texts_are_classes() -> None:
    reader = AnswerReader(version_of(TensorSpec("label", Datatype.BYTES, (-1,))))
    said = [reader.prediction([np.array([text], object)], None) for text in (b"late", b"on time", b"late")]
    assert said[0] == said[2] != said[1]


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
@example(0.0, -0.0)
@example(1e-300, -1e-300)
def test_places_of_scores_keep_their_order(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert score_place(low) <= score_place(high)


def test_a_tally_reads_what_it_is_asked_for_and_each_key_once() -> None:
    version = version_of(TensorSpec("y", Datatype.FP32, (-1, 1)))
    bad, good = (np.array([value], np.float32).tobytes() for value in (NAN, 2.0))
    tally, plain = ArmTally(frozenset({ANSWERS, PREDICTIONS})), ArmTally()
    assert not plain.reads
    assert "unsound" not in plain.snapshot()
    for bucket in (7, 7, 8, -1, -1):
        tally.read(version, [bad], None, bucket)
        tally.observe(Code.OK, 1000, bucket)
    assert tally.unsound == 4
    assert tally.scores == {}
    more = ArmTally(frozenset({PREDICTIONS}))
    for bucket in range(2 * PREDICTIONS_A_SECOND):
        more.read(version, [good], None, bucket % 50)
    assert more.scores == {score_place(2.0): 50}
    assert more.unsound == 0
