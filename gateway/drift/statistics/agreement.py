"""Two versions on the same requests: how often they say the same, and how far their scores are apart."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics.significance import ConfidenceInterval, wilson
from gateway.drift.statistics.verdict import DriftState

WARN_BELOW: Final = 0.99
CRIT_BELOW: Final = 0.95
LEAST_PAIRS: Final = 200
TOLERANCE: Final = 1e-3  # scores further apart are counted
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class KeyedAnswers:
    """Tells what a version answered to single rows.

    Shapes: [rows] each. `requests` and `places` (which row of the request) name a row; `classes` is -1 and `scores` NaN
    where there is none.
    """

    requests: npt.NDArray[np.uint64]
    places: Integers
    classes: Integers
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Counts over pairs; those of two windows can be added.

    `pairs` are rows that both answered; `classes` those where both named a class, `same` where it is the same one;
    `scores` those where both gave a score, `apart` where they differ by more than the tolerance; `difference` is the
    sum of the absolute differences.
    """

    pairs: int = 0
    classes: int = 0
    same: int = 0
    scores: int = 0
    apart: int = 0
    difference: float = 0.0
    largest: float = 0.0

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            self.pairs + other.pairs,
            self.classes + other.classes,
            self.same + other.same,
            self.scores + other.scores,
            self.apart + other.apart,
            self.difference + other.difference,
            max(self.largest, other.largest),
        )

    @property
    def compared(self) -> int:
        """The pairs that the ratio is taken over: by class where there are classes, else by score."""
        return self.classes or self.scores

    @property
    def ratio(self) -> float:
        """The share of pairs that agree; NaN without pairs."""
        agreed = self.same if self.classes else self.scores - self.apart
        return agreed / self.compared if self.compared else float("nan")

    @property
    def interval(self) -> ConfidenceInterval:
        """Wilson's 95 % interval of the ratio."""
        agreed = self.same if self.classes else self.scores - self.apart
        return wilson(agreed, self.compared)

    @property
    def state(self) -> DriftState:
        """WARN or CRIT where even the upper end of the interval is below the threshold."""
        if self.compared < LEAST_PAIRS:
            return DriftState.INSUFFICIENT
        if self.interval.high < CRIT_BELOW:
            return DriftState.CRIT
        return DriftState.WARN if self.interval.high < WARN_BELOW else DriftState.OK


def compare(primary: KeyedAnswers, shadow: KeyedAnswers, *, tolerance: float = TOLERANCE) -> Agreement:
    """The agreement over the rows that both have. Where a row is there more than once, its last answer counts."""
    ours, theirs = _paired(primary, shadow)
    named = (primary.classes[ours] >= 0) & (shadow.classes[theirs] >= 0)
    same = named & (primary.classes[ours] == shadow.classes[theirs])
    gaps = np.abs(primary.scores[ours] - shadow.scores[theirs])
    scored = np.isfinite(gaps)
    return Agreement(
        pairs=len(ours),
        classes=int(named.sum()),
        same=int(same.sum()),
        scores=int(scored.sum()),
        apart=int((gaps[scored] > tolerance).sum()),
        difference=float(gaps[scored].sum()),
        largest=float(gaps[scored].max(initial=0.0)),
    )


def _paired(primary: KeyedAnswers, shadow: KeyedAnswers) -> tuple[Integers, Integers]:
    """Indices of the rows with the same name on both sides."""
    keys = []
    for answers in (primary, shadow):
        key = np.empty(len(answers.requests), [("request", "u8"), ("place", "i8")])
        key["request"], key["place"] = answers.requests, answers.places
        keys.append(key)
    # From the end, so that of equal names the last is found first.
    uniques = [np.unique(key[::-1], return_index=True) for key in keys]
    _, first, second = np.intersect1d(uniques[0][0], uniques[1][0], assume_unique=True, return_indices=True)
    ours = len(keys[0]) - 1 - uniques[0][1][first]
    theirs = len(keys[1]) - 1 - uniques[1][1][second]
    return np.asarray(ours, np.int64), np.asarray(theirs, np.int64)
