"""A gateway whose workers count nothing, to measure what counting costs; started as `gateway serve` is.

    python -m loadtests.bench.uncounted --model-repository DIR --data-dir DIR ...

The product has no such switch: counts are what operators see a fault by.
"""

import sys
from collections import deque
from collections.abc import Sequence

from gateway.runtime.child_programs import Programs
from gateway.runtime.config_parser import load
from gateway.runtime.supervisor import supervise
from gateway.telemetry.logs import start_logging


def given_options(arguments: Sequence[str]) -> dict[str, object]:
    """`--name value` and the switches `--name` and `--no-name` as a mapping."""
    given: dict[str, object] = {}
    words = deque(arguments)
    while words:
        name = words.popleft().removeprefix("--")
        if words and not words[0].startswith("--"):
            given[name] = words.popleft()
        else:
            given[name.removeprefix("no-")] = not name.startswith("no-")
    return given


def main(arguments: list[str]) -> None:
    config = load(given_options(arguments), {})
    start_logging("supervisor", config.process.log_level)
    supervise(config, programs=Programs(worker=(sys.executable, "-P", "-m", "loadtests.bench.uncounted_worker")))


if __name__ == "__main__":
    main(sys.argv[1:])
