"""The page of reference holds every metric of the table, and what it says is what a scrape shows."""

from pathlib import Path

from gateway.telemetry.metrics_page import exported_name, metrics_page
from gateway.telemetry.names import METRICS

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_is_made_from_the_table() -> None:
    """Another text: python -m gateway.telemetry.metrics_page > docs/metrics.md"""
    assert PAGE.read_text() == metrics_page()


def test_every_metric_has_one_row() -> None:
    rows = [line for line in metrics_page().splitlines() if line.startswith("| `")]
    assert sorted(row.split("`")[1] for row in rows) == sorted(map(exported_name, METRICS.values()))
