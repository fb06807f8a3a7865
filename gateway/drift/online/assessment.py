"""Assesses tallies: each feature of each arm, the arms against each other, and mirrors against what was served."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.drift.online.counting import EVERY_ARM, LoggedArm
from gateway.drift.online.tally_store import Book
from gateway.drift.online.windows import CellLayout, TallySeries, Window, means, window_counts
from gateway.drift.statistics.agreement import Agreement
from gateway.drift.statistics.calibration import calibrated
from gateway.drift.statistics.cusum import Cusum, accumulate, standardised_means, standardised_shares
from gateway.drift.statistics.reference_profile import FeatureProfile, Profile
from gateway.drift.statistics.split import (
    LEAST_REQUESTS,
    NOTHING,
    SplitVerdict,
    confirm_split,
    judge_split,
    narrow_counts,
)
from gateway.drift.statistics.statistic import MEAN
from gateway.drift.statistics.verdict import DriftRule, DriftState, Verdict, confirm, judge, least_rows

_EXTRA: Final = 3  # windows that are looked at beyond those that confirm, for the ones that could not be judged
_MOST_SHIFT: Final = 0.5  # standard deviations that means of the reference's own windows may be apart
SCORE: Final = "pred_score"
DRAWN_FEATURES: Final = 12  # of an arm, the worst
DRAWN_CELLS: Final = 24  # of a feature, the fullest


@dataclass(frozen=True, slots=True)
class Schedule:
    """The length of a base window and when it is complete: rows come to the lake about a minute after they happened.

    Units: seconds.
    """

    base_s: int = 3600
    grace_s: int = 120

    def closed_s(self, now_s: float) -> int:
        """The end of the newest window that is complete."""
        end_s = int(now_s) - self.grace_s
        return end_s - end_s % self.base_s


class Bar(NamedTuple):
    """One cell of a feature: its share of the rows of the reference, and of this window's."""

    cell: str
    reference: float
    window: float


@dataclass(frozen=True, slots=True)
class ArmAssessment:
    """One arm's answers of one version in its newest window.

    `verdicts` are of the inputs, then of the outputs; `shares` and `means` by feature, of this window; `bars` how its
    worst features are distributed; `score` and
    `errors` are the cumulative sums over all windows that are kept, None where there is nothing to sum.
    Units: seconds since the epoch.
    """

    model: str
    arm: LoggedArm
    revision: int
    start_s: int
    end_s: int
    rows: int
    verdicts: tuple[Verdict, ...]
    outputs: frozenset[str]
    shares: Mapping[str, Mapping[str, float]]
    means: Mapping[str, float]
    score: Cusum | None
    errors: Cusum | None
    bars: Mapping[str, tuple["Bar", ...]] = field(default_factory=dict)

    @property
    def state(self) -> DriftState:
        """The worst state of a feature; OK only where every feature that was logged could be judged."""
        worst = max((verdict.state for verdict in self.verdicts), default=DriftState.INSUFFICIENT)
        unsure = any(verdict.state is DriftState.INSUFFICIENT and verdict.n > 0 for verdict in self.verdicts)
        return DriftState.INSUFFICIENT if worst is DriftState.OK and unsure else worst

    @property
    def ranked(self) -> list[Verdict]:
        return by_severity(self.verdicts)


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """The outputs of one arm against those of the arm with the most rows, in the same window."""

    model: str
    arm: LoggedArm
    against: LoggedArm
    end_s: int
    rows: int
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Pairing:
    """Tells how far a mirror agreed with what was served, in its newest window."""

    model: str
    arm: LoggedArm
    end_s: int
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class SplitAssessment:
    """The split of a model in its newest window."""

    model: str
    end_s: int
    verdict: SplitVerdict


def assess_version(
    book: Book, profile: Profile, schedule: Schedule, rule: DriftRule, *, now_s: float
) -> list[ArmAssessment]:
    """The assessment of each arm of a version that had rows in its newest windows."""
    end_s = schedule.closed_s(now_s)
    least = max((least_rows(feature, rule) for feature in profile.watched), default=0)
    assessments = []
    for arm, series in sorted(book.series.items()):
        if series.last_s() <= end_s - _quiet_s(schedule):
            continue  # an arm that nobody is sent to any more
        windows = series.windows(end_s, schedule.base_s, least, rule.confirmations + _EXTRA)
        if windows:
            assessments.append(_assess_arm(book, arm, series, windows, profile, schedule, rule))
    return assessments


def compare_arms(book: Book, schedule: Schedule, rule: DriftRule, *, now_s: float) -> list[ArmComparison]:
    """Compares the outputs of each arm that serves with those of the arm with the most rows."""
    end_s = schedule.closed_s(now_s)
    least = max((least_rows(feature, rule) for feature in book.layout.features), default=0)
    windows = {
        arm: series.windows(end_s, schedule.base_s, least, rule.confirmations + _EXTRA)
        for arm, series in sorted(book.series.items())
        if not arm.shadow and series.last_s() > end_s - _quiet_s(schedule)
    }
    filled = {arm: own for arm, own in windows.items() if own and own[-1].tally.rows}
    if len(filled) < 2:
        return []
    against = max(filled, key=lambda arm: filled[arm][-1].tally.rows)
    comparisons = []
    for arm, own in filled.items():
        if arm != against:
            judged = [
                judge(
                    _as_reference(book.layout, book.series[against], window),
                    window_counts(book.layout, window.tally),
                    rule,
                )
                for window in own
            ]
            verdicts = tuple(confirm(of_feature, rule) for of_feature in zip(*judged, strict=True))
            comparisons.append(
                ArmComparison(book.subject.model, arm, against, own[-1].end_s, own[-1].tally.rows, verdicts)
            )
    return comparisons


def assess_pairs(book: Book, schedule: Schedule, *, now_s: float) -> list[Pairing]:
    """The agreement of each mirror in its newest base window that had pairs, if that is not long ago."""
    end_s = schedule.closed_s(now_s)
    pairings = []
    for arm, series in sorted(book.series.items()):
        recent = [
            window
            for window in series.history(end_s, schedule.base_s)
            if window.end_s > end_s - _quiet_s(schedule) and window.tally.agreed().pairs
        ]
        if recent:
            pairings.append(Pairing(book.subject.model, arm, recent[-1].end_s, recent[-1].tally.agreed()))
    return pairings


def assess_split(book: Book, schedule: Schedule, rule: DriftRule, *, now_s: float) -> list[SplitAssessment]:
    """Returns how evenly the requests of the model fell on the buckets of its split; nothing where there was no
    split."""
    series = book.series.get(EVERY_ARM)
    end_s = schedule.closed_s(now_s)
    if series is None or series.last_s() <= end_s - _quiet_s(schedule):
        return []
    windows = series.windows(end_s, schedule.base_s, LEAST_REQUESTS, rule.confirmations)
    judged = [
        judge_split(
            narrow_counts(counts["bucket"] if (counts := window_counts(book.layout, window.tally)) else NOTHING)
        )
        for window in windows
    ]
    return [SplitAssessment(book.subject.model, end_s, confirm_split(judged, rule.confirmations))] if judged else []


def _assess_arm(
    book: Book,
    arm: LoggedArm,
    series: TallySeries,
    windows: Sequence[Window],
    profile: Profile,
    schedule: Schedule,
    rule: DriftRule,
) -> ArmAssessment:
    counts = [window_counts(book.layout, window.tally) for window in windows]
    judged = [judge(profile.watched, one, rule) for one in counts]
    newest = windows[-1]
    shares = {
        feature.name: {
            name: hits / float(counts[-1][feature.name].sum())
            for name, hits in feature.bins.special(counts[-1][feature.name]).items()
        }
        for feature in profile.watched
        if feature.name in counts[-1]
    }
    history = list(series.history(newest.end_s, schedule.base_s))
    verdicts = tuple(confirm(of_feature, rule) for of_feature in zip(*judged, strict=True))
    drawn = {verdict.feature for verdict in by_severity(verdicts)[:DRAWN_FEATURES]}
    return ArmAssessment(
        model=profile.model,
        arm=arm,
        revision=profile.revision,
        start_s=newest.start_s,
        end_s=newest.end_s,
        rows=newest.tally.rows,
        verdicts=verdicts,
        outputs=frozenset(output.name for output in profile.outputs),
        bars={
            feature.name: bars(feature, counts[-1][feature.name])
            for feature in profile.watched
            if feature.name in drawn and feature.name in counts[-1]
        },
        shares=shares,
        means=means(book.layout, newest.tally),
        score=_score(book.layout, profile, history),
        errors=_errors(history),
    )


def bars(feature: FeatureProfile, counts: npt.ArrayLike) -> tuple[Bar, ...]:
    """Returns the cells that hold rows, in their order: of many the fullest, and the rest as one."""
    reference, window = (np.asarray(one, np.float64) for one in (feature.counts, counts))
    before, after = (one / max(1.0, float(one.sum())) for one in (reference, window))
    held = [place for place in range(len(before)) if before[place] or after[place]]
    fullest = sorted(held, key=lambda place: -max(before[place], after[place]))[:DRAWN_CELLS]
    cells = feature.bins.cells
    drawn = [Bar(cells[place], float(before[place]), float(after[place])) for place in sorted(fullest)]
    rest = [place for place in held if place not in set(fullest)]
    if rest:
        drawn.append(Bar(f"{len(rest)} others", float(before[rest].sum()), float(after[rest].sum())))
    return tuple(drawn)


def _score(layout: CellLayout, profile: Profile, history: Sequence[Window]) -> Cusum | None:
    feature = next((output for output in profile.outputs if output.name == SCORE), None)
    if feature is None or not history or not math.isfinite(feature.mean):
        return None
    rows = [window.tally.rows * window.tally.row_value for window in history]
    values = [means(layout, window.tally).get(SCORE, math.nan) for window in history]
    own = calibrated(feature, MEAN, min(rows))
    # Both windows of the reference and its rest scatter, the rest by next to nothing.
    shift = math.hypot(own.mean, own.sd) if own is not None else 0.0
    spread = (min(shift, _MOST_SHIFT) if feature.bounded else shift) * feature.sd
    return accumulate(standardised_means(values, rows, mean=feature.mean, sd=feature.sd, spread=spread))


def _errors(history: Sequence[Window]) -> Cusum | None:
    ended = [float(window.tally.ended) for window in history]
    scores = standardised_shares(
        [window.tally.error_share * n for window, n in zip(history, ended, strict=True)], ended
    )
    return accumulate(scores) if scores else None


def _as_reference(layout: CellLayout, series: TallySeries, window: Window) -> list[FeatureProfile]:
    """Returns the outputs of the other arm in the same time, in the form of a reference profile."""
    counts = window_counts(layout, series.sum(window.start_s, window.end_s))
    features = []
    for feature in layout.features:
        own = counts.get(feature.name)
        n = round(float(own.sum())) if own is not None else 0
        whole = tuple(round(float(count)) for count in own) if own is not None else (0,) * len(feature.bins.cells)
        unseen = round(feature.bins.special(own).get("unseen", 0.0)) if own is not None else 0
        features.append(replace(feature, counts=whole, n=n, singletons=unseen, calibration=()))
    return features


def _quiet_s(schedule: Schedule) -> int:
    return 24 * schedule.base_s


def _excess(verdict: Verdict) -> float:
    return abs(verdict.value) / verdict.threshold if verdict.threshold > 0 else 0.0


def by_severity(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Returns the verdicts with the worst first: by state, by how far it exceeds the threshold, then by name."""
    return sorted(verdicts, key=lambda one: (-one.state, -_excess(one), one.feature))


def verdict_value(verdict: Verdict) -> dict[str, object]:
    """The verdict for JSON, with the state's name."""
    value = asdict(verdict)
    del value["evidence"]
    return {**value, "state": verdict.state.name.lower()}
