"""What a step of a rollout can find out at the present traffic, and in which time: for `gateway plan`."""

import math
from typing import Final

_OVERSHOOT: Final = 1.7  # what a mixture over ratios and starts costs, in nats; from simulation
_LARGEST_RATIO: Final = 300.0


def seconds_to_detect(
    ratio: float,
    *,
    requests_per_s: float,
    weight: float,
    stable_rate: float,
    bound: float = 1.2,
    alpha: float = 0.01,
    metrics: int = 1,
) -> float:
    """Returns in about how many seconds a canary with `ratio` times the stable rate is found out; inf for never.

    Units:  `weight` is the canary's share of the requests, in (0, 1); `stable_rate` events per request.
    Source: ln(metrics / alpha) over the expected growth of the evidence, the Kullback-Leibler divergence of the
    canary's
            share of events from its share at the bound, times the events per second.
    """
    _check_weight(weight)
    ratio = min(ratio, 1 / stable_rate) if stable_rate > 0 else ratio  # a rate is at most 1
    events_per_s = requests_per_s * stable_rate * (weight * ratio + 1 - weight)
    if ratio <= bound or events_per_s <= 0:
        return math.inf
    share = weight * ratio / (weight * ratio + 1 - weight)
    at_bound = weight * bound / (weight * bound + 1 - weight)
    divergence = share * math.log(share / at_bound) + (1 - share) * math.log((1 - share) / (1 - at_bound))
    return (math.log(metrics / alpha) + _OVERSHOOT) / (events_per_s * divergence)


def smallest_ratio(
    within_s: float,
    *,
    requests_per_s: float,
    weight: float,
    stable_rate: float,
    bound: float = 1.2,
    alpha: float = 0.01,
    metrics: int = 1,
) -> float:
    """Returns the smallest ratio of rates that is found within the time; inf where even 300 times is not.

    Units:  as `seconds_to_detect`.
    """

    def late(ratio: float) -> bool:
        needed_s = seconds_to_detect(
            ratio,
            requests_per_s=requests_per_s,
            weight=weight,
            stable_rate=stable_rate,
            bound=bound,
            alpha=alpha,
            metrics=metrics,
        )
        return needed_s > within_s

    low, high = bound, min(_LARGEST_RATIO, 1 / stable_rate) if stable_rate > 0 else _LARGEST_RATIO
    if high <= low or late(high):
        return math.inf
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if late(middle) else (low, middle)
    return high


def harmed_before_found(
    ratio: float,
    *,
    requests_per_s: float,
    weight: float,
    stable_rate: float,
    bound: float = 1.2,
    alpha: float = 0.01,
    metrics: int = 1,
) -> float:
    """Returns about how many requests fail beyond the stable rate before a canary of this ratio is found out.

    Units:  as `seconds_to_detect`; inf where it never is.
    """
    seconds = seconds_to_detect(
        ratio,
        requests_per_s=requests_per_s,
        weight=weight,
        stable_rate=stable_rate,
        bound=bound,
        alpha=alpha,
        metrics=metrics,
    )
    if math.isinf(seconds):
        return math.inf
    return seconds * requests_per_s * weight * (min(1.0, ratio * stable_rate) - stable_rate)


def excess_events(canary: int, stable: int, canary_events: int, stable_events: int) -> float:
    """Returns how many more events the canary had than its share of all of them: the harm that was done so far.

    It is 0 where an arm completed nothing, and never below 0. A harm budget is compared with it.
    """
    if canary <= 0 or stable <= 0:
        return 0.0
    expected = (canary_events + stable_events) * canary / (canary + stable)
    return max(0.0, canary_events - expected)


def _check_weight(weight: float) -> None:
    if not 0 < weight < 1:
        raise ValueError(f"a canary's share to compare is between 0 and 1, not {weight}")
