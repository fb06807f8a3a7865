"""A compactor with its drift monitor that kills itself with SIGKILL after a given number of parts of the work.

Usage: python -m tests.drift.interrupted DIRECTORY PARTS. Prints each part as it is done: those of
segments, and looks of the monitor, which saves at each.
"""

import os
import signal
import sys
from pathlib import Path

from gateway.records.worker.segment import entries
from tests.drift.logged import after, watched

if __name__ == "__main__":
    directory, parts = Path(sys.argv[1]), int(sys.argv[2])
    worker, monitor = watched(directory)
    done = 0

    def count(part: str) -> None:
        global done
        print(part, flush=True)
        done += 1
        if done == parts:
            os.kill(os.getpid(), signal.SIGKILL)

    for number, entry in enumerate(sorted(entries(directory / "wal"), key=lambda entry: str(entry.path))):
        for part in worker.compact(entry):
            count(part)
        monitor.tend(after(20 + number), last=False)
        count("saved")
