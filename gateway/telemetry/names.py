"""Every metric that the gateway exports: its name, kind, labels, meaning and source. Nothing else names a metric.

All names begin with `gateway_`, but for the `nv_inference_*` ones: those are Triton's and mean what they mean there, so
that its dashboards work. Text format 0.0.4 as prometheus-client writes it would add `_total` to a counter's name, so
they are exported as untyped.

Source: Triton, docs/user_guide/metrics.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram", "summary", "unknown", "info"]


class MetricSource(Enum):
    """Holds where the samples of a metric come from."""

    SUMMED = "counted by every worker, added up over workers and their lives"
    EACH_WORKER = "said by each worker of itself"
    CONTROL = "known to the control process"
    PUBLISHED = "written to a file by the compactor or the sinks"


@dataclass(frozen=True, slots=True)
class MetricName:
    """`name` without the ending of its samples, such as a counter's `_total`."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str
    source: MetricSource = MetricSource.SUMMED


_table: dict[str, MetricName] = {}
METRICS: Final[Mapping[str, MetricName]] = MappingProxyType(_table)  # all of them by name, in the order of the page


def _metric(source: MetricSource, name: str, kind: Kind, labels: tuple[str, ...], text: str) -> MetricName:
    if name in _table:
        raise ValueError(f"two metrics are called {name}")
    metric = _table[name] = MetricName(name, kind, labels, text, source)
    return metric


_SUMMED: Final = MetricSource.SUMMED
_EACH_WORKER: Final = MetricSource.EACH_WORKER
_CONTROL: Final = MetricSource.CONTROL
_PUBLISHED: Final = MetricSource.PUBLISHED
_ARM: Final = ("model", "version", "arm")
_VERSION: Final = ("model", "version")

REQUESTS: Final = _metric(
    _SUMMED, "gateway_requests", "counter", (*_ARM, "code"), "Calls that had a version, by outcome."
)
REFUSED: Final = _metric(_SUMMED, "gateway_refused", "counter", ("code",), "Calls refused before they had a version.")
REQUEST_SECONDS: Final = _metric(
    _SUMMED, "gateway_request_seconds", "histogram", _ARM, "From the arrival of a call to its answer."
)
QUEUE_SECONDS: Final = _metric(_SUMMED, "gateway_queue_seconds", "histogram", _ARM, "How long a call waited to be run.")
COMPUTE_SECONDS: Final = _metric(
    _SUMMED, "gateway_compute_seconds", "histogram", _ARM, "How long the model ran for a call."
)
BATCH_ROWS: Final = _metric(_SUMMED, "gateway_batch_rows", "histogram", _VERSION, "Items that ran together.")
RUNS_SECONDS: Final = _metric(_SUMMED, "gateway_run_seconds", "counter", _VERSION, "Time spent in runs of the model.")
RUN_CPU_SECONDS: Final = _metric(
    _SUMMED, "gateway_run_cpu_seconds", "counter", _ARM, "CPU time of runs, of the threads that they were on."
)
ROUTE_APPLY_SECONDS: Final = _metric(
    _SUMMED,
    "gateway_route_apply_seconds",
    "histogram",
    (),
    "From the commit of a route to its being in force in a worker.",
)
CONNECTIONS_SEEN: Final = _metric(
    _SUMMED,
    "gateway_connections_seen",
    "counter",
    ("outcome",),
    "Connections that were accepted, refused for a limit, or broken by their peers; by the ngh2 transport.",
)
ACCESS_DENIED: Final = _metric(
    _SUMMED,
    "gateway_access_denied",
    "counter",
    ("reason",),
    "Callers refused for no_credential, their credential, its signing_key, a role or a model that they lack.",
)
FALLBACKS: Final = _metric(
    _SUMMED,
    "gateway_fallbacks",
    "counter",
    ("model", "arm", "why"),
    "Calls that left this arm for the next one of the chain.",
)
RESPONSE_CACHE: Final = _metric(
    _SUMMED,
    "gateway_response_cache",
    "counter",
    ("model", "version", "arm", "outcome"),
    "Calls of versions that cache answers: hit, answered from the cache without a run, or miss.",
)
FEATURE_ROWS: Final = _metric(
    _SUMMED,
    "gateway_feature_rows",
    "counter",
    ("model", "source"),
    "Rows that look-ups of a feature view asked for: fetched from the store, cached, or shared with a call under way.",
)
FEATURE_VALUES: Final = _metric(
    _SUMMED,
    "gateway_feature_values",
    "counter",
    ("model", "status"),
    "Features of rows that were looked up: value, missing, stale, unreadable, unavailable.",
)
FEATURE_DEFAULTS: Final = _metric(
    _SUMMED, "gateway_feature_defaults", "counter", ("model",), "Features that were answered by their default."
)
FEATURE_STORE_SECONDS: Final = _metric(
    _SUMMED,
    "gateway_feature_store_seconds",
    "summary",
    ("store",),
    "Pipelines that a feature store answered, and their time.",
)
FEATURE_STORE_FAILURES: Final = _metric(
    _SUMMED, "gateway_feature_store_failures", "counter", ("store",), "Pipelines that a feature store did not answer."
)
SHADOWS: Final = _metric(
    _SUMMED,
    "gateway_shadow",
    "counter",
    ("model", "arm", "outcome"),
    "Copies of calls to this mirror, by what became of them.",
)
SHADOW_ROWS: Final = _metric(
    _SUMMED,
    "gateway_shadow_rows",
    "counter",
    ("model", "arm", "argmax"),
    "Rows by whether the highest score is the same one.",
)
LOG_RECORDS: Final = _metric(
    _SUMMED,
    "gateway_log_records",
    "counter",
    ("outcome",),
    "Requests by what became of their record: seen, written, sampled_out.",
)
LOG_DROPPED: Final = _metric(_SUMMED, "gateway_log_dropped", "counter", ("reason",), "Records that were lost, and why.")
LOG_WITHHELD: Final = _metric(
    _SUMMED, "gateway_log_withheld", "counter", ("reason",), "Records that were written without their tensors, and why."
)
LOG_BLOCKED: Final = _metric(
    _SUMMED, "gateway_log_blocked_seconds", "counter", (), "How long answers waited for room in the log, together."
)
LOG_RESTARTS: Final = _metric(
    _SUMMED,
    "gateway_log_thread_restarts",
    "counter",
    ("thread",),
    "Errors of the threads that write records and labels, which nobody foresaw; each cost one write.",
)
LOG_FLUSH: Final = _metric(_SUMMED, "gateway_log_flush_seconds", "summary", (), "Writes of the log, and their time.")
QUOTA_ADMITTED: Final = _metric(
    _SUMMED,
    "gateway_quota_admitted",
    "counter",
    ("quota", "who"),
    "Calls that a quota let in; who: identity or tenant, where it has a bucket for each and its file names them.",
)
QUOTA_BYTES: Final = _metric(
    _SUMMED, "gateway_quota_bytes", "counter", ("quota", "who"), "Bytes of request messages that a quota let in."
)
QUOTA_REFUSED: Final = _metric(
    _SUMMED,
    "gateway_quota_refused",
    "counter",
    ("quota", "who", "limit"),
    "Calls refused by a quota, by the limit that was reached: requests, concurrency, bytes.",
)
SHED: Final = _metric(
    _SUMMED,
    "gateway_shed",
    "counter",
    ("priority",),
    "Calls refused because a worker's limits for their priority class were reached.",
)
TRACES: Final = _metric(
    _SUMMED,
    "gateway_traces",
    "counter",
    ("outcome",),
    "Calls that were sampled, and those of them whose trace found no room: dropped.",
)
DEMAND_LOADS: Final = _metric(
    _SUMMED,
    "gateway_demand_loads",
    "counter",
    ("outcome",),
    "Loads on demand: loaded, failed, no_room; and unloaded: versions that made room for others.",
)
DEMAND_LOAD_SECONDS: Final = _metric(
    _SUMMED, "gateway_demand_load_seconds", "counter", (), "Time that successful loads on demand took."
)
LABELS: Final = _metric(
    _SUMMED, "gateway_labels", "counter", ("outcome",), "Labels that callers sent: accepted, refused, unwritten."
)
NV_SUCCESS: Final = _metric(_SUMMED, "nv_inference_request_success", "unknown", _VERSION, "Successful requests.")
NV_FAILURE: Final = _metric(
    _SUMMED, "nv_inference_request_failure", "unknown", (*_VERSION, "reason"), "Failed requests."
)
NV_COUNT: Final = _metric(_SUMMED, "nv_inference_count", "unknown", _VERSION, "Inferences: items of all batches.")
NV_EXEC_COUNT: Final = _metric(_SUMMED, "nv_inference_exec_count", "unknown", _VERSION, "Runs of the model.")
NV_REQUEST_US: Final = _metric(
    _SUMMED, "nv_inference_request_duration_us", "unknown", _VERSION, "Time of all requests."
)
NV_QUEUE_US: Final = _metric(_SUMMED, "nv_inference_queue_duration_us", "unknown", _VERSION, "Time in the queue.")
NV_INPUT_US: Final = _metric(_SUMMED, "nv_inference_compute_input_duration_us", "unknown", _VERSION, "Time on inputs.")
NV_INFER_US: Final = _metric(
    _SUMMED, "nv_inference_compute_infer_duration_us", "unknown", _VERSION, "Time in the model."
)
NV_OUTPUT_US: Final = _metric(
    _SUMMED, "nv_inference_compute_output_duration_us", "unknown", _VERSION, "Time on outputs."
)

ROUTE_REVISION: Final = _metric(
    _EACH_WORKER, "gateway_route_revision", "gauge", ("worker",), "Revision of the rules in force."
)
ROUTE_STALE_SECONDS: Final = _metric(
    _EACH_WORKER,
    "gateway_route_stale_seconds",
    "gauge",
    ("worker",),
    "Time since the rules' store was last heard; 0 while live.",
)
REPOSITORY_UNREADABLE: Final = _metric(
    _EACH_WORKER,
    "gateway_repository_unreadable",
    "gauge",
    ("worker",),
    "1 while the model repository cannot be read or holds no model any more; everything stays loaded.",
)
CONTENT_STORE_BYTES: Final = _metric(
    _EACH_WORKER,
    "gateway_content_store_bytes",
    "gauge",
    ("worker",),
    "Copies of model versions on disk, as of this worker's last look: one store for all workers of the host.",
)
RESPONSE_CACHE_BYTES: Final = _metric(
    _EACH_WORKER,
    "gateway_response_cache_bytes",
    "gauge",
    ("worker",),
    "Answers that this worker keeps, with their inputs.",
)
FEATURE_STORE_AWAY: Final = _metric(
    _EACH_WORKER,
    "gateway_feature_store_away",
    "gauge",
    ("worker", "store"),
    "1 while a feature store does not answer; nobody waits for it then.",
)
FEATURE_CACHE_BYTES: Final = _metric(
    _EACH_WORKER,
    "gateway_feature_cache_bytes",
    "gauge",
    ("worker", "model"),
    "Rows that this worker keeps of a feature view.",
)
ROUTE_AGE_SECONDS: Final = _metric(
    _EACH_WORKER, "gateway_route_age_seconds", "gauge", ("worker",), "Time since the rules in force were committed."
)
FEED_STATE: Final = _metric(
    _EACH_WORKER, "gateway_feed_state", "gauge", ("worker", "state"), "1 for the state of the rules' feed."
)
BREAKER_STATE: Final = _metric(
    _EACH_WORKER,
    "gateway_breaker_state",
    "gauge",
    ("worker", "model", "arm"),
    "0: closed, 1: half open, 2: open (left out).",
)
VERSION_QUARANTINED: Final = _metric(
    _EACH_WORKER,
    "gateway_version_quarantined",
    "gauge",
    ("worker", "model", "version"),
    "1 while a version does not run, because workers died of it.",
)
REFUSED_INPUTS: Final = _metric(
    _EACH_WORKER,
    "gateway_refused_inputs",
    "gauge",
    ("worker", "model", "version"),
    "Inputs that a worker died of, and that are refused.",
)
WORKER_DEATHS: Final = _metric(
    _EACH_WORKER,
    "gateway_worker_deaths",
    "gauge",
    ("worker", "model", "version"),
    "Workers that died of a version since it was last loaded by hand.",
)
SHADOW_DIFFERENCE: Final = _metric(
    _EACH_WORKER,
    "gateway_shadow_max_abs_difference",
    "gauge",
    ("worker", "model", "arm"),
    "Largest difference of the present version of a mirror from what was served.",
)
CONNECTIONS: Final = _metric(
    _EACH_WORKER,
    "gateway_connections",
    "gauge",
    ("worker",),
    "Open connections, TLS handshakes among them; by the ngh2 transport.",
)
LOG_BUFFER: Final = _metric(_EACH_WORKER, "gateway_log_buffer_bytes", "gauge", ("worker",), "What waits for the disk.")
LOG_SCALE: Final = _metric(
    _EACH_WORKER,
    "gateway_log_sample_scale",
    "gauge",
    ("worker",),
    "Factor of all rates: below 1 while buffer or disk are nearly full.",
)
VERSION_STATE: Final = _metric(
    _EACH_WORKER,
    "gateway_version_state",
    "gauge",
    ("worker", *_VERSION, "state"),
    "1 for the state of a version in a worker.",
)
IN_FLIGHT: Final = _metric(
    _EACH_WORKER, "gateway_requests_in_flight", "gauge", ("worker",), "Calls begun and not finished."
)
IN_FLIGHT_BYTES: Final = _metric(
    _EACH_WORKER,
    "gateway_requests_in_flight_bytes",
    "gauge",
    ("worker",),
    "Bytes of request messages in flight, and of answers that clients have not read.",
)
UNREAD_BYTES: Final = _metric(
    _EACH_WORKER, "gateway_answers_unread_bytes", "gauge", ("worker",), "Bytes of answers that clients have not read."
)
QUEUE_LENGTH: Final = _metric(
    _EACH_WORKER, "gateway_queue_length", "gauge", ("worker", *_VERSION), "Calls that wait for a run of the version."
)
TASKS: Final = _metric(
    _EACH_WORKER,
    "gateway_worker_tasks",
    "gauge",
    ("worker",),
    "Tasks of the event loop; requests have none.",
)
MODEL_SESSIONS: Final = _metric(
    _EACH_WORKER,
    "gateway_model_versions",
    "gauge",
    ("worker", "memory"),
    "Versions with a model that can serve: warm (in memory) or cold (loaded on demand).",
)
MODEL_MEMORY: Final = _metric(
    _EACH_WORKER,
    "gateway_model_memory_bytes",
    "gauge",
    ("worker",),
    "What the versions in memory needed on trial, where versions are loaded on demand.",
)
MODEL_MEMORY_LIMIT: Final = _metric(
    _EACH_WORKER,
    "gateway_model_memory_limit_bytes",
    "gauge",
    ("worker",),
    "The worker's share of --model-memory-bytes; 0: no limit.",
)
START_SECONDS: Final = _metric(
    _EACH_WORKER,
    "gateway_start_seconds",
    "gauge",
    ("worker", "until"),
    "From the worker's start until it could answer (serving), and until all versions were there (loaded).",
)
WORKER_READY: Final = _metric(_EACH_WORKER, "gateway_worker_ready", "gauge", ("worker",), "1 while the worker serves.")
TLS_NOT_AFTER: Final = _metric(
    _EACH_WORKER,
    "gateway_tls_not_after_seconds",
    "gauge",
    ("worker",),
    "When the certificate in force ends, since the Unix epoch.",
)
AUDIT_LOST: Final = _metric(
    _EACH_WORKER,
    "gateway_audit_lost",
    "gauge",
    ("worker",),
    "1 while the audit trail cannot be read, or lacks an entry that the worker has seen and no later heal explains it.",
)
ACCESS_TROUBLE: Final = _metric(
    _EACH_WORKER, "gateway_access_trouble", "gauge", ("worker",), "1 while a file or the issuer's keys cannot be taken."
)
QUOTA_IN_FLIGHT: Final = _metric(
    _EACH_WORKER,
    "gateway_quota_in_flight",
    "gauge",
    ("worker", "quota", "who"),
    "Calls in flight that a quota counts.",
)
QUOTA_TROUBLE: Final = _metric(
    _EACH_WORKER,
    "gateway_quota_trouble",
    "gauge",
    ("worker",),
    "1 while the quota file cannot be taken; what was in force stays.",
)
TLS_TROUBLE: Final = _metric(
    _EACH_WORKER,
    "gateway_tls_trouble",
    "gauge",
    ("worker",),
    "1 while the certificate's files hold what cannot be taken.",
)

PROCESS_STATE: Final = _metric(
    _CONTROL,
    "gateway_process_state",
    "gauge",
    ("role", "slot", "state"),
    "1 for the state of a process of the gateway.",
)
PROCESS_RESTARTS: Final = _metric(
    _CONTROL,
    "gateway_process_restarts",
    "counter",
    ("role", "slot"),
    "How often a process was started again after it died.",
)
PROCESS_RECYCLED: Final = _metric(
    _CONTROL,
    "gateway_process_recycled",
    "counter",
    ("role", "slot"),
    "How often a process was replaced because it held too much memory.",
)
_PROCESS: Final = ("role", "slot")
PROCESS_CPU: Final = _metric(
    _CONTROL, "gateway_process_cpu_seconds", "counter", _PROCESS, "CPU time of a process, in user and kernel mode."
)
PROCESS_RESIDENT: Final = _metric(
    _CONTROL, "gateway_process_resident_memory_bytes", "gauge", _PROCESS, "Memory that a process holds in RAM."
)
PROCESS_OPEN_FDS: Final = _metric(
    _CONTROL, "gateway_process_open_fds", "gauge", _PROCESS, "Descriptors that a process holds open."
)
PROCESS_MAX_FDS: Final = _metric(
    _CONTROL, "gateway_process_max_fds", "gauge", _PROCESS, "Most descriptors that a process may hold open."
)
PROCESS_THREADS: Final = _metric(_CONTROL, "gateway_process_threads", "gauge", _PROCESS, "Threads of a process.")
PROCESS_STARTED: Final = _metric(
    _CONTROL,
    "gateway_process_start_time_seconds",
    "gauge",
    _PROCESS,
    "When a process was started, since the Unix epoch.",
)
GC_COLLECTIONS: Final = _metric(
    _CONTROL,
    "gateway_gc_collections",
    "counter",
    (*_PROCESS, "generation"),
    "Runs of the garbage collector of workers and of the control process.",
)
EVENTS: Final = _metric(_CONTROL, "gateway_events", "counter", ("type",), "Events that were told, by type.")
WEBHOOK: Final = _metric(
    _CONTROL,
    "gateway_webhook",
    "counter",
    ("outcome",),
    "Events for the webhook: delivered, retried, refused, failed, dropped.",
)
WEBHOOK_WAITING: Final = _metric(_CONTROL, "gateway_webhook_waiting", "gauge", (), "Events that wait for the webhook.")
TRACE_SPANS: Final = _metric(
    _CONTROL, "gateway_trace_spans", "counter", ("outcome",), "Spans that were exported, or failed to be."
)
BUILD: Final = _metric(_CONTROL, "gateway_build", "info", ("version",), "The gateway that answers.")

_LOGGED: Final = (*_ARM, "role")  # "serving", or "mirror": answers that nobody got
_DRIFT: Final = (*_LOGGED, "kind", "feature")
_PERFORMANCE: Final = (*_LOGGED, "name")
LABEL_COVERAGE: Final = _metric(
    _PUBLISHED,
    "gateway_label_coverage_ratio",
    "gauge",
    _VERSION,
    "Share of the rows answered in the last seven days that have a label.",
)
LABEL_DELAY: Final = _metric(
    _PUBLISHED,
    "gateway_label_delay_seconds",
    "histogram",
    ("model",),
    "From the arrival of a request to the receipt of its first label.",
)
LABELS_UNMATCHED: Final = _metric(
    _PUBLISHED,
    "gateway_label_unmatched",
    "counter",
    ("model",),
    "Labels of rows that are not among those logged in the last seven days.",
)
COMPACTED: Final = _metric(
    _PUBLISHED, "gateway_log_compacted", "counter", ("what",), "In Parquet: segments, rows, labels."
)
COMPACTOR_EVENTS: Final = _metric(
    _PUBLISHED, "gateway_log_compactor_events", "counter", ("what",), "adopted, torn_bytes, expired_files, ..."
)
QUARANTINED: Final = _metric(
    _PUBLISHED, "gateway_log_quarantined", "counter", ("reason",), "What could not be read, set aside."
)
OLDEST_SEALED: Final = _metric(
    _PUBLISHED,
    "gateway_log_oldest_sealed_age_seconds",
    "gauge",
    (),
    "Age of the oldest segment that waits to become Parquet.",
)
PENDING_BYTES: Final = _metric(
    _PUBLISHED, "gateway_log_pending_bytes", "gauge", (), "Segments that wait to become Parquet."
)
SINK_LAG: Final = _metric(_PUBLISHED, "gateway_log_sink_lag_rows", "gauge", ("sink",), "Rows that wait for a sink.")
SINK_ERRORS: Final = _metric(_PUBLISHED, "gateway_log_sink_errors", "counter", ("sink",), "Deliveries that failed.")
SINK_ROWS: Final = _metric(
    _PUBLISHED,
    "gateway_log_sink_rows",
    "counter",
    ("sink", "outcome"),
    "Rows of a sink: delivered, expired, refused, evicted.",
)
DRIFT_SCORE: Final = _metric(
    _PUBLISHED,
    "gateway_drift_score",
    "gauge",
    (*_DRIFT, "stat", "window"),
    "Debiased PSI, largest gap of a category, share that vanished.",
)
DRIFT_STATE: Final = _metric(
    _PUBLISHED,
    "gateway_drift_state",
    "gauge",
    (*_DRIFT, "window"),
    "0: ok, 1: warn, 2: crit, -1: too few rows to tell.",
)
DRIFT_ARM_STATE: Final = _metric(
    _PUBLISHED,
    "gateway_drift_arm_state",
    "gauge",
    (*_LOGGED, "window"),
    "The worst state of a feature of the arm that could be judged.",
)
DRIFT_WINDOW_ROWS: Final = _metric(
    _PUBLISHED, "gateway_drift_window_rows", "gauge", (*_LOGGED, "window"), "Rows of the newest window."
)
DRIFT_WINDOW_END: Final = _metric(
    _PUBLISHED,
    "gateway_drift_window_end_seconds",
    "gauge",
    (*_LOGGED, "window"),
    "When the newest window ended, since the epoch.",
)
DRIFT_MISSING: Final = _metric(
    _PUBLISHED, "gateway_missing_ratio", "gauge", _DRIFT, "Rows without a value, null or NaN."
)
DRIFT_UNSEEN: Final = _metric(
    _PUBLISHED,
    "gateway_unseen_category_ratio",
    "gauge",
    _DRIFT,
    "Rows with a category that the reference does not know.",
)
DRIFT_OUT_OF_RANGE: Final = _metric(
    _PUBLISHED, "gateway_out_of_range_ratio", "gauge", _DRIFT, "Rows with a number outside of the reference's range."
)
PREDICTION_MEAN: Final = _metric(
    _PUBLISHED, "gateway_prediction_mean", "gauge", (*_LOGGED, "feature"), "Mean of an output in the newest window."
)
DRIFT_CUSUM: Final = _metric(
    _PUBLISHED,
    "gateway_drift_cusum",
    "gauge",
    (*_LOGGED, "signal", "side"),
    "Cumulative sum of score or error share; above 5: shifted.",
)
ARMS_SCORE: Final = _metric(
    _PUBLISHED,
    "gateway_arms_score",
    "gauge",
    (*_ARM, "against", "feature"),
    "Debiased PSI of an output between two arms.",
)
ARMS_STATE: Final = _metric(
    _PUBLISHED,
    "gateway_arms_state",
    "gauge",
    (*_ARM, "against", "feature"),
    "0: same, 1: warn, 2: crit, -1: too few rows to tell.",
)
SPLIT_STATE: Final = _metric(
    _PUBLISHED,
    "gateway_split_state",
    "gauge",
    ("model",),
    "0: buckets are hit evenly, 1: warn, 2: crit, -1: too few requests to tell.",
)
SPLIT_MISMATCH: Final = _metric(
    _PUBLISHED,
    "gateway_split_mismatch_ratio",
    "gauge",
    ("model",),
    "Share of requests that would fall elsewhere if all buckets were hit alike.",
)
SHADOW_AGREEMENT: Final = _metric(
    _PUBLISHED,
    "gateway_shadow_agreement_ratio",
    "gauge",
    _ARM,
    "Share of a mirror's answers that agree with the served ones.",
)
SHADOW_AGREEMENT_STATE: Final = _metric(
    _PUBLISHED,
    "gateway_shadow_agreement_state",
    "gauge",
    _ARM,
    "0: ok, 1: below 0.99, 2: below 0.95, -1: too few pairs to tell.",
)
SHADOW_PAIRS: Final = _metric(
    _PUBLISHED, "gateway_shadow_pairs", "gauge", _ARM, "Pairs that the agreement is taken over."
)
DRIFT_LOOKED: Final = _metric(
    _PUBLISHED, "gateway_drift_looked_seconds", "gauge", (), "When the drift monitor last looked, since the epoch."
)
DRIFT_WINDOW: Final = _metric(
    _PUBLISHED, "gateway_drift_window_seconds", "gauge", (), "Length of the windows that drift is judged by."
)
DRIFT_PROFILES: Final = _metric(
    _PUBLISHED, "gateway_drift_profiles", "gauge", (), "Versions that have a reference profile."
)
DRIFT_ROWS: Final = _metric(
    _PUBLISHED, "gateway_drift_rows", "counter", (), "Rows that were counted for drift since the start."
)
DRIFT_FAILURES: Final = _metric(
    _PUBLISHED, "gateway_drift_failures", "counter", ("reason",), "What the drift monitor could not do, by reason."
)
MODEL_METRIC: Final = _metric(
    _PUBLISHED,
    "gateway_model_metric",
    "gauge",
    _PERFORMANCE,
    "Accuracy, ... of the rows with a label, of the newest day that has 200 or longer.",
)
MODEL_METRIC_BOUND: Final = _metric(
    _PUBLISHED,
    "gateway_model_metric_bound",
    "gauge",
    (*_PERFORMANCE, "bound"),
    "low and high: 95 % interval of gateway_model_metric.",
)
MODEL_METRIC_CHANGE: Final = _metric(
    _PUBLISHED,
    "gateway_model_metric_change",
    "gauge",
    _PERFORMANCE,
    "gateway_model_metric less what it was of the labelled rows of the profile.",
)
MODEL_METRIC_STATE: Final = _metric(
    _PUBLISHED,
    "gateway_model_metric_state",
    "gauge",
    _PERFORMANCE,
    "0: not worse than chance explains, 1: warn, 2: crit, -1: too few labels.",
)
MODEL_LABELS: Final = _metric(
    _PUBLISHED, "gateway_model_metric_labels", "gauge", _LOGGED, "Labels that gateway_model_metric rests on."
)
MODEL_LABELS_UNKNOWN: Final = _metric(
    _PUBLISHED,
    "gateway_model_metric_unknown_labels",
    "gauge",
    _LOGGED,
    "Labels of that window that are no class of the model, left out.",
)
MODEL_METRIC_END: Final = _metric(
    _PUBLISHED,
    "gateway_model_metric_window_end_seconds",
    "gauge",
    _LOGGED,
    "Arrival of the newest row with a label, since the epoch.",
)
MODEL_ESTIMATED: Final = _metric(
    _PUBLISHED,
    "gateway_model_metric_estimated",
    "gauge",
    _PERFORMANCE,
    "What the metric probably is, labels or not. Blind to concept drift.",
)
MODEL_ESTIMATED_BOUND: Final = _metric(
    _PUBLISHED,
    "gateway_model_metric_estimated_bound",
    "gauge",
    (*_PERFORMANCE, "bound"),
    "low and high: 95 % band of model_metric_estimated.",
)
MODEL_ESTIMATED_CHANGE: Final = _metric(
    _PUBLISHED,
    "gateway_model_metric_estimated_change",
    "gauge",
    _PERFORMANCE,
    "gateway_model_metric_estimated less the metric of the profile's labels.",
)
MODEL_ESTIMATED_STATE: Final = _metric(
    _PUBLISHED,
    "gateway_model_metric_estimated_state",
    "gauge",
    _PERFORMANCE,
    "0: ok, 1: warn, 2: crit, -1: too few labels in the profile.",
)
MODEL_ESTIMATED_ROWS: Final = _metric(
    _PUBLISHED,
    "gateway_model_metric_estimated_rows",
    "gauge",
    _LOGGED,
    "Sampled rows of the newest day that the estimate rests on.",
)
PERFORMANCE_LOOKED: Final = _metric(
    _PUBLISHED,
    "gateway_model_metric_looked_seconds",
    "gauge",
    (),
    "When labelled performance was last looked at, since the epoch.",
)
