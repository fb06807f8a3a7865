import json
from bisect import bisect_left
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from gateway.errors import Code
from gateway.telemetry.counters import Counters
from gateway.telemetry.exposition import HostMetrics, text
from gateway.telemetry.histogram import LATENCY_BOUNDS_NS, Histogram, latency_place
from gateway.telemetry.keys import Gauge, Sum
from gateway.telemetry.sums import add, add_all, branch, whole, wholes
from gateway.telemetry.totals import KeptTotals, Totals
from gateway.telemetry.version_statistics import statistics

Tree = dict[str, object]
NAMES = st.sampled_from(["a", "b", "fraud"])
CallCount = tuple[str, str, str, Code, int]
CALL = st.tuples(NAMES, NAMES, NAMES, st.sampled_from(list(Code)), st.integers(0, 10**11))
leaves = st.integers(0, 10**15)
TREES = st.fixed_dictionaries(
    {},
    optional={
        "a": leaves,
        "last_ms": leaves,
        "counts": st.lists(leaves, max_size=4),
        "inner": st.fixed_dictionaries(
            {}, optional={"b": leaves, "c": st.fixed_dictionaries({}, optional={"d": leaves})}
        ),
    },
)


@given(TREES, TREES, TREES)
def test_addition_is_commutative_and_associative_and_leaves_its_arguments(
    left: Tree, middle: Tree, right: Tree
) -> None:
    before = json.dumps([left, middle, right])
    assert add(left, right) == add(right, left)
    assert add(add(left, middle), right) == add(left, add(middle, right))
    assert add({}, left) == left
    assert json.dumps([left, middle, right]) == before


def test_values_of_different_kinds_do_not_add() -> None:
    with pytest.raises(ValueError, match="'a'"):
        add({"a": 1}, {"a": [1]})


@given(st.lists(CALL, max_size=40), st.lists(CALL, max_size=40))
def test_snapshots_add_up_to_what_one_worker_would_have_counted(
    first: list[CallCount], second: list[CallCount]
) -> None:
    def counted(*parts: list[CallCount]) -> Tree:
        counters = Counters()
        for model, version, arm, code, ns in (call for part in parts for call in part):
            counters.series(model, version, arm).observe(code, ns // 3, ns // 2, ns)
            counters.refused(code)
            counters.route_applied(ns)
        return branch(json.loads(json.dumps(counters.snapshot())), "sums")

    assert add(counted(first), counted(second)) == counted(first, second)


@given(st.lists(st.integers(0, 10**12), max_size=50))
def test_a_histogram_counts_each_value_at_the_first_bound_that_holds_it(values: list[int]) -> None:
    histogram = Histogram(LATENCY_BOUNDS_NS)
    for value in values:
        histogram.observe(value)
    assert sum(histogram.counts) == len(values)
    assert histogram.sum_ns == sum(values)
    for index, bound in enumerate(LATENCY_BOUNDS_NS):
        assert sum(histogram.counts[: index + 1]) == sum(value <= bound for value in values)


def served() -> Counters:
    counters = Counters()
    blue, green = counters.series("fraud", "12", "blue"), counters.series("fraud", "12", "green")
    for _ in range(3):
        blue.observe(Code.OK, 1_000, 50_000, 200_000)
    green.observe(Code.OK, 3_000, 70_000, 400_000)
    green.observe(Code.CANCELLED, 0, 0, 900_000)
    green.observe(Code.RESOURCE_EXHAUSTED, 0, 0, 100_000)
    blue.batch(3, 50_000, 7_000, 9_000)
    green.batch(1, 70_000)
    counters.refused(Code.NOT_FOUND)
    counters.route_applied(2_000_000)
    counters.add_sums(Sum.LOG, lambda: {"seen": 6, "written": 4, "sampled_out": 1, "dropped": {"buffer": 1}})
    counters.add_gauge(Gauge.REVISION, lambda: 7)
    counters.add_gauge(Gauge.STALE_SECONDS, lambda: 1.5)
    counters.add_gauge(Gauge.FEED_STATE, lambda: "LIVE")
    counters.add_gauge(Gauge.VERSIONS, lambda: [{"model": "fraud", "version": "12", "state": "AVAILABLE"}])
    return counters


def test_statistics_are_tritons() -> None:
    (version,) = statistics(branch(served().snapshot(), "sums"))
    assert (version.name, version.version) == ("fraud", "12")
    assert (version.inference_count, version.execution_count) == (4, 2)
    assert (version.success.count, version.success.ns) == (4, 1_000_000)
    assert (version.fail.count, version.fail.ns) == (2, 1_000_000)
    assert (version.queue.count, version.queue.ns) == (4, 6_000)
    assert (version.compute_infer.count, version.compute_infer.ns) == (4, 220_000)
    assert (version.compute_input.ns, version.compute_output.ns) == (7_000, 9_000)
    assert [(batch.batch_size, batch.compute_infer.count) for batch in version.batches] == [(1, 1), (3, 1)]
    assert version.last_inference > 1_600_000_000_000
    assert statistics(branch(served().snapshot(), "sums"), "other") == []


def view(counters: Counters) -> HostMetrics:
    snapshot = counters.snapshot()
    processes: tuple[Tree, ...] = ({"role": "worker", "slot": 0, "state": "READY", "restarts": 2, "recycled": 1},)
    return HostMetrics(branch(snapshot, "sums"), {0: branch(snapshot, "gauges")}, processes, "1.2.3")


def sample_reader(body: bytes) -> Callable[..., float]:
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }

    def read(name: str, **labels: str) -> float:
        return samples[name, frozenset(labels.items())]

    return read


def test_the_exposition_says_what_was_counted() -> None:
    body, content_type = text(view(served()))
    assert content_type.startswith("text/plain")
    read = sample_reader(body)
    blue = {"model": "fraud", "version": "12", "arm": "blue"}
    assert read("gateway_requests_total", **blue, code="OK") == 3
    assert read("gateway_requests_total", **{**blue, "arm": "green"}, code="CANCELLED") == 1
    assert read("gateway_refused_total", code="NOT_FOUND") == 1
    assert read("gateway_request_seconds_count", **blue) == 3
    assert read("gateway_request_seconds_sum", **blue) == pytest.approx(0.0006)
    assert read("gateway_request_seconds_bucket", **blue, le="0.0001") == 0
    assert read("gateway_request_seconds_bucket", **blue, le="0.0002") == 3
    assert read("gateway_route_apply_seconds_bucket", le="0.002") == 1
    assert read("gateway_batch_rows_bucket", model="fraud", version="12", le="2") == 1
    assert read("gateway_batch_rows_sum", model="fraud", version="12") == 4
    assert read("gateway_log_records_total", outcome="written") == 4
    assert read("gateway_log_dropped_total", reason="buffer") == 1
    assert read("gateway_route_revision", worker="0") == 7
    assert read("gateway_route_stale_seconds", worker="0") == 1.5
    assert read("gateway_feed_state", worker="0", state="LIVE") == 1
    assert read("gateway_version_state", worker="0", model="fraud", version="12", state="AVAILABLE") == 1
    assert read("gateway_process_state", role="worker", slot="0", state="READY") == 1
    assert read("gateway_process_restarts_total", role="worker", slot="0") == 2
    assert read("gateway_process_recycled_total", role="worker", slot="0") == 1
    assert read("gateway_build_info", version="1.2.3") == 1
    version = {"model": "fraud", "version": "12"}
    assert read("nv_inference_request_success", **version) == 4
    assert read("nv_inference_request_failure", **version, reason="REJECTED") == 1
    assert read("nv_inference_request_failure", **version, reason="CANCELED") == 1
    assert read("nv_inference_count", **version) == 4
    assert read("nv_inference_exec_count", **version) == 2
    assert read("nv_inference_request_duration_us", **version) == 1000


def test_nothing_counted_is_an_exposition_too() -> None:
    body, _ = text(HostMetrics({}, {}, (), "1"))
    assert b"gateway_build_info" in body
    assert b"openmetrics" in text(HostMetrics({}, {}, (), "1"), "application/openmetrics-text")[1].encode()


def test_sizes_beyond_the_bound_are_counted_with_the_next_power_of_two() -> None:
    series = Counters().series("m", "1", "")
    for rows in range(1, 1001):
        series.batch(rows, 1)
    batches = branch(series.snapshot(), "batches")
    assert len(batches) <= 260
    assert sum(wholes(batches, size)[0] for size in batches) == 1000
    assert wholes(batches, "1024")[0] == 1000 - 512


def snapshot_of(calls: int) -> Tree:
    return {"sums": {"calls": calls}, "gauges": {"ready": 1}}


def test_totals_never_go_back_over_the_lives_of_a_worker() -> None:
    totals = Totals(forget_after_s=60)
    totals.heard(0, "first", snapshot_of(10), 0.0)
    totals.heard(1, "other", snapshot_of(5), 0.0)
    totals.heard(0, "second", snapshot_of(1), 1.0)  # died, started from zero
    assert whole(totals.sums(), "calls") == 16
    totals.heard(0, "first", snapshot_of(12), 2.0)  # its last counts come late
    assert whole(totals.sums(), "calls") == 18
    totals.heard(0, "second", snapshot_of(3), 90.0)
    totals.fold(90.0)
    assert whole(totals.sums(), "calls") == 20
    totals.heard(1, "other", snapshot_of(6), 91.0)  # added up already
    assert whole(totals.sums(), "calls") == 20
    assert set(totals.gauges(90.0, 5.0)) == {0}


def test_a_successor_goes_on_from_what_was_kept() -> None:
    totals = Totals(forget_after_s=1)
    totals.heard(0, "a", snapshot_of(10), 0.0)
    totals.fold(5.0)
    totals.heard(0, "b", snapshot_of(4), 5.0)
    successor = Totals()
    kept = msgspec.json.decode(msgspec.json.encode(totals.kept()), type=KeptTotals)
    successor.restore(kept, 100.0)
    assert successor.sums() == totals.sums()
    successor.heard(0, "b", snapshot_of(6), 101.0)
    successor.heard(0, "a", snapshot_of(11), 101.0)
    assert whole(successor.sums(), "calls") == 16


def test_many_trees_add() -> None:
    assert add_all([{"a": 1}, {"b": [1, 2]}, {"a": 2, "b": [1]}]) == {"a": 3, "b": [2, 2]}


@given(st.integers(-(10**6), 40 * 10**9) | st.integers(0, 11_000_000))
@example(0)
@example(-1)
def test_a_latency_is_put_where_a_search_of_the_bounds_puts_it(value_ns: int) -> None:
    assert latency_place(value_ns) == bisect_left(LATENCY_BOUNDS_NS, value_ns)


@pytest.mark.parametrize("off_ns", [-1, 0, 1])
def test_the_bounds_themselves_are_inclusive(off_ns: int) -> None:
    places = [latency_place(bound + off_ns) for bound in LATENCY_BOUNDS_NS]
    assert places == [bisect_left(LATENCY_BOUNDS_NS, bound + off_ns) for bound in LATENCY_BOUNDS_NS]
