"""Whether the CPUs suffice for the next step of a canary, and for the way back. Pure.

The load of all workers is measured; what changes with a share is the difference of what the arms' rows cost, at the
traffic of the moment. A row of the canary is compared with one of the stable arm in runs of about as many rows: at a
small share its runs are small, and a small run costs more by the row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.rollout.arm_counts import ArmCounts, WorkerLoad
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.quantity import percent_text

WINDOW_MS: Final = 10_000
LEAST_MS: Final = 1_500  # of load that was watched, before it says anything
LEAST_ROWS: Final = 20  # of both arms in a bin of run sizes, before its costs are compared
WARN_SHARE: Final = 0.75  # of the most that is allowed


@dataclass(frozen=True, slots=True)
class LoadSample:
    """What workers had used of their CPUs at that time, and what the arms had done, as totals."""

    at_ms: int
    workers: Mapping[str, WorkerLoad]
    rows: int


class PresentLoad(msgspec.Struct, frozen=True):
    """The load of all workers that tell it. Units: CPUs; rows of both arms per second."""

    cores: float
    used: float
    rows_per_s: float


class CapacityForecast(msgspec.Struct, frozen=True):
    """Shares of the CPUs in use: now, at the next weight, and if everything went back to the stable arm.

    `assumed`: what a row of the canary costs is not known, and taken to be what one of the stable arm does.
    Units:  `next_weight` in buckets.
    """

    cores: float
    now: float
    at_next: float
    after_rollback: float
    next_weight: int
    assumed: bool = False

    def __str__(self) -> str:
        return (
            f"capacity: {self.now:.0%} of {self.cores:.3g} CPUs now, {self.at_next:.0%} at "
            f"{percent_text(self.next_weight)}, {self.after_rollback:.0%} after a way back"
            + (" (the canary's cost is not known)" if self.assumed else "")
        )

    @property
    def highest(self) -> float:
        return max(self.at_next, self.after_rollback)


class LoadWindow:
    """The load of the last seconds."""

    def __init__(self) -> None:
        self._samples: list[LoadSample] = []
        self._rows = 0  # that counts of revisions before had

    def add(self, sample: LoadSample) -> None:
        """Takes a sample. Counts that begin anew, as after a change of the route, go on from those before.

        One in which no worker tells its load says nothing: a change was made a moment ago.
        """
        if not sample.workers:
            return
        if self._samples:
            last = self._samples[-1]
            if sample.at_ms <= last.at_ms:
                self._samples = []
            elif sample.rows + self._rows < last.rows:
                self._rows = last.rows
        self._samples.append(LoadSample(sample.at_ms, sample.workers, sample.rows + self._rows))
        while len(self._samples) > 2 and sample.at_ms - self._samples[1].at_ms >= WINDOW_MS:
            del self._samples[0]

    @property
    def is_early(self) -> bool:
        """Returns whether workers tell their load, and it is too early to say what it is."""
        return bool(self._samples) and self.load() is None

    def load(self) -> PresentLoad | None:
        """Returns the load since the oldest sample; None while too little was seen, or no worker tells."""
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        if last.at_ms - first.at_ms < LEAST_MS:
            return None
        seconds = (last.at_ms - first.at_ms) / 1000
        # A worker that has used nothing in this time does not live any more: its CPUs carry nothing.
        living = {
            name: (load.cpu_ns - first.workers[name].cpu_ns, load.cores)
            for name, load in last.workers.items()
            if name in first.workers and load.cpu_ns > first.workers[name].cpu_ns
        }
        cores = sum(cores for _, cores in living.values())
        if not cores:
            return None
        used = sum(cpu_ns for cpu_ns, _ in living.values()) / 1e9 / seconds
        return PresentLoad(cores, used, (last.rows - first.rows) / seconds)


def row_seconds(canary: ArmCounts, stable: ArmCounts) -> tuple[float | None, float | None]:
    """Returns the CPU seconds of a row of the canary and of the stable arm, in runs as large as the stable arm's.

    None where an arm ran nothing.
    """
    of_stable = _mean(stable)
    own = _mean(canary)
    if own is None or of_stable is None:
        return own, of_stable
    shared = [
        (theirs, ours_ns / ours, theirs_ns / theirs)
        for ours, ours_ns, theirs, theirs_ns in zip(
            canary.run_rows, canary.run_cpu_ns, stable.run_rows, stable.run_cpu_ns, strict=False
        )
        if min(ours, theirs) >= LEAST_ROWS
    ]
    by_stable = sum(rows * theirs for rows, _, theirs in shared)
    if by_stable > 0:
        own = of_stable * sum(rows * ours for rows, ours, _ in shared) / by_stable
    return own, of_stable


def forecast_load(
    present: PresentLoad, canary: ArmCounts, stable: ArmCounts, weight: int, next_weight: int
) -> CapacityForecast:
    """Returns what the next weight, or the way back, makes of the present load. Units: weights in buckets."""
    own, of_stable = row_seconds(canary, stable)
    difference = own - of_stable if own is not None and of_stable is not None else 0.0
    per_share = present.rows_per_s * difference  # CPUs more for the canary's having everything
    share, next_share = weight / BUCKETS, next_weight / BUCKETS
    return CapacityForecast(
        present.cores,
        present.used / present.cores,
        max(0.0, present.used + per_share * (next_share - share)) / present.cores,
        max(0.0, present.used - per_share * share) / present.cores,
        next_weight,
        assumed=own is None and next_weight > 0,
    )


def cpu_seconds_per_1000(arm: ArmCounts) -> float | None:
    """Returns the CPU seconds that runs took for 1 000 requests of the arm; None where it answered none."""
    return sum(arm.run_cpu_ns) / 1e9 / arm.completed * 1000 if arm.completed and sum(arm.run_rows) else None


def _mean(arm: ArmCounts) -> float | None:
    rows = sum(arm.run_rows)
    return sum(arm.run_cpu_ns) / 1e9 / rows if rows else None
