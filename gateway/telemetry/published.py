"""Metrics of processes that no one asks: each writes its own into a file, the control process reads all of them.

A file holds one JSON object: the time it was written, and by the name of a metric its samples: what follows the name
(`_total`, `_bucket` or nothing), the labels, the value.
"""

import os
from collections.abc import Iterable, Mapping
from math import isfinite
from pathlib import Path
from typing import Final

import msgspec

from gateway.telemetry.gone_versions import Key
from gateway.telemetry.sample import Sample
from gateway.telemetry.sums import Tree

SUFFIX: Final = ".metrics.json"
PERFORMANCE_FILE: Final = "performance.json"  # how good answers were, in full
_LIMIT_BYTES: Final = 8 << 20
_REPORT_LIMIT_BYTES: Final = 64 << 20
Samples = Mapping[str, list[tuple[str, dict[str, str], float]]]


class _File(msgspec.Struct):
    at_s: float
    samples: dict[str, list[tuple[str, dict[str, str], float]]]


_decoder: Final = msgspec.json.Decoder(_File)


def publish(folder: Path, part: str, samples: Iterable[Sample], *, now_s: float) -> None:
    """Replaces what the file of that part of the gateway holds by these samples, as a whole.

    A value that is not finite says nothing and is left out.

    Raises: OSError.
    """
    by_metric: dict[str, list[tuple[str, dict[str, str], float]]] = {}
    for sample in samples:
        if isfinite(sample.value):
            named = by_metric.setdefault(sample.metric.name, [])
            named.append((sample.suffix, dict(sample.labels), float(sample.value)))
    folder.mkdir(parents=True, exist_ok=True)
    staged = folder / f"{part}.{os.getpid()}.new"
    staged.write_bytes(msgspec.json.encode(_File(now_s, by_metric)))
    os.replace(staged, folder / f"{part}{SUFFIX}")


def published(folder: Path) -> Samples:
    """Returns the samples of all parts by metric. A file that cannot be read says nothing."""
    by_metric: dict[str, list[tuple[str, dict[str, str], float]]] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            if path.stat().st_size > _LIMIT_BYTES:
                continue
            file = _decoder.decode(path.read_bytes())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
        for name, samples in file.samples.items():
            by_metric.setdefault(name, []).extend(samples)
    return by_metric


def versions_of(samples: Samples) -> set[Key]:
    """Returns the versions, and the models, that samples are labelled with."""
    labels = [own for written in samples.values() for _, own, _ in written if "model" in own]
    return {(own["model"], own.get("version", "")) for own in labels} | {(own["model"], "") for own in labels}


class PublishedReport:
    """The newest report in a file, read again when the file is another one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = (0, 0)
        self._report: Tree = {}

    def read(self) -> Tree:
        """Returns the report; an empty one where none can be read."""
        try:
            status = self._path.stat()
            if (status.st_ino, status.st_mtime_ns) != self._known and status.st_size <= _REPORT_LIMIT_BYTES:
                self._report = msgspec.json.decode(self._path.read_bytes(), type=dict[str, object])
                self._known = (status.st_ino, status.st_mtime_ns)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return self._report
        return self._report
