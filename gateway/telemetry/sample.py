"""One sample of a metric, checked against the table of metrics when it is made."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.telemetry.names import MetricName

ENDINGS: Final[Mapping[str, str]] = {"counter": "_total", "info": "_info"}
_PARTS: Final[Mapping[str, frozenset[str]]] = {
    "histogram": frozenset({"_bucket", "_count", "_sum"}),
    "summary": frozenset({"_count", "_sum"}),
}
_WHOLE: Final = frozenset({""})


class Exemplar(NamedTuple):
    """Names a trace and what it measured. Units: `at_s` since the Unix epoch."""

    trace_id: str
    value: float
    at_s: float


@dataclass(frozen=True, slots=True)
class Sample:
    """A value under labels. `part` says which series of a histogram or summary it belongs to, "" elsewhere.

    `exemplar` is a trace that was counted in a bucket.
    """

    metric: MetricName
    labels: Mapping[str, str]
    value: float
    part: str = ""
    exemplar: Exemplar | None = None

    def __post_init__(self) -> None:
        """Raises: ValueError for labels or a part that the metric does not have."""
        metric, part = self.metric, self.part
        if part not in _PARTS.get(metric.kind, _WHOLE):
            raise ValueError(f"{metric.name} is a {metric.kind}: it has no samples called {part!r}")
        wanted = {*metric.labels, "le"} if part == "_bucket" else set(metric.labels)
        if self.labels.keys() != wanted:
            raise ValueError(f"{metric.name}{part} has the labels {sorted(self.labels)}, allowed: {sorted(wanted)}")

    @property
    def suffix(self) -> str:
        """Returns what follows the metric's name in the name of this sample."""
        return self.part or ENDINGS.get(self.metric.kind, "")


def histogram(
    metric: MetricName, labels: Mapping[str, str], bounds: Iterable[float], counts: Iterable[int], total: float
) -> list[Sample]:
    """Returns a histogram's samples. Shapes: one more count than bounds, not yet added up; `total`: the values' sum."""
    samples, added = [], 0
    for bound, count in zip([*bounds, float("inf")], counts, strict=True):
        added += count
        text = "+Inf" if bound == float("inf") else f"{bound:g}"
        samples.append(Sample(metric, {**labels, "le": text}, added, "_bucket"))
    return [*samples, Sample(metric, labels, added, "_count"), Sample(metric, labels, total, "_sum")]
