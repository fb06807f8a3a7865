"""A gateway whose workers count nothing, to measure what counting costs; started as `gateway serve` is.

    python -m loadtests.bench.uncounted --model-repository DIR --data-dir DIR ...

The product has no such switch: counts are what operators see a fault by.
"""

import sys

from gateway.runtime.config import load
from gateway.runtime.logs import start_logging
from gateway.runtime.supervisor import Programs, supervise


def given_options(arguments: list[str]) -> dict[str, object]:
    """`--name value --name value` as a mapping."""
    names, values = arguments[::2], arguments[1::2]
    return {name.removeprefix("--"): value for name, value in zip(names, values, strict=True)}


def main(arguments: list[str]) -> None:
    config = load(given_options(arguments), {})
    start_logging("supervisor", config.process.log_level)
    supervise(config, programs=Programs(worker=(sys.executable, "-m", "loadtests.bench.uncounted_worker")))


if __name__ == "__main__":
    main(sys.argv[1:])
