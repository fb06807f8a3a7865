"""The alert rules that are shipped: rules of Prometheus, of metrics that the gateway exports, with a page on each."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from gateway.telemetry import names
from gateway.telemetry.names import METRICS, MetricName
from tests.telemetry.firing import RULES

ROOT = Path(__file__).parents[2]
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}
DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: list[dict[str, Any]] = [rule for group in GROUPS for rule in group["rules"]]


def exported(name: str) -> MetricName | None:
    """The metric that a sample of this name belongs to."""
    for metric in METRICS.values():
        if name in [metric.name + suffix for suffix in SUFFIXES.get(metric.kind, ("",))]:
            return metric
    return None


def selectors(node: Any) -> Iterator[Any]:
    """Every selector of an expression, and everything that names labels."""
    kind = type(node).__name__
    if kind == "VectorSelector":
        yield node
    elif kind == "MatrixSelector":
        yield node.vector_selector
    elif kind == "BinaryExpr":
        yield from selectors(node.lhs)
        yield from selectors(node.rhs)
    elif kind == "Call":
        for argument in node.args:
            yield from selectors(argument)
    elif hasattr(node, "expr"):
        yield from selectors(node.expr)


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    texts = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in texts}


def test_the_file_has_the_form_of_a_rule_file() -> None:
    document = yaml.safe_load(RULES.read_text())
    assert set(document) == {"groups"}
    assert len({group["name"] for group in GROUPS}) == len(GROUPS)
    for group in GROUPS:
        assert set(group) == {"name", "rules"}
    alerts = [rule["alert"] for rule in ALERTS]
    assert len(set(alerts)) == len(alerts)
    wanted = {"PredictionLogDropping", "LogCompactorStalled", "LogDiskWatermark", "DriftWarning", "DriftCritical"}
    wanted |= {"PredictionDrift", "ShadowDisagreement", "LabelsStale", "DriftMonitorSilent", "VersionFlipped"}
    wanted |= {"AccuracyDrop", "EstimatedPerformanceDrop"}
    assert wanted <= set(alerts)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_a_rule_is_one_that_prometheus_takes_and_the_gateway_has_metrics_for(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"[A-Za-z]+", rule["alert"])
    assert "for" not in rule or DURATION.fullmatch(rule["for"])
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    used = list(selectors(promql_parser.parse(rule["expr"])))
    assert used
    for selector in used:
        metric = exported(selector.name)
        assert metric is not None, f"{selector.name} is no metric of the gateway's"
        for matcher in selector.matchers.matchers:
            assert matcher.name in metric.labels, f"{selector.name} has no label {matcher.name}"
    of_metrics = {label for selector in used for label in (exported(selector.name) or names.BUILD).labels}
    shown = re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
    assert set(shown) <= of_metrics | {"instance"}


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_a_rule_says_where_to_read_what_to_do(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (ROOT / page).is_file()
    assert anchor in headings(ROOT / page)


def test_the_runbook_of_serving_is_of_alerts_that_there_are() -> None:
    page = (ROOT / "docs" / "alerts.md").read_text()
    sections = set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    of_page = {rule["alert"] for rule in ALERTS if rule["annotations"]["runbook_url"].startswith("docs/alerts.md#")}
    assert sections == {alert for alert in of_page if alert != "CertificateEndsSoon"}
    named = {word for word in re.findall(r"`(\w+)`", page) if word[0].isupper() and not word.isupper()}
    assert named - {"LimitNOFILE"} <= {rule["alert"] for rule in ALERTS}
