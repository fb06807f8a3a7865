"""A process that writes labels as fast as it can and says which were acknowledged; made to be killed.

Usage: python -m tests.records.label_writer DIRECTORY PREFIX. Prints `ready`, then how many labels, all of them written.
"""

import asyncio
import sys
from pathlib import Path

from gateway.records.worker.feedback_log import FeedbackLimits
from gateway.records.worker.wal import Durability, SegmentLimits
from tests.records.labels import label, open_labels


async def write(directory: Path, prefix: str) -> None:
    segment = SegmentLimits(max_bytes=20_000, durability=Durability.NEVER)
    log = open_labels(directory, worker=prefix, limits=FeedbackLimits(segment=segment))
    sys.stdout.write("ready\n")
    number = 0
    while True:
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        calls = [[label(f"{prefix}.{number + 10 * call + index}") for index in range(10)] for call in range(5)]
        await asyncio.gather(*(log.write(labels) for labels in calls))
        number += 50


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), sys.argv[2]))
