"""For each shipped alert but `GatewayAbsent`, which is of no instance: series for which it fires, with which labels, and series for which it does not.

Values are those of promtool: one a minute, `3x20` stands for twenty-one times the value 3, `0+6x20` for a rise by 6 a
minute. A test gives each of these an instance of its own.
"""
# ruff: noqa: E501

from collections.abc import Mapping
from dataclasses import dataclass

Series = Mapping[str, str]
UP: Series = {"gateway_build_info{version='1'}": "1x400"}
_ARM = "model='m',version='1',arm='a',role='serving'"
_MIRROR = "model='m',version='1',arm='a',role='mirror'"
_FEATURE = f"{_ARM},feature='x',window='1h'"
_V = "model='m',version='1'"
_ARM_LABELS = {"model": "m", "version": "1", "arm": "a", "role": "serving"}
_MIRROR_LABELS = {**_ARM_LABELS, "role": "mirror"}
_FEATURE_LABELS = {**_ARM_LABELS, "feature": "x", "window": "1h"}
_VERSION = {"model": "m", "version": "1"}


@dataclass(frozen=True)
class AlertCase:
    """`fires` makes the alert fire at minute `at`, with these labels beside its own; `quiet` does not."""

    alert: str
    fires: Series
    quiet: Series
    labels: Mapping[str, str]
    at: int = 20


def _rising(alert: str, series: str, labels: Mapping[str, str], at: int = 20) -> AlertCase:
    """A counter that rises, and one that is high and stands still."""
    return AlertCase(alert, {series: "0+60x400"}, {series: "60x400"}, labels, at)


def _gauge(alert: str, series: str, fires: float, quiet: float, labels: Mapping[str, str], at: int = 35) -> AlertCase:
    return AlertCase(alert, {series: f"{fires}x400"}, {series: f"{quiet}x400"}, labels, at)


def _requests(code: str, bad: str, good: str) -> Series:
    return {
        f"gateway_requests_total{{{_V},arm='a',code='OK'}}": f"0+{good}x400",
        f"gateway_requests_total{{{_V},arm='a',code='{code}'}}": f"0+{bad}x400",
    }


def _latencies(metric: str, within: str, beyond: str) -> Series:
    bucket = f"{metric}_bucket{{{_V},arm='a',le="
    return {
        bucket + "'0.1'}": f"0+{within}x400",
        bucket + "'5'}": f"0+{beyond}x400",
        bucket + "'+Inf'}": f"0+{beyond}x400",
    }


_WORKER = {"worker": "0"}
_SLOT = {"role": "worker", "slot": "0"}
CASES = [
    AlertCase("GatewayUnreachable", {"gateway_build_info{version='1'}": "1x5 _x400"}, UP, {}),
    AlertCase("NoWorkerReady", UP, {**UP, "gateway_worker_ready{worker='0'}": "1x400", "gateway_worker_ready{worker='1'}": "0x400"}, {}),
    AlertCase("NoWorkerReady", {**UP, "gateway_worker_ready{worker='0'}": "0x400"}, {**UP, "gateway_worker_ready{worker='0'}": "1x400"}, {}),
    _gauge("WorkerNotReady", "gateway_worker_ready{worker='0'}", 0, 1, _WORKER),
    AlertCase(
        "WorkerSilent",
        {"gateway_process_state{role='worker',slot='0',state='READY'}": "1x400", "gateway_worker_ready{worker='1'}": "1x400"},
        {"gateway_process_state{role='worker',slot='0',state='READY'}": "1x400", "gateway_worker_ready{worker='0'}": "1x400"},
        {**_SLOT, **_WORKER, "state": "READY"},
    ),
    AlertCase(
        "ProcessRestarting",
        {"gateway_process_restarts_total{role='worker',slot='0'}": "0x10 1 2 3x400"},
        {"gateway_process_restarts_total{role='worker',slot='0'}": "3x400"},
        _SLOT,
    ),
    AlertCase(
        "ProcessDown",
        {"gateway_process_state{role='worker',slot='0',state='WAITING'}": "1x400"},
        {"gateway_process_state{role='worker',slot='0',state='STARTING'}": "1x400"},
        {**_SLOT, "state": "WAITING"},
    ),
    AlertCase(
        "WorkerRecycledOften",
        {"gateway_process_recycled_total{role='worker',slot='0'}": "0+0.2x400"},
        {"gateway_process_recycled_total{role='worker',slot='0'}": "0x30 1x400"},
        _SLOT,
        at=60,
    ),
    AlertCase(
        "DescriptorsShort",
        {"gateway_process_open_fds{role='worker',slot='0'}": "900x400", "gateway_process_max_fds{role='worker',slot='0'}": "1024x400"},
        {"gateway_process_open_fds{role='worker',slot='0'}": "90x400", "gateway_process_max_fds{role='worker',slot='0'}": "1024x400"},
        _SLOT,
    ),
    _gauge("RulesStale", "gateway_route_stale_seconds{worker='0'}", 300, 0, _WORKER),
    AlertCase(
        "RulesAhead",
        {"gateway_feed_state{worker='0',state='AHEAD'}": "1x400"},
        {"gateway_feed_state{worker='0',state='STALE'}": "1x400"},
        {**_WORKER, "state": "AHEAD"},
    ),
    AlertCase(
        "RulesDiffer",
        {"gateway_route_revision{worker='0'}": "7x400", "gateway_route_revision{worker='1'}": "8x400"},
        {"gateway_route_revision{worker='0'}": "8x400", "gateway_route_revision{worker='1'}": "8x400"},
        {},
    ),
    _rising("RouteRefused", "gateway_events_total{type='rules.poison'}", {"type": "rules.poison"}),
    AlertCase("ServerErrors", _requests("INTERNAL", "5", "95"), _requests("INTERNAL", "1", "99"), {"model": "m"}),
    AlertCase("ServerErrors", _requests("UNAVAILABLE", "9", "0"), _requests("INVALID_ARGUMENT", "95", "5"), {"model": "m"}),
    AlertCase("DeadlinesMissed", _requests("DEADLINE_EXCEEDED", "5", "95"), _requests("CANCELLED", "5", "95"), {"model": "m"}),
    AlertCase(
        "CallsRefused",
        {**_requests("CANCELLED", "0", "90"), "gateway_refused_total{code='RESOURCE_EXHAUSTED'}": "0+10x400"},
        {**_requests("CANCELLED", "0", "90"), "gateway_refused_total{code='NOT_FOUND'}": "0+10x400"},
        {},
    ),
    AlertCase("CallsRefused", {"gateway_refused_total{code='UNAVAILABLE'}": "0+10x400"}, UP, {}),
    AlertCase(
        "OverloadShed",
        {"gateway_shed_total{priority='default'}": "0+10x400"},
        {"gateway_shed_total{priority='sheddable'}": "0+10x400"},
        {"priority": "default"},
    ),
    AlertCase("LatencyHigh", _latencies("gateway_request_seconds", "90", "100"), _latencies("gateway_request_seconds", "100", "100"), {"model": "m"}),
    AlertCase("QueueWaitHigh", _latencies("gateway_queue_seconds", "90", "100"), _latencies("gateway_queue_seconds", "100", "100"), {"model": "m"}),
    _gauge("BreakerOpen", "gateway_breaker_state{worker='0',model='m',arm='a'}", 2, 1, {"model": "m", "arm": "a"}),
    _rising("FallbackServes", "gateway_fallbacks_total{model='m',arm='a',why='INTERNAL'}", {"model": "m", "arm": "a"}, at=30),
    _gauge("FeatureStoreAway", "gateway_feature_store_away{worker='0',store='shop'}", 1, 0, {"store": "shop"}),
    AlertCase(
        "FeaturesDefaulted",
        {
            "gateway_feature_values_total{model='users',status='value'}": "0+90x400",
            "gateway_feature_values_total{model='users',status='stale'}": "0+10x400",
        },
        {
            "gateway_feature_values_total{model='users',status='value'}": "0+90x400",
            "gateway_feature_values_total{model='users',status='missing'}": "0+10x400",
        },
        {"model": "users", "status": "stale"},
        at=35,
    ),
    _gauge("CertificateEnds", "gateway_tls_not_after_seconds{worker='0'}", 13 * 86400, 15 * 86400, {}),
    _gauge("CertificateEndsSoon", "gateway_tls_not_after_seconds{worker='0'}", 86400, 3 * 86400, {}),
    _gauge("CertificateBroken", "gateway_tls_trouble{worker='0'}", 1, 0, {}),
    AlertCase(
        "WebhookFailing",
        {"gateway_webhook_total{outcome='dropped'}": "0+10x400"},
        {"gateway_webhook_total{outcome='delivered'}": "0+10x400"},
        {"outcome": "dropped"},
    ),
    _rising("PredictionLogDropping", "gateway_log_dropped_total{reason='buffer'}", {"reason": "buffer"}),
    _gauge("AuditTrailLost", "gateway_audit_lost{worker='0'}", 1, 0, {}),
    _gauge("AccessFilesBroken", "gateway_access_trouble{worker='0'}", 1, 0, {}),
    _gauge("QuotaFileBroken", "gateway_quota_trouble{worker='0'}", 1, 0, {}),
    _gauge("LogCompactorStalled", "gateway_log_oldest_sealed_age_seconds", 700, 60, {}),
    *(
        AlertCase(
            "LogDiskWatermark",
            {f"gateway_log_dropped_total{{reason='{reason}'}}": "0+10x400"},
            {"gateway_log_dropped_total{reason='buffer'}": "0+10x400"},
            {},
        )
        for reason in ("disk_full", "disk_error", "disk_watermark")
    ),
    _gauge("PredictionLogSampling", "gateway_log_sample_scale{worker='0'}", 0.5, 1, {}),
    _rising("LogSegmentsLost", "gateway_log_compactor_events_total{what='lost_segments'}", {}),
    AlertCase(
        "LogWithoutTensors",
        {"gateway_log_withheld_total{reason='disk_watermark'}": "0+10x400"},
        {"gateway_log_withheld_total{reason='oversize'}": "0+10x400"},
        {},
    ),
    _rising("LogUnreadable", "gateway_log_quarantined_total{reason='torn'}", {"reason": "torn"}),
    AlertCase(
        "LabelsUnwritten",
        {"gateway_labels_total{outcome='unwritten'}": "0+10x400"},
        {"gateway_labels_total{outcome='refused'}": "0+10x400"},
        {},
    ),
    _rising("SinkFailing", "gateway_log_sink_errors_total{sink='s'}", {"sink": "s"}, at=40),
    _gauge("ModelRepositoryUnreadable", "gateway_repository_unreadable{worker='0'}", 1, 0, {}),
    AlertCase(
        "VersionFailed",
        {f"gateway_version_state{{worker='0',{_V},state='FAILED'}}": "1x400"},
        {f"gateway_version_state{{worker='0',{_V},state='LOADING'}}": "1x400"},
        _VERSION,
    ),
    _gauge("VersionQuarantined", f"gateway_version_quarantined{{worker='0',{_V}}}", 1, 0, _VERSION),
    _gauge("InputsRefused", f"gateway_refused_inputs{{worker='0',{_V}}}", 2, 0, _VERSION),
    _gauge("DriftWarning", f"gateway_drift_state{{{_FEATURE},kind='input'}}", 1, 0, {**_FEATURE_LABELS, "kind": "input"}, at=40),
    _gauge("DriftCritical", f"gateway_drift_state{{{_FEATURE},kind='input'}}", 2, 1, {**_FEATURE_LABELS, "kind": "input"}),
    _gauge("PredictionDrift", f"gateway_drift_state{{{_FEATURE},kind='output'}}", 1, -1, {**_FEATURE_LABELS, "kind": "output"}),
    _gauge(
        "PredictionShift",
        f"gateway_drift_cusum{{{_ARM},signal='score',side='higher'}}",
        6,
        4,
        {**_ARM_LABELS, "signal": "score", "side": "higher"},
    ),
    _gauge(
        "ErrorShareUp",
        f"gateway_drift_cusum{{{_ARM},signal='error',side='higher'}}",
        6,
        4,
        {**_ARM_LABELS, "signal": "error", "side": "higher"},
    ),
    AlertCase(
        "MissingValues",
        {
            f"gateway_missing_ratio{{{_ARM},kind='input',feature='x'}}": "0.1x400",
            f"gateway_drift_state{{{_FEATURE},kind='input'}}": "1x400",
        },
        {
            f"gateway_missing_ratio{{{_ARM},kind='input',feature='x'}}": "0.1x400",
            f"gateway_drift_state{{{_FEATURE},kind='input'}}": "0x400",
        },
        {**_ARM_LABELS, "kind": "input", "feature": "x"},
    ),
    _gauge(
        "ArmsDiffer",
        f"gateway_arms_state{{{_V},arm='b',against='a',feature='s'}}",
        1,
        0,
        {**_VERSION, "arm": "b", "against": "a", "feature": "s"},
        at=40,
    ),
    _gauge("ShadowDisagreement", f"gateway_shadow_agreement_state{{{_V},arm='b'}}", 2, -1, {**_VERSION, "arm": "b"}),
    _gauge("SplitRatioMismatch", "gateway_split_state{model='m'}", 1, 0, {"model": "m"}, at=40),
    _rising("ExperimentSplitBroken", "gateway_events_total{type='split.mismatch'}", {"type": "split.mismatch"}),
    AlertCase(
        "DriftMonitorSilent",
        {"gateway_drift_profiles": "1x400", "gateway_drift_looked_seconds": "0x400"},
        {"gateway_drift_profiles": "1x400", "gateway_drift_looked_seconds": "0+60x400"},
        {},
    ),
    AlertCase(
        "DriftWindowSilent",
        {
            f"gateway_drift_window_end_seconds{{{_ARM},window='1m'}}": "0x400",
            "gateway_drift_window_seconds": "60x400",
            **_requests("CANCELLED", "0", "60"),
        },
        {
            f"gateway_drift_window_end_seconds{{{_ARM},window='1m'}}": "0+60x400",
            "gateway_drift_window_seconds": "60x400",
            **_requests("CANCELLED", "0", "60"),
        },
        {**_VERSION, "arm": "a"},
        at=60,
    ),
    _rising("DriftMonitorFailing", "gateway_drift_failures_total{reason='disk'}", {"reason": "disk"}, at=40),
    AlertCase(
        "LabelsStale",
        {f"gateway_label_coverage_ratio{{{_V}}}": "0.001x400"},
        {f"gateway_label_coverage_ratio{{{_V}}}": "0.5x400"},
        _VERSION,
        at=390,
    ),
    _gauge("AccuracyDrop", f"gateway_model_metric_state{{{_ARM},name='accuracy'}}", 2, -1, {**_ARM_LABELS, "name": "accuracy"}),
    _gauge("MirrorWorse", f"gateway_model_metric_state{{{_MIRROR},name='accuracy'}}", 1, 0, {**_MIRROR_LABELS, "name": "accuracy"}),
    _gauge(
        "EstimatedPerformanceDrop",
        f"gateway_model_metric_estimated_state{{{_ARM},name='accuracy'}}",
        1,
        0,
        {**_ARM_LABELS, "name": "accuracy"},
        at=40,
    ),
    AlertCase(
        "LabelsUnknown",
        {f"gateway_model_metric_labels{{{_ARM}}}": "80x400", f"gateway_model_metric_unknown_labels{{{_ARM}}}": "20x400"},
        {f"gateway_model_metric_labels{{{_ARM}}}": "99x400", f"gateway_model_metric_unknown_labels{{{_ARM}}}": "1x400"},
        _ARM_LABELS,
        at=90,
    ),
    AlertCase(
        "PerformanceMonitorSilent",
        {"gateway_model_metric_looked_seconds": "0x400"},
        {"gateway_model_metric_looked_seconds": "0+60x400"},
        {},
    ),
    AlertCase(
        "VersionFlipped",
        {"gateway_route_revision{worker='0'}": "7x18 8x400"},
        {"gateway_route_revision{worker='0'}": "8x400"},
        {},
    ),
]  # fmt: skip
