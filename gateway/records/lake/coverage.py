"""Tells how many of the logged rows have a label, and after how long: of a sample, in bounded memory.

The rows whose key (a hash of request and row) is below a threshold are remembered, seven days long; labels find theirs
by the same key. Where a model's sample grows beyond its bound the threshold is halved: that leaves out half of the
keys, and each that is left stands for twice as many rows.

Source: the weights are those of Horvitz and Thompson; the threshold that halves is that of adaptive sampling (Wegman).
"""

import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.records.lake import parquet
from gateway.records.worker.label import Label
from gateway.telemetry import names
from gateway.telemetry.published import publish
from gateway.telemetry.sample import Sample, histogram

DELAY_BOUNDS_S = (1.0, 10.0, 60.0, 600.0, 3600.0, 21600.0, 86400.0, 259200.0, 604800.0, 2592000.0)
WINDOW_US = 7 * 86_400_000_000
EARLY_US = 3_600_000_000  # a label may come to the lake before its row; for so long it waits
MAX_ROWS = 8192
MAX_EARLY = 8192
MAX_MODELS = 100
MAX_VERSIONS = 20  # of a model, that are exported
_KEYS = 1 << 64
_SPREAD = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: rows of one request fall far apart
_PUBLISH_S = 5.0
_SAVE_S = 30.0
_PART = "labels"


class _Row(msgspec.Struct, array_like=True, gc=False):
    """A remembered row. `level`: it stands for 2**level rows."""

    version: str
    ts_us: int
    level: int
    labelled: bool = False


class CoverageSample(msgspec.Struct):
    """The sample of one model, and what was counted with it."""

    level: int = 0
    rows: dict[int, _Row] = msgspec.field(default_factory=dict)
    early: dict[int, int] = msgspec.field(default_factory=dict)  # key -> receipt of a label without a row
    delays: list[int] = msgspec.field(default_factory=lambda: [0] * (len(DELAY_BOUNDS_S) + 1))
    delay_sum_s: float = 0.0
    unmatched: int = 0
    strictest: int = 0  # the highest level of a remembered row: below it every row of the window is remembered

    def add(self, version: str, keys: npt.NDArray[np.uint64], ts_us: npt.NDArray[np.int64]) -> None:
        """Remembers the rows of a version that fall into the sample."""
        chosen = np.flatnonzero(keys < np.uint64((_KEYS >> self.level) - 1))
        for key, moment in zip(keys[chosen].tolist(), ts_us[chosen].tolist(), strict=True):
            if key in self.rows or key >= _KEYS >> self.level:
                continue
            row = self.rows[key] = _Row(version, moment, self.level)
            if (received_us := self.early.pop(key, None)) is not None:
                self._match(row, received_us)
            if len(self.rows) > MAX_ROWS:
                self._thin()

    def label(self, key: int, received_us: int) -> None:
        """A row has a label; the first one counts."""
        if key >= _KEYS >> self.level:
            return
        row = self.rows.get(key)
        if row is None:
            self.early.setdefault(key, received_us)
            if len(self.early) > MAX_EARLY:
                self._give_up(next(iter(self.early)))
        elif not row.labelled:
            self._match(row, received_us)

    def forget(self, now_us: int) -> None:
        """Lets go what has left the window."""
        for key in [key for key, row in self.rows.items() if row.ts_us < now_us - WINDOW_US]:
            del self.rows[key]
        for key in [key for key, received_us in self.early.items() if received_us < now_us - EARLY_US]:
            self._give_up(key)
        if self.level and len(self.rows) < MAX_ROWS // 4:
            self.level -= 1
        self.strictest = max((row.level for row in self.rows.values()), default=self.level)

    def coverage(self) -> dict[str, float]:
        """Share of the rows with a label, by version, the versions with the newest rows."""
        newest: dict[str, int] = {}
        total: dict[str, int] = {}
        labelled: dict[str, int] = {}
        for row in self.rows.values():
            weight = 1 << row.level
            newest[row.version] = max(newest.get(row.version, 0), row.ts_us)
            total[row.version] = total.get(row.version, 0) + weight
            labelled[row.version] = labelled.get(row.version, 0) + weight * row.labelled
        shown = sorted(newest, key=lambda version: newest[version], reverse=True)[:MAX_VERSIONS]
        return {version: labelled[version] / total[version] for version in shown}

    def _match(self, row: _Row, received_us: int) -> None:
        row.labelled = True
        delay_s = max(0, received_us - row.ts_us) / 1e6
        self.delays[bisect_left(DELAY_BOUNDS_S, delay_s)] += 1 << row.level
        self.delay_sum_s += delay_s * (1 << row.level)

    def _give_up(self, key: int) -> None:
        del self.early[key]
        if key < _KEYS >> self.strictest:
            self.unmatched += 1 << self.strictest

    def _thin(self) -> None:
        self.level += 1
        self.strictest = max(self.strictest, self.level)
        below = _KEYS >> self.level
        self.rows = {key: row for key, row in self.rows.items() if key < below}
        self.early = {key: moment for key, moment in self.early.items() if key < below}
        for row in self.rows.values():
            row.level = max(row.level, self.level)


class Coverage:
    """Observes the compactor; keeps the samples in the lake, publishes what they say.

    A kill loses at most what was seen in the last half minute: these are estimates.
    """

    def __init__(self, lake: Path, published: Path | None) -> None:
        self._file = lake / "_state" / "coverage.msgpack"
        self._published = published
        self._published_at = self._saved_at = 0.0
        self._models = self._restored()

    def saw_rows(self, model: str, version: str, rows: Any) -> None:
        hashes, indices, ts_us = parquet.answered(rows)
        self._of(model).add(version, row_keys(hashes, indices), ts_us)

    def saw_labels(self, labels: Sequence[Label]) -> None:
        for label in labels:
            key = (label.request_hash + label.row_index * _SPREAD) % _KEYS
            self._of(label.model).label(key, label.received_us)

    def tend(self, now_s: float, *, last: bool) -> None:
        if last or not 0 <= now_s - self._published_at < _PUBLISH_S:
            self._published_at = now_s
            for sample in self._models.values():
                sample.forget(int(now_s * 1e6))
            if self._published is not None:
                with suppress(OSError):  # the next time is soon
                    publish(self._published, _PART, self.samples(), now_s=now_s)
        if last or not 0 <= now_s - self._saved_at < _SAVE_S:
            self._saved_at = now_s
            self._save()

    def samples(self) -> Iterator[Sample]:
        """Coverage by version, delay and labels without a row by model."""
        for model, sample in self._models.items():
            for version, share in sample.coverage().items():
                yield Sample(names.LABEL_COVERAGE, {"model": model, "version": version}, share)
            yield from histogram(names.LABEL_DELAY, {"model": model}, DELAY_BOUNDS_S, sample.delays, sample.delay_sum_s)
            yield Sample(names.LABELS_UNMATCHED, {"model": model}, sample.unmatched)

    def _of(self, model: str) -> CoverageSample:
        """Returns the sample of that model, now the newest of all; beyond the bound the oldest is dropped."""
        sample = self._models.pop(model, None) or CoverageSample()
        self._models[model] = sample
        if len(self._models) > MAX_MODELS:
            del self._models[next(iter(self._models))]
        return sample

    def _save(self) -> None:
        staged = self._file.with_name(f"{self._file.name}.new")
        with suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            staged.write_bytes(msgspec.msgpack.encode(self._models))
            os.replace(staged, self._file)

    def _restored(self) -> dict[str, CoverageSample]:
        try:
            return msgspec.msgpack.decode(self._file.read_bytes(), type=dict[str, CoverageSample])
        except (OSError, ValueError):
            return {}


def row_keys(hashes: npt.NDArray[np.uint64], row_index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Returns the key of each row. Shapes: all [rows]."""
    keys: npt.NDArray[np.uint64] = hashes + row_index.astype(np.uint64) * np.uint64(_SPREAD)
    return keys
