"""Thompson sampling in batches: which arm is the best one, by what was seen of each in the same times.

Arms are compared within phases, spans with one split, and phases are added by how many rewards came in them: where
rewards rise in the evening and the weights moved at noon, pooled arms differ although they are equal. An arm's mean is
then that of a sample of n = W^2 / sum(w_k^2 / n_k) rewards, W = sum(w_k), w_k the rewards of all arms in phase k and
n_k its own; with one phase n is simply their number.

Posterior:  `beta`, for rewards that are 0 or 1: Beta(1 + n m, 1 + n (1 - m)), from a uniform prior. `normal`, for any
            other: Normal(m, s^2 / n), where one reward as far from the mean as those of all arms are is added to the
            squares, so that an arm of which all rewards were the same is not taken for one that can give no other.
Discount:   a phase counts by discount^age, and its n_k too: discounted Thompson sampling (Raj, Kalyani 2017,
            arXiv 1707.09727), in which old rewards lose their weight and certainty is lost again.
Shares:     of the draws from all posteriors the share in which an arm's is the best one (Thompson 1933; in batches
            as in Chapelle, Li 2011), on top of a floor f for each of k arms: f + (1 - k f) share, as GrowthBook has it.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
DRAWS: Final = 20_000  # the standard error of a share is 0.35 points at most


class ArmStrata(msgspec.Struct, frozen=True):
    """What is known of one arm over phases: sums of w, w m, w times the mean of squares, and w^2 / n."""

    weight: float = 0.0
    mean: float = 0.0
    square: float = 0.0
    inverse: float = 0.0

    def __add__(self, other: "ArmStrata") -> "ArmStrata":
        return ArmStrata(
            self.weight + other.weight,
            self.mean + other.mean,
            self.square + other.square,
            self.inverse + other.inverse,
        )

    def aged(self, factor: float) -> "ArmStrata":
        """Returns the same with that factor on the number of its rewards."""
        return ArmStrata(self.weight * factor, self.mean * factor, self.square * factor, self.inverse * factor)

    @property
    def rewards(self) -> float:
        """Returns the number of rewards that its mean is worth; 0 where there is none."""
        return self.weight**2 / self.inverse if self.inverse > 0 else 0.0

    @property
    def value(self) -> float:
        """Returns its mean; NaN where nothing is known."""
        return self.mean / self.weight if self.weight > 0 else math.nan

    @property
    def variance(self) -> float:
        """Returns the variance of one reward; NaN where nothing is known."""
        return max(0.0, self.square / self.weight - self.value**2) if self.weight > 0 else math.nan


def strata_of(sums: Sequence[tuple[int, float, float]]) -> tuple[ArmStrata, ...]:
    """Returns what one phase says of each arm, from the number of its rewards, their sum and that of their squares.

    A phase in which an arm has none says nothing of any: the others would be compared with it over other times.
    """
    rewards = float(sum(n for n, _, _ in sums))
    if min((n for n, _, _ in sums), default=0) <= 0:
        return tuple(ArmStrata() for _ in sums)
    return tuple(
        ArmStrata(rewards, rewards * total / n, rewards * squares / n, rewards**2 / n) for n, total, squares in sums
    )


def best_shares(
    arms: Sequence[ArmStrata], posterior: str, random: np.random.Generator, *, lower_is_better: bool = False
) -> Floats:
    """Returns how probable it is of each arm that it is the best one. Shapes: [arms], sums up to 1.

    Raises: ValueError (an arm of which nothing is known).
    """
    if not arms or any(arm.rewards <= 0 for arm in arms):
        raise ValueError("an arm without a reward cannot be compared")
    means, rewards = (np.array([getattr(arm, name) for arm in arms]) for name in ("value", "rewards"))
    if posterior == "beta":
        known = np.clip(means, 0.0, 1.0)
        draws = random.beta(1 + rewards * known, 1 + rewards * (1 - known), size=(DRAWS, len(arms)))
    else:
        total = float(rewards.sum())
        common = float((rewards * means).sum()) / total
        within = np.array([arm.variance for arm in arms])
        pooled = float((rewards * (within + (means - common) ** 2)).sum()) / total
        deviation = np.sqrt((within + pooled / rewards) / rewards)
        draws = random.normal(means, deviation, size=(DRAWS, len(arms)))
    if lower_is_better:
        draws = -draws
    ties = draws == draws.max(axis=1, keepdims=True)  # where nothing varies, all are the best one
    shares: Floats = (ties / ties.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares


def floored(shares: Floats, floor: int, whole: int) -> list[int]:
    """Returns whole numbers that sum up to `whole`, each at least `floor`, the rest by the shares (largest remainder).

    Raises: ValueError (the floors alone are more than there is).
    """
    rest = whole - floor * len(shares)
    if rest < 0:
        raise ValueError(f"{len(shares)} floors of {floor} are more than {whole}")
    exact = shares / shares.sum() * rest
    given = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - given), kind="stable")
    given[order[: rest - int(given.sum())]] += 1
    return [floor + int(one) for one in given]
