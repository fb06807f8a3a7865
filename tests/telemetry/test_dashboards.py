"""The shipped dashboards: Grafana's own model takes them, and Prometheus their queries, of metrics that there are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from gateway.telemetry.dashboards import SHEETS, DashboardSheet, as_json, dashboard
from tests.telemetry.promtool import needs_promtool, promtool
from tests.telemetry.test_alerts import exported, selectors

FOLDER = Path(__file__).parents[2] / "docs" / "dashboards"
# What Grafana puts in for its variables.
VALUES = {"$__rate_interval": "1m", "$instance": "g1|g2", "$model": "m"}


def expressions(sheet: DashboardSheet) -> Iterator[str]:
    """The queries as Prometheus gets them."""
    for panel in sheet.panels:
        for expression, _ in panel.queries:
            plain = _plain(expression)
            assert "$" not in plain
            yield plain


def lost(before: object, after: object, where: str = "") -> list[str]:
    """What of the one tree the other one has not."""
    if isinstance(before, dict) and isinstance(after, dict):
        return [one for key in before for one in lost(before[key], after.get(key), f"{where}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = zip(before, after, strict=True)
        return [one for place, (left, right) in enumerate(pairs) for one in lost(left, right, f"{where}[{place}]")]
    return [] if before == after else [f"{where}: {before!r} is {after!r}"]


def test_the_files_are_made_from_the_table() -> None:
    """Another text: python -m gateway.telemetry.dashboards docs/dashboards"""
    assert {sheet.name for sheet in SHEETS} == {"fleet", "model", "rollout", "drift"}
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == {
        f"{sheet.name}.json": as_json(sheet) for sheet in SHEETS
    }


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.name)
def test_grafanas_own_model_reads_all_of_it(sheet: DashboardSheet) -> None:
    """What the model does not know is lost on the way through it."""
    register_default_plugins()
    document = json.loads(json.dumps(dashboard(sheet)))
    read = Dashboard.from_json(document)
    assert lost(document, json.loads(JSONEncoder().encode(read))) == []
    assert len(read.panels or []) == len(sheet.panels)
    assert len({panel.title for panel in sheet.panels}) == len(sheet.panels)


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.name)
def test_queries_are_of_metrics_and_labels_that_there_are(sheet: DashboardSheet) -> None:
    for expression in expressions(sheet):
        used = list(selectors(promql_parser.parse(expression)))
        assert used, expression
        for selector in used:
            metric = exported(selector.name)
            assert metric is not None, f"{selector.name} is no metric of the gateway's"
            for matcher in selector.matchers.matchers:
                assert matcher.name in (*metric.labels, "instance"), f"{selector.name} has no label {matcher.name}"
        known = {label for selector in used for label in _labels(selector.name)} | {"instance", "le"}
        for by in re.findall(r"by \(([^)]*)\)", expression):
            assert {label.strip() for label in by.split(",")} <= known, expression
    for label, name in sheet.variables:
        assert label == "instance" or label in _labels(name)


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.name)
def test_legends_show_labels_that_the_query_leaves(sheet: DashboardSheet) -> None:
    for panel in sheet.panels:
        for expression, legend in panel.queries:
            kept = {label.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(",")}
            if not kept:
                kept = {
                    label for one in selectors(promql_parser.parse(_plain(expression))) for label in _labels(one.name)
                }
            assert set(re.findall(r"{{(\w+)}}", legend)) <= kept | {"instance"}, expression


@needs_promtool
def test_prometheus_takes_every_query(tmp_path: Path) -> None:
    """As recording rules, which are checked as alerts are."""
    every = [expression for sheet in SHEETS for expression in expressions(sheet)]
    rules = [{"record": f"query:{number}", "expr": expression} for number, expression in enumerate(every)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    promtool("check", "rules", str(path))


def _labels(name: str) -> tuple[str, ...]:
    metric = exported(name)
    return metric.labels if metric is not None else ()


def _plain(expression: str) -> str:
    for name, value in VALUES.items():
        expression = expression.replace(name, value)
    return expression
