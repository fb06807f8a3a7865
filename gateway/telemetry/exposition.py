"""The counts of all workers as Prometheus text.

Every exporter yields samples; the page shows all metrics of the table (gateway.telemetry.names), in its order.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as _Exemplar

from gateway.errors import Code
from gateway.telemetry import names
from gateway.telemetry.gone_versions import Key, is_over
from gateway.telemetry.histogram import APPLY_BOUNDS_NS, LATENCY_BOUNDS_NS
from gateway.telemetry.keys import Gauge, Sum
from gateway.telemetry.names import METRICS, MetricName, MetricSource
from gateway.telemetry.published import Samples
from gateway.telemetry.sample import Exemplar, Sample, histogram
from gateway.telemetry.sums import Tree, branch, listed, whole, wholes
from gateway.telemetry.version_statistics import VersionStatistics, statistics

# Triton's reasons of a failed request, by our codes; what is not here is OTHER.
_FAILURE_REASONS: Final[Mapping[Code, str]] = {
    Code.RESOURCE_EXHAUSTED: "REJECTED",
    Code.UNAVAILABLE: "REJECTED",
    Code.DEADLINE_EXCEEDED: "REJECTED",
    Code.CANCELLED: "CANCELED",
    Code.INTERNAL: "BACKEND",
}
# The states of a circuit breaker as numbers, the worse the higher.
_BREAKER_STATES: Final[Mapping[str, int]] = {"closed": 0, "half_open": 1, "open": 2}
_RECORD_OUTCOMES: Final = ("seen", "written", "sampled_out")
_PARTS_OF_CALLS: Final[Mapping[MetricName, str]] = {
    names.REQUEST_SECONDS: "total",
    names.QUEUE_SECONDS: "queue",
    names.COMPUTE_SECONDS: "infer",
}
_OF_VERSIONS: Final[Mapping[MetricName, Callable[[VersionStatistics], float]]] = {
    names.RUNS_SECONDS: lambda one: sum(batch.compute_infer.ns for batch in one.batches) / 1e9,
    names.NV_SUCCESS: lambda one: one.success.count,
    names.NV_COUNT: lambda one: one.inference_count,
    names.NV_EXEC_COUNT: lambda one: one.execution_count,
    names.NV_REQUEST_US: lambda one: one.success.ns // 1000,
    names.NV_QUEUE_US: lambda one: one.queue.ns // 1000,
    names.NV_INPUT_US: lambda one: one.compute_input.ns // 1000,
    names.NV_INFER_US: lambda one: one.compute_infer.ns // 1000,
    names.NV_OUTPUT_US: lambda one: one.compute_output.ns // 1000,
}
_OF_WORKERS: Final[Mapping[MetricName, Gauge]] = {
    names.ROUTE_REVISION: Gauge.REVISION,
    names.ROUTE_STALE_SECONDS: Gauge.STALE_SECONDS,
    names.REPOSITORY_UNREADABLE: Gauge.REPOSITORY_UNREADABLE,
    names.CONTENT_STORE_BYTES: Gauge.CONTENT_STORE_BYTES,
    names.RESPONSE_CACHE_BYTES: Gauge.RESPONSE_CACHE_BYTES,
    names.ROUTE_AGE_SECONDS: Gauge.AGE_SECONDS,
    names.AUDIT_LOST: Gauge.AUDIT_LOST,
    names.IN_FLIGHT: Gauge.IN_FLIGHT,
    names.IN_FLIGHT_BYTES: Gauge.IN_FLIGHT_BYTES,
    names.UNREAD_BYTES: Gauge.UNREAD_BYTES,
    names.TASKS: Gauge.TASKS,
    names.WORKER_READY: Gauge.READY,
    names.CONNECTIONS: Gauge.CONNECTIONS,
    names.LOG_BUFFER: Gauge.LOG_BUFFER_BYTES,
    names.LOG_SCALE: Gauge.LOG_SCALE,
}
_OF_PROCESSES: Final[Mapping[MetricName, str]] = {
    names.PROCESS_CPU: "cpu_s",
    names.PROCESS_RESIDENT: "resident_bytes",
    names.PROCESS_OPEN_FDS: "open_fds",
    names.PROCESS_MAX_FDS: "max_fds",
    names.PROCESS_THREADS: "threads",
    names.PROCESS_STARTED: "started_s",
}
_BATCH_BOUNDS: Final = tuple(float(1 << exponent) for exponent in range(13))


@dataclass(frozen=True, slots=True)
class HostMetrics:
    """Holds what an exposition shows: summed counts, each live worker's gauges by slot, the supervisor's state file.

    `figures` has what the kernel says of each process, supervisor and control process among them.
    """

    sums: Tree
    gauges: Mapping[int, Tree]
    processes: tuple[Tree, ...]
    version: str
    events: Tree = field(default_factory=dict)
    published: Samples = field(default_factory=dict)
    over: frozenset[Key] = frozenset()  # versions whose series have ended
    figures: tuple[Tree, ...] = ()
    spans: Tree = field(default_factory=dict)  # by what became of them


def text(host: HostMetrics, accept: str = "") -> tuple[bytes, str]:
    """Returns the exposition and its content type, in the format that the scraper prefers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(host))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def format_of(accept: str) -> str:
    """Returns the content type of what the scraper prefers, one of a few."""
    return choose_encoder(accept)[1]


def samples(host: HostMetrics) -> Iterator[Sample]:
    """Yields everything that is known, in no order; nothing of versions that are over."""
    for sample in _all_samples(host):
        model = sample.labels.get("model")
        if model is None or not host.over or not is_over(host.over, model, sample.labels.get("version")):
            yield sample


def _all_samples(host: HostMetrics) -> Iterator[Sample]:
    yield from _arms(host.sums, _exemplars(host.gauges.values()))
    for one in statistics(host.sums):
        yield from _version(one)
    yield from _log(host.sums)
    yield from _second_choices(host.sums)
    yield from _features(host.sums)
    yield from _by_label(names.REFUSED, ((code_name(code), n) for code, n in branch(host.sums, Sum.REFUSED).items()))
    yield from _histogram(names.ROUTE_APPLY_SECONDS, {}, branch(host.sums, Sum.ROUTE_APPLY), APPLY_BOUNDS_NS)
    yield from _by_label(names.ACCESS_DENIED, branch(host.sums, Sum.ACCESS).items())
    yield from _quotas(host.sums)
    yield from _by_label(names.SHED, branch(host.sums, Sum.SHED).items())
    yield from _by_label(names.CONNECTIONS_SEEN, branch(host.sums, Sum.CONNECTIONS).items())
    yield from _by_label(names.TRACES, branch(host.sums, Sum.TRACES).items())
    yield from _demand(branch(host.sums, Sum.DEMAND_LOADS))
    yield from _by_label(names.TRACE_SPANS, host.spans.items())
    yield from _by_label(names.LABELS, branch(host.sums, Sum.LABELS).items())
    for slot, gauges in sorted(host.gauges.items()):
        yield from _worker(str(slot), gauges)
    for process in host.processes:
        yield from _process(process)
    for figures in host.figures:
        yield from _figures(figures)
    yield from _events(host.events)
    yield from _published(host.published)
    yield Sample(names.BUILD, {"version": host.version}, 1)


def code_name(code: str) -> str:
    """Returns the name of a code's number; names stay when numbers would have to be looked up."""
    return Code(int(code)).name


class _Collected(Collector):
    def __init__(self, host: HostMetrics) -> None:
        self._host = host

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        metrics = {name: Metric(name.name, name.help, name.kind) for name in METRICS.values()}
        for sample in samples(self._host):
            name = sample.metric.name + sample.suffix
            shown = sample.exemplar
            exemplar = None if shown is None else _Exemplar({"trace_id": shown.trace_id}, shown.value, shown.at_s)
            metrics[sample.metric].add_sample(name, dict(sample.labels), sample.value, exemplar=exemplar)
        yield from metrics.values()


def _quotas(sums: Tree) -> Iterator[Sample]:
    for quota in branch(sums, Sum.QUOTAS):
        for who, counts in branch(sums, Sum.QUOTAS, quota).items():
            labels = {"quota": quota, "who": who}
            if isinstance(counts, Mapping):
                yield Sample(names.QUOTA_ADMITTED, labels, whole(counts, "admitted"))
                yield Sample(names.QUOTA_BYTES, labels, whole(counts, "bytes"))
                for limit, count in branch(counts, "refused").items():
                    yield Sample(names.QUOTA_REFUSED, {**labels, "limit": limit}, _number(count))


def _exemplars(gauges: Iterable[Tree]) -> dict[tuple[str, str, str, int], Exemplar]:
    """Returns the newest exemplar of all workers for each model, version, arm and bucket."""
    newest: dict[tuple[str, str, str, int], Exemplar] = {}
    for one in (one for values in gauges for one in listed(values, Gauge.EXEMPLARS)):
        key = (str(one.get("model")), str(one.get("version")), str(one.get("arm")), whole(one, "place"))
        exemplar = Exemplar(str(one.get("trace_id")), _number(one.get("seconds")), _number(one.get("at_s")))
        if key not in newest or newest[key].at_s < exemplar.at_s:
            newest[key] = exemplar
    return newest


def _arms(sums: Tree, exemplars: Mapping[tuple[str, str, str, int], Exemplar]) -> Iterator[Sample]:
    for labels, series in _series(sums):
        for code, count in branch(series, "codes").items():
            yield Sample(names.REQUESTS, {**labels, "code": code_name(code)}, _number(count))
        yield Sample(names.RUN_CPU_SECONDS, labels, whole(series, "cpu_ns") / 1e9)
        arm = (labels["model"], labels["version"], labels["arm"])
        for outcome, count in branch(series, "cache").items():
            yield Sample(names.RESPONSE_CACHE, {**labels, "outcome": outcome}, _number(count))
        for metric, part in _PARTS_OF_CALLS.items():
            for place, sample in enumerate(_histogram(metric, labels, branch(series, part), LATENCY_BOUNDS_NS)):
                exemplar = exemplars.get((*arm, place)) if metric is names.REQUEST_SECONDS else None
                yield sample if exemplar is None else replace(sample, exemplar=exemplar)


def _version(one: VersionStatistics) -> Iterator[Sample]:
    labels = {"model": one.name, "version": one.version}
    yield from _batch_rows(labels, [(batch.batch_size, batch.compute_infer.count) for batch in one.batches])
    for metric, read in _OF_VERSIONS.items():
        yield Sample(metric, labels, read(one))
    reasons = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
    for code, count in one.codes.items():
        if code is not Code.OK:
            reasons[_FAILURE_REASONS.get(code, "OTHER")] += count
    for reason, count in reasons.items():
        yield Sample(names.NV_FAILURE, {**labels, "reason": reason}, count)


def _log(sums: Tree) -> Iterator[Sample]:
    records = branch(sums, Sum.LOG)
    yield from _by_label(names.LOG_RECORDS, ((key, records[key]) for key in _RECORD_OUTCOMES if key in records))
    yield from _by_label(names.LOG_DROPPED, branch(records, "dropped").items())
    yield from _by_label(names.LOG_WITHHELD, branch(records, "withheld").items())
    if "blocked_ns" in records:
        yield Sample(names.LOG_BLOCKED, {}, whole(records, "blocked_ns") / 1e9)
        yield from _by_label(names.LOG_RESTARTS, branch(records, "thread_restarts").items())
        yield Sample(names.LOG_FLUSH, {}, whole(records, "flushes"), "_count")
        yield Sample(names.LOG_FLUSH, {}, whole(records, "flush_ns") / 1e9, "_sum")


def _second_choices(sums: Tree) -> Iterator[Sample]:
    """Calls that another arm than the decided one answered, and copies that went to mirrors."""
    for labels, whys in _by_arm(branch(sums, Sum.FALLBACKS)):
        for why, count in whys.items():
            yield Sample(names.FALLBACKS, {**labels, "why": why}, _number(count))
    for labels, counts in _by_arm(branch(sums, Sum.SHADOWS)):
        for outcome, count in branch(counts, "outcomes").items():
            yield Sample(names.SHADOWS, {**labels, "outcome": outcome}, _number(count))
        same = whole(counts, "same_rows")
        yield Sample(names.SHADOW_ROWS, {**labels, "argmax": "same"}, same)
        yield Sample(names.SHADOW_ROWS, {**labels, "argmax": "other"}, whole(counts, "rows") - same)


def _features(sums: Tree) -> Iterator[Sample]:
    """Look-ups of feature views, and the stores that they are asked of."""
    views = branch(sums, Sum.FEATURES)
    for model in views:
        labels = {"model": model}
        for source, count in branch(views, model, "rows").items():
            yield Sample(names.FEATURE_ROWS, {**labels, "source": source}, _number(count))
        for status, count in branch(views, model, "values").items():
            yield Sample(names.FEATURE_VALUES, {**labels, "status": status}, _number(count))
        yield Sample(names.FEATURE_DEFAULTS, labels, whole(views, model, "defaults"))
    stores = branch(sums, Sum.FEATURE_STORES)
    for store in stores:
        labels = {"store": store}
        yield Sample(names.FEATURE_STORE_SECONDS, labels, whole(stores, store, "pipelines"), "_count")
        yield Sample(names.FEATURE_STORE_SECONDS, labels, whole(stores, store, "ns") / 1e9, "_sum")
        yield Sample(names.FEATURE_STORE_FAILURES, labels, whole(stores, store, "failures"))


def _demand(counts: Tree) -> Iterator[Sample]:
    """Loads on demand, and the versions that made room for them."""
    if counts:
        outcomes = ((outcome, counts[outcome]) for outcome in counts if outcome != "load_ns")
        yield from _by_label(names.DEMAND_LOADS, outcomes)
        yield Sample(names.DEMAND_LOAD_SECONDS, {}, whole(counts, "load_ns") / 1e9)


def _worker(slot: str, gauges: Tree) -> Iterator[Sample]:
    worker = {"worker": slot}
    for metric, key in _OF_WORKERS.items():
        if key in gauges:
            yield Sample(metric, worker, _number(gauges[key]))
    if Gauge.FEED_STATE in gauges:
        yield Sample(names.FEED_STATE, {**worker, "state": str(gauges[Gauge.FEED_STATE])}, 1)
    if identity := branch(gauges, Gauge.TLS):
        yield Sample(names.TLS_NOT_AFTER, worker, _number(identity.get("not_after_s")))
        yield Sample(names.TLS_TROUBLE, worker, int(bool(identity.get("trouble"))))
    if quotas := branch(gauges, Gauge.QUOTAS):
        yield Sample(names.QUOTA_TROUBLE, worker, int(bool(quotas.get("trouble"))))
        for quota, users in branch(quotas, "in_flight").items():
            for who, count in users.items() if isinstance(users, Mapping) else ():
                yield Sample(names.QUOTA_IN_FLIGHT, {**worker, "quota": quota, "who": who}, count)
    if residence := branch(gauges, Gauge.RESIDENCE):
        for memory in ("warm", "cold"):
            yield Sample(names.MODEL_SESSIONS, {**worker, "memory": memory}, whole(residence, memory))
        yield Sample(names.MODEL_MEMORY, worker, whole(residence, "bytes"))
        yield Sample(names.MODEL_MEMORY_LIMIT, worker, whole(residence, "limit_bytes"))
    for until, seconds in branch(gauges, Gauge.START).items():
        yield Sample(names.START_SECONDS, {**worker, "until": until}, _number(seconds))
    if entrance := branch(gauges, Gauge.ACCESS):
        yield Sample(names.ACCESS_TROUBLE, worker, int(bool(entrance.get("trouble"))))
    yield from _collections({"role": "worker", "slot": slot}, wholes(gauges, Gauge.COLLECTIONS))
    for queue in listed(gauges, Gauge.QUEUES):
        labels = worker | {key: str(queue.get(key)) for key in ("model", "version")}
        yield Sample(names.QUEUE_LENGTH, labels, whole(queue, "calls"))
    for version in listed(gauges, Gauge.VERSIONS):
        labels = {key: str(version[key]) for key in ("model", "version", "state")}
        yield Sample(names.VERSION_STATE, {**worker, **labels}, 1)
    for suspect in listed(gauges, Gauge.QUARANTINE):
        labels = worker | {key: str(suspect.get(key)) for key in ("model", "version")}
        yield Sample(names.VERSION_QUARANTINED, labels, int(bool(suspect.get("quarantined"))))
        yield Sample(names.REFUSED_INPUTS, labels, whole(suspect, "inputs"))
        yield Sample(names.WORKER_DEATHS, labels, whole(suspect, "deaths"))
    for store, away in branch(gauges, Gauge.FEATURES, "away").items():
        yield Sample(names.FEATURE_STORE_AWAY, {**worker, "store": store}, _number(away))
    for model, size in branch(gauges, Gauge.FEATURES, "cache_bytes").items():
        yield Sample(names.FEATURE_CACHE_BYTES, {**worker, "model": model}, _number(size))
    for breaker in listed(gauges, Gauge.BREAKERS):
        state = _BREAKER_STATES[str(breaker.get("state"))]
        yield Sample(names.BREAKER_STATE, worker | _arm_of(breaker), state)
    for difference in listed(gauges, Gauge.SHADOW_DIFFERENCES):
        yield Sample(names.SHADOW_DIFFERENCE, worker | _arm_of(difference), _number(difference.get("value")))


def _process(process: Tree) -> Iterator[Sample]:
    labels = {"role": str(process.get("role")), "slot": str(process.get("slot"))}
    yield Sample(names.PROCESS_STATE, {**labels, "state": str(process.get("state"))}, 1)
    yield Sample(names.PROCESS_RESTARTS, labels, whole(process, "restarts"))
    yield Sample(names.PROCESS_RECYCLED, labels, whole(process, "recycled"))


def _figures(figures: Tree) -> Iterator[Sample]:
    labels = {"role": str(figures.get("role")), "slot": str(figures.get("slot"))}
    for metric, key in _OF_PROCESSES.items():
        if key in figures:
            yield Sample(metric, labels, _number(figures[key]))
    yield from _collections(labels, wholes(figures, "collections"))


def _collections(labels: Mapping[str, str], counts: list[int]) -> Iterator[Sample]:
    for generation, count in enumerate(counts):
        yield Sample(names.GC_COLLECTIONS, {**labels, "generation": str(generation)}, count)


def _events(counts: Tree) -> Iterator[Sample]:
    yield from _by_label(names.EVENTS, branch(counts, "types").items())
    yield from _by_label(names.WEBHOOK, branch(counts, "webhook").items())
    if "waiting" in counts:
        yield Sample(names.WEBHOOK_WAITING, {}, whole(counts, "waiting"))


def _published(by_name: Samples) -> Iterator[Sample]:
    """Yields what other processes wrote, but for what another release wrote that this one has no metric for."""
    for name, written in by_name.items():
        metric = METRICS.get(name)
        if metric is None or metric.source is not MetricSource.PUBLISHED:
            continue
        for suffix, labels, value in written:
            try:
                sample = Sample(metric, labels, value, suffix if metric.kind in ("histogram", "summary") else "")
            except ValueError:
                continue
            yield sample


def _series(sums: Tree) -> Iterator[tuple[dict[str, str], Tree]]:
    for model, versions in branch(sums, Sum.SERIES).items():
        for version in branch({model: versions}, model):
            arms = branch({model: versions}, model, version)
            for arm in arms:
                yield {"model": model, "version": version, "arm": arm}, branch(arms, arm)


def _by_arm(tree: Tree) -> Iterator[tuple[dict[str, str], Tree]]:
    for model in tree:
        arms = branch(tree, model)
        for arm in arms:
            yield {"model": model, "arm": arm}, branch(arms, arm)


def _arm_of(state: Tree) -> dict[str, str]:
    return {"model": str(state.get("model")), "arm": str(state.get("arm"))}


def _by_label(metric: MetricName, values: Iterable[tuple[str, object]]) -> Iterator[Sample]:
    """Yields the samples of a metric with one label."""
    (label,) = metric.labels
    for word, value in values:
        yield Sample(metric, {label: word}, _number(value))


def _histogram(metric: MetricName, labels: Mapping[str, str], tree: Tree, bounds_ns: tuple[int, ...]) -> list[Sample]:
    counts = wholes(tree, "counts") or [0] * (len(bounds_ns) + 1)
    return histogram(metric, labels, (bound / 1e9 for bound in bounds_ns), counts, whole(tree, "sum_ns") / 1e9)


def _batch_rows(labels: Mapping[str, str], sizes: list[tuple[int, int]]) -> list[Sample]:
    """Returns a histogram by powers of two, of values that are whole numbers known exactly."""
    within = [sum(count for size, count in sizes if size <= bound) for bound in (*_BATCH_BOUNDS, float("inf"))]
    counts = [after - before for before, after in pairwise([0, *within])]
    return histogram(names.BATCH_ROWS, labels, _BATCH_BOUNDS, counts, sum(size * count for size, count in sizes))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
