"""Every metric that the gateway exports: its name, kind, labels and meaning. Nothing else names a metric.

The `nv_inference_*` ones are Triton's and mean what they mean there, so that its dashboards work; text format 0.0.4 as
prometheus-client writes it would add `_total` to a counter's name, so those are exported as untyped.

Source: Triton, docs/user_guide/metrics.md.
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram", "summary", "unknown", "info"]


@dataclass(frozen=True, slots=True)
class MetricName:
    """`name` without the `_total` that a counter's samples end with."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


_ARM: Final = ("model", "version", "arm")
_VERSION: Final = ("model", "version")

REQUESTS: Final = MetricName("gateway_requests", "counter", (*_ARM, "code"), "Calls that had a version, by outcome.")
REFUSED: Final = MetricName("gateway_refused", "counter", ("code",), "Calls refused before they had a version.")
REQUEST_SECONDS: Final = MetricName(
    "gateway_request_seconds", "histogram", _ARM, "From the arrival of a call to its answer."
)
QUEUE_SECONDS: Final = MetricName("gateway_queue_seconds", "histogram", _ARM, "How long a call waited to be run.")
COMPUTE_SECONDS: Final = MetricName("gateway_compute_seconds", "histogram", _ARM, "How long the model ran for a call.")
BATCH_ROWS: Final = MetricName("gateway_batch_rows", "histogram", _VERSION, "Items that ran together.")
RUNS_SECONDS: Final = MetricName("gateway_run_seconds", "counter", _VERSION, "Time spent in runs of the model.")

ROUTE_REVISION: Final = MetricName("gateway_route_revision", "gauge", ("worker",), "Revision of the rules in force.")
ROUTE_STALE_SECONDS: Final = MetricName(
    "gateway_route_stale_seconds", "gauge", ("worker",), "Time since the rules' store was last heard; 0 while live."
)
ROUTE_AGE_SECONDS: Final = MetricName(
    "gateway_route_age_seconds", "gauge", ("worker",), "Time since the rules in force were committed."
)
FEED_STATE: Final = MetricName(
    "gateway_feed_state", "gauge", ("worker", "state"), "1 for the state of the rules' feed."
)
ROUTE_APPLY_SECONDS: Final = MetricName(
    "gateway_route_apply_seconds", "histogram", (), "From the commit of a route to its being in force in a worker."
)

FALLBACKS: Final = MetricName(
    "gateway_fallbacks", "counter", ("model", "arm", "why"), "Calls that left this arm for the next one of the chain."
)
BREAKER_STATE: Final = MetricName(
    "gateway_breaker_state", "gauge", ("worker", "model", "arm"), "0: closed, 1: half open, 2: open (left out)."
)
SHADOWS: Final = MetricName(
    "gateway_shadow", "counter", ("model", "arm", "outcome"), "Copies of calls to this mirror, by what became of them."
)
SHADOW_ROWS: Final = MetricName(
    "gateway_shadow_rows", "counter", ("model", "arm", "argmax"), "Rows by whether the highest score is the same one."
)
SHADOW_DIFFERENCE: Final = MetricName(
    "gateway_shadow_max_abs_difference",
    "gauge",
    ("worker", "model", "arm"),
    "Largest difference of the present version of a mirror from what was served.",
)

LOG_ROWS: Final = MetricName("gateway_log_rows", "counter", ("outcome",), "Rows of the prediction log: seen, ...")
LOG_DROPPED: Final = MetricName("gateway_log_dropped", "counter", ("reason",), "Rows that were lost, and why.")
LOG_WITHHELD: Final = MetricName(
    "gateway_log_withheld", "counter", ("reason",), "Rows that were written without their tensors, and why."
)
LOG_BLOCKED: Final = MetricName(
    "gateway_log_blocked_seconds", "counter", (), "How long answers waited for room in the log, together."
)
LOG_BUFFER: Final = MetricName("predlog_buffer_bytes", "gauge", ("worker",), "What waits for the disk.")
LOG_SCALE: Final = MetricName(
    "predlog_sample_scale", "gauge", ("worker",), "Factor of all rates: below 1 while buffer or disk are nearly full."
)
LOG_FLUSH: Final = MetricName("predlog_flush_seconds", "summary", (), "Writes of the log, and their time.")
LABELS: Final = MetricName(
    "gateway_labels", "counter", ("outcome",), "Labels that callers sent: accepted, refused, unwritten."
)
LABEL_COVERAGE: Final = MetricName(
    "label_coverage_ratio", "gauge", _VERSION, "Share of the rows answered in the last seven days that have a label."
)
LABEL_DELAY: Final = MetricName(
    "label_delay_seconds", "histogram", ("model",), "From the arrival of a request to the receipt of its first label."
)
LABELS_UNMATCHED: Final = MetricName(
    "label_unmatched", "counter", ("model",), "Labels of rows that are not among those logged in the last seven days."
)
COMPACTED: Final = MetricName("predlog_compacted", "counter", ("what",), "In Parquet: segments, rows, labels.")
COMPACTOR_EVENTS: Final = MetricName(
    "predlog_compactor_events", "counter", ("what",), "adopted, torn_bytes, expired_files, ..."
)
QUARANTINED: Final = MetricName("predlog_quarantined", "counter", ("reason",), "What could not be read, set aside.")
OLDEST_SEALED: Final = MetricName(
    "predlog_oldest_sealed_age_seconds", "gauge", (), "Age of the oldest segment that waits to become Parquet."
)
PENDING_BYTES: Final = MetricName("predlog_pending_bytes", "gauge", (), "Segments that wait to become Parquet.")
SINK_LAG: Final = MetricName("predlog_sink_lag_rows", "gauge", ("sink",), "Rows that wait for a sink.")
SINK_ERRORS: Final = MetricName("predlog_sink_errors", "counter", ("sink",), "Deliveries that failed.")
SINK_ROWS: Final = MetricName(
    "predlog_sink_rows", "counter", ("sink", "outcome"), "Rows of a sink: delivered, expired, refused, evicted."
)

VERSION_STATE: Final = MetricName(
    "gateway_version_state", "gauge", ("worker", *_VERSION, "state"), "1 for the state of a version in a worker."
)
IN_FLIGHT: Final = MetricName("gateway_requests_in_flight", "gauge", ("worker",), "Calls begun and not finished.")
WORKER_READY: Final = MetricName("gateway_worker_ready", "gauge", ("worker",), "1 while the worker serves.")
TLS_NOT_AFTER: Final = MetricName(
    "gateway_tls_not_after_seconds", "gauge", ("worker",), "When the certificate in force ends, since the Unix epoch."
)
TLS_TROUBLE: Final = MetricName(
    "gateway_tls_trouble", "gauge", ("worker",), "1 while the certificate's files hold what cannot be taken."
)
PROCESS_STATE: Final = MetricName(
    "gateway_process_state", "gauge", ("role", "slot", "state"), "1 for the state of a process of the gateway."
)
PROCESS_RESTARTS: Final = MetricName(
    "gateway_process_restarts", "counter", ("role", "slot"), "How often a process was started again after it died."
)
EVENTS: Final = MetricName("gateway_events", "counter", ("type",), "Events that were told, by type.")
WEBHOOK: Final = MetricName(
    "gateway_webhook", "counter", ("outcome",), "Events for the webhook: delivered, retried, refused, failed, dropped."
)
WEBHOOK_WAITING: Final = MetricName("gateway_webhook_waiting", "gauge", (), "Events that wait for the webhook.")
BUILD: Final = MetricName("gateway_build", "info", ("version",), "The gateway that answers.")

NV_SUCCESS: Final = MetricName("nv_inference_request_success", "unknown", _VERSION, "Successful requests.")
NV_FAILURE: Final = MetricName("nv_inference_request_failure", "unknown", (*_VERSION, "reason"), "Failed requests.")
NV_COUNT: Final = MetricName("nv_inference_count", "unknown", _VERSION, "Inferences: items of all batches.")
NV_EXEC_COUNT: Final = MetricName("nv_inference_exec_count", "unknown", _VERSION, "Runs of the model.")
NV_REQUEST_US: Final = MetricName("nv_inference_request_duration_us", "unknown", _VERSION, "Time of all requests.")
NV_QUEUE_US: Final = MetricName("nv_inference_queue_duration_us", "unknown", _VERSION, "Time in the queue.")
NV_INPUT_US: Final = MetricName("nv_inference_compute_input_duration_us", "unknown", _VERSION, "Time on inputs.")
NV_INFER_US: Final = MetricName("nv_inference_compute_infer_duration_us", "unknown", _VERSION, "Time in the model.")
NV_OUTPUT_US: Final = MetricName("nv_inference_compute_output_duration_us", "unknown", _VERSION, "Time on outputs.")

_DRIFT: Final = (*_ARM, "kind", "feature")
DRIFT_SCORE: Final = MetricName(
    "drift_score", "gauge", (*_DRIFT, "stat", "window"), "Debiased PSI, largest gap of a category, share that vanished."
)
DRIFT_STATE: Final = MetricName(
    "drift_state", "gauge", (*_DRIFT, "window"), "0: ok, 1: warn, 2: crit, -1: too few rows to tell."
)
DRIFT_ARM_STATE: Final = MetricName(
    "drift_arm_state",
    "gauge",
    (*_ARM, "window"),
    "The worst state of a feature of the arm that could be judged.",
)
DRIFT_WINDOW_ROWS: Final = MetricName("drift_window_rows", "gauge", (*_ARM, "window"), "Rows of the newest window.")
DRIFT_WINDOW_END: Final = MetricName(
    "drift_window_end_seconds", "gauge", (*_ARM, "window"), "When the newest window ended, since the epoch."
)
DRIFT_MISSING: Final = MetricName("missing_ratio", "gauge", _DRIFT, "Rows without a value, null or NaN.")
DRIFT_UNSEEN: Final = MetricName(
    "unseen_category_ratio", "gauge", _DRIFT, "Rows with a category that the reference does not know."
)
DRIFT_OUT_OF_RANGE: Final = MetricName(
    "out_of_range_ratio", "gauge", _DRIFT, "Rows with a number outside of the reference's range."
)
PREDICTION_MEAN: Final = MetricName(
    "prediction_mean", "gauge", (*_ARM, "feature"), "Mean of an output in the newest window."
)
DRIFT_CUSUM: Final = MetricName(
    "drift_cusum",
    "gauge",
    (*_ARM, "signal", "side"),
    "Cumulative sum of score or error share; above 5: shifted.",
)
ARMS_SCORE: Final = MetricName(
    "arms_score", "gauge", (*_ARM, "against", "feature"), "Debiased PSI of an output between two arms."
)
ARMS_STATE: Final = MetricName(
    "arms_state", "gauge", (*_ARM, "against", "feature"), "0: same, 1: warn, 2: crit, -1: too few rows to tell."
)
SPLIT_STATE: Final = MetricName(
    "split_state", "gauge", ("model",), "0: buckets are hit evenly, 1: warn, 2: crit, -1: too few requests to tell."
)
SPLIT_MISMATCH: Final = MetricName(
    "split_mismatch_ratio",
    "gauge",
    ("model",),
    "Share of requests that would fall elsewhere if all buckets were hit alike.",
)
SHADOW_AGREEMENT: Final = MetricName(
    "shadow_agreement_ratio", "gauge", _ARM, "Share of a mirror's answers that agree with the served ones."
)
SHADOW_AGREEMENT_STATE: Final = MetricName(
    "shadow_agreement_state", "gauge", _ARM, "0: ok, 1: below 0.99, 2: below 0.95, -1: too few pairs to tell."
)
SHADOW_PAIRS: Final = MetricName("shadow_pairs", "gauge", _ARM, "Pairs that the agreement is taken over.")
DRIFT_LOOKED: Final = MetricName(
    "drift_looked_seconds", "gauge", (), "When the drift monitor last looked, since the epoch."
)
DRIFT_WINDOW: Final = MetricName("drift_window_seconds", "gauge", (), "Length of the windows that drift is judged by.")
DRIFT_PROFILES: Final = MetricName("drift_profiles", "gauge", (), "Versions that have a reference profile.")
DRIFT_ROWS: Final = MetricName("drift_rows", "counter", (), "Rows that were counted for drift since the start.")
DRIFT_FAILURES: Final = MetricName(
    "drift_failures", "counter", ("reason",), "What the drift monitor could not do, by reason."
)

_METRIC: Final = (*_ARM, "name")
MODEL_METRIC: Final = MetricName(
    "model_metric",
    "gauge",
    _METRIC,
    "Accuracy, ... of the rows with a label, of the newest day that has 200 or longer.",
)
MODEL_METRIC_BOUND: Final = MetricName(
    "model_metric_bound", "gauge", (*_METRIC, "bound"), "low and high: 95 % interval of model_metric."
)
MODEL_METRIC_CHANGE: Final = MetricName(
    "model_metric_change", "gauge", _METRIC, "model_metric less what it was of the labelled rows of the profile."
)
MODEL_METRIC_STATE: Final = MetricName(
    "model_metric_state", "gauge", _METRIC, "0: not worse than chance explains, 1: warn, 2: crit, -1: too few labels."
)
MODEL_LABELS: Final = MetricName("model_metric_labels", "gauge", _ARM, "Labels that model_metric rests on.")
MODEL_LABELS_UNKNOWN: Final = MetricName(
    "model_metric_unknown_labels", "gauge", _ARM, "Labels of that window that are no class of the model, left out."
)
MODEL_METRIC_END: Final = MetricName(
    "model_metric_window_end_seconds", "gauge", _ARM, "Arrival of the newest row with a label, since the epoch."
)
MODEL_ESTIMATED: Final = MetricName(
    "model_metric_estimated", "gauge", _METRIC, "What the metric probably is, labels or not. Blind to concept drift."
)
MODEL_ESTIMATED_BOUND: Final = MetricName(
    "model_metric_estimated_bound", "gauge", (*_METRIC, "bound"), "low and high: 95 % band of model_metric_estimated."
)
MODEL_ESTIMATED_CHANGE: Final = MetricName(
    "model_metric_estimated_change", "gauge", _METRIC, "model_metric_estimated less the metric of the profile's labels."
)
MODEL_ESTIMATED_STATE: Final = MetricName(
    "model_metric_estimated_state", "gauge", _METRIC, "0: ok, 1: warn, 2: crit, -1: too few labels in the profile."
)
MODEL_ESTIMATED_ROWS: Final = MetricName(
    "model_metric_estimated_rows", "gauge", _ARM, "Sampled rows of the newest day that the estimate rests on."
)
PERFORMANCE_LOOKED: Final = MetricName(
    "model_metric_looked_seconds", "gauge", (), "When labelled performance was last looked at, since the epoch."
)

# What other processes than workers publish (gateway.telemetry.published).
PUBLISHED: Final = (
    COMPACTED, COMPACTOR_EVENTS, QUARANTINED, OLDEST_SEALED, PENDING_BYTES, LABEL_COVERAGE, LABEL_DELAY,
    LABELS_UNMATCHED, SINK_LAG, SINK_ERRORS, SINK_ROWS, DRIFT_SCORE, DRIFT_STATE, DRIFT_ARM_STATE,
    DRIFT_WINDOW_ROWS, DRIFT_WINDOW_END, DRIFT_MISSING, DRIFT_UNSEEN, DRIFT_OUT_OF_RANGE, PREDICTION_MEAN,
    DRIFT_CUSUM, ARMS_SCORE, ARMS_STATE, SPLIT_STATE, SPLIT_MISMATCH, SHADOW_AGREEMENT, SHADOW_AGREEMENT_STATE,
    SHADOW_PAIRS, DRIFT_LOOKED, DRIFT_WINDOW, DRIFT_PROFILES, DRIFT_ROWS, DRIFT_FAILURES, MODEL_METRIC,
    MODEL_METRIC_BOUND, MODEL_METRIC_CHANGE, MODEL_METRIC_STATE, MODEL_LABELS, MODEL_LABELS_UNKNOWN,
    MODEL_METRIC_END, MODEL_ESTIMATED, MODEL_ESTIMATED_BOUND, MODEL_ESTIMATED_CHANGE, MODEL_ESTIMATED_STATE,
    MODEL_ESTIMATED_ROWS, PERFORMANCE_LOOKED,
)  # fmt: skip
