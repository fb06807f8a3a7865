"""Version B against version A of a model, as the log has them: same requests, or each its own."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.drift import statistics
from gateway.drift.agreement import Agreement, Answers, compare
from gateway.drift.comparison import McNemar, PairedLoss, SplitTest, mcnemar, paired_loss, split_test
from gateway.drift.lake import Lake, Selection
from gateway.drift.outcome import Labelled, Outputs, Task, read_labelled
from gateway.drift.performance import Change
from gateway.drift.performance import compare as compare_metrics
from gateway.drift.profile import Profile
from gateway.drift.quality import rate
from gateway.drift.report import ComparisonReport, OutputGap
from gateway.drift.significance import benjamini_hochberg, chi2_test
from gateway.drift.statistics import Counts
from gateway.drift.survey import Survey, survey
from gateway.drift.verdict import Rule, State
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
    found = [read_labelled(lake, side, outputs, classes=classes) for side in sides]
    first, second = found
    changes: tuple[Change, ...] = ()
    if first is not None and second is not None and first.answers.task is second.answers.task:
        changes = compare_metrics(first.outcomes(), second.outcomes(), rng=rng)
    split = _split(lake, selection, versions, shares) if shares else None
    if not split and not sides[1].shadow:
        notes.append("whether the split is as meant was not tested: --split says what was meant")
    agreement, test, loss = _paired(lake, selection, versions, first or second, rng)
    state = max(
        [gap.state for gap in gaps]
        + [rate(change) for change in changes]
        + [agreement.state if agreement else State.INSUFFICIENT]
        + [State.CRIT if split and split.mismatch else State.INSUFFICIENT]
    )
    return ComparisonReport(
        versions[0], versions[1], surveys[0].rows, surveys[1].rows, state, gaps, changes, split, agreement, test, loss,
        tuple(notes),
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
    rule = Rule()
    found: list[tuple[str, float, float]] = []
    for output in profile.outputs:
        a, b = first.total(output.name), second.total(output.name)
        if a is None or b is None or min(first.worth, second.worth) < _SMALLEST_GAP:
            continue
        before, now = (_worth(output.bins.fold(counts), side.worth) for counts, side in ((a, first), (b, second)))
        found.append((output.name, float(statistics.debiased_psi(before, now)), chi2_test(before, now).p))
    adjusted = benjamini_hochberg([p for _, _, p in found]).tolist()
    gaps = []
    for (name, psi, _), p in zip(found, adjusted, strict=True):
        sure = p < rule.alpha
        state = (
            State.CRIT if sure and psi >= rule.psi_crit else State.WARN if sure and psi >= rule.psi_warn else State.OK
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


def _paired(
    lake: Lake, selection: Selection, versions: tuple[str, str], like: Labelled | None, rng: np.random.Generator
) -> tuple[Agreement | None, McNemar | None, PairedLoss | None]:
    """The rows that both ran, whichever of them answered."""
    parts: list[dict[str, Array]] = []
    expressions = {
        "a_class": "a.pred_class", "b_class": "b.pred_class", "a_score": "a.pred_score", "b_score": "b.pred_score",
        "label": "l.label_num",
    }  # fmt: skip
    for primary, shadow in ((0, 1), (1, 0)):
        ours = replace(selection, versions=(versions[primary],), shadow=False)
        theirs = replace(selection, versions=(versions[shadow],), shadow=True)
        named = expressions
        if primary == 1:
            swap = str.maketrans("ab", "ba")
            named = {
                name: text if name == "label" else text[0].translate(swap) + text[1:]
                for name, text in expressions.items()
            }
        found = lake.paired(ours, theirs, named)
        if len(found["a_class"]):
            parts.append(found)
    if not parts:
        return None, None, None
    joined = {name: np.concatenate([_numbers(part[name]) for part in parts]) for name in expressions}
    sides = [_answers(joined, side) for side in ("a", "b")]
    return (compare(sides[0], sides[1]), *_labelled_pairs(joined, like, rng))


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


def _answers(joined: Mapping[str, Array], side: str) -> Answers:
    classes = joined[f"{side}_class"]
    rows = np.arange(len(classes), dtype=np.uint64)
    return Answers(
        rows,
        np.zeros(len(rows), np.int64),
        np.where(np.isfinite(classes), classes, -1).astype(np.int64),
        joined[f"{side}_score"],
    )


def _numbers(values: Array) -> npt.NDArray[np.float64]:
    return np.where(np.ma.getmaskarray(values), np.nan, np.ma.getdata(values).astype(np.float64))
