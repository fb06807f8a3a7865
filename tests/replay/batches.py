"""Requests of several rows each in the log: of a model that batches, and of one whose rows depend on each other."""

import asyncio
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.retention import RetentionLimits
from gateway.records.worker.prediction_log import PredictionLog
from gateway.records.worker.record import Record
from gateway.tensor import Datatype, TensorSpec
from tests.drift.lakes import START_US, lake_of

SIZES = (1, 2, 5, 3)


def write_batches(data: Path, model: str, *, batches: bool, digest: str = "sha256:aa") -> npt.NDArray[np.float32]:
    """Logs and compacts requests of 1, 2, 5 and 3 rows; returns all their rows.

    The answers are those of `tests.models.row_mixing`, or of `affine` where it `batches`.
    """
    x = np.random.default_rng(3).normal(size=(sum(SIZES), 4)).astype("<f4")

    async def go(wal: str) -> None:
        log = PredictionLog(Path(wal), worker="w0", gateway="gw", boot=str(uuid.uuid4()))
        specs = (TensorSpec("x", Datatype.FP32, (-1, 4)),), (TensorSpec("y", Datatype.FP32, (-1, 4)),)
        stream = log.stream(model, "1", "stable", *specs, digest, batches=batches)
        first = 0
        for number, size in enumerate(SIZES):
            part = x[first : first + size]
            first += size
            answer = part * 2 if batches else part - part.mean(axis=0, keepdims=True)
            shapes = [part.shape]
            stream.append(
                Record(START_US + number, f"b{number}", 0, "SPLIT", 3, 1, size, 5, 7, 20, shapes, [part], [answer])
            )
        await log.close()

    with TemporaryDirectory() as wal:
        asyncio.run(go(wal))
        limits = RetentionLimits(max_age_s=1e9)
        Compactor(CompactorConfig(wal, str(lake_of(data)), retention=limits), clock=lambda: START_US / 1e6).step()
    return x
