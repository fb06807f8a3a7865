"""How many rows a second compaction takes on one core, and how many with drift in the same pass.

    python -m loadtests.bench_drift [--rows 600000] [--features 20] [--batch 1]

Writes a prediction log of that many rows through the real log, then compacts it by the real compactor, alone and with
the monitor of a version that has a profile; the best of three rounds each. The time is that of the process, so that
what else runs on the machine counts less.
"""

import argparse
import asyncio
import os
import shutil
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gateway.drift.profile_files import ProfileFiles
from gateway.drift.statistics.building import build_profile
from gateway.records.lake import parquet
from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.worker.prediction_log import LogLimits, PredictionLog
from gateway.records.worker.record import Record
from gateway.runtime.compaction import ledgers
from gateway.tensor import Datatype, TensorSpec

ROUNDS = 3
MODEL = "bench"


@dataclass(frozen=True, slots=True)
class Load:
    """What is logged: `rows` in requests of `batch`, each of `features` float32."""

    rows: int
    features: int
    batch: int


async def write(directory: Path, load: Load) -> None:
    """A log of the load, in sealed segments."""
    log = PredictionLog(
        directory / "wal",
        worker="w0",
        gateway="gw",
        boot=str(uuid.uuid4()),
        limits=LogLimits(max_bytes=1 << 30, max_records=1 << 24),
    )
    x = TensorSpec("x", Datatype.FP32, (-1, load.features))
    y = TensorSpec("y", Datatype.FP32, (-1, 2))
    stream = log.stream(MODEL, "1", "stable", (x,), (y,), "sha256:aa", "")
    rng = np.random.default_rng(1)
    begin_us = int(time.time() * 1e6)
    for number in range(load.rows // load.batch):
        inputs = rng.normal(size=(load.batch, load.features)).astype("<f4").tobytes()
        score = rng.uniform(size=(load.batch, 1))
        outputs = np.hstack([score, 1 - score]).astype("<f4").tobytes()
        moment_us = begin_us + number * load.batch * 50  # 20 000 rows a second
        stream.append(
            Record(moment_us, f"r{number}", 0, "SPLIT", 1, 1, load.batch, 1, 2, 3, None, (inputs,), (outputs,))
        )
        if number * load.batch % 1000 == 0:  # as many as come in the 50 ms between two flushes
            await log.flush()
    await log.close()


def profile(directory: Path, load: Load) -> None:
    rng = np.random.default_rng(2)
    inputs = {f"f.x_{index}": rng.normal(size=20_000) for index in range(load.features)}
    scores = rng.uniform(size=20_000)
    outputs = {"pred_score": np.maximum(scores, 1 - scores), "pred_class": (scores < 0.5).astype(np.int64)}
    made = build_profile(MODEL, "1", inputs, outputs, created_at=time.time(), source="bench")
    ProfileFiles(directory).save(made)


def compact(directory: Path, *, drift: bool) -> float:
    """Processor seconds that compacting a copy of the log took."""
    with TemporaryDirectory(dir=directory) as folder:
        work = Path(folder)
        shutil.copytree(directory / "wal", work / "wal")
        config = CompactorConfig(
            str(work / "wal"),
            str(work / "lake"),
            published_directory=str(work / "published"),
            data_directory=str(directory) if drift else "",
        )
        compactor = Compactor(config, ledgers=ledgers(config))
        begin = time.process_time()
        compactor.step()
        compactor.tend()
        return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--features", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1)
    options = parser.parse_args()
    load = Load(options.rows, options.features, options.batch)
    if sys.platform == "linux":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    parquet.limit_threads()
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        asyncio.run(write(directory, load))
        profile(directory, load)
        alone = min(compact(directory, drift=False) for _ in range(ROUNDS))
        both = min(compact(directory, drift=True) for _ in range(ROUNDS))
    print(f"{load.rows} rows of {load.features} features, {load.batch} a request, one core")
    for name, seconds in (("compaction", alone), ("with drift", both), ("drift alone", both - alone)):
        print(f"{name:<12} {seconds / load.rows * 1e6:6.2f} us a row   {load.rows / seconds:10,.0f} rows a second")


if __name__ == "__main__":
    main()
