"""Metrics that travel in files, from the process that has them to the page that shows them."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import names
from gateway.telemetry.exposition import HostMetrics, text
from gateway.telemetry.published import publish, published
from gateway.telemetry.sample import Sample, histogram


def test_what_several_processes_publish_is_on_the_page(tmp_path: Path) -> None:
    publish(tmp_path, "sinks", [Sample(names.SINK_LAG, {"sink": "s3"}, 7)], now_s=1)
    publish(tmp_path, "sinks", [Sample(names.SINK_LAG, {"sink": "s3"}, 8)], now_s=2)
    delays = histogram(names.LABEL_DELAY, {"model": "m"}, (1.0, 60.0), (3, 0, 2), 150.5)
    publish(tmp_path, "labels", [Sample(names.LABELS_UNMATCHED, {"model": "m"}, 4), *delays], now_s=2)
    body, _ = text(HostMetrics({}, {}, (), "1", published=published(tmp_path)))
    page = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert page["gateway_log_sink_lag_rows", "s3"] == 8
    assert page["gateway_label_unmatched_total", "m"] == 4
    assert [page["gateway_label_delay_seconds_bucket", bound, "m"] for bound in ("+Inf", "1", "60")] == [5, 3, 3]
    assert (page["gateway_label_delay_seconds_count", "m"], page["gateway_label_delay_seconds_sum", "m"]) == (
        5,
        150.5,
    )


def test_a_file_that_makes_no_sense_hides_only_itself(tmp_path: Path) -> None:
    assert published(tmp_path / "absent") == {}
    publish(tmp_path, "good", [Sample(names.SINK_LAG, {"sink": "s"}, 1)], now_s=0)
    for name, content in {"a": "{", "b": "[]", "c": '{"samples": {"x": [1]}}', "d": '{"samples": 3}'}.items():
        (tmp_path / f"{name}.metrics.json").write_text(content)
    (tmp_path / "e.metrics.json").write_bytes(b"\xff")
    assert published(tmp_path) == {"gateway_log_sink_lag_rows": [("", {"sink": "s"}, 1.0)]}


def test_a_metric_that_nobody_knows_is_not_shown(tmp_path: Path) -> None:
    publish(tmp_path, "new", [Sample(names.MetricName("of_tomorrow", "gauge", (), ""), {}, 1)], now_s=0)
    body, _ = text(HostMetrics({}, {}, (), "1", published=published(tmp_path)))
    assert b"of_tomorrow" not in body
