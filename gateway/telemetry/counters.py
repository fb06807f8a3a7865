"""The counts of a worker: plain integers on the loop, read as one snapshot that adds up with those of other workers.

Labels come from loaded versions and the arms of routes, never from what a client sent: a call that was refused before
it had a version is counted by its code alone.
"""

from collections.abc import Callable, Mapping
from time import time_ns
from typing import Final

from mypy_extensions import mypyc_attr

from gateway.errors import Code
from gateway.telemetry.histogram import APPLY_BOUNDS_NS, LATENCY_BOUNDS_NS, Histogram, latency_place
from gateway.telemetry.keys import Gauge, Sum

# Batch sizes are bounded by the model's own limit; where a model takes any first dimension, what is beyond this many
# different sizes is counted with the next power of two.
_MOST_BATCH_SIZES: Final = 256
# Arms have the names that routes give them. Of one version those beyond this number are counted together.
_MOST_ARMS: Final = 500
OTHER_ARMS: Final = "(others)"
_OK: Final = Code.OK
_EXHAUSTED: Final = Code.RESOURCE_EXHAUSTED


class BatchTotals:
    """Runs of one batch size: how many, and the time of each part. Units: nanoseconds."""

    __slots__ = ("infer_ns", "input_ns", "output_ns", "runs")

    def __init__(self) -> None:
        self.runs = 0
        self.input_ns = 0
        self.infer_ns = 0
        self.output_ns = 0


@mypyc_attr(allow_interpreted_subclasses=True)  # the benchmark has one that counts nothing
class Series:
    """The counts of one arm of one version. Its methods run on every call and every run: about a microsecond each."""

    __slots__ = (
        "_batches",
        "_codes",
        "_cpu_ns",
        "_infer",
        "_last_ms",
        "_ok",
        "_ok_ns",
        "_other_ns",
        "_queue",
        "_total",
        "cache_hits",
        "cache_misses",
    )

    def __init__(self) -> None:
        self._ok = 0
        self._ok_ns = 0
        self._codes: dict[Code, int] = {}
        self._other_ns = 0
        self._queue = Histogram(LATENCY_BOUNDS_NS)
        self._infer = Histogram(LATENCY_BOUNDS_NS)
        self._total = Histogram(LATENCY_BOUNDS_NS)
        self._batches: dict[int, BatchTotals] = {}
        self._cpu_ns = 0
        self._last_ms = 0
        self.cache_hits = 0
        self.cache_misses = 0

    def observe_hit(self, total_ns: int) -> None:
        """Counts a call that was answered from the cache: it has not queued or run. Units: nanoseconds."""
        self.cache_hits += 1
        self._ok += 1
        self._ok_ns += total_ns
        total = self._total
        total.counts[latency_place(total_ns)] += 1
        total.sum_ns += total_ns

    def observe(self, code: Code, queue_ns: int, infer_ns: int, total_ns: int) -> None:
        """Counts a call that has ended with that code.

        Units: nanoseconds. A call that failed counts in `total` only: it may not have queued or run.
        """
        total = self._total
        total.counts[latency_place(total_ns)] += 1
        total.sum_ns += total_ns
        if code is not _OK:
            self._codes[code] = self._codes.get(code, 0) + 1
            self._other_ns += total_ns
            return
        self._ok += 1
        self._ok_ns += total_ns
        queue, infer = self._queue, self._infer
        queue.counts[latency_place(queue_ns)] += 1
        queue.sum_ns += queue_ns
        infer.counts[latency_place(infer_ns)] += 1
        infer.sum_ns += infer_ns

    def batch(self, rows: int, infer_ns: int, input_ns: int = 0, output_ns: int = 0, cpu_ns: int = 0) -> None:
        """Counts a run of the model that has ended, over `rows` items.

        Units: nanoseconds: the run itself, putting its inputs together before, taking its outputs apart after; of CPU
               the time of the thread that it was on.
        """
        self._cpu_ns += cpu_ns
        totals = self._batches.get(rows)
        if totals is None:
            size = rows if len(self._batches) < _MOST_BATCH_SIZES else 1 << (rows - 1).bit_length()
            totals = self._batches.setdefault(size, BatchTotals())
        totals.runs += 1
        totals.infer_ns += infer_ns
        totals.input_ns += input_ns
        totals.output_ns += output_ns
        self._last_ms = time_ns() // 1_000_000

    def snapshot(self) -> dict[str, object]:
        codes = {str(code.value): count for code, count in self._codes.items()}
        if self._ok:
            codes[str(_OK.value)] = self._ok
        return {
            "codes": codes,
            "ok_ns": self._ok_ns,
            "other_ns": self._other_ns,
            "cpu_ns": self._cpu_ns,
            "queue": self._queue.snapshot(),
            "infer": self._infer.snapshot(),
            "total": self._total.snapshot(),
            "batches": {
                str(rows): [totals.runs, totals.input_ns, totals.infer_ns, totals.output_ns]
                for rows, totals in self._batches.items()
            },
            "last_inference_ms": self._last_ms,
            "cache": {"hit": self.cache_hits, "miss": self.cache_misses} if self.cache_misses else {},
        }


@mypyc_attr(allow_interpreted_subclasses=True)
class Counters:
    """All counts of one worker, made at its start and thrown away with it.

    `snapshot()` has two parts: `sums`, which add over workers and over the lives of a worker (gateway.telemetry.sums),
    and `gauges`, which describe this worker now.
    """

    def __init__(self) -> None:
        self._series: dict[str, dict[str, dict[str, Series]]] = {}
        self._refused: dict[Code, int] = {}
        self._exhausted = 0  # those of them with that code: the look-up of a code is no small part of a refusal
        self._apply = Histogram(APPLY_BOUNDS_NS)
        self._sums: dict[Sum, Callable[[], Mapping[str, object]]] = {}
        self._gauges: dict[Gauge, Callable[[], object]] = {}

    def series(self, model: str, version: str, arm: str) -> Series:
        """Returns the counts of that arm; the names must be of a loaded version and a committed route."""
        arms = self._series.setdefault(model, {}).setdefault(version, {})
        if len(arms) >= _MOST_ARMS and arm not in arms:
            arm = OTHER_ARMS
        series = arms.get(arm)
        if series is None:
            series = arms[arm] = Series()
        return series

    def forget(self, model: str, version: str) -> None:
        """Drops the counts of a version that has ended, long after its series have."""
        versions = self._series.get(model, {})
        versions.pop(version, None)
        if not versions:
            self._series.pop(model, None)

    def refused(self, code: Code) -> None:
        """Counts a call that has ended before it had a version: admission, routing, an unknown model."""
        if code is _EXHAUSTED:
            self._exhausted += 1
        else:
            self._refused[code] = self._refused.get(code, 0) + 1

    def route_applied(self, latency_ns: int) -> None:
        """Counts a committed route that serves in this worker, that long after its commit."""
        self._apply.observe(max(0, latency_ns))

    def add_sums(self, key: Sum, read: Callable[[], Mapping[str, object]]) -> None:
        """Makes what `read` returns (a tree of integers that only grow) part of each snapshot's sums, under `key`."""
        self._sums[key] = read

    def add_gauge(self, key: Gauge, read: Callable[[], object]) -> None:
        """Makes what `read` returns (anything JSON can hold) part of each snapshot's gauges, under `key`."""
        self._gauges[key] = read

    def snapshot(self) -> dict[str, object]:
        """Returns everything counted so far, of values that JSON can hold."""
        refused = {str(code.value): count for code, count in self._refused.items()}
        if self._exhausted:
            refused[str(_EXHAUSTED.value)] = self._exhausted
        sums: dict[str, object] = {
            Sum.SERIES: {
                model: {
                    version: {arm: series.snapshot() for arm, series in arms.items()}
                    for version, arms in versions.items()
                }
                for model, versions in self._series.items()
            },
            Sum.REFUSED: refused,
            Sum.ROUTE_APPLY: self._apply.snapshot(),
        }
        for key, read in self._sums.items():
            sums[key] = dict(read())
        return {"sums": sums, "gauges": {key: read() for key, read in self._gauges.items()}}
