"""The page of reference of all metrics, made from their table."""

from collections.abc import Mapping
from typing import Final

from gateway.telemetry.names import METRICS, MetricName, MetricSource
from gateway.telemetry.sample import ENDINGS

_HEAD: Final = """# Metrics
Every metric that a gateway exports at `/metrics` of `--metrics-port`. This page is made from the table of
`gateway/telemetry/names.py` by `python -m gateway.telemetry.metrics_page > docs/metrics.md`; a test compares. What
to be woken by: [alerts.md](alerts.md).

Prometheus adds `instance`. Names are those to ask for: a histogram has `_bucket` (with the label `le`), `_count` and
`_sum` in place of the bare name, a summary `_count` and `_sum`. The `nv_inference_*` are Triton's and mean what they
mean there.
"""
_TITLES: Final[Mapping[MetricSource, str]] = {
    MetricSource.SUMMED: "Counted by workers",
    MetricSource.EACH_WORKER: "Said by each worker",
    MetricSource.CONTROL: "Processes and events",
    MetricSource.PUBLISHED: "Log, labels, drift and performance",
}
_TEXTS: Final[Mapping[MetricSource, str]] = {
    MetricSource.SUMMED: "Added up over workers and their lives: they fall only when the gateway is started anew.",
    MetricSource.EACH_WORKER: "`worker` is the slot. A worker that was not heard for five seconds has none of these.",
    MetricSource.CONTROL: "Known to the control process; what the kernel says of processes, on Linux alone.",
    MetricSource.PUBLISHED: "Written by the compactor and the sinks, which work behind the requests.",
}
# By the end of a metric's name, and at the end of a counter's before `_total`.
_UNITS: Final[Mapping[str, str]] = {
    "_seconds": "seconds",
    "_bytes": "bytes",
    "_ratio": "0 to 1",
    "_rows": "rows",
    "_us": "microseconds",
}


def unit(metric: MetricName) -> str:
    """Returns the unit of a metric's values; "" for what is counted in pieces, or is a state."""
    return next((text for ending, text in _UNITS.items() if metric.name.endswith(ending)), "")


def exported_name(metric: MetricName) -> str:
    """Returns the name to ask Prometheus for, of a histogram or summary without the ending of its series."""
    return metric.name + ENDINGS.get(metric.kind, "")


def metrics_page() -> str:
    """Returns the page, in Markdown."""
    lines = [_HEAD]
    for source, title in _TITLES.items():
        lines += [
            f"## {title}",
            _TEXTS[source],
            "",
            "| metric | type | labels | unit | meaning |",
            "|---|---|---|---|---|",
        ]
        for metric in METRICS.values():
            if metric.source is source:
                labels = ", ".join(f"`{label}`" for label in metric.labels)
                kind = "untyped" if metric.kind == "unknown" else metric.kind
                meaning = metric.help.replace("|", "\\|")
                lines.append(f"| `{exported_name(metric)}` | {kind} | {labels} | {unit(metric)} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(metrics_page(), end="")  # noqa: T201
