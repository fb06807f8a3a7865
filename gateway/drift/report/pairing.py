"""Version B against version A of a model, as the log has them: same requests, or each its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import CHOSEN, Selection
from gateway.drift.report.outcome import read_labelled
from gateway.drift.report.report import ComparisonReport, OutputGap
from gateway.drift.report.survey import Survey, survey
from gateway.drift.statistics import distance as statistics
from gateway.drift.statistics.agreement import KeyedAnswers, compare
from gateway.drift.statistics.answers import Labelled, Outputs, Task
from gateway.drift.statistics.distance import Counts, Floats
from gateway.drift.statistics.performance import MetricChange
from gateway.drift.statistics.performance import compare as compare_metrics
from gateway.drift.statistics.rating import rate
from gateway.drift.statistics.reference_profile import Profile
from gateway.drift.statistics.significance import benjamini_hochberg, chi2_test
from gateway.drift.statistics.split import BUCKETS, NARROW, SplitVerdict, judge_split
from gateway.drift.statistics.statistic import PSI_THRESHOLDS
from gateway.drift.statistics.verdict import DriftRule, DriftState
from gateway.drift.statistics.version_comparison import (
    McNemar,
    PairedLoss,
    SplitTest,
    mcnemar,
    paired_loss,
    reward_gap,
    spearman,
    split_test,
)
from gateway.errors import InvalidArgument

Array = npt.NDArray[Any]
_SMALLEST_GAP = 100  # rows of each version below which outputs are not compared


def compare_versions(
    lake: Lake,
    selection: Selection,
    versions: tuple[str, str],
    profile: Profile,
    outputs: Outputs,
    *,
    rng: np.random.Generator,
    classes: Sequence[str] = (),
    shares: Mapping[str, float] | None = None,
) -> ComparisonReport:
    """The section on A and B. `shares` are what the route meant each version to get, where the operator says it.

    Raises: InvalidArgument (shares of other versions).
    """
    notes: list[str] = []
    sides = [_side(lake, selection, version, notes) for version in versions]
    surveys = [_outputs_of(lake, side, profile, rng) for side in sides]
    gaps = _gaps(profile, surveys[0], surveys[1])
    labelled = [read_labelled(lake, side, outputs, classes=classes) for side in sides]
    first, second = labelled
    changes: tuple[MetricChange, ...] = ()
    if first is not None and second is not None and first.answers.task is second.answers.task:
        changes = compare_metrics(first.outcomes(), second.outcomes(), rng=rng)
    split = _split(lake, selection, versions, shares) if shares else None
    buckets = _buckets(lake, selection)
    if not split and not sides[1].shadow:
        notes.append("whether the shares are those that were meant was not tested: --split says what was meant")
    joined = _paired(lake, selection, versions)
    chosen = 0 if joined else lake.census(replace(selection, versions=versions, chosen=True)).total
    if chosen:
        notes.append(f"how far the versions agree is not known: there are {chosen} {CHOSEN}, and no others")
    agreement = compare(*(_answers(joined, side) for side in ("a", "b"))) if joined else None
    test, loss = _labelled_pairs(joined, first or second, rng) if joined else (None, None)
    state = max(
        [gap.state for gap in gaps]
        + [rate(change) for change in changes]
        + [agreement.state if agreement else DriftState.INSUFFICIENT]
        + [DriftState.CRIT if split and split.mismatch else DriftState.INSUFFICIENT]
        + [buckets.state if buckets else DriftState.INSUFFICIENT]
    )
    return ComparisonReport(
        versions[0], versions[1], surveys[0].rows, surveys[1].rows, state, gaps, changes, split, agreement, test, loss,
        _rank_correlation(joined), buckets, reward_gap(*(lake.rewards(side) for side in sides)), tuple(notes),
    )  # fmt: skip


def _side(lake: Lake, selection: Selection, version: str, notes: list[str]) -> Selection:
    """The rows that a version answered, or, if it answered nobody, its copies."""
    side = replace(selection, versions=(version,), shadow=False)
    if lake.census(side).total:
        return side
    copies = replace(side, shadow=True)
    if lake.census(copies).total:
        notes.append(f"version {version} answered nobody: its rows are copies that a mirror ran")
        return copies
    notes.append(f"version {version} has no rows in the window")
    return side


def _outputs_of(lake: Lake, side: Selection, profile: Profile, rng: np.random.Generator) -> Survey:
    return survey(lake, side, profile.outputs, rng=rng, census=lake.census(side), buckets=(side.span,), sample_rows=0)


def _gaps(profile: Profile, first: Survey, second: Survey) -> tuple[OutputGap, ...]:
    rule = DriftRule()
    measured: list[tuple[str, float, float]] = []
    for output in profile.outputs:
        a, b = first.total(output.name), second.total(output.name)
        if a is None or b is None or min(first.worth, second.worth, a.sum(), b.sum()) < _SMALLEST_GAP:
            continue
        before, now = (_worth(output.bins.fold(counts), side.worth) for counts, side in ((a, first), (b, second)))
        measured.append((output.name, float(statistics.debiased_psi(before, now)), chi2_test(before, now).p))
    adjusted = benjamini_hochberg([p for _, _, p in measured]).tolist()
    gaps = []
    for (name, psi, _), p in zip(measured, adjusted, strict=True):
        sure = p < rule.alpha
        state = (
            DriftState.CRIT
            if sure and psi >= PSI_THRESHOLDS.crit
            else DriftState.WARN
            if sure and psi >= PSI_THRESHOLDS.warn
            else DriftState.OK
        )
        gaps.append(OutputGap(name, psi, p, state))
    return tuple(sorted(gaps, key=lambda gap: -gap.psi))


def _worth(counts: Counts, rows: float) -> Counts:
    total = float(counts.sum())
    return np.asarray(counts * (rows / total), np.float64) if total > 0 else counts


def _split(
    lake: Lake, selection: Selection, versions: tuple[str, str], shares: Mapping[str, float]
) -> SplitTest | None:
    """By request, not by row: rows of one batch go the same way together."""
    first = "row_index = 0" + (f" AND ({selection.where}\n)" if selection.where.strip() else "")
    census = lake.census(replace(selection, versions=versions, where=first, shadow=False))
    counts = {version: int(census.rows[census.versions == version].sum()) for version in versions}
    try:
        return split_test(counts, shares) if sum(counts.values()) else None
    except ValueError as error:
        raise InvalidArgument(f"split: {error}") from None


def _buckets(lake: Lake, selection: Selection) -> SplitVerdict | None:
    """Returns whether all requests of the model that a split decided fall evenly on its buckets; None where there were
    none."""
    every = Selection(selection.model, selection.span, where="row_index = 0 AND reason = 'SPLIT' AND bucket >= 0")
    if "bucket" not in lake.columns(every):
        return None
    width = BUCKETS // NARROW
    places = lake.fetch(every, {"place": f"bucket // {width}"})["place"]
    counts = np.bincount(np.ma.getdata(places).astype(np.int64), minlength=NARROW)
    return judge_split(counts.astype(np.float64)) if len(places) else None


def _paired(lake: Lake, selection: Selection, versions: tuple[str, str]) -> dict[str, Floats]:
    """Classes, scores and labels of the rows that both ran, whichever of them answered; empty where there are none."""
    parts: list[dict[str, Array]] = []
    for ours, theirs, a, b in ((0, 1, "a", "b"), (1, 0, "b", "a")):
        primary = replace(selection, versions=(versions[ours],), shadow=False)
        copies = replace(selection, versions=(versions[theirs],), shadow=True)
        pairs = lake.paired(
            primary,
            copies,
            {
                f"{a}_class": "a.pred_class", f"{b}_class": "b.pred_class", f"{a}_score": "a.pred_score",
                f"{b}_score": "b.pred_score", "label": "l.label_num",
            },
        )  # fmt: skip
        if len(pairs["label"]):
            parts.append(pairs)
    return {name: np.concatenate([_numbers(part[name]) for part in parts]) for name in parts[0]} if parts else {}


def _rank_correlation(joined: Mapping[str, Floats]) -> float | None:
    if not joined:
        return None
    known = np.isfinite(joined["a_score"]) & np.isfinite(joined["b_score"])
    return spearman(joined["a_score"][known], joined["b_score"][known]) if known.any() else None


def _labelled_pairs(
    joined: Mapping[str, Array], like: Labelled | None, rng: np.random.Generator
) -> tuple[McNemar | None, PairedLoss | None]:
    known = np.isfinite(joined["label"])
    if like is None or not known.any():
        return None, None
    label = joined["label"][known]
    if like.answers.task is Task.REGRESSION:
        losses = [np.abs(joined[f"{side}_score"][known] - label) for side in ("a", "b")]
        usable = np.isfinite(losses[0]) & np.isfinite(losses[1])
        return None, paired_loss(losses[0][usable], losses[1][usable], rng=rng) if usable.any() else None
    both = np.isfinite(joined["a_class"][known]) & np.isfinite(joined["b_class"][known])
    right = [joined[f"{side}_class"][known][both] == label[both] for side in ("a", "b")]
    return mcnemar(right[0], right[1]), None


def _answers(joined: Mapping[str, Array], side: str) -> KeyedAnswers:
    classes = joined[f"{side}_class"]
    rows = np.arange(len(classes), dtype=np.uint64)
    return KeyedAnswers(
        rows,
        np.zeros(len(rows), np.int64),
        np.where(np.isfinite(classes), classes, -1).astype(np.int64),
        joined[f"{side}_score"],
    )


def _numbers(values: Array) -> npt.NDArray[np.float64]:
    return np.where(np.ma.getmaskarray(values), np.nan, np.ma.getdata(values).astype(np.float64))
