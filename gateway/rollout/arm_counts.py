"""What one arm of a route did while it was judged: counts that add up over workers and hosts."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

ROWS_BINS: Final = ("1", "2-3", "4-7", "8-15", "16+")  # rows of a run: a canary's batches are smaller than the others'


class ArmCounts(msgspec.Struct, frozen=True):
    """Requests that a split sent to the arm, runs of them, and what the arm mirrored.

    Shapes: `latency` counts requests by the bounds of `LATENCY_BOUNDS_NS`, the last one open; `runs` has such a
            list for each bin of `ROWS_BINS`. Both may be empty: nothing was counted.
    `errors` are those of the gateway and the version; requests that failed by their client's fault are in none of it.
    `unsound` answers hold NaN, an infinity or an output without elements. `classes` and `scores` count predictions by
    their place (serving.answer_reader). `mirrored` are calls that the arm mirrored, `disagreement` the sum over them of
    the share of their rows that differ, `mirrored_rows` and `differing_rows` the rows themselves. `means` are, of each
    metric of feedback, how many came, their sum and the sum of their squares. `run_rows` and `run_cpu_ns` are the rows
    of all runs and the CPU time that they took, by the bins of `ROWS_BINS`: of several threads as if all were busy.
    """

    completed: int = 0
    errors: int = 0
    latency: tuple[int, ...] = ()
    runs: tuple[tuple[int, ...], ...] = ()
    unsound: int = 0
    classes: dict[int, int] = {}
    scores: dict[int, int] = {}
    mirrored: int = 0
    disagreement: float = 0.0
    mirrored_rows: int = 0
    differing_rows: int = 0
    means: dict[str, tuple[int, float, float]] = {}
    run_rows: tuple[int, ...] = ()
    run_cpu_ns: tuple[int, ...] = ()

    def __add__(self, other: "ArmCounts") -> "ArmCounts":
        return ArmCounts(
            self.completed + other.completed,
            self.errors + other.errors,
            _added(self.latency, other.latency),
            tuple(_added(self._run(index), other._run(index)) for index in range(max(len(self.runs), len(other.runs)))),
            self.unsound + other.unsound,
            joined(self.classes, other.classes),
            joined(self.scores, other.scores),
            self.mirrored + other.mirrored,
            self.disagreement + other.disagreement,
            self.mirrored_rows + other.mirrored_rows,
            self.differing_rows + other.differing_rows,
            _summed(self.means, other.means),
            _added(self.run_rows, other.run_rows),
            _added(self.run_cpu_ns, other.run_cpu_ns),
        )

    def since(self, before: "ArmCounts") -> "ArmCounts":
        """Returns what was counted after `before`.

        It is never less than nothing, and never more events than requests, also where counts were lost or made up.
        It has no means: feedback comes late, for revisions that are over, so its totals are judged.
        """
        completed = max(0, self.completed - before.completed)
        mirrored = max(0, self.mirrored - before.mirrored)
        rows = max(0, self.mirrored_rows - before.mirrored_rows)
        return ArmCounts(
            completed,
            min(completed, max(0, self.errors - before.errors)),
            _less(self.latency, before.latency),
            tuple(_less(run, before._run(index)) for index, run in enumerate(self.runs)),
            min(completed, max(0, self.unsound - before.unsound)),
            _fewer(self.classes, before.classes),
            _fewer(self.scores, before.scores),
            mirrored,
            min(float(mirrored), max(0.0, self.disagreement - before.disagreement)),
            rows,
            min(rows, max(0, self.differing_rows - before.differing_rows)),
            run_rows=_less(self.run_rows, before.run_rows),
            run_cpu_ns=_less(self.run_cpu_ns, before.run_cpu_ns),
        )

    def without_predictions(self) -> "ArmCounts":
        """Returns the counts that are kept for the whole of a step."""
        if not (self.classes or self.scores or self.means):
            return self
        return msgspec.structs.replace(self, classes={}, scores={}, means={})

    def slower_than(self, bound: int) -> int:
        """Returns how many requests took longer than the bound with that index."""
        return sum(self.latency[bound + 1 :])

    def _run(self, index: int) -> tuple[int, ...]:
        return self.runs[index] if index < len(self.runs) else ()


NOTHING: Final = ArmCounts()
LOAD: Final = ""  # what stands for an arm where a worker tells its load


class WorkerLoad(msgspec.Struct, frozen=True):
    """A worker's time on CPUs so far, and its share of its host's CPUs."""

    cpu_ns: int = 0
    cores: float = 0.0


def total(counts: Iterable[ArmCounts]) -> ArmCounts:
    """Returns the sum."""
    return sum(counts, NOTHING)


def quantile_bound(histogram: tuple[int, ...], quantile: float) -> int:
    """Returns the index of the lowest bound that at most a share of 1 - `quantile` of the observations is above.

    The last, open bucket has no bound: where so many are in it, the last bound is returned.
    Raises: ValueError (an empty histogram).
    """
    observations = sum(histogram)
    if not observations:
        raise ValueError("a histogram without observations has no quantile")
    above = observations
    for index, count in enumerate(histogram[:-1]):
        above -= count
        if above <= (1 - quantile) * observations + 1e-9:
            return index
    return len(histogram) - 2


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    if len(one) < len(other):
        one, other = other, one
    return tuple(count + (other[index] if index < len(other) else 0) for index, count in enumerate(one))


def _summed(
    one: Mapping[str, tuple[int, float, float]], other: Mapping[str, tuple[int, float, float]]
) -> dict[str, tuple[int, float, float]]:
    both = dict(one)
    for metric, sums in other.items():
        known = both.get(metric, (0, 0.0, 0.0))
        both[metric] = (known[0] + sums[0], known[1] + sums[1], known[2] + sums[2])
    return both


def _less(now: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(0, count - (before[index] if index < len(before) else 0)) for index, count in enumerate(now))


def joined(one: Mapping[int, int], other: Mapping[int, int]) -> dict[int, int]:
    """Returns both counts, place by place."""
    both = dict(one)
    for place, count in other.items():
        both[place] = both.get(place, 0) + count
    return both


def _fewer(now: Mapping[int, int], before: Mapping[int, int]) -> dict[int, int]:
    return {place: count - before.get(place, 0) for place, count in now.items() if count > before.get(place, 0)}
