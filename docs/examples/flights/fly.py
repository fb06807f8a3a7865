"""Asks the model about flights of a month of 2015, again and again, and tells the gateway which were late.

python docs/examples/flights/fly.py SERVER MONTH SECONDS
"""

import sys
from itertools import cycle
from time import monotonic, sleep
from typing import Any

import numpy as np
from train import COLUMNS, NUMBERS, flights

from gateway.client import Client

FLIGHTS_PER_SECOND = 50


def inputs(row: dict[str, str]) -> dict[str, Any]:
    return {
        "AIRLINE": np.array([[row["AIRLINE"].encode()]], object),
        **{name: np.array([[row[name]]], np.float32) for name in NUMBERS},
        "WEEKDAY": np.array([[row["WEEKDAY"]]], np.int64),
    }


def main(server: str, month: str, seconds: float) -> None:
    rows = [row for row in flights() if row["DATE"].startswith(month)]
    versions: dict[str, int] = {}
    began = monotonic()
    with Client(server) as client:
        for sent, row in enumerate(cycle(rows)):
            if (late := began + sent / FLIGHTS_PER_SECOND - monotonic()) > 0:
                sleep(late)
            if monotonic() - began > seconds:
                break
            answer = client.infer("delays", inputs(row), key=f"{row['AIRLINE']}-{sent}")
            client.feedback(answer, label=int(row["LATE"]))
            versions[answer.version] = versions.get(answer.version, 0) + 1
    told = ", ".join(f"version {version}: {count}" for version, count in sorted(versions.items()))
    print(f"flights of {month} by {told}; their columns: {', '.join(COLUMNS)}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
