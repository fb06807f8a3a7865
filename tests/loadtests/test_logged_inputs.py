"""Inputs of a prediction log are sent again as they came."""

import time
from pathlib import Path

import numpy as np
import pytest

from gateway.errors import InvalidArgument
from gateway.tensor import Datatype
from loadtests.job.logged_inputs import read_logged
from loadtests.job.model_signature import ModelSignature, SignatureInput
from tests.drift.lakes import write_rows

SIGNATURE = ModelSignature(
    "homes", ("1",), (SignatureInput("x", Datatype.FP32, (-1, 3)), SignatureInput("t", Datatype.BYTES, (-1,)))
)


def test_what_was_logged_is_sent_again(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
    texts = np.array(["a", "bc", "", "d"])
    now_us = int(time.time() * 1e6) - 60_000_000
    write_rows(tmp_path, now_us + np.arange(4), {"x": rows, "t": texts}, {"y": rows[:, 0]})
    made = read_logged(tmp_path, SIGNATURE, 10)
    assert sorted(x.raw for x, _ in made) == sorted(row.tobytes() for row in rows)
    assert sorted(t.values() for _, t in made) == [[""], ["a"], ["bc"], ["d"]]
    assert {(x.shape, t.shape) for x, t in made} == {((1, 3), (1,))}
    assert len(read_logged(tmp_path, SIGNATURE, 2)) == 2
    with pytest.raises(InvalidArgument, match="has no request of model 'other' with all its inputs"):
        read_logged(tmp_path, ModelSignature("other", (), SIGNATURE.inputs), 2)


def test_a_folder_without_a_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"no prediction log at .*lake: name the gateway's own data directory"):
        read_logged(tmp_path, SIGNATURE, 2)
