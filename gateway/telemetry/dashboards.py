"""Grafana dashboards, made from a table: what each panel asks Prometheus for, and what its values are.

    python -m gateway.telemetry.dashboards docs/dashboards

Source: Grafana, dashboard JSON model.
"""

# ruff: noqa: E501
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEIGHT: Final = 8
_WIDTH: Final = 8  # of 24: three panels beside each other
_SCHEMA: Final = 39
_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_HOST: Final = 'instance=~"$instance"'
_MODEL: Final = f'{_HOST},model=~"$model"'
_RATE: Final = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class DashboardPanel:
    """`queries` are expressions with the legend of their series; `unit` is Grafana's name of it."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    about: str = ""


@dataclass(frozen=True, slots=True)
class DashboardSheet:
    """One dashboard. `variables` are the labels to choose by, each with the metric whose values of it are offered."""

    name: str
    title: str
    variables: Sequence[tuple[str, str]]
    panels: Sequence[DashboardPanel]


def _quantiles(metric: str, labels: str, by: str, legend: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (
            f"histogram_quantile({share}, sum by ({by}, le) (rate({metric}_bucket{{{labels}}}{_RATE})))",
            f"p{name} {legend}",
        )
        for share, name in ((0.5, 50), (0.99, 99))
    )


def _rate(metric: str, labels: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{labels}}}{_RATE}))"


_FAILED: Final = 'code=~"INTERNAL|UNAVAILABLE|FAILED_PRECONDITION|DEADLINE_EXCEEDED"'
_INSTANCE: Final = ("instance", "gateway_build_info")
_MODELS: Final = ("model", "gateway_version_state")
_ARM: Final = "{{version}} {{arm}}"
_PROCESS: Final = "{{instance}} {{role}}-{{slot}}"

SHEETS: Final = (
    DashboardSheet(
        "fleet",
        "Gateway: fleet",
        (_INSTANCE,),
        (
            DashboardPanel("Workers that serve", ((f"sum by (instance) (gateway_worker_ready{{{_HOST}}})", "{{instance}}"),), kind="stat"),
            DashboardPanel("Release", ((f"gateway_build_info{{{_HOST}}}", "{{instance}} {{version}}"),), kind="stat"),
            DashboardPanel("State of the rules' feed", ((f"sum by (state) (gateway_feed_state{{{_HOST}}})", "{{state}}"),), kind="stat"),
            DashboardPanel("Calls", ((_rate("gateway_requests_total", _HOST, "code"), "{{code}}"),), "reqps"),
            DashboardPanel("Calls refused before they had a version", ((_rate("gateway_refused_total", _HOST, "code"), "{{code}}"),), "reqps"),
            DashboardPanel("Latency", _quantiles("gateway_request_seconds", _HOST, "instance", "{{instance}}"), "s"),
            DashboardPanel("CPU", ((_rate("gateway_process_cpu_seconds_total", _HOST, "instance, role, slot"), _PROCESS),), about="In cores."),
            DashboardPanel("Memory", ((f"gateway_process_resident_memory_bytes{{{_HOST}}}", _PROCESS),), "bytes"),
            DashboardPanel("Descriptors", ((f"gateway_process_open_fds{{{_HOST}}} / gateway_process_max_fds{{{_HOST}}}", _PROCESS),), "percentunit"),
            DashboardPanel("Calls in flight", ((f"sum by (instance) (gateway_requests_in_flight{{{_HOST}}})", "{{instance}}"),)),
            DashboardPanel(
                "Bytes in flight",
                (
                    (f"sum by (instance) (gateway_requests_in_flight_bytes{{{_HOST}}})", "requests {{instance}}"),
                    (f"sum by (instance) (gateway_answers_unread_bytes{{{_HOST}}})", "unread answers {{instance}}"),
                    (f"sum by (instance) (gateway_log_buffer_bytes{{{_HOST}}})", "log {{instance}}"),
                ),
                "bytes",
            ),
            DashboardPanel("Connections", ((f"sum by (instance) (gateway_connections{{{_HOST}}})", "{{instance}}"),)),
            DashboardPanel("Restarts", ((f"sum by (instance, role, slot) (increase(gateway_process_restarts_total{{{_HOST}}}[1h]))", _PROCESS),)),
            DashboardPanel("Rules: time since the store was heard", ((f"max by (instance) (gateway_route_stale_seconds{{{_HOST}}})", "{{instance}}"),), "s"),
            DashboardPanel("Certificate ends in", ((f"min by (instance) (gateway_tls_not_after_seconds{{{_HOST}}}) - time()", "{{instance}}"),), "s", "stat"),
            DashboardPanel("Records of the prediction log", ((_rate("gateway_log_records_total", _HOST, "outcome"), "{{outcome}}"),), "ops"),
            DashboardPanel("Records lost", ((_rate("gateway_log_dropped_total", _HOST, "reason"), "{{reason}}"),), "ops"),
            DashboardPanel("Events", ((f"sum by (type) (increase(gateway_events_total{{{_HOST}}}[1h]))", "{{type}}"),), about="Of the last hour."),
        ),
    ),
    DashboardSheet(
        "model",
        "Gateway: model",
        (_INSTANCE, _MODELS),
        (
            DashboardPanel("Calls", ((_rate("gateway_requests_total", _MODEL, "version, arm"), _ARM),), "reqps"),
            DashboardPanel(
                "Share that fails",
                ((f"{_rate('gateway_requests_total', f'{_MODEL},{_FAILED}', 'version, arm')} / {_rate('gateway_requests_total', _MODEL, 'version, arm')}", _ARM),),
                "percentunit",
                about="By no fault of the client.",
            ),
            DashboardPanel("Codes", ((_rate("gateway_requests_total", _MODEL, "code"), "{{code}}"),), "reqps"),
            DashboardPanel("Latency", _quantiles("gateway_request_seconds", _MODEL, "version, arm", _ARM), "s"),
            DashboardPanel("Wait for a run", _quantiles("gateway_queue_seconds", _MODEL, "version, arm", _ARM), "s"),
            DashboardPanel("Run", _quantiles("gateway_compute_seconds", _MODEL, "version, arm", _ARM), "s"),
            DashboardPanel("Queue", ((f"sum by (version) (gateway_queue_length{{{_MODEL}}})", "{{version}}"),)),
            DashboardPanel(
                "Rows of a run",
                ((f"{_rate('gateway_batch_rows_sum', _MODEL, 'version')} / {_rate('gateway_batch_rows_count', _MODEL, 'version')}", "{{version}}"),),
            ),
            DashboardPanel("CPU of runs", ((_rate("gateway_run_cpu_seconds_total", _MODEL, "version, arm"), _ARM),), about="In cores."),
            DashboardPanel("States of versions", ((f"sum by (version, state) (gateway_version_state{{{_MODEL}}})", "{{version}} {{state}}"),), kind="table"),
            DashboardPanel("Workers that died of it", ((f"max by (version) (gateway_worker_deaths{{{_MODEL}}})", "{{version}}"),), kind="stat"),
            DashboardPanel("Quarantined", ((f"max by (version) (gateway_version_quarantined{{{_MODEL}}})", "{{version}}"),), kind="stat"),
        ),
    ),
    DashboardSheet(
        "rollout",
        "Gateway: rollout",
        (_INSTANCE, _MODELS),
        (
            DashboardPanel("Shares of the arms", ((f"{_rate('gateway_requests_total', _MODEL, 'arm')} / on () group_left () sum(rate(gateway_requests_total{{{_MODEL}}}{_RATE}))", "{{arm}}"),), "percentunit"),
            DashboardPanel(
                "Share that fails",
                ((f"{_rate('gateway_requests_total', f'{_MODEL},{_FAILED}', 'arm')} / {_rate('gateway_requests_total', _MODEL, 'arm')}", "{{arm}}"),),
                "percentunit",
            ),
            DashboardPanel("Latency", _quantiles("gateway_request_seconds", _MODEL, "arm", "{{arm}}"), "s"),
            DashboardPanel("Revision of the rules", ((f"max by (instance) (gateway_route_revision{{{_HOST}}})", "{{instance}}"),)),
            DashboardPanel("Steps, promotions, stops", ((f'sum by (type) (increase(gateway_events_total{{{_HOST},type=~"rollout.*|route.*"}}[1h]))', "{{type}}"),), about="Of all models, in the last hour."),
            DashboardPanel("Time until a route serves", _quantiles("gateway_route_apply_seconds", _HOST, "instance", "{{instance}}"), "s"),
            DashboardPanel("Calls that left an arm", ((_rate("gateway_fallbacks_total", _MODEL, "arm, why"), "{{arm}} {{why}}"),), "reqps"),
            DashboardPanel("Breakers", ((f"max by (arm) (gateway_breaker_state{{{_MODEL}}})", "{{arm}}"),), about="0 closed, 1 half open, 2 open."),
            DashboardPanel("CPU of runs", ((_rate("gateway_run_cpu_seconds_total", _MODEL, "arm"), "{{arm}}"),), about="In cores."),
            DashboardPanel("Copies to mirrors", ((_rate("gateway_shadow_total", _MODEL, "arm, outcome"), "{{arm}} {{outcome}}"),), "reqps"),
            DashboardPanel("Mirrors agree", ((f"min by (arm) (gateway_shadow_agreement_ratio{{{_MODEL}}})", "{{arm}}"),), "percentunit"),
            DashboardPanel("Split", ((f"max by (model) (gateway_split_state{{{_MODEL}}})", "{{model}}"),), kind="stat", about="0 as the route says, 1 warn, 2 crit, -1 too few requests."),
        ),
    ),
    DashboardSheet(
        "drift",
        "Gateway: drift and performance",
        (_INSTANCE, _MODELS),
        (
            DashboardPanel("Worst state of an arm", ((f"max by (version, arm, role) (gateway_drift_arm_state{{{_MODEL}}})", "{{version}} {{arm}} {{role}}"),), kind="stat", about="0 ok, 1 warn, 2 crit, -1 too few rows."),
            DashboardPanel("Inputs", ((f'max by (feature, stat) (gateway_drift_score{{{_MODEL},kind="input",role="serving"}})', "{{feature}} {{stat}}"),)),
            DashboardPanel("Outputs", ((f'max by (feature, stat) (gateway_drift_score{{{_MODEL},kind="output",role="serving"}})', "{{feature}} {{stat}}"),)),
            DashboardPanel("Missing values", ((f'max by (feature) (gateway_missing_ratio{{{_MODEL},role="serving"}})', "{{feature}}"),), "percentunit"),
            DashboardPanel("Unseen categories", ((f'max by (feature) (gateway_unseen_category_ratio{{{_MODEL},role="serving"}})', "{{feature}}"),), "percentunit"),
            DashboardPanel("Out of range", ((f'max by (feature) (gateway_out_of_range_ratio{{{_MODEL},role="serving"}})', "{{feature}}"),), "percentunit"),
            DashboardPanel("Mean of outputs", ((f'max by (version, arm, feature) (gateway_prediction_mean{{{_MODEL},role="serving"}})', "{{version}} {{arm}} {{feature}}"),)),
            DashboardPanel("Rows of the newest window", ((f"sum by (version, arm) (gateway_drift_window_rows{{{_MODEL}}})", _ARM),)),
            DashboardPanel("Monitor last looked", ((f"time() - max by (instance) (gateway_drift_looked_seconds{{{_HOST}}})", "{{instance}}"),), "s", "stat"),
            DashboardPanel("Performance by labels", ((f'max by (name, version, arm) (gateway_model_metric{{{_MODEL},role="serving"}})', "{{name}} {{version}} {{arm}}"),)),
            DashboardPanel("Performance, estimated", ((f'max by (name, version, arm) (gateway_model_metric_estimated{{{_MODEL},role="serving"}})', "{{name}} {{version}} {{arm}}"),)),
            DashboardPanel("Rows with a label", ((f"min by (version) (gateway_label_coverage_ratio{{{_MODEL}}})", "{{version}}"),), "percentunit"),
        ),
    ),
)  # fmt: skip


def dashboard(sheet: DashboardSheet) -> dict[str, object]:
    """Returns the dashboard as Grafana imports it."""
    return {
        "uid": f"gateway-{sheet.name}",
        "title": sheet.title,
        "tags": ["gateway"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": _SCHEMA,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": list(_variables(sheet))},
        "panels": [_panel(number, panel) for number, panel in enumerate(sheet.panels)],
    }


def as_json(sheet: DashboardSheet) -> str:
    """Returns the text of the sheet's file."""
    return json.dumps(dashboard(sheet), indent=1) + "\n"


def _variables(sheet: DashboardSheet) -> Iterator[dict[str, object]]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    for label, metric in sheet.variables:
        yield {
            "name": label,
            "type": "query",
            "datasource": _DATASOURCE,
            "query": f"label_values({metric}, {label})",
            "refresh": 2,
            "includeAll": True,
            "multi": True,
            "sort": 1,
            "current": {"text": "All", "value": "$__all"},
        }


def _panel(number: int, panel: DashboardPanel) -> dict[str, object]:
    beside = 24 // _WIDTH
    place = {"h": _HEIGHT, "w": _WIDTH, "x": number % beside * _WIDTH, "y": number // beside * _HEIGHT}
    at_once = panel.kind != "timeseries"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _DATASOURCE,
            "expr": expression,
            "legendFormat": legend,
            "instant": at_once,
            "range": not at_once,
            "exemplar": "gateway_request_seconds_bucket" in expression and not at_once,
        }
        for index, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": {},
        "targets": targets,
    }


def main(folder: Path) -> None:
    """Writes all of them."""
    for sheet in SHEETS:
        (folder / f"{sheet.name}.json").write_text(as_json(sheet), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
