"""How long one routing decision takes: by kind of route, by number of rules, by number of routes.

    python -m loadtests.bench_decide

Prints the best of forty short runs in nanoseconds a decision, with attributes as cheap as the gateway's own: a
dictionary look-up behind a method call.
"""

import argparse
from collections.abc import Callable
from time import perf_counter_ns

from gateway.routing.decision.decide import decide
from gateway.routing.decision.snapshot import Snapshot, propose
from gateway.routing.document.document import parse

_RUNS = 40
_USERS = 1024


class Request:
    """Attributes of a request with these metadata."""

    request_id = ""
    requested_version = ""

    def __init__(self, metadata: dict[str, str]) -> None:
        self._metadata = metadata

    def metadata(self, name: str) -> str | None:
        return self._metadata.get(name)

    def parameter(self, name: str) -> str | int | float | bool | None:
        return None

    def input_value(self, name: str) -> str | None:
        return None


def document(model: str, *, rules: list[object] | None = None, **spec: object) -> dict[str, object]:
    """An A/B route by user, unless `spec` says otherwise."""
    whole: dict[str, object] = {
        "arms": {"a": {"version": "12"}, "b": {"version": "13"}},
        "key": {"from": ["metadata:x-user-id"], "salt": "bench"},
        "strategy": {"ab": {"control": "a", "weights": {"a": "50%", "b": "50%"}}},
        "rules": rules or [],
    }
    return {"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": model}, "spec": whole | spec}


def exact_rules(count: int, headers: int) -> list[object]:
    """Rules that look for one value each, spread over so many headers; no request of the benchmark has that value."""
    return [
        {"name": f"r{i}", "match": {"metadata": {f"x-h{i % headers}": {"exact": f"v{i}"}}}, "arm": "b"}
        for i in range(count)
    ]


def snapshot_of(*documents: dict[str, object]) -> Snapshot:
    return Snapshot.of("bench", 1, [propose(parse(value), None) for value in documents])


def measured_ns(call: Callable[[Request], object], requests: list[Request], count: int) -> float:
    """Nanoseconds a call, the best of the runs."""
    best = float("inf")
    for _ in range(_RUNS):
        started = perf_counter_ns()
        for _ in range(count // len(requests)):
            for request in requests:
                call(request)
        best = min(best, (perf_counter_ns() - started) / (count // len(requests) * len(requests)))
    return best


def cases() -> list[tuple[str, Snapshot, str]]:
    """(name, snapshot, model) of each line of the report."""
    kinds: list[tuple[str, dict[str, object]]] = [
        ("pinned arm", document("m", strategy={"pinned": {"arm": "a"}})),
        ("A/B by key", document("m")),
        ("A/B by key, 20 exact rules on 2 headers", document("m", rules=exact_rules(20, 2))),
        ("A/B by key, 20 exact rules on 20 headers", document("m", rules=exact_rules(20, 20))),
        (
            "A/B by key, 20 prefix rules on 1 header",
            document(
                "m",
                rules=[
                    {"name": f"r{i}", "match": {"metadata": {"x-h0": {"prefix": f"p{i}-"}}}, "arm": "b"}
                    for i in range(20)
                ],
            ),
        ),
        (
            "A/B by key, 20 regex rules on 1 header",
            document(
                "m",
                rules=[
                    {"name": f"r{i}", "match": {"metadata": {"x-h0": {"regex": f"p{i}-[0-9]+"}}}, "arm": "b"}
                    for i in range(20)
                ],
            ),
        ),
        ("A/B by key, one mirror", document("m", mirrors=[{"arm": "b", "percent": 10}])),
    ]
    report = [(name, snapshot_of(value), "m") for name, value in kinds]
    for count in (1, 100, 10_000):
        report.append((f"A/B by key, {count} routes", snapshot_of(*(document(f"m{i}") for i in range(count))), "m0"))
    report.append(("no route", snapshot_of(document("m")), "other"))
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description="Nanoseconds a routing decision.")
    parser.add_argument("--count", type=int, default=10_240, help="decisions a run")
    count = parser.parse_args().count
    requests = [Request({"x-user-id": f"user-{i}", "x-h0": "stable", "x-h1": "eu"}) for i in range(_USERS)]
    floor = measured_ns(lambda request: None, requests, count)
    for name, snapshot, model in cases():

        def call(request: Request, snapshot: Snapshot = snapshot, model: str = model) -> object:
            return decide(snapshot, model, request, 0.5, 1.0)

        print(f"{measured_ns(call, requests, count) - floor:8.0f} ns  {name}")


if __name__ == "__main__":
    main()
