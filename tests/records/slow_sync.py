"""Predictions and labels on a disk whose syncs are slow; run under something that makes them so.

Usage: python -m tests.records.slow_sync DIRECTORY. Prints how late the loop was at most and the shortest wait of a
label, in milliseconds, then records written, records dropped and labels accepted.
"""

import asyncio
import sys
from pathlib import Path
from time import monotonic

from gateway.records.worker.feedback_log import FeedbackLog
from gateway.records.worker.prediction_log import LogLimits
from gateway.records.worker.wal import Durability, SegmentLimits
from tests.records.labels import label, open_labels
from tests.records.traffic import append, open_log, open_stream

TURN_S = 0.002


async def measure(directory: Path) -> None:
    log = open_log(directory, limits=LogLimits(segment=SegmentLimits(durability=Durability.ALWAYS)))
    labels, stream = open_labels(directory), open_stream(log)
    running = asyncio.create_task(log.run())
    await labels.write([label("first")])  # what is done once is not what is measured
    sending = asyncio.create_task(_send(labels))
    late_s = 0.0
    for number in range(2000):
        append(stream, f"r{number}")
        if number % 4 == 0:
            before = monotonic()
            await asyncio.sleep(TURN_S)
            late_s = max(late_s, monotonic() - before - TURN_S)
    shortest_s = await sending
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await log.close()
    await labels.close()
    counts = log.counts()
    dropped = sum(counts.dropped.values())
    print(late_s * 1e3, shortest_s * 1e3, counts.written, dropped, labels.counts["accepted"])


async def _send(labels: FeedbackLog) -> float:
    waits = []
    for number in range(4):
        before = monotonic()
        await labels.write([label(f"l{number}")])
        waits.append(monotonic() - before)
    return min(waits)


if __name__ == "__main__":
    asyncio.run(measure(Path(sys.argv[1])))
