"""How long a committed route takes until it is in force in a worker: `gateway_route_apply_seconds` of a gateway.

    python -m loadtests.bench_apply --workers 8 --changes 300

Starts a gateway with a model of two versions, moves its weights again and again, each time when every worker follows,
and reads the histogram before and after. Percentiles are where a straight line through their bucket crosses them.
"""

import argparse
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import grpc

from gateway.pb import control_pb2 as pb
from gateway.pb.control_pb2_grpc import ControlStub
from loadtests.bench import cases
from loadtests.bench.models import MODELS
from loadtests.bench.servers import GatewaySetup, ServerFailed, gateway, route_document

GOAL_S = 0.010
_METRIC = "gateway_route_apply_seconds_bucket"
_MODEL = "tiny"


def histogram(metrics_url: str) -> dict[float, int]:
    """How many applications took at most so many seconds."""
    with urllib.request.urlopen(metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    samples = [line for line in lines if line.startswith(_METRIC)]
    return {float(line.split('"')[1]): int(float(line.rpartition(" ")[2])) for line in samples}


def percentile_s(counts: Mapping[float, int], share: float) -> float:
    """The time within which this share of the applications was in force; infinite beyond the last bound."""
    wanted = share * max(counts.values())
    for (low, before), (high, within) in pairwise([(0.0, 0), *sorted(counts.items())]):
        if within >= wanted:
            return low + (high - low) * (wanted - before) / max(within - before, 1) if high < float("inf") else high
    return float("inf")


def change(stub: ControlStub, number: int, rules: int) -> int:
    """The weights are others in every live worker. Returns microseconds until the last one had acknowledged."""
    document = route_document(_MODEL)
    spec = document["spec"]
    assert isinstance(spec, dict)
    share = 10 + number % 80
    spec["strategy"] = {"ab": {"control": "a", "weights": {"a": f"{100 - share}%", "b": f"{share}%"}}}
    spec["rules"] = [
        {"name": f"r{index}", "match": {"metadata": {f"x-h{index % 4}": {"exact": f"v{index}"}}}, "arm": "b"}
        for index in range(rules)
    ]
    answer = stub.Apply(
        pb.ApplyRequest(
            document_json=json.dumps(document),
            change=pb.Change(actor="loadtests", reason="bench_apply", source="api"),
            wait=pb.WaitFor(applied=True),
        ),
        timeout=30,
    )
    if answer.change.laggards:
        raise ServerFailed(f"workers that did not follow: {', '.join(answer.change.laggards)}")
    return int(answer.change.applied_us)


def measure(options: argparse.Namespace, work: Path) -> dict[str, object]:
    """The figures of one run."""
    made = cases.make([MODELS[_MODEL]], work)
    with (
        gateway(GatewaySetup("apply", workers=options.workers), made, work) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = ControlStub(channel)  # type: ignore[no-untyped-call]
        for number in range(10):
            change(stub, number, options.rules)
        before = histogram(server.metrics_url)
        everywhere_us = []
        for number in range(options.changes):
            everywhere_us.append(change(stub, number, options.rules))
            time.sleep(options.pause_ms / 1000)
        after = histogram(server.metrics_url)
    counts = {bound: count - before.get(bound, 0) for bound, count in after.items()}
    total = max(counts.values())
    return {
        "workers": options.workers,
        "applications": total,
        "p50_ms": round(percentile_s(counts, 0.5) * 1000, 2),
        "p90_ms": round(percentile_s(counts, 0.9) * 1000, 2),
        "p99_ms": round(percentile_s(counts, 0.99) * 1000, 2),
        "within_10_ms": round(counts[GOAL_S] / total, 4),
        "everywhere_p50_ms": sorted(everywhere_us)[len(everywhere_us) // 2] / 1000,
        "everywhere_p99_ms": sorted(everywhere_us)[int(len(everywhere_us) * 0.99)] / 1000,
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="From the commit of a route to its being in force in a worker.")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--changes", type=int, default=300)
    parser.add_argument("--pause-ms", type=float, default=20.0, help="Between a change and the next.")
    parser.add_argument("--rules", type=int, default=0, help="Rules of the route.")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="gateway-apply-") as folder:
        try:
            samples = measure(options, Path(folder))
        except ServerFailed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
    print(json.dumps(samples))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
