"""The table of drift statistics: what each measures, where it applies, its thresholds, its calibration and its name.

The rule, calibration, reports, metrics and documents are derived from it; a name that is not in it is an error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from gateway.drift.statistics import distance
from gateway.drift.statistics.bins import Bins, CategoryBins, NumericBins
from gateway.drift.statistics.distance import Counts, Floats
from gateway.drift.statistics.reference_profile import FeatureProfile
from gateway.drift.statistics.significance import (
    chi2_test,
    least_difference,
    normal_quantile,
    share_test,
    wilson,
)

CHANCE: Final = 0.01  # what is less likely is not put down to chance
_ONE_SIDED: Final = 3.0  # how many times more has moved one way than the other where values went "higher" or "lower"
_NAMED: Final = 3  # categories that a direction names


class ExportedAs(StrEnum):
    """The metric that a statistic of a window is exported as, beside the state."""

    NONE = ""
    SCORE = "score"  # its value, by its name
    SHARE = "share"  # the share of such rows, in a metric of its own


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The sizes from which a change warns and is critical. Calibration can raise them up to `most`."""

    warn: float
    crit: float

    @property
    def most(self) -> float:
        """The largest threshold that the reference's own windows can make."""
        return 4.0 * self.crit


class Measurement(NamedTuple):
    """A statistic of one window.

    `size` is what thresholds are compared with, `value` what is shown. `error` is the part of the size that may be the
    samples' error; `noise` is a size that chance alone reaches. `direction` says in words what changed.
    """

    value: float
    size: float
    p: float
    direction: str
    error: float = 0.0
    noise: float = 0.0


class Contrast:
    """One window of a feature beside its reference.

    Shapes: `counts` has the window's rows in each cell, `reference` and `current` hold the rows in each folded bin.
    """

    def __init__(self, feature: FeatureProfile, counts: Counts, *, alpha: float, deviations: float) -> None:
        self.feature, self.counts = feature, counts
        self.alpha, self.deviations = alpha, deviations
        self.reference, self.current = feature.folded, feature.bins.fold(counts)
        self.n = float(counts.sum())
        self.p = chi2_test(self.reference, self.current).p
        self.direction = direction(feature, counts)

    def z(self, tests: int = 1) -> float:
        """Half the width of an interval of confidence 1 - alpha, or of several that hold at once, in deviations."""
        return normal_quantile(1.0 - self.alpha / (2.0 * max(tests, 1)))


Measure = Callable[[Contrast], Measurement | None]
Own = Callable[[Bins, Counts, Counts], Floats]  # bins, counts of the reference, counts of its windows -> one a window
Distance = Callable[[Counts, Counts], Floats]  # of folded counts


@dataclass(frozen=True, slots=True, eq=False)
class Statistic:
    """One statistic.

    `bins` is the kind of bins that it is defined for, None for both kinds. `distance` computes it from folded counts,
    for reports. `measure` and `thresholds` make it one that the rule judges by; `measure` returns None where it is not
    defined. `own` says how large it is between windows of the reference and the rest of it. What is judged needs it; a
    calibrated profile that lacks it (it is older than the statistic) is not judged by it. Of a `rare` one the
    reference may have nothing, and then lacks it rightly. `gauge` is the metric of a
    judged one; it has no default, so that none is left out by oversight. `says_what` is false where a statistic says
    that a distribution changed and not how.
    """

    name: str
    label: str
    bins: type[NumericBins] | type[CategoryBins] | None = None
    distance: Distance | None = None
    measure: Measure | None = None
    thresholds: Thresholds | None = None
    own: Own | None = None
    rare: bool = False
    says_what: bool = True
    gauge: ExportedAs | None = None

    def __post_init__(self) -> None:
        if (self.measure is None) != (self.thresholds is None):
            raise ValueError(f"statistic {self.name!r} has a measure or thresholds, expected both or neither")
        if self.measure is not None and self.own is None:
            raise ValueError(f"statistic {self.name!r} is judged, expected `own` to calibrate it")
        if self.measure is not None and self.gauge is None:
            raise ValueError(f"statistic {self.name!r} is judged, expected `gauge`: the metric it is, or NONE")

    @property
    def word(self) -> str:
        """Returns what it is called in a sentence."""
        return "PSI" if self is PSI else self.name.replace("_", " ")

    def applies(self, bins: Bins) -> bool:
        """Returns whether it is defined for features with such bins."""
        return self.bins is None or isinstance(bins, self.bins)


def vanished(bins: Bins, reference: Counts, current: Counts) -> tuple[npt.NDArray[np.bool_], Floats]:
    """Returns which folded bins of categories and point masses did not come, though by chance they would have, and for
    every bin the chance that it or another one does not come.

    Shapes: `reference` [B], `current` [..., B]; both results as `current`.
    """
    values = np.zeros(len(reference), np.bool_)  # missing, and infinite or other, are no values
    values[len(bins.edges) + 1 if isinstance(bins, NumericBins) else 0 : -2] = True
    shares = distance.shares(reference)
    chances = np.minimum((1.0 - shares) ** current.sum(axis=-1, keepdims=True) * max(int(values.sum()), 1), 1.0)
    return np.asarray((current <= 0) & values & (shares > 0) & (chances < CHANCE), np.bool_), chances


def direction(feature: FeatureProfile, counts: Counts) -> str:
    """Returns where the values have gone: higher, lower, wider or narrower for numbers, else which bin changed most."""
    reference, current = distance.shares(feature.folded), distance.shares(feature.bins.fold(counts))
    gaps = current - reference
    if isinstance(feature.bins, NumericBins):
        positions, before = feature.bins.along(feature.cell_counts)
        _, now = feature.bins.along(counts)
        if before.sum() > 0 and now.sum() > 0 and float(np.abs(gaps[: len(positions)]).max()) >= np.abs(gaps).max():
            return _shift(distance.shares(before), distance.shares(now))
    place = int(np.argmax(np.abs(gaps)))
    return f"{'more' if gaps[place] > 0 else 'less'} {feature.bins.labels[place]}"


def _shift(before: Floats, now: Floats) -> str:
    """The direction of numbers, from shares of bins in ascending order.

    Each bin counts as one step, so that far values count no more than others. Where about as much went up as down the
    values lie further apart if what went down lies below what went up.
    """
    gap = np.cumsum(before - now)  # above 0 where values have moved up across the end of the bin
    up, down = np.maximum(gap, 0.0), np.maximum(-gap, 0.0)
    if not gap.any():
        return ""
    if up.sum() > _ONE_SIDED * down.sum():
        return "higher"
    if down.sum() > _ONE_SIDED * up.sum():
        return "lower"
    places = np.arange(len(gap))
    return "wider" if (places * down).sum() / down.sum() < (places * up).sum() / up.sum() else "narrower"


def _psi(contrast: Contrast) -> Measurement:
    value = float(distance.debiased_psi(contrast.reference, contrast.current))
    noise = contrast.deviations * float(distance.psi_null_sd(contrast.reference, contrast.current))
    return Measurement(value, value, contrast.p, contrast.direction, noise=noise)


def _largest_gap(contrast: Contrast) -> Measurement | None:
    """Returns how much a single category has gained or lost: PSI is small where large categories trade rows.

    The error is that of the category of which most is left, with an interval so wide that those of all categories hold
    at once: the largest of many differences is large by chance alone.
    """
    if not isinstance(contrast.feature.bins, CategoryBins):
        return None
    reference, current = contrast.reference, contrast.current
    live = (reference > 0) | (current > 0)
    m, z = float(reference.sum()), contrast.z(int(live.sum()))
    least = float(np.max(least_difference(reference[live], m, current[live], contrast.n, z), initial=0.0))
    size = float(distance.l_infinity(reference, current))
    return Measurement(size, size, contrast.p, contrast.direction, max(size - least, 0.0))


def _share_of(name: str) -> Measure:
    """The measure of a share of rows that is worth a look by itself."""

    def measure(contrast: Contrast) -> Measurement | None:
        feature, n = contrast.feature, contrast.n
        expected = feature.special().get(name)
        if expected is None:
            return None
        hits = feature.bins.special(contrast.counts)[name]
        gap = hits / n - expected / feature.n
        least = float(least_difference(expected, feature.n, hits, n, contrast.z()))
        p = share_test(expected, feature.n, hits, n)
        return Measurement(gap, abs(gap), p, "more" if gap > 0 else "less", max(abs(gap) - least, 0.0))

    return measure


def _vanished(contrast: Contrast) -> Measurement:
    """The share of the reference whose categories or single values have not come at all.

    That they do not come is what `p` is about; the error is that of their share in the reference.
    """
    reference, bins = contrast.reference, contrast.feature.bins
    gone, chances = vanished(bins, reference, contrast.current)
    shares = distance.shares(reference)
    largest = sorted(np.flatnonzero(gone).tolist(), key=lambda place: -float(shares[place]))
    least = wilson(float(reference[gone].sum()), float(reference.sum()), contrast.z()).low
    size = float(shares[gone].sum())
    words = ", ".join(bins.labels[place] for place in largest[:_NAMED])
    return Measurement(size, size, float(chances[gone].min(initial=1.0)), words, max(size - least, 0.0))


def _own_distance(of: Distance) -> Own:
    """A distance of each window to the rest of the reference."""

    def own(bins: Bins, whole: Counts, windows: Counts) -> Floats:
        folded = bins.fold(windows)
        return of(bins.fold(whole) - folded, folded)

    return own


def _own_share(name: str) -> Own:
    """The difference of a share to that in the rest; nothing where no row of the reference is such a one."""

    def own(bins: Bins, whole: Counts, windows: Counts) -> Floats:
        total = bins.special(whole).get(name, 0.0)
        if total <= 0:
            return np.empty(0, np.float64)
        rows = windows.sum(axis=-1)
        hits = np.array([bins.special(window)[name] for window in windows])
        return np.asarray(np.abs(hits / rows - (total - hits) / (whole.sum() - rows)), np.float64)

    return own


def _own_vanished(bins: Bins, whole: Counts, windows: Counts) -> Floats:
    folded = bins.fold(whole)
    gone, _ = vanished(bins, folded, bins.fold(windows))
    return np.asarray(gone @ distance.shares(folded), np.float64) if gone.any() else np.empty(0, np.float64)


def _share(name: str, label: str, bins: Any = None, gauge: ExportedAs = ExportedAs.SHARE) -> Statistic:
    return Statistic(
        name,
        label,
        bins,
        measure=_share_of(name),
        thresholds=Thresholds(0.01, 0.05),
        own=_own_share(name),
        rare=True,
        gauge=gauge,
    )


PSI_THRESHOLDS: Final = Thresholds(0.10, 0.25)
PSI: Final = Statistic(
    "psi", "PSI, debiased", distance=distance.debiased_psi, measure=_psi, thresholds=PSI_THRESHOLDS,
    own=_own_distance(distance.debiased_psi), says_what=False, gauge=ExportedAs.SCORE,
)  # fmt: skip
L_INFINITY: Final = Statistic(
    "l_infinity", "Largest bin", distance=distance.l_infinity, measure=_largest_gap,
    thresholds=Thresholds(0.05, 0.10), own=_own_distance(distance.l_infinity), says_what=False,
    gauge=ExportedAs.SCORE,
)  # fmt: skip
MISSING: Final = _share("missing", "Missing")
UNSEEN: Final = _share("unseen", "Unseen category", CategoryBins)
_SHARES: Final = (
    MISSING,
    _share("infinite", "Infinite", NumericBins, ExportedAs.NONE),
    _share("out_of_range", "Out of range", NumericBins),
    UNSEEN,
)
MEAN: Final = Statistic("mean", "Mean", NumericBins)  # its shift between the reference's own windows is calibrated
SHARE_SUFFIX: Final = "_share"
_JUDGED: Final = (
    PSI,
    L_INFINITY,
    *_SHARES,
    Statistic(
        "vanished", "Vanished", measure=_vanished, thresholds=Thresholds(0.01, 0.05), own=_own_vanished, rare=True,
        gauge=ExportedAs.SCORE,
    ),
)  # fmt: skip
# What reports print beside that. Those without a function come from rows, or from the profile.
_SHOWN: Final = (
    Statistic("psi_raw", "PSI", distance=distance.psi),
    Statistic(
        "js_distance", "Jensen-Shannon distance", distance=distance.js_distance,
        own=_own_distance(distance.js_distance),
    ),
    Statistic("hellinger", "Hellinger", distance=distance.hellinger),
    Statistic("tvd", "Total variation", distance=distance.tvd),
    Statistic("chi2_p", "χ² p"),
    *(Statistic(one.name + SHARE_SUFFIX, one.label, one.bins) for one in _SHARES),
    Statistic("reference_missing_share", "Missing before"),
    MEAN,
    Statistic("sd", "Standard deviation", NumericBins),
    Statistic("mean_shift", "Mean shift / sd", NumericBins),
    Statistic("sd_ratio", "sd ratio", NumericBins),
    Statistic("reference_mean", "Mean before", NumericBins),
    Statistic("reference_sd", "Standard deviation before", NumericBins),
    Statistic("ks", "Kolmogorov-Smirnov D", NumericBins),
    Statistic("ks_p", "Kolmogorov-Smirnov p", NumericBins),
    Statistic("wasserstein", "Wasserstein / sd", NumericBins),
)  # fmt: skip
STATISTICS: Final[Mapping[str, Statistic]] = MappingProxyType({one.name: one for one in (*_JUDGED, *_SHOWN)})
JUDGED: Final[Mapping[str, Statistic]] = MappingProxyType({one.name: one for one in _JUDGED})
THRESHOLDS: Final[Mapping[str, Thresholds]] = MappingProxyType(
    {one.name: one.thresholds for one in _JUDGED if one.thresholds is not None}
)
CALIBRATED: Final = (*(one for one in STATISTICS.values() if one.own is not None), MEAN)
if len(STATISTICS) != len(_JUDGED) + len(_SHOWN):
    raise ValueError("two statistics have one name")
