"""A process that logs as fast as it can and says which records it was promised; made to be killed.

Usage: python -m tests.records.writer DIRECTORY PREFIX [--as-nobody]. Prints `ready`, then after each flush how many
records are written and how many were dropped.
"""

import asyncio
import os
import sys
from pathlib import Path

from gateway.records.worker.prediction_log import LogLimits
from gateway.records.worker.wal import SegmentLimits
from tests.records.traffic import append, open_log, open_stream


async def write(directory: Path, prefix: str) -> None:
    limits = LogLimits(segment=SegmentLimits(max_bytes=150_000))
    log = open_log(directory, worker=prefix, limits=limits)
    streams = [open_stream(log), open_stream(log, model="digits")]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    number = 0
    while True:
        for _ in range(200):
            append(streams[number % 2], f"{prefix}.{number}", rows=1)
            number += 1
        await log.flush()
        counts = log.counts()
        sys.stdout.write(f"{counts.written} {sum(counts.dropped.values())}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if "--as-nobody" in sys.argv:
        os.setuid(65534)
    asyncio.run(write(Path(sys.argv[1]), sys.argv[2]))
