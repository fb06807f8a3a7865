"""Whole rows against whole rows: what no feature shows alone, and which features show it together."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.drift.report.report import VectorReport
from gateway.drift.statistics.bins import CategoryBins
from gateway.drift.statistics.column import Column
from gateway.drift.statistics.distance import Floats
from gateway.drift.statistics.domain_classifier import Feature, separate
from gateway.drift.statistics.mmd import mmd, own_windows
from gateway.drift.statistics.reference_profile import EmbeddingProfile, FeatureProfile
from gateway.drift.statistics.time_blocks import LEAST_BLOCKS, BlockedRows, Integers
from gateway.drift.statistics.verdict import DriftState

AUC_WARN: Final = 0.60
AUC_CRIT: Final = 0.70
MMD_P: Final = 0.01
DEVIATIONS: Final = 3.0  # above the mean of the reference's own windows, as for single features
LEAST_ROWS: Final = 100
_MOST_ROWS: Final = 2000
_MOST_CATEGORIES: Final = 12
_FURTHEST: Final = 8.0  # standard deviations; one wild value must not outweigh a thousand rows


def compare_rows(
    name: str,
    reference: BlockedRows,
    current: BlockedRows,
    features: Sequence[Feature],
    *,
    share: float = 1.0,
    rng: np.random.Generator,
) -> VectorReport:
    """MMD and the domain classifier on at most 2000 rows of each side, with the time blocks that they come from.

    `share` is how many rows the window has, of the reference's: the reference's own windows of that size are compared
    too, where it has eight of them.
    """
    dimensions = reference.values.shape[1]
    note = ""
    if min(len(reference), len(current)) < LEAST_ROWS:
        note = f"{len(reference)} and {len(current)} rows, {LEAST_ROWS} of each are needed"
    elif min(reference.count, current.count) < LEAST_BLOCKS:
        note = f"{reference.count} and {current.count} time blocks, {LEAST_BLOCKS} of each are needed"
    if note:
        return VectorReport(name, dimensions, DriftState.INSUFFICIENT, None, None, note)
    own = own_windows(reference.values, share, rng=rng)
    before, now = reference.drawn(_MOST_ROWS, rng), current.drawn(_MOST_ROWS, rng)
    discrepancy = mmd(before, now, rng=rng)
    separation = separate(before, now, features, rng=rng)
    limit = None if own is None else own.mean + DEVIATIONS * own.sd
    state = DriftState.OK
    # All must say so: how large, by what chance, and whether the reference does the same by itself.
    if discrepancy.p <= MMD_P and separation.auc >= AUC_WARN and (limit is None or discrepancy.squared > limit):
        state = DriftState.CRIT if separation.auc >= AUC_CRIT else DriftState.WARN
    return VectorReport(name, dimensions, state, discrepancy, separation, "", limit, 0 if own is None else own.windows)


def compare_embedding(
    profile: EmbeddingProfile, vectors: Floats, moments_us: Integers | None, *, rows: int, rng: np.random.Generator
) -> VectorReport:
    """An embedding against the rows that its profile keeps, on the profile's principal components.

    Shapes: `vectors` [some of the window's rows, d], finite, in the order of their `moments_us`.
    """
    components = np.array(profile.components, np.float64)
    projected = (vectors - np.array(profile.centre, np.float64)) @ components.T
    kept = np.array(profile.sample, np.float64)
    features = [Feature(f"component {index + 1}", (index,)) for index in range(len(components))]
    reference, current = BlockedRows.in_order(kept), BlockedRows.in_order(projected, moments_us)
    return compare_rows(profile.name, reference, current, features, share=rows / max(profile.rows, 1), rng=rng)


def encode(
    features: Sequence[FeatureProfile], reference: Mapping[str, Column], current: Mapping[str, Column]
) -> tuple[Floats, Floats, tuple[Feature, ...]]:
    """Sampled rows of both sides as numbers: in standard deviations of the reference, categories as indicators, with an
    indicator of what is missing where something is. Shapes: [rows, columns] of each side."""
    blocks: list[tuple[Floats, Floats]] = []
    named: list[Feature] = []
    width = 0
    for feature in features:
        if feature.name not in reference or feature.name not in current:
            continue
        pair = _encoded(feature, reference[feature.name]), _encoded(feature, current[feature.name])
        used = np.concatenate(pair).std(axis=0) > 0
        if not used.any():
            continue
        blocks.append((pair[0][:, used], pair[1][:, used]))
        named.append(Feature(feature.name, tuple(range(width, width + int(used.sum())))))
        width += int(used.sum())
    if not blocks:
        return np.zeros((0, 0)), np.zeros((0, 0)), ()
    return np.concatenate([a for a, _ in blocks], axis=1), np.concatenate([b for _, b in blocks], axis=1), tuple(named)


def _encoded(feature: FeatureProfile, column: Column) -> Floats:
    missing = column.missing if column.missing is not None else np.zeros(len(column), np.bool_)
    if isinstance(feature.bins, CategoryBins):
        return _indicators(feature.bins, column, missing)
    values = column.values.astype(np.float64) if column.texts is None else np.full(len(column), np.nan)
    with np.errstate(invalid="ignore"):
        standard = (values - feature.mean) / (feature.sd if feature.sd > 0 else 1.0)
    gone = missing | np.isnan(standard)
    filled = np.clip(np.where(gone, 0.0, standard), -_FURTHEST, _FURTHEST)
    return np.column_stack([filled, gone.astype(np.float64)])


def _indicators(bins: CategoryBins, column: Column, missing: npt.NDArray[np.bool_]) -> Floats:
    known = bins.categories[:_MOST_CATEGORIES]
    places = np.full(len(column), len(known), np.int64)
    if column.texts is not None:
        of_text = {text: place for place, text in enumerate(known)}
        lookup = np.array([of_text.get(text, len(known)) for text in column.texts] or [0], np.int64)
        places = lookup[column.values.astype(np.int64)]
    elif bins.numeric:
        for place, name in enumerate(known):
            places[column.values.astype(np.float32) == np.float32(name)] = place
    places = np.where(missing, len(known) + 1, places)
    return np.eye(len(known) + 2)[places]
