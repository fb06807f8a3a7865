"""Every metric of the table is exported, and nothing else is: all exporters, over counts, states and findings."""

import asyncio
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from gateway.drift.online.assessment import ArmAssessment, ArmComparison, Pairing, SplitAssessment
from gateway.drift.online.counting import LoggedArm
from gateway.drift.online.drift_publication import Assessments, MonitorHealth
from gateway.drift.online.drift_publication import samples as drift_samples
from gateway.drift.online.performance_assessment import ArmPerformance, Judged, Side
from gateway.drift.online.performance_publication import samples as performance_samples
from gateway.drift.statistics.agreement import Agreement
from gateway.drift.statistics.cusum import Cusum
from gateway.drift.statistics.performance import Metric, MetricChange
from gateway.drift.statistics.split import SplitVerdict
from gateway.drift.statistics.verdict import DriftState, Evidence, Verdict
from gateway.errors import Code
from gateway.records.lake.accounts import CompactorCounts
from gateway.records.lake.compactor import Compactor, CompactorConfig
from gateway.records.lake.coverage import Coverage
from gateway.records.lake.keeping import Keeping
from gateway.records.sinks.courier import Courier
from gateway.records.sinks.sink import Sink
from gateway.records.sinks.sinks_process import samples as sink_samples
from gateway.telemetry import names
from gateway.telemetry.counters import Counters
from gateway.telemetry.exposition import HostMetrics, samples
from gateway.telemetry.keys import Gauge, Sum
from gateway.telemetry.names import METRICS, MetricName, MetricSource
from gateway.telemetry.published import publish, published
from gateway.telemetry.sample import Sample, histogram
from gateway.telemetry.sums import branch
from tests.records.labels import label, open_labels
from tests.records.traffic import NOW_US, append, open_log, open_stream

ROOT = Path(__file__).parents[2]
ARM = LoggedArm("1", "stable", False)
OTHER = LoggedArm("2", "candidate", False)
SUMS: Mapping[Sum, dict[str, object]] = {
    Sum.LOG: {
        "seen": 6, "written": 4, "sampled_out": 1, "dropped": {"buffer": 1}, "withheld": {"size": 1},
        "blocked_ns": 1, "flush_ns": 1, "flushes": 1, "thread_restarts": {"records": 0, "labels": 1},
    },
    Sum.LABELS: {"accepted": 1},
    Sum.CONNECTIONS: {"accepted": 3, "refused": 1, "broken": 0},
    Sum.ACCESS: {"no_credential": 2, "role": 0},
    Sum.QUOTAS: {"q": {"acme": {"admitted": 3, "bytes": 300, "refused": {"requests": 2}}}},
    Sum.SHED: {"critical": 0, "default": 1, "sheddable": 2},
    Sum.DEMAND_LOADS: {"loaded": 3, "failed": 1, "no_room": 1, "unloaded": 2, "load_ns": 9_000_000},
    Sum.TRACES: {"sampled": 2, "dropped": 1},
    Sum.FALLBACKS: {"m": {"stable": {"INTERNAL": 2}}},
    Sum.FEATURES: {
        "m": {"rows": {"fetched": 3, "cached": 1, "shared": 0}, "values": {"value": 3, "missing": 1}, "defaults": 1}
    },
    Sum.FEATURE_STORES: {"shop": {"pipelines": 2, "ns": 900_000, "failures": 1}},
    Sum.SHADOWS: {"m": {"mirror": {"outcomes": {"agree": 3}, "rows": 6, "same_rows": 5}}},
}  # fmt: skip
GAUGES: Mapping[Gauge, object] = {
    Gauge.REVISION: 7,
    Gauge.STALE_SECONDS: 0.0,
    Gauge.AGE_SECONDS: 3.0,
    Gauge.AUDIT_LOST: 1,
    Gauge.FEED_STATE: "LIVE",
    Gauge.RULES_ERROR: "",
    Gauge.REFUSED: {},
    Gauge.VERSIONS: [{"model": "m", "version": "1", "state": "AVAILABLE"}],
    Gauge.IN_FLIGHT: 0,
    Gauge.IN_FLIGHT_BYTES: 64,
    Gauge.UNREAD_BYTES: 0,
    Gauge.QUEUES: [{"model": "m", "version": "1", "calls": 3}],
    Gauge.COLLECTIONS: [9, 3, 1],
    Gauge.TASKS: 12,
    Gauge.REPOSITORY_UNREADABLE: 0,
    Gauge.CONTENT_STORE_BYTES: 4096,
    Gauge.RESPONSE_CACHE_BYTES: 2048,
    Gauge.RESIDENCE: {"warm": 2, "cold": 1, "bytes": 4096, "limit_bytes": 8192},
    Gauge.START: {"serving": 1.5, "loaded": 2.5},
    Gauge.READY: 1,
    Gauge.CONNECTIONS: 2,
    Gauge.TLS: {"certificate": "a", "not_after_s": 1.0, "trouble": ""},
    Gauge.QUOTAS: {"trouble": "", "in_flight": {"q": {"acme": 1}}},
    Gauge.ACCESS: {"trouble": "", "told": {"role": {"count": 1, "last": "ci called /metrics"}}},
    Gauge.LOG_BUFFER_BYTES: 0,
    Gauge.LOG_SCALE: 1.0,
    Gauge.FEATURES: {"away": {"shop": 1}, "cache_bytes": {"m": 512}},
    Gauge.BREAKERS: [{"model": "m", "arm": "stable", "state": "open"}],
    Gauge.QUARANTINE: [
        {"model": "m", "version": "1", "quarantined": True, "cause": "SIGFPE", "deaths": 2, "inputs": 1}
    ],
    Gauge.EXEMPLARS: [
        {"model": "m", "version": "1", "arm": "stable", "place": 3, "trace_id": "ab", "seconds": 0.0002, "at_s": 7.0}
    ],
    Gauge.SHADOW_DIFFERENCES: [{"model": "m", "arm": "mirror", "value": 0.5}],
}

FIGURES: Mapping[str, object] = {
    "role": "control", "slot": 0, "cpu_s": 1.5, "resident_bytes": 1 << 20, "threads": 3, "started_s": 1e9,
    "open_fds": 20, "max_fds": 1024, "collections": [9, 3, 1],
}  # fmt: skip


def counted() -> Counters:
    """What a worker counts in which everything has happened once."""
    counters = Counters()
    series = counters.series("m", "1", "stable")
    series.observe(Code.OK, 1_000, 50_000, 200_000)
    series.batch(3, 50_000)
    series.cache_misses += 1
    series.observe_hit(1_000)
    counters.refused(Code.NOT_FOUND)
    counters.route_applied(2_000_000)
    for sum_key, tree in SUMS.items():
        counters.add_sums(sum_key, lambda tree=tree: tree)  # type: ignore[misc]
    for gauge, value in GAUGES.items():
        counters.add_gauge(gauge, lambda value=value: value)  # type: ignore[misc]
    return counters


def findings() -> Assessments:
    """Everything that the drift monitor can find, once each."""
    verdicts = tuple(
        Verdict(feature, DriftState.CRIT, "psi", "higher", 1.0, 0.1, 500.0, 0.0, 3,
                (Evidence("psi", 1.0, 0.1, "higher", 0.0, DriftState.CRIT),))
        for feature in ("x", "score")
    )  # fmt: skip
    shares = {"x": {"missing": 0.0, "unseen": 0.0, "out_of_range": 0.0}}
    sums = Cusum(1.0, 2.0, 3)
    arm = ArmAssessment(
        "m", ARM, 1, 0, 3600, 500, verdicts, frozenset({"score"}), shares, {"score": 0.5}, sums, sums
    )  # fmt: skip
    return Assessments(
        [arm],
        [ArmComparison("m", ARM, OTHER, 3600, 500, verdicts)],
        [Pairing("m", OTHER, 3600, Agreement(pairs=100, classes=100, same=99))],
        [SplitAssessment("m", 3600, SplitVerdict(DriftState.OK, 0.0, 0.5, 100))],
    )


def performance() -> ArmPerformance:
    judged = Judged(
        Metric("accuracy", 0.9, 0.8, 1.0, 500),
        MetricChange("accuracy", 0.95, 0.9, -0.1, 0.0, worse=False, enough=True),
        DriftState.OK,
    )
    return ArmPerformance("m", ARM, "classification", Side(500, 0, 1, (judged,)), Side(500, 0, 1, (judged,)), 0, "")


def from_compactor(_: Path) -> Iterator[Sample]:
    yield from CompactorCounts(quarantined={"torn": 1}).samples(1.0)


def from_labels(folder: Path) -> Iterator[Sample]:
    async def log_and_label() -> None:
        log, feedback = open_log(folder / "wal"), open_labels(folder / "wal")
        append(open_stream(log), "a")
        await feedback.write([label("a")])
        await feedback.close()
        await log.close()

    asyncio.run(log_and_label())
    coverage = Coverage(folder / "lake", None)
    config = CompactorConfig(str(folder / "wal"), str(folder / "lake"))
    compactor = Compactor(config, clock=lambda: NOW_US / 1e6, observers=[coverage])
    compactor.step()
    compactor.tend(last=True)
    yield from coverage.samples()


def from_sinks(folder: Path) -> Iterator[Sample]:
    def refuse() -> Sink:
        raise AssertionError("nothing is delivered here")

    yield from sink_samples([Courier(folder / "lake", "s", Keeping(1, 1), refuse, clock=lambda: 0.0)])


def from_drift(_: Path) -> Iterator[Sample]:
    yield from drift_samples(findings(), MonitorHealth(1.0, 5, {"disk": 2}, 1, 0), 3600)


def from_performance(_: Path) -> Iterator[Sample]:
    yield from performance_samples([performance()], {"disk": 1}, 1.0)


EXPORTERS: list[Callable[[Path], Iterator[Sample]]] = [
    from_compactor, from_labels, from_sinks, from_drift, from_performance,
]  # fmt: skip


def test_every_metric_is_exported_by_its_source(tmp_path: Path) -> None:
    """A metric that nobody exports, or that another source than the table's does, fails here."""
    for exporter in EXPORTERS:
        publish(tmp_path, exporter.__name__, exporter(tmp_path), now_s=1.0)
    snapshot = counted().snapshot()
    events = {"types": {"route.applied": 1}, "webhook": {"delivered": 1}, "waiting": 0}
    process = {"role": "worker", "slot": 0, "state": "READY", "restarts": 2}
    host = HostMetrics(
        branch(snapshot, "sums"),
        {0: branch(snapshot, "gauges")},
        (process,),
        "1",
        events,
        figures=(FIGURES,),
        spans={"exported": 3},
    )
    own = {sample.metric for sample in samples(host)}
    assert own == {metric for metric in METRICS.values() if metric.source is not MetricSource.PUBLISHED}
    written = published(tmp_path)
    assert set(written) == {metric.name for metric in METRICS.values() if metric.source is MetricSource.PUBLISHED}
    on_page = {sample.metric for sample in samples(HostMetrics({}, {}, (), "1", published=written))}
    assert on_page - {names.BUILD, names.ROUTE_APPLY_SECONDS} == {METRICS[name] for name in written}


def test_these_counts_and_gauges_are_all_that_there_are() -> None:
    assert set(SUMS) == set(Sum) - {Sum.SERIES, Sum.REFUSED, Sum.ROUTE_APPLY}
    assert set(GAUGES) == set(Gauge)


def test_a_part_of_the_program_tells_each_of_them() -> None:
    """The values above are the test's own: a key that no worker fills would be exported here and never by a gateway."""
    program = "".join(path.read_text("utf-8") for path in (ROOT / "gateway").rglob("*.py"))
    assert set(re.findall(r"\badd_gauge\(\s*Gauge\.(\w+)", program)) == {key.name for key in Gauge}
    filled = {Sum.SERIES.name, Sum.REFUSED.name, Sum.ROUTE_APPLY.name}  # by Counters itself
    assert set(re.findall(r"\badd_sums\(\s*Sum\.(\w+)", program)) == {key.name for key in Sum} - filled


@pytest.mark.parametrize("metric", METRICS.values(), ids=list(METRICS))
def test_names_have_one_prefix(metric: MetricName) -> None:
    assert metric.name.startswith(("gateway_", "nv_inference_"))
    assert metric.help.endswith((".", "..."))


@pytest.mark.parametrize(
    ("metric", "labels", "part", "says"),
    [
        (names.SINK_LAG, {}, "", "labels"),
        (names.SINK_LAG, {"sink": "s", "model": "m"}, "", "labels"),
        (names.SINK_LAG, {"sink": "s"}, "_total", "no samples called"),
        (names.SINK_LAG, {"sink": "s"}, "_bucket", "no samples called"),
        (names.LABEL_DELAY, {"model": "m"}, "", "no samples called"),
        (names.LABEL_DELAY, {"model": "m"}, "_bucket", "labels"),
    ],
)
def test_a_sample_that_does_not_fit_its_metric_is_an_error(
    metric: MetricName, labels: dict[str, str], part: str, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Sample(metric, labels, 1.0, part)


def test_a_histogram_adds_its_counts_up() -> None:
    made = histogram(names.LABEL_DELAY, {"model": "m"}, (1.0, 60.0), (3, 0, 2), 150.5)
    assert [(sample.suffix, sample.labels.get("le"), sample.value) for sample in made] == [
        ("_bucket", "1", 3),
        ("_bucket", "60", 3),
        ("_bucket", "+Inf", 5),
        ("_count", None, 5),
        ("_sum", None, 150.5),
    ]


DOCUMENTS = [*ROOT.glob("docs/*.md"), ROOT / "README.md"]


# What a name of a metric may end with where somebody asks for it; of a histogram the bare name stands for all of it.
ENDINGS = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_count", "_sum"),
    "info": ("_info",),
    "summary": ("", "_count", "_sum"),
    "unknown": ("",),
}
SAMPLES = {metric.name + ending for metric in METRICS.values() for ending in ENDINGS[metric.kind]}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_documents_name_metrics_that_there_are(page: Path) -> None:
    named = re.findall(r"\b((?:gateway|nv)_[a-z_]+)([*(]?)", page.read_text())
    unknown = {
        name
        for name, goes_on in named
        if name not in SAMPLES and not (goes_on and any(one.startswith(name) for one in SAMPLES))
    }
    assert not unknown


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_what_documents_search_metrics_for_is_found(page: Path) -> None:
    lines = "\n".join(sorted(SAMPLES))
    for line in page.read_text().splitlines():
        if searched := re.search(r"/metrics['\"]? \| grep (?:-E )?(.+)", line):
            pattern = shlex.split(searched[1])[0]
            assert re.search(pattern, lines, re.MULTILINE), line
