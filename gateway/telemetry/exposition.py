"""The counts of all workers as Prometheus text."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway.errors import Code
from gateway.telemetry import names
from gateway.telemetry.histogram import APPLY_BOUNDS_NS, LATENCY_BOUNDS_NS
from gateway.telemetry.published import Samples
from gateway.telemetry.sums import Tree, branch, whole, wholes
from gateway.telemetry.version_statistics import VersionStatistics, statistics

# Triton's reasons of a failed request, by our codes; what is not here is OTHER.
_FAILURE_REASONS: Mapping[Code, str] = {
    Code.RESOURCE_EXHAUSTED: "REJECTED",
    Code.UNAVAILABLE: "REJECTED",
    Code.DEADLINE_EXCEEDED: "REJECTED",
    Code.CANCELLED: "CANCELED",
    Code.INTERNAL: "BACKEND",
}


# The states of a circuit breaker as numbers, the worse the higher.
_BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}
_ROW_OUTCOMES = ("seen", "written", "sampled_out")


@dataclass(frozen=True, slots=True)
class View:
    """What one exposition shows: summed counts, each live worker's gauges by its slot, the supervisor's state file."""

    sums: Tree
    gauges: Mapping[int, Tree]
    processes: tuple[Tree, ...]
    version: str
    events: Tree = field(default_factory=dict)
    published: Samples = field(default_factory=dict)


def text(view: View, accept: str = "") -> tuple[bytes, str]:
    """The exposition and its content type, in the format that the scraper prefers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(view))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collected(Collector):
    def __init__(self, view: View) -> None:
        self._view = view

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        view = self._view
        yield from _arms(view.sums)
        yield from _versions(statistics(view.sums))
        yield from _log(view.sums)
        yield from _second_choices(view.sums)
        yield _one(names.REFUSED, ((code_name(code), n) for code, n in branch(view.sums, "refused").items()))
        apply = _metric(names.ROUTE_APPLY_SECONDS)
        _add_histogram(apply, {}, branch(view.sums, "route_apply"), APPLY_BOUNDS_NS)
        yield apply
        yield from _workers(view.gauges)
        yield from _arms_of_workers(view.gauges)
        yield from _processes(view.processes)
        yield from _events(view.events)
        yield _one(names.LABELS, branch(view.sums, "labels").items())
        yield from _published(view.published)
        build = _metric(names.BUILD)
        build.add_sample("gateway_build_info", {"version": view.version}, 1)
        yield build


def code_name(code: str) -> str:
    """The name of a code's number; names stay when numbers would have to be looked up."""
    return Code(int(code)).name


def _arms(sums: Tree) -> Iterator[Metric]:
    requests = _metric(names.REQUESTS)
    histograms = [
        (_metric(names.REQUEST_SECONDS), "total"),
        (_metric(names.QUEUE_SECONDS), "queue"),
        (_metric(names.COMPUTE_SECONDS), "infer"),
    ]
    for labels, series in _series(sums):
        for code, count in branch(series, "codes").items():
            requests.add_sample(f"{requests.name}_total", {**labels, "code": code_name(code)}, _number(count))
        for metric, part in histograms:
            _add_histogram(metric, labels, branch(series, part), LATENCY_BOUNDS_NS)
    yield requests
    yield from (metric for metric, _ in histograms)


def _versions(all_statistics: list[VersionStatistics]) -> Iterator[Metric]:
    rows = _metric(names.BATCH_ROWS)
    for one in all_statistics:
        sizes = [(batch.batch_size, batch.compute_infer.count) for batch in one.batches]
        _add_sizes(rows, {"model": one.name, "version": one.version}, sizes)
    yield rows
    seconds = _metric(names.RUNS_SECONDS)
    for one in all_statistics:
        spent_ns = sum(batch.compute_infer.ns for batch in one.batches)
        seconds.add_sample(f"{seconds.name}_total", {"model": one.name, "version": one.version}, spent_ns / 1e9)
    yield seconds
    plain: list[tuple[names.MetricName, Callable[[VersionStatistics], float]]] = [
        (names.NV_SUCCESS, lambda one: one.success.count),
        (names.NV_COUNT, lambda one: one.inference_count),
        (names.NV_EXEC_COUNT, lambda one: one.execution_count),
        (names.NV_REQUEST_US, lambda one: one.success.ns // 1000),
        (names.NV_QUEUE_US, lambda one: one.queue.ns // 1000),
        (names.NV_INPUT_US, lambda one: one.compute_input.ns // 1000),
        (names.NV_INFER_US, lambda one: one.compute_infer.ns // 1000),
        (names.NV_OUTPUT_US, lambda one: one.compute_output.ns // 1000),
    ]
    for name, read in plain:
        metric = _metric(name)
        for one in all_statistics:
            metric.add_sample(name.name, {"model": one.name, "version": one.version}, read(one))
        yield metric
    yield _failures(all_statistics)


def _failures(all_statistics: list[VersionStatistics]) -> Metric:
    metric = _metric(names.NV_FAILURE)
    for one in all_statistics:
        reasons = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
        for code, count in one.codes.items():
            if code is not Code.OK:
                reasons[_FAILURE_REASONS.get(code, "OTHER")] += count
        for reason, count in reasons.items():
            metric.add_sample(metric.name, {"model": one.name, "version": one.version, "reason": reason}, count)
    return metric


def _log(sums: Tree) -> Iterator[Metric]:
    rows = branch(sums, "log")
    yield _one(names.LOG_ROWS, ((key, rows[key]) for key in _ROW_OUTCOMES if key in rows))
    yield _one(names.LOG_DROPPED, branch(rows, "dropped").items())
    yield _one(names.LOG_WITHHELD, branch(rows, "withheld").items())
    blocked, flush = _metric(names.LOG_BLOCKED), _metric(names.LOG_FLUSH)
    if "blocked_ns" in rows:
        blocked.add_sample(f"{blocked.name}_total", {}, whole(rows, "blocked_ns") / 1e9)
        flush.add_sample(f"{flush.name}_count", {}, whole(rows, "flushes"))
        flush.add_sample(f"{flush.name}_sum", {}, whole(rows, "flush_ns") / 1e9)
    yield from (blocked, flush)


def _second_choices(sums: Tree) -> Iterator[Metric]:
    """Calls that another arm than the decided one answered, and copies that went to mirrors."""
    fallbacks = _metric(names.FALLBACKS)
    for model, arm, whys in _by_arm(branch(sums, "fallbacks")):
        for why, count in whys.items():
            fallbacks.add_sample(f"{fallbacks.name}_total", {"model": model, "arm": arm, "why": why}, _number(count))
    yield fallbacks
    shadows, rows = _metric(names.SHADOWS), _metric(names.SHADOW_ROWS)
    for model, arm, counts in _by_arm(branch(sums, "shadows")):
        labels = {"model": model, "arm": arm}
        for outcome, count in branch(counts, "outcomes").items():
            shadows.add_sample(f"{shadows.name}_total", {**labels, "outcome": outcome}, _number(count))
        same = whole(counts, "same_rows")
        rows.add_sample(f"{rows.name}_total", {**labels, "argmax": "same"}, same)
        rows.add_sample(f"{rows.name}_total", {**labels, "argmax": "other"}, whole(counts, "rows") - same)
    yield shadows
    yield rows


def _by_arm(tree: Tree) -> Iterator[tuple[str, str, Tree]]:
    for model in tree:
        arms = branch(tree, model)
        for arm in arms:
            yield model, arm, branch(arms, arm)


def _arms_of_workers(gauges: Mapping[int, Tree]) -> Iterator[Metric]:
    breakers, differences = _metric(names.BREAKER_STATE), _metric(names.SHADOW_DIFFERENCE)
    for slot, values in sorted(gauges.items()):
        for found in _listed(values, "breakers"):
            state = _BREAKER_STATES.get(str(found.get("state")), 0)
            breakers.add_sample(breakers.name, _arm_labels(slot, found), state)
        for found in _listed(values, "shadow_differences"):
            differences.add_sample(differences.name, _arm_labels(slot, found), _number(found.get("value")))
    yield breakers
    yield differences


def _listed(values: Tree, key: str) -> list[Tree]:
    found = values.get(key)
    return [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def _arm_labels(slot: int, found: Tree) -> dict[str, str]:
    return {"worker": str(slot), "model": str(found.get("model")), "arm": str(found.get("arm"))}


def _workers(gauges: Mapping[int, Tree]) -> Iterator[Metric]:
    plain = {
        "revision": _metric(names.ROUTE_REVISION),
        "stale_seconds": _metric(names.ROUTE_STALE_SECONDS),
        "age_seconds": _metric(names.ROUTE_AGE_SECONDS),
        "in_flight": _metric(names.IN_FLIGHT),
        "ready": _metric(names.WORKER_READY),
        "log_buffer_bytes": _metric(names.LOG_BUFFER),
        "log_scale": _metric(names.LOG_SCALE),
    }
    feed, states = _metric(names.FEED_STATE), _metric(names.VERSION_STATE)
    not_after, trouble = _metric(names.TLS_NOT_AFTER), _metric(names.TLS_TROUBLE)
    for slot, values in sorted(gauges.items()):
        worker = {"worker": str(slot)}
        for key, metric in plain.items():
            if key in values:
                metric.add_sample(metric.name, worker, _number(values[key]))
        if "feed_state" in values:
            feed.add_sample(feed.name, {**worker, "state": str(values["feed_state"])}, 1)
        if identity := branch(values, "tls"):
            not_after.add_sample(not_after.name, worker, _number(identity.get("not_after_s")))
            trouble.add_sample(trouble.name, worker, int(bool(identity.get("trouble"))))
        versions = values.get("versions")
        for version in versions if isinstance(versions, list) else ():
            labels = {key: str(version[key]) for key in ("model", "version", "state")}
            states.add_sample(states.name, {**worker, **labels}, 1)
    yield from plain.values()
    yield from (feed, states, not_after, trouble)


def _processes(processes: Iterable[Tree]) -> Iterator[Metric]:
    state, restarts = _metric(names.PROCESS_STATE), _metric(names.PROCESS_RESTARTS)
    for process in processes:
        labels = {"role": str(process.get("role")), "slot": str(process.get("slot"))}
        state.add_sample(state.name, {**labels, "state": str(process.get("state"))}, 1)
        restarts.add_sample(f"{restarts.name}_total", labels, whole(process, "restarts"))
    yield state
    yield restarts


def _events(counts: Tree) -> Iterator[Metric]:
    yield _one(names.EVENTS, branch(counts, "types").items())
    yield _one(names.WEBHOOK, branch(counts, "webhook").items())
    waiting = _metric(names.WEBHOOK_WAITING)
    if "waiting" in counts:
        waiting.add_sample(waiting.name, {}, whole(counts, "waiting"))
    yield waiting


def _published(found: Samples) -> Iterator[Metric]:
    for name in names.PUBLISHED:
        metric = _metric(name)
        for suffix, labels, value in found.get(name.name, ()):
            metric.add_sample(f"{name.name}{suffix}", labels, value)
        yield metric


def _series(sums: Tree) -> Iterator[tuple[dict[str, str], Tree]]:
    for model, versions in branch(sums, "series").items():
        for version in branch({model: versions}, model):
            arms = branch({model: versions}, model, version)
            for arm in arms:
                yield {"model": model, "version": version, "arm": arm}, branch(arms, arm)


def _metric(name: names.MetricName) -> Metric:
    return Metric(name.name, name.help, name.kind)


def _one(name: names.MetricName, values: Iterable[tuple[str, object]]) -> Metric:
    """A counter with one label."""
    metric = _metric(name)
    for label, value in values:
        metric.add_sample(f"{name.name}_total", {name.labels[0]: label}, _number(value))
    return metric


def _add_histogram(metric: Metric, labels: dict[str, str], histogram: Tree, bounds_ns: tuple[int, ...]) -> None:
    counts = wholes(histogram, "counts") or [0] * (len(bounds_ns) + 1)
    bounds = [*(f"{bound / 1e9:g}" for bound in bounds_ns), "+Inf"]
    for bound, count in zip(bounds, accumulate(counts), strict=True):
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, count)
    metric.add_sample(f"{metric.name}_count", labels, sum(counts))
    metric.add_sample(f"{metric.name}_sum", labels, whole(histogram, "sum_ns") / 1e9)


def _add_sizes(metric: Metric, labels: dict[str, str], sizes: list[tuple[int, int]]) -> None:
    """A histogram by powers of two, of values that are whole numbers known exactly."""
    for exponent in range(13):
        bound = 1 << exponent
        within = sum(count for size, count in sizes if size <= bound)
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": str(bound)}, within)
    total = sum(count for _, count in sizes)
    metric.add_sample(f"{metric.name}_bucket", {**labels, "le": "+Inf"}, total)
    metric.add_sample(f"{metric.name}_count", labels, total)
    metric.add_sample(f"{metric.name}_sum", labels, sum(size * count for size, count in sizes))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
