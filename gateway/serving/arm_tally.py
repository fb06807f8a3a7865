"""Tallies of the arms of routes that are judged: nothing is counted where no route is."""

from collections.abc import Mapping, Sequence
from time import monotonic_ns
from typing import Final

from gateway.errors import CLIENT_CODES, Code
from gateway.routing.decision.decision import Decision
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.document.guardrail import ANSWERS, FEEDBACK, PREDICTIONS
from gateway.routing.document.strategy import Ab, ramp_of
from gateway.serving.answer_reader import AnswerReader
from gateway.serving.key_sample import KeySample
from gateway.serving.version import Version
from gateway.telemetry.histogram import LATENCY_BOUNDS_NS, latency_place
from gateway.tensor import Buffer

SPLIT: Final = "SPLIT"  # the reason of requests that were drawn for their arm; no other can be compared
DEFAULT: Final = "DEFAULT"  # of what the active arm of a blue-green route answers
KEYS: Final = "keys"  # what is counted of a split that is judged
_SPLIT_COUNTED: Final = frozenset({KEYS})
_OK: Final = Code.OK
ROWS_BINS: Final = 5  # of runs, by the power of two of their rows: 1, 2-3, 4-7, 8-15, more
WINDOW_NS: Final = 60_000_000_000
_EVER_NS: Final = 1 << 62
_MOST_KEYS: Final = 100_000
PREDICTIONS_A_SECOND: Final = 200  # of an arm that are looked at: more would say little more and cost every request
_SECOND_NS: Final = 1_000_000_000
_MOST_REVISIONS: Final = 8  # that are not in force any more, whose last calls may still end


class KeyWindow:
    """The keys that something was counted of, each once in a window."""

    __slots__ = ("_ends_ns", "_keys", "_window_ns")

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._ends_ns = 0
        self._keys: set[int] = set()

    def takes(self, bucket: int) -> bool:
        """Returns whether the key counts now: it has none (-1), or did not count in this window."""
        if bucket < 0:
            return True
        now_ns = monotonic_ns()
        if now_ns >= self._ends_ns or len(self._keys) >= _MOST_KEYS:
            self._ends_ns = now_ns + self._window_ns
            self._keys.clear()
        if bucket in self._keys:
            return False
        self._keys.add(bucket)
        return True


class ArmTally:
    """The counts of one arm at one revision; they only grow.

    An error of the same key counts once in a minute, so that one user's bad data do not look like many users'; so does
    an unsound answer. The prediction of a key counts once at a revision: it seldom changes.
    Where keys are counted, those are whose calls the arm itself has answered: a missing one was not drawn for it, or
    got nothing from it.
    `reads` is whether answers are looked at, of which `counted` says what for.
    """

    __slots__ = (
        "_answers",
        "_errors",
        "_fed",
        "_keys",
        "_left",
        "_predicting",
        "_predictions",
        "_reader",
        "_second_ends_ns",
        "_sound",
        "classes",
        "completed",
        "differing_rows",
        "disagreement",
        "errors",
        "latency",
        "means",
        "mirrored",
        "mirrored_rows",
        "reads",
        "run_cpu_ns",
        "run_rows",
        "runs",
        "scores",
        "unsound",
    )

    def __init__(self, counted: frozenset[str] = frozenset()) -> None:
        self.completed = 0
        self.errors = 0
        self.latency = [0] * (len(LATENCY_BOUNDS_NS) + 1)
        self.runs: list[list[int]] = [[0] * (len(LATENCY_BOUNDS_NS) + 1) for _ in range(ROWS_BINS)]
        self.run_rows = [0] * ROWS_BINS
        self.run_cpu_ns = [0] * ROWS_BINS
        self.unsound = 0
        self.classes: dict[int, int] = {}
        self.scores: dict[int, int] = {}
        self.mirrored = self.mirrored_rows = self.differing_rows = 0
        self.disagreement = 0.0
        self.means: dict[str, list[float]] = {}
        self._fed = KeyWindow(_EVER_NS)
        self._sound = ANSWERS in counted
        self._predicting = PREDICTIONS in counted
        self.reads = self._sound or self._predicting
        self._reader: AnswerReader | None = None
        self._errors = KeyWindow(WINDOW_NS)
        self._answers = KeyWindow(WINDOW_NS)
        self._predictions = KeyWindow(_EVER_NS)
        self._second_ends_ns = self._left = 0
        self._keys = KeySample() if KEYS in counted else None

    def observe(self, code: Code, total_ns: int, bucket: int) -> None:
        """Counts a call that was drawn for the arm and ended. `bucket` is its key's; -1 where it has none."""
        if self._keys is not None and (code is _OK or code in CLIENT_CODES):
            self._keys.add(bucket)
        if code is _OK:
            self.completed += 1
            self.latency[latency_place(total_ns)] += 1
        elif code not in CLIENT_CODES:
            self.completed += 1
            if self._errors.takes(bucket):
                self.errors += 1

    def read(self, version: Version, outputs: Sequence[Buffer], wanted: tuple[int, ...] | None, bucket: int) -> None:
        """Looks at an answer of the arm's version."""
        reader = self._reader
        if reader is None or reader.version is not version:
            reader = self._reader = AnswerReader(version)
        if self._sound and not reader.is_sound(outputs, wanted) and self._answers.takes(bucket):
            self.unsound += 1
        if self._predicting and self._has_left() and self._predictions.takes(bucket):
            said = reader.prediction(outputs, wanted)
            if said is not None:
                counts, place = self.classes if said[0] else self.scores, said[1]
                counts[place] = counts.get(place, 0) + 1

    def run(self, rows: int, infer_ns: int, cpu_ns: int) -> None:
        """Counts a run of the arm's version, and the CPU time of the thread that it was on."""
        size = min(ROWS_BINS, max(1, rows).bit_length()) - 1
        self.runs[size][latency_place(infer_ns)] += 1
        self.run_rows[size] += rows
        self.run_cpu_ns[size] += cpu_ns

    def shadow(self, code: Code) -> None:
        """Counts a call that the arm mirrored as one that it answered.

        How long it took is no measure: mirrored calls run when nothing else does.
        """
        if code is _OK:
            self.completed += 1
        elif code not in CLIENT_CODES:
            self.completed += 1
            self.errors += 1

    def mirror(self, rows: int, differing: int) -> None:
        """Counts a call that the arm mirrored, and the rows of it that differ from what was served."""
        self.mirrored += 1
        self.mirrored_rows += rows
        self.differing_rows += differing
        self.disagreement += differing / rows

    def feed(self, unit: int, metrics: Mapping[str, float]) -> None:
        """Counts what feedback says of a unit, a request's row; said again it changes nothing."""
        if self._fed.takes(unit):
            for metric, value in metrics.items():
                sums = self.means.setdefault(metric, [0.0, 0.0, 0.0])
                sums[0] += 1
                sums[1] += value
                sums[2] += value * value

    def snapshot(self) -> dict[str, object]:
        """Returns the counts, of values that JSON can hold; its fields are those of `rollout.arm_counts.ArmCounts`."""
        counts: dict[str, object] = {
            "completed": self.completed,
            "errors": self.errors,
            "latency": list(self.latency),
            "runs": [list(histogram) for histogram in self.runs],
            "run_rows": list(self.run_rows),
            "run_cpu_ns": list(self.run_cpu_ns),
        }
        if self.reads:
            counts["unsound"] = self.unsound
            counts["classes"] = dict(self.classes)
            counts["scores"] = dict(self.scores)
        if self.mirrored:
            counts["mirrored"] = self.mirrored
            counts["disagreement"] = self.disagreement
            counts["mirrored_rows"] = self.mirrored_rows
            counts["differing_rows"] = self.differing_rows
        if self.means:
            counts["means"] = {metric: [int(sums[0]), sums[1], sums[2]] for metric, sums in self.means.items()}
        if self._keys is not None:
            counts["keys"] = self._keys.text()
        return counts

    def _has_left(self) -> bool:
        """Takes one of the second's predictions. Which calls come first does not depend on what they are answered."""
        if self._left <= 0:
            now_ns = monotonic_ns()
            if now_ns < self._second_ends_ns:
                return False
            self._second_ends_ns = now_ns + _SECOND_NS
            self._left = PREDICTIONS_A_SECOND
        self._left -= 1
        return True


class JudgedRoutes:
    """The tallies of routes whose rollout or split is judged, by revision and arm; empty where there is none.

    A canary is compared by what was drawn for its arms, a blue-green route by what its active arm answers everybody
    and its preview mirrors.
    """

    __slots__ = ("_fed", "_previewed", "_revision", "_tallies", "by_revision", "threads")

    def __init__(self) -> None:
        self.by_revision: dict[int, dict[str, ArmTally]] = {}
        self._revision = -1  # the one that was asked for last, and its tallies
        self._tallies: dict[str, ArmTally] | None = None
        self._fed: dict[str, tuple[int, frozenset[str]]] = {}
        self._previewed: set[int] = set()  # the revisions of blue-green routes
        self.threads = 1  # of a run: the calling one's CPU time is that of each

    def follow(self, snapshot: Snapshot) -> None:
        """Counts for the routes of the snapshot from now on; what calls of a revision before still do is kept."""
        before = self.by_revision
        now: dict[int, dict[str, ArmTally]] = {}
        fed: dict[str, tuple[int, frozenset[str]]] = {}
        for compiled in snapshot.routes.values():
            strategy = compiled.route.document.strategy
            canary = ramp_of(strategy)
            if canary is not None:
                revision = compiled.route.revision
                tallies = before.get(revision)
                counted = canary.analysis.counted if canary.analysis is not None else frozenset()
                if FEEDBACK in counted:
                    fed[compiled.route.document.model] = revision, frozenset((canary.stable, canary.canary))
                now[revision] = tallies or {arm: ArmTally(counted) for arm in (canary.stable, canary.canary)}
                if not compiled.splits:
                    self._previewed.add(revision)
            elif isinstance(strategy, Ab) and strategy.is_judged:
                revision = compiled.route.revision
                arms = [arm for arm, weight in strategy.table_weights().items() if weight]
                counted = _SPLIT_COUNTED if strategy.plan.on_mismatch else frozenset()
                if strategy.bandit is not None:
                    counted |= strategy.bandit.counted
                    fed[compiled.route.document.model] = revision, frozenset(arm for arm, _ in strategy.weights)
                now[revision] = before.get(revision) or {arm: ArmTally(counted) for arm in arms}
        if now:
            left = sorted(before.keys() - now.keys())[-_MOST_REVISIONS:]
            now = {revision: before[revision] for revision in left} | now
        self.by_revision = now
        self._fed = fed
        self._previewed &= now.keys()
        self._revision = -1

    def compared(self, decision: Decision) -> ArmTally | None:
        """Returns where a call of that decision counts; None where it is not compared."""
        tally = self.of(decision)
        if tally is None or decision.reason == SPLIT:
            return tally
        return tally if decision.reason == DEFAULT and decision.revision in self._previewed else None

    def of(self, decision: Decision) -> ArmTally | None:
        """Returns where the runs of the decision's arm count; None where none do."""
        if decision.revision != self._revision:
            self._revision = decision.revision
            self._tallies = self.by_revision.get(decision.revision)
        tallies = self._tallies
        return tallies.get(decision.arm) if tallies is not None else None

    def feed(self, model: str, revision: int, arm: str, unit: int, metrics: Mapping[str, float]) -> None:
        """Counts what feedback says of an answer that the arm gave at that revision, where the model is judged by it.

        A revision that this worker does not count is over, or was before it began; a later one nobody can have seen.
        """
        newest, arms = self._fed.get(model, (-1, frozenset()))
        if arm not in arms or revision > newest or not metrics:
            return
        tallies = self.by_revision.get(revision)
        if tallies is None:
            if len(self.by_revision) >= 4 * _MOST_REVISIONS:
                return
            tallies = self.by_revision[revision] = {}
            self._revision = -1
        tally = tallies.get(arm)
        if tally is None:
            tally = tallies[arm] = ArmTally()
        tally.feed(unit, metrics)

    def shadowed(self, revision: int, arm: str) -> ArmTally | None:
        """Returns where calls that the preview of that revision mirrors count; None where no preview is judged."""
        return self.by_revision[revision].get(arm) if revision in self._previewed else None

    def mirror(self, revision: int, arm: str, rows: int, differing: int) -> None:
        """Counts a call that an arm of that revision mirrored."""
        tallies = self.by_revision.get(revision)
        tally = tallies.get(arm) if tallies is not None else None
        if tally is not None:
            tally.mirror(rows, differing)

    def snapshot(self) -> Mapping[int, Mapping[str, object]]:
        """Returns all counts by revision and arm, of values that JSON can hold."""
        return {
            revision: {arm: tally.snapshot() for arm, tally in tallies.items()}
            for revision, tallies in self.by_revision.items()
        }
