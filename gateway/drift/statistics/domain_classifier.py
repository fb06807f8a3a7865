"""Tells how well a classifier tells rows of today from rows of the reference, and by which features."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics.distance import Floats
from gateway.drift.statistics.mmd import median_width, squared_distances
from gateway.drift.statistics.performance import auc
from gateway.drift.statistics.time_blocks import BlockedRows, Integers

_FOLDS = 5
_FOURIER = 128
_WIDTH_ROWS = 500
_NEWTON_STEPS = 25
_TOLERANCE = 1e-6  # of the loss; ranks are long settled


@dataclass(frozen=True, slots=True)
class Feature:
    """Columns of a matrix that belong together: one number, the indicators of a category, a value and its absence."""

    name: str
    columns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Separation:
    """The outcome: out-of-fold AUC (0.5: nothing tells the rows apart) with a 95 % interval, and for each feature how
    much of the AUC goes when its values are shuffled between the rows, largest first."""

    auc: float
    low: float
    high: float
    attribution: tuple[tuple[str, float], ...]
    reference_rows: int
    current_rows: int


def separate(
    reference: BlockedRows,
    current: BlockedRows,
    features: Sequence[Feature],
    *,
    rng: np.random.Generator,
    penalty: float = 1.0,
) -> Separation:
    """Logistic regression on standardised columns and random Fourier features, judged on blocks that it did not see:
    a row whose neighbours it has learnt is told by them.

    Shapes: the same columns in both, at least ten rows and five blocks each.
    Raises: ValueError.
    Source: Rahimi and Recht, Random Features for Large-Scale Kernel Machines, NIPS 2007.
    """
    _check(reference, "reference")
    _check(current, "current")
    data = np.concatenate([reference.values, current.values]).astype(np.float64)
    is_current = np.arange(len(data)) >= len(reference)
    folds = np.concatenate([_folds(reference, rng), _folds(current, rng)])
    space = _Space.drawn(data, rng)
    design = space.design
    scores = np.empty(len(data))
    shuffled = np.empty((len(data), len(features)))
    weights = np.zeros(design.shape[1])
    for fold in range(_FOLDS):
        held = folds == fold
        weights = logistic(design[~held], is_current[~held], penalty, start=weights)
        scores[held] = design[held] @ weights
        shuffled[held] = space.scores_shuffled(held, weights, features, rng)
    value = auc(scores, is_current)
    lost = {
        feature.name: max(value - auc(shuffled[:, index], is_current), 0.0) for index, feature in enumerate(features)
    }
    low, high = auc_interval(scores, is_current, np.concatenate([reference.blocks, current.blocks]))
    ordered = tuple(sorted(lost.items(), key=lambda item: (-item[1], item[0])))
    return Separation(value, low, high, ordered, len(reference), len(current))


def auc_interval(scores: Floats, positive: npt.NDArray[np.bool_], blocks: Integers) -> tuple[float, float]:
    """A 95 % interval of the AUC of scores whose errors are alike within a block.

    Shapes: [rows] each; `blocks` from 0 on, counted for each side by itself.
    Source: Obuchowski, Nonparametric analysis of clustered ROC curve data, Biometrics 53 (1997).
    """
    value, variance = auc(scores, positive), 0.0
    for side in (positive, ~positive):
        own, others = scores[side], np.sort(scores[~side])
        below = (np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")) / (2.0 * len(others))
        # How much a row's share of the others below it is off the mean, summed by block.
        off = below - below.mean()
        sums = np.bincount(blocks[side], off)
        groups = int((np.bincount(blocks[side]) > 0).sum())
        variance += float((sums**2).sum()) * groups / (max(groups - 1, 1) * len(own) ** 2)
    error = 1.96 * sqrt(variance)
    return max(value - error, 0.0), min(value + error, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Space:
    """Tells what the classifier sees of the rows; no label has a part in it, so all folds share it.

    Shapes: `standard` [rows, columns]; `directions` [columns, Fourier features]; `phases` [Fourier features].
    """

    standard: Floats
    directions: Floats
    phases: Floats

    @classmethod
    def drawn(cls, rows: Floats, rng: np.random.Generator) -> "_Space":
        mean, scale = rows.mean(axis=0), rows.std(axis=0)
        scale[scale < 1e-12 * np.maximum(np.abs(mean), 1.0)] = 1.0
        standard = (rows - mean) / scale
        some = standard[rng.permutation(len(standard))[:_WIDTH_ROWS]]
        sigma = median_width(squared_distances(some, some)) or 1.0
        directions = rng.normal(0.0, 1.0 / sigma, size=(rows.shape[1], _FOURIER))
        return cls(standard, directions, rng.uniform(0.0, 2 * np.pi, _FOURIER))

    @property
    def design(self) -> Floats:
        """Columns, Fourier features, and a constant."""
        return np.column_stack(
            [self.standard, self._waves(self.standard @ self.directions), np.ones(len(self.standard))]
        )

    def scores_shuffled(
        self, held: npt.NDArray[np.bool_], weights: Floats, features: Sequence[Feature], rng: np.random.Generator
    ) -> Floats:
        """Scores of the held rows when the values of one feature come from others of them; only what they touch is
        computed anew.

        Shapes: [held rows, features].
        """
        standard, columns = self.standard[held], self.standard.shape[1]
        linear, fourier = weights[:columns], weights[columns:-1]
        projected = standard @ self.directions
        unmoved = standard @ linear + weights[-1]
        scores = np.empty((len(standard), len(features)))
        for index, feature in enumerate(features):
            chosen = list(feature.columns)
            own = standard[:, chosen]
            moved = own[rng.permutation(len(own))] - own
            waves = self._waves(projected + moved @ self.directions[chosen])
            scores[:, index] = unmoved + moved @ linear[chosen] + waves @ fourier
        return scores

    def _waves(self, projected: Floats) -> Floats:
        return np.asarray(np.cos(projected + self.phases) * sqrt(2 / _FOURIER), np.float64)


def logistic(design: Floats, positive: npt.NDArray[np.bool_], penalty: float, *, start: Floats | None = None) -> Floats:
    """The weights of least log-loss + penalty/2 |w|², both classes weighing the same; the last column, a constant, is
    not penalised.

    Source: Newton's method with step halving.
    """
    target = positive.astype(np.float64)
    share = np.where(positive, 0.5 / max(target.mean(), 1e-12), 0.5 / max(1 - target.mean(), 1e-12))
    ridge = np.full(design.shape[1], penalty)
    ridge[-1] = 1e-6
    weights = np.zeros(design.shape[1]) if start is None else start
    loss = _loss(design, target, share, ridge, weights)
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (share * (chance - target)) + ridge * weights
        curvature = design.T @ (design * (share * chance * (1 - chance))[:, None]) + np.diag(ridge)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-4 and (better := _loss(design, target, share, ridge, weights - size * step)) > loss:
            size /= 2
        if size <= 1e-4 or loss - better < _TOLERANCE * max(abs(loss), 1.0):
            return weights - size * step if size > 1e-4 else weights
        weights, loss = weights - size * step, better
    return weights


def _loss(design: Floats, target: Floats, share: Floats, ridge: Floats, weights: Floats) -> float:
    margin = design @ weights
    return float((share * (np.logaddexp(0.0, margin) - target * margin)).sum() + (ridge * weights**2).sum() / 2)


def _folds(rows: BlockedRows, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Returns which fold each row is held out in: blocks are dealt out evenly."""
    of_block = np.empty(rows.count, np.int64)
    of_block[rng.permutation(rows.count)] = np.arange(rows.count) % _FOLDS
    return of_block[rows.blocks]


def _check(rows: BlockedRows, name: str) -> None:
    if rows.values.ndim != 2 or len(rows) < 2 * _FOLDS:
        shape = rows.values.shape
        raise ValueError(f"{name} has shape {shape}, expected [rows, columns] with at least {2 * _FOLDS} rows")
    if rows.count < _FOLDS:
        raise ValueError(f"{name} has {rows.count} time blocks, expected {_FOLDS} or more")
    if not np.isfinite(rows.values).all():
        raise ValueError(f"{name} has values that are not finite, expected them to be left out or filled in before")
