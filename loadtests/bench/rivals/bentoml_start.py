"""Starts BentoML's server with the benchmark's model, over HTTP: it takes this process's place."""

import os
import sys
from pathlib import Path
from typing import Final

from loadtests.bench.rivals.start_order import StartOrder

REPOSITORY_VARIABLE: Final = "RIVAL_REPOSITORY"
WORKERS_VARIABLE: Final = "RIVAL_WORKERS"


def main(order: StartOrder) -> None:
    program = Path(sys.executable).with_name("bentoml")
    environment = {
        **os.environ,
        REPOSITORY_VARIABLE: str(order.repository),
        WORKERS_VARIABLE: str(order.workers),
        "BENTOML_HOME": str(order.folder),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    service = "loadtests.bench.rivals.bentoml_service:BentoOnnx"
    os.execve(
        program,
        [str(program), "serve", service, "--host", "127.0.0.1", "--port", str(order.port)],
        environment,
    )


if __name__ == "__main__":
    main(StartOrder.of(sys.argv[1:]))
