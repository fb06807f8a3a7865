"""Models whose weights can be prepared, and entries of a store of prepared models."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import helper

from gateway.serving.prepared_store import MODEL_FILENAME, PreparedStore, seal
from gateway.serving.preparer import Preparer
from gateway.serving.session import WEIGHTS_FILENAME
from gateway.tensor import Datatype
from tests import models

Floats = npt.NDArray[np.float32]

WIDTH = 64


def weights(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def multiplied(*, by: float = 1.0) -> bytes:
    """`y = x @ weights`; x, y: FP32 [-1, WIDTH]."""
    model = models.model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [models.tensor_value("x", Datatype.FP32, (-1, WIDTH))],
        [models.tensor_value("y", Datatype.FP32, (-1, WIDTH))],
        [models.weight("w", weights(WIDTH, WIDTH) * np.float32(by))],
    )
    return bytes(model.SerializeToString())


def put(store: PreparedStore, key: str, size: int = 1000) -> None:
    """Publishes an entry of about that many bytes, which is no model."""
    staging = store.stage()
    (staging / MODEL_FILENAME).write_bytes(key.encode())
    (staging / WEIGHTS_FILENAME).write_bytes(bytes(size))
    seal(staging, key)
    assert store.publish(key, staging)


def entries(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if len(path.name) == 64]


def preparer(directory: Path, *, max_bytes: int = 1 << 30, timeout_s: float = 300.0, idle_s: float = 0.0) -> Preparer:
    return Preparer(directory / "prepared", min_bytes=1, max_bytes=max_bytes, timeout_s=timeout_s, idle_s=idle_s)
