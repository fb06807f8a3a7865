"""What becomes the class and the score of a row: scores of classes, and not the numbers of a regression."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gateway.records.lake.predicted_class import chances
from gateway.records.worker.record import Record
from gateway.records.worker.stream_schema import StreamSchema
from gateway.tensor import Datatype, TensorSpec
from tests.records.traffic import NOW_US, compactor, lake_rows, open_log

Array = npt.NDArray[Any]
PLACE = np.array([[47.4, 8.5], [-33.9, 151.2], [0.0, 0.0]], "<f4")
CHANCES = np.array([[0.1, 0.9], [0.7, 0.3], [0.5, 0.5]], "<f4")


async def predictions(folder: Path, *outputs: tuple[str, Array, tuple[str, ...]]) -> list[tuple[Any, Any]]:
    """Class and score of each row of a model with these outputs; the third of each is what its labels file has."""
    kinds = {"f": Datatype.FP32, "i": Datatype.INT64, "O": Datatype.BYTES}
    specs = tuple(
        TensorSpec(name, kinds[values.dtype.kind], (-1, *values.shape[1:]), labels=labels)
        for name, values, labels in outputs
    )
    log = open_log(folder / "wal")
    rows = len(outputs[0][1])
    stream = log.stream("m", "1", "a", (), specs, "d")
    stream.append(Record(NOW_US, "r", 0, "S", 1, 1, rows, 0, 0, 0, None, (), tuple(values for _, values, _ in outputs)))
    await log.close()
    compactor(folder / "wal", folder / "lake").step()
    return [(row["pred_class"], row["pred_score"]) for row in lake_rows(folder / "lake")]


async def test_two_quantities_of_a_regression_have_no_class_and_no_score(tmp_path: Path) -> None:
    assert await predictions(tmp_path, ("where", PLACE, ())) == [(None, None)] * 3


async def test_chances_have(tmp_path: Path) -> None:
    rows = await predictions(tmp_path, ("p", CHANCES, ()))
    assert [chosen for chosen, _ in rows] == [1, 0, 0]
    assert [score for _, score in rows] == pytest.approx([0.9, 0.7, 0.5])


@pytest.mark.parametrize("said", ["labels file", "name", "text", "number"])
async def test_other_scores_have_where_somebody_says_that_they_are(tmp_path: Path, said: str) -> None:
    scores = ("logits" if said == "name" else "margins", PLACE, ("a", "b") if said == "labels file" else ())
    beside = {"text": np.array([b"a", b"b", b"a"], object), "number": np.array([5, 6, 7], "<i8")}.get(said)
    rows = await predictions(tmp_path, scores, *([] if beside is None else [("label", beside, ())]))
    assert [one for one, _ in rows] == ([5, 6, 7] if said == "number" else [0, 1, 0])
    assert [score for _, score in rows] == pytest.approx([47.4, 151.2, 0.0])


async def test_one_number_is_its_own_score(tmp_path: Path) -> None:
    rows = await predictions(tmp_path, ("price", PLACE[:, 0].copy(), ()))
    assert [one for one, _ in rows] == [None] * 3
    assert [score for _, score in rows] == pytest.approx(PLACE[:, 0].tolist())


def test_a_segment_of_before_says_nothing_of_labels() -> None:
    schema = StreamSchema("m", "1", "a", "d", (), (TensorSpec("p", Datatype.FP32, (-1, 2)),), classified=frozenset("p"))
    assert StreamSchema.from_json(schema.to_json()) == schema
    older = schema.to_json().replace(b',"classified":["p"]', b"")
    assert StreamSchema.from_json(older).classified == frozenset()
    assert StreamSchema.from_json(older).shape_hash == schema.shape_hash


@example(np.zeros((0, 2)))
@example(np.array([[1.0]]))
@example(np.full((3, 4), 0.25))
@example(np.array([[np.nan, 1.0], [np.inf, -np.inf], [1e308, 1e308], [2.0, -1.0]]))
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(0, 8), st.integers(1, 6)),
        elements=st.floats(allow_nan=True, allow_infinity=True),
    )
)
def test_rows_are_chances_if_they_were_made_so_and_not_otherwise(numbers: Array) -> None:
    held = chances(numbers)
    assert held.shape == (len(numbers),)
    for row, is_held in zip(numbers.tolist(), held.tolist(), strict=True):
        assert is_held == (min(row) >= 0 and abs(sum(row) - 1) <= 1e-3)
    finite = np.nan_to_num(np.clip(numbers, -500, 500))
    raised = np.exp(finite - finite.max(axis=1, keepdims=True)) if len(finite) else finite
    assert chances(raised / raised.sum(axis=1, keepdims=True)).all()
    assert not chances(raised / raised.sum(axis=1, keepdims=True) * 1.01).any()
