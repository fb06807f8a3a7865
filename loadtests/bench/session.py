"""ONNX Runtime in this process: what the right answers are, and how fast it is with no server around it.

    python -m loadtests.bench.session MODEL.onnx INPUT.npy OUTPUT-NAME SECONDS THREADS INTRA BATCH

runs the model for that long and prints one JSON line. Threads share one session, as they would in a server.
"""

import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread

import numpy as np
import onnxruntime

from loadtests.bench.models import INPUT, VERSIONS, BenchModel, Floats

_MEBIBYTE = 1 << 20


def open_session(model: Path, *, intra_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = intra_threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def expected_outputs(model: BenchModel, repository: Path) -> Mapping[str, Floats]:
    """What each version answers to the model's row. Shapes: [1, *output_shape]."""
    outputs = {}
    for version in VERSIONS:
        session = open_session(repository / model.name / version / "model.onnx", intra_threads=1)
        outputs[version] = session.run([model.output], {INPUT: model.row})[0]
    return outputs


def run_for(session: onnxruntime.InferenceSession, output: str, feed: Floats, end: float) -> list[float]:
    """How long each run took, in seconds; runs begin until `end` (monotonic)."""
    took = []
    now = time.monotonic()
    while now < end:
        session.run([output], {INPUT: feed})
        after = time.monotonic()
        took.append(after - now)
        now = after
    return took


def main(arguments: list[str]) -> None:
    model, row_file, output = Path(arguments[0]), arguments[1], arguments[2]
    seconds, threads, intra, batch = float(arguments[3]), *map(int, arguments[4:7])
    session = open_session(model, intra_threads=intra)
    feed = np.repeat(np.load(row_file), batch, axis=0)
    run_for(session, output, feed, time.monotonic() + min(0.3, seconds / 4))
    took: list[float] = []
    begin, cpu_before = time.monotonic(), time.process_time()
    workers = [
        Thread(target=lambda: took.extend(run_for(session, output, feed, begin + seconds))) for _ in range(threads)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    wall_s, cpu_s = time.monotonic() - begin, time.process_time() - cpu_before
    print(
        json.dumps(
            {
                "rows": len(took) * batch,
                "seconds": wall_s,
                "cpu_s": cpu_s,
                "process_s": time.process_time(),
                "p50_ms": float(np.percentile(took, 50)) * 1e3,
                "p99_ms": float(np.percentile(took, 99)) * 1e3,
                "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _MEBIBYTE,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
