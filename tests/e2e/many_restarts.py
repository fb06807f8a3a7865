"""`python -m tests.e2e.many_restarts DIRECTORY SAMPLES TRANSPORT COUNT`: a gateway that is told to restart so often.

Half of its callers keep their connection, half connect for each call, and some use REST. It prints what failed as JSON,
also where Ctrl-C ends it early.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from loadtests.samples import load
from tests.e2e.conftest import OWN_CONNECTION
from tests.e2e.product import Product, until
from tests.e2e.traffic import rest_traffic, traffic

CLIENTS = 8  # of each of the two kinds


def renewed(product: Product, before: set[int]) -> bool:
    workers = product.children("worker")
    return all(child["state"] == "READY" and child["pid"] not in before for child in workers)


def main(directory: Path, samples: Path, transport: str, count: int) -> None:
    rows = load(samples, "digits")
    product = Product(directory, directory / "models", "--transport", transport).start()
    restarts = 0
    try:
        with (
            traffic(product.server, rows, OWN_CONNECTION, clients=CLIENTS, pause_s=0.0) as kept,
            traffic(product.server, rows, OWN_CONNECTION, clients=CLIENTS, connect_per_call=True, pause_s=0.0) as fresh,
            rest_traffic(product.port("http"), rows) as rest,
            suppress(KeyboardInterrupt),
        ):
            while restarts < count:
                before = {child["pid"] for child in product.children("worker")}
                os.kill(product.state()["pid"], signal.SIGHUP)
                until(lambda before=before: renewed(product, before), 60, "every worker is a new one")  # type: ignore[misc]
                kept.wait_for(CLIENTS)
                fresh.wait_for(CLIENTS)
                restarts += 1
        product.stop()
    finally:
        product.kill()
    made = {"kept": kept, "fresh": fresh, "rest": rest}
    failures = [f"{name}: {one.failure} {one.text}" for name, calls in made.items() for one in calls.failures()]
    told = {"restarts": restarts, "calls": {name: len(calls.outcomes) for name, calls in made.items()}}
    print(json.dumps({**told, "failures": failures}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
