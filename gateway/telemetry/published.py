"""Metrics of processes that no one asks: each writes its own into a file, the control process reads all of them.

A file holds one JSON object: the time it was written, and by the name of a metric its samples: what follows the name
(`_total`, `_bucket` or nothing), the labels, the value.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.telemetry.names import MetricName

SUFFIX = ".metrics.json"
_LIMIT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a metric."""

    metric: MetricName
    labels: Mapping[str, str]
    value: float
    suffix: str = ""


Samples = Mapping[str, list[tuple[str, dict[str, str], float]]]


def publish(folder: Path, part: str, samples: Iterable[Sample], *, now_s: float) -> None:
    """The file of that part of the gateway holds these samples, whole, or those it held before.

    Raises: OSError.
    """
    found: dict[str, list[object]] = {}
    for sample in samples:
        found.setdefault(sample.metric.name, []).append([sample.suffix, dict(sample.labels), sample.value])
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f"{part}.{os.getpid()}.new"
    staged.write_text(json.dumps({"at_s": now_s, "samples": found}))
    os.replace(staged, folder / f"{part}{SUFFIX}")


def published(folder: Path) -> Samples:
    """The samples of all parts by metric. A file that cannot be read says nothing."""
    found: dict[str, list[tuple[str, dict[str, str], float]]] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            if path.stat().st_size > _LIMIT_BYTES:
                continue
            for name, samples in dict(json.loads(path.read_text())["samples"]).items():
                read = [
                    (str(suffix), {str(key): str(label) for key, label in labels.items()}, float(value))
                    for suffix, labels, value in samples
                ]
                found.setdefault(name, []).extend(read)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            continue
    return found


def histogram(
    metric: MetricName, labels: Mapping[str, str], bounds: Iterable[float], counts: Iterable[int], total: float
) -> list[Sample]:
    """The samples of a histogram. Shapes: one more count than bounds, not yet added up; `total` is the values' sum."""
    samples, added = [], 0
    for bound, count in zip([*bounds, float("inf")], counts, strict=True):
        added += count
        text = "+Inf" if bound == float("inf") else f"{bound:g}"
        samples.append(Sample(metric, {**labels, "le": text}, added, "_bucket"))
    return [*samples, Sample(metric, labels, added, "_count"), Sample(metric, labels, total, "_sum")]
