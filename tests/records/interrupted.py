"""A compactor that kills itself with SIGKILL after a given number of parts of the work.

Usage: python -m tests.records.interrupted LOG LAKE PARTS [SINK] [--after-death]. Prints each part as it is done.
"""

import os
import signal
import sys
from pathlib import Path

from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.worker.segment import entries

if __name__ == "__main__":
    log, lake, parts = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    sinks = tuple(argument for argument in sys.argv[4:] if not argument.startswith("--"))
    worker = Compactor(CompactorConfig(str(log), str(lake), sinks=sinks, after_death="--after-death" in sys.argv))
    done = 0
    for entry in list(entries(log)):
        for part in worker.compact(entry):
            print(part, flush=True)
            done += 1
            if done == parts:
                os.kill(os.getpid(), signal.SIGKILL)
