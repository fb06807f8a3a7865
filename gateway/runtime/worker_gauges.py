"""What a worker says of its parts beside what it counts: each part's gauges and sums, under the keys of the table."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from time import monotonic, time

from gateway.access.entrance import Entrance
from gateway.access.priority import Priority
from gateway.access.quota_file import QuotaFile
from gateway.features.feature_stores import FeatureStores
from gateway.records.worker.feedback_log import FeedbackLog
from gateway.records.worker.prediction_log import PredictionLog
from gateway.routing.store.audit_witness import AuditWitness
from gateway.routing.store.feed import Feed
from gateway.rpc.server import Server
from gateway.runtime.host import version_states
from gateway.runtime.process_figures import collections
from gateway.serving.admission import Admission
from gateway.serving.catalog import Catalog
from gateway.serving.engine import Engine
from gateway.serving.shared_run_state import SharedRunState
from gateway.serving.tracer import Tracer
from gateway.telemetry.counters import Counters
from gateway.telemetry.keys import Gauge, Sum


def tell_log(counters: Counters, log: PredictionLog, labels: FeedbackLog) -> None:
    """Tells of the prediction log and of the labels."""

    def counts() -> Mapping[str, object]:
        told = log.counts()
        return {
            "seen": told.seen,
            "written": told.written,
            "sampled_out": told.sampled_out,
            "dropped": dict(told.dropped),
            "withheld": dict(told.withheld),
            "thread_restarts": {"records": told.thread_restarts, "labels": labels.restarts},
            "blocked_ns": told.blocked_ns,
            "flush_ns": told.flush_ns,
            "flushes": told.flushes,
        }

    counters.add_sums(Sum.LOG, counts)
    counters.add_sums(Sum.LABELS, lambda: labels.counts)
    counters.add_gauge(Gauge.LOG_BUFFER_BYTES, lambda: log.counts().buffered_bytes)
    counters.add_gauge(Gauge.LOG_SCALE, lambda: log.scale)


def tell_rules(counters: Counters, feed: Feed, witness: AuditWitness) -> None:
    """Tells which rules are in force, how old they are, which newer ones are not followed, and whether the record of
    their changes lacks something."""

    def age_seconds() -> float:
        newest_us = max((compiled.route.committed_at_us for compiled in feed.snapshot.routes.values()), default=0)
        return max(0.0, time() - newest_us / 1e6) if newest_us else 0.0

    def refused() -> Mapping[str, str]:
        return {model: route.error for model, route in feed.status().unapplied.items() if route.error}

    counters.add_gauge(Gauge.REVISION, lambda: feed.status().revision)
    counters.add_gauge(Gauge.STALE_SECONDS, feed.stale_seconds)
    counters.add_gauge(Gauge.AGE_SECONDS, age_seconds)
    counters.add_gauge(Gauge.FEED_STATE, lambda: feed.state.value)
    counters.add_gauge(Gauge.RULES_ERROR, lambda: feed.error)
    counters.add_gauge(Gauge.REFUSED, refused)
    counters.add_gauge(Gauge.AUDIT_LOST, lambda: int(witness.lost))


def tell_versions(counters: Counters, catalog: Catalog, engine: Engine, run_state: SharedRunState) -> None:
    """Tells which versions are there, what is wrong with them, and what workers were found to die of."""

    def quarantined() -> list[dict[str, object]]:
        engine.show_quarantine()
        return [
            {
                "model": version.model,
                "version": version.version,
                "cause": version.cause,
                "deaths": version.deaths,
                "inputs": len(version.inputs),
                "suspects": len(version.suspects),
                "quarantined": version.until_s > monotonic(),
            }
            for version in run_state.refusals.versions
        ]

    cache = run_state.cache
    counters.add_gauge(Gauge.VERSIONS, lambda: version_states(catalog))
    if catalog.loads_on_demand:
        counters.add_gauge(Gauge.RESIDENCE, catalog.residence)
        counters.add_sums(Sum.DEMAND_LOADS, catalog.demand_counts)
    counters.add_gauge(Gauge.QUARANTINE, quarantined)
    counters.add_gauge(Gauge.REPOSITORY_UNREADABLE, lambda: int(bool(catalog.trouble)))
    counters.add_gauge(Gauge.CONTENT_STORE_BYTES, lambda: catalog.copies.size_bytes)
    counters.add_gauge(Gauge.RESPONSE_CACHE_BYTES, lambda: cache.size_bytes if cache is not None else 0)


def tell_features(counters: Counters, stores: FeatureStores) -> None:
    """Tells what was looked up in feature stores, and which of them are away."""
    counters.add_sums(Sum.FEATURES, stores.look_ups)
    counters.add_sums(Sum.FEATURE_STORES, stores.pipelines)
    counters.add_gauge(Gauge.FEATURES, stores.states)


def tell_work(
    counters: Counters,
    engine: Engine,
    admission: Admission,
    servers: tuple[Server, Server | None],
    ready: Callable[[], bool],
) -> None:
    """Tells what the worker does at this moment, and by which certificate."""
    counters.add_gauge(Gauge.READY, lambda: int(ready()))
    counters.add_gauge(Gauge.IN_FLIGHT, lambda: engine.in_flight)
    counters.add_gauge(Gauge.IN_FLIGHT_BYTES, lambda: admission.bytes)
    counters.add_gauge(Gauge.UNREAD_BYTES, lambda: admission.unread)
    counters.add_gauge(Gauge.QUEUES, engine.queues)
    counters.add_gauge(Gauge.COLLECTIONS, collections)
    counters.add_gauge(Gauge.TASKS, lambda: len(asyncio.all_tasks()))
    counters.add_gauge(Gauge.CONNECTIONS, lambda: connection_counts(*servers).get("open", 0))
    counters.add_gauge(Gauge.TLS, lambda: certificate.status() if (certificate := servers[0].certificate) else {})


def connection_counts(*servers: Server | None) -> dict[str, int]:
    """Returns what the servers count of their connections, added up."""
    counts: Counter[str] = Counter()
    for server in servers:
        if server is not None:
            counts.update(server.counts())
    return dict(counts)


def tell_bounds(
    counters: Counters, admission: Admission, quota_file: QuotaFile | None, entrance: Entrance | None
) -> None:
    """Tells what quotas and permissions are in force, and how many calls each of them refused."""

    def shed() -> Mapping[str, int]:
        return {priority.name.lower(): admission.shed[priority] for priority in Priority}

    if quota_file is not None:
        counters.add_sums(Sum.QUOTAS, quota_file.quotas.sums)
        counters.add_sums(Sum.SHED, shed)
        counters.add_gauge(Gauge.QUOTAS, quota_file.status)
    if entrance is not None:
        counters.add_sums(Sum.ACCESS, entrance.denied)
        counters.add_gauge(Gauge.ACCESS, entrance.status)


def tell_traces(counters: Counters, tracer: Tracer | None) -> None:
    """Tells what became of the traces, and which requests are examples of what the histograms show."""
    if tracer is not None:
        counters.add_sums(Sum.TRACES, tracer.counts)
        counters.add_gauge(Gauge.EXEMPLARS, tracer.exemplars)
