"""What another policy would have been worth, from logged choices whose probabilities are known.

Each row has the action that was drawn for it, the probability of every action under the policy that was in force, and
under the one that is asked about. Three estimates, each a mean over keys, of which each counts once:

1. inverse propensity: the reward times target / logged probability. Without bias, and wide;
2. self-normalised: the same, divided by the mean of the weights. Narrower, slightly biased in few rows;
3. doubly robust: what a model of the reward says of the target's actions, and the weighted rest of what it missed. It
   is right where either the probabilities or the model are, and here the probabilities are exact. The model is a ridge
   regression for each action, of the mean where an action has few rows, made from the other half of the keys.

Sources: Horvitz and Thompson 1952; Swaminathan and Joachims, NeurIPS 2015; Dudik, Langford and Li, ICML 2011; sample
splitting, Chernozhukov et al. 2018; intervals as in `mean_difference`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from gateway.rollout.statistics.mean_difference import LEAST_UNITS, MeanDifference, UnitSums, interval, ratio_estimate

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
LEAST_EFFECTIVE: Final = 100.0  # keys that the weights leave, before anything is said
_ROWS_PER_FEATURE: Final = 10  # of an action, before its rewards are explained by features
_RIDGE: Final = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class LoggedChoices:
    """Rows with a reward. Shapes: [rows] `keys`, `actions`, `rewards`; [rows, actions] `logged` and `target`, which sum
    to 1 in each row; [rows, features] `features`, finite."""

    keys: Ints
    actions: Ints
    rewards: Floats
    logged: Floats
    target: Floats
    features: Floats


@dataclass(frozen=True, slots=True)
class OffPolicyValue:
    """The value of the target policy by three estimates, of the logged one, and how much more the target has (doubly
    robust). `effective` is the number of equally weighted keys that would know as much."""

    propensity: MeanDifference
    normalised: MeanDifference
    robust: MeanDifference
    logged: MeanDifference
    gain: MeanDifference
    effective: float
    rows: int
    keys: int


def unsupported(choices: LoggedChoices) -> dict[int, int]:
    """Returns the actions that the target takes in rows where they could not have been drawn, and their number."""
    rows = ((choices.target > 0) & (choices.logged <= 0)).sum(axis=0)
    return {action: int(count) for action, count in enumerate(rows.tolist()) if count}


def effective_keys(choices: LoggedChoices) -> float:
    """Returns the number of equally weighted keys that would know as much: (sum w)^2 / sum w^2."""
    weights = _by_key(choices, _weights(choices))
    squares = float(weights @ weights)
    return float(weights.sum()) ** 2 / squares if squares > 0 else 0.0


def off_policy_value(choices: LoggedChoices, *, alpha: float = 0.05) -> OffPolicyValue | None:
    """Returns the estimates; None where too few keys, or too few that the target would treat alike, are known.

    Raises: ValueError (the target takes actions that could not have been drawn).
    """
    if missing := unsupported(choices):
        raise ValueError(f"actions {sorted(missing)} of the target could not have been drawn in some rows")
    keys, effective = len(np.unique(choices.keys)), effective_keys(choices) if len(choices.keys) else 0.0
    if keys < LEAST_UNITS or effective < LEAST_EFFECTIVE:
        return None
    weights = _weights(choices)
    places = np.arange(len(choices.actions)), choices.actions
    expected = _model(choices)
    robust = (choices.target * expected).sum(axis=1) + weights * (choices.rewards - expected[places])
    weighed, weight = _by_key(choices, weights * choices.rewards), _by_key(choices, weights)
    sums = UnitSums(
        keys, float(weighed.sum()), float(weighed @ weighed), float(weight.sum()), float(weight @ weight),
        float(weighed @ weight),
    )  # fmt: skip
    ratio = ratio_estimate(sums)
    rewards, robust_by_key = _by_key(choices, choices.rewards), _by_key(choices, robust)
    return OffPolicyValue(
        _mean(weighed, alpha), interval(ratio.value, ratio.variance, keys, alpha), _mean(robust_by_key, alpha),
        _mean(rewards, alpha), _mean(robust_by_key - rewards, alpha), effective, len(choices.keys), keys,
    )  # fmt: skip


def _weights(choices: LoggedChoices) -> Floats:
    places = np.arange(len(choices.actions)), choices.actions
    weights: Floats = choices.target[places] / choices.logged[places]
    return weights


def _by_key(choices: LoggedChoices, values: Floats) -> Floats:
    """Returns the mean of each key."""
    _, owners, rows = np.unique(choices.keys, return_inverse=True, return_counts=True)
    means: Floats = np.bincount(owners, values) / rows
    return means


def _mean(values: Floats, alpha: float) -> MeanDifference:
    """Returns the mean over keys; as in `phase_difference`, two keys at the ends of what was seen widen it."""
    widened = np.concatenate([values, [values.min(), values.max()]])
    variance = max(float(values.var(ddof=1)), float(widened.var(ddof=1))) / len(values)
    return interval(float(values.mean()), variance, len(values), alpha)


def _model(choices: LoggedChoices) -> Floats:
    """Returns the reward that each action is expected to have in each row, by a model of the other half of the keys.

    Shapes: [rows, actions].
    """
    halves = ((choices.keys * 2_654_435_761) >> 11) & 1
    expected = np.full(choices.logged.shape, choices.rewards.mean())
    for half in (0, 1):
        asked, known = np.flatnonzero(halves == half), halves != half
        for action in range(choices.logged.shape[1]):
            taught = np.flatnonzero(known & (choices.actions == action))
            if len(taught):
                expected[asked, action] = _ridge(choices, taught, asked)
    return expected


def _ridge(choices: LoggedChoices, taught: Ints, asked: Ints) -> Floats:
    rewards = choices.rewards[taught]
    x = choices.features[taught]
    if not x.shape[1] or len(taught) < _ROWS_PER_FEATURE * (x.shape[1] + 1):
        return np.full(len(asked), rewards.mean())
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    x = (x - centre) / scale
    slopes = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ (rewards - rewards.mean()))
    predicted: Floats = rewards.mean() + ((choices.features[asked] - centre) / scale) @ slopes
    # No reward is expected beyond those that were seen: a row far away says nothing new.
    return np.clip(predicted, rewards.min(), rewards.max())
