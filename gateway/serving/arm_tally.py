"""Tallies of the arms of routes that are judged: nothing is counted where no route is."""

from collections.abc import Mapping
from time import monotonic_ns
from typing import Final

from gateway.errors import CLIENT_CODES, Code
from gateway.routing.decision.decision import Decision
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.document.strategy import Canary
from gateway.telemetry.histogram import LATENCY_BOUNDS_NS, latency_place

SPLIT: Final = "SPLIT"  # the reason of requests that were drawn for their arm; no other can be compared
_OK: Final = Code.OK
ROWS_BINS: Final = 5  # of runs, by the power of two of their rows: 1, 2-3, 4-7, 8-15, more
WINDOW_NS: Final = 60_000_000_000
_MOST_KEYS: Final = 100_000
_MOST_REVISIONS: Final = 8  # that are not in force any more, whose last calls may still end


class ArmTally:
    """The counts of one arm at one revision; they only grow.

    An error of the same key counts once in a minute, so that one user's bad data do not look like many users'.
    """

    __slots__ = ("_keys", "_window_ends_ns", "completed", "errors", "latency", "runs")

    def __init__(self) -> None:
        self.completed = 0
        self.errors = 0
        self.latency = [0] * (len(LATENCY_BOUNDS_NS) + 1)
        self.runs: list[list[int]] = [[0] * (len(LATENCY_BOUNDS_NS) + 1) for _ in range(ROWS_BINS)]
        self._keys: set[int] = set()
        self._window_ends_ns = 0

    def observe(self, code: Code, total_ns: int, bucket: int) -> None:
        """Counts a call that was drawn for the arm and ended. `bucket` is its key's; -1 where it has none."""
        if code is _OK:
            self.completed += 1
            self.latency[latency_place(total_ns)] += 1
        elif code not in CLIENT_CODES:
            self.completed += 1
            self._error(bucket)

    def run(self, rows: int, infer_ns: int) -> None:
        """Counts a run of the arm's version."""
        self.runs[min(ROWS_BINS, max(1, rows).bit_length()) - 1][latency_place(infer_ns)] += 1

    def snapshot(self) -> dict[str, object]:
        """Returns the counts, of values that JSON can hold; its fields are those of `rollout.arm_counts.ArmCounts`."""
        return {
            "completed": self.completed,
            "errors": self.errors,
            "latency": list(self.latency),
            "runs": [list(histogram) for histogram in self.runs],
        }

    def _error(self, bucket: int) -> None:
        if bucket >= 0:
            now_ns = monotonic_ns()
            if now_ns >= self._window_ends_ns or len(self._keys) >= _MOST_KEYS:
                self._window_ends_ns = now_ns + WINDOW_NS
                self._keys.clear()
            if bucket in self._keys:
                return
            self._keys.add(bucket)
        self.errors += 1


class JudgedRoutes:
    """The tallies of routes whose canary is judged, by revision and arm; empty where there is none."""

    __slots__ = ("_revision", "_tallies", "by_revision")

    def __init__(self) -> None:
        self.by_revision: dict[int, dict[str, ArmTally]] = {}
        self._revision = -1  # the one that was asked for last, and its tallies
        self._tallies: dict[str, ArmTally] | None = None

    def follow(self, snapshot: Snapshot) -> None:
        """Counts for the routes of the snapshot from now on; what calls of a revision before still do is kept."""
        before = self.by_revision
        now: dict[int, dict[str, ArmTally]] = {}
        for compiled in snapshot.routes.values():
            strategy = compiled.route.document.strategy
            if isinstance(strategy, Canary) and strategy.is_driven:
                revision = compiled.route.revision
                tallies = before.get(revision)
                now[revision] = tallies or {strategy.stable: ArmTally(), strategy.canary: ArmTally()}
        if now:
            left = sorted(before.keys() - now.keys())[-_MOST_REVISIONS:]
            now = {revision: before[revision] for revision in left} | now
        self.by_revision = now
        self._revision = -1

    def of(self, decision: Decision) -> ArmTally | None:
        """Returns where calls of that decision count; None where they are not compared."""
        if decision.revision != self._revision:
            self._revision = decision.revision
            self._tallies = self.by_revision.get(decision.revision)
        tallies = self._tallies
        return tallies.get(decision.arm) if tallies is not None else None

    def snapshot(self) -> Mapping[int, Mapping[str, object]]:
        """Returns all counts by revision and arm, of values that JSON can hold."""
        return {
            revision: {arm: tally.snapshot() for arm, tally in tallies.items()}
            for revision, tallies in self.by_revision.items()
        }
