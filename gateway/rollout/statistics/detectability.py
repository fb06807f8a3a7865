"""What a step of a rollout can find out at the present traffic, and in which time: for `gateway plan`."""

import math
from dataclasses import dataclass
from typing import Final

_OVERSHOOT: Final = 1.7  # what a mixture over ratios and starts costs, in nats; from simulation
_LARGEST_RATIO: Final = 300.0


@dataclass(frozen=True, slots=True)
class ComparedTraffic:
    """What is compared, and how strictly.

    Units:  `weight` is the canary's share of the requests, in (0, 1); `stable_rate` events per request; `bound` the
            ratio of rates up to which nothing is wrong.
    """

    requests_per_s: float
    weight: float
    stable_rate: float
    bound: float = 1.2
    alpha: float = 0.01
    metrics: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1:
            raise ValueError(f"a canary's share to compare is between 0 and 1, not {self.weight}")


def seconds_to_detect(ratio: float, traffic: ComparedTraffic) -> float:
    """Returns in about how many seconds a canary with `ratio` times the stable rate is found out; inf for never.

    Source: ln(metrics / alpha) over the expected growth of the evidence: events per second, times the Kullback-Leibler
            divergence of the canary's share of events from its share at the bound.
    """
    weight, rate, bound = traffic.weight, traffic.stable_rate, traffic.bound
    ratio = min(ratio, 1 / rate) if rate > 0 else ratio  # a rate is at most 1
    events_per_s = traffic.requests_per_s * rate * (weight * ratio + 1 - weight)
    if ratio <= bound or events_per_s <= 0:
        return math.inf
    share = weight * ratio / (weight * ratio + 1 - weight)
    at_bound = weight * bound / (weight * bound + 1 - weight)
    divergence = share * math.log(share / at_bound) + (1 - share) * math.log((1 - share) / (1 - at_bound))
    return (math.log(traffic.metrics / traffic.alpha) + _OVERSHOOT) / (events_per_s * divergence)


def smallest_ratio(within_s: float, traffic: ComparedTraffic) -> float:
    """Returns the smallest ratio of rates that is found within the time; inf where even 300 times is not."""
    rate = traffic.stable_rate
    low, high = traffic.bound, min(_LARGEST_RATIO, 1 / rate) if rate > 0 else _LARGEST_RATIO
    if high <= low or seconds_to_detect(high, traffic) > within_s:
        return math.inf
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if seconds_to_detect(middle, traffic) > within_s else (low, middle)
    return high


def harmed_before_found(ratio: float, traffic: ComparedTraffic) -> float:
    """Returns about how many requests fail beyond the stable rate before that ratio is found out; inf for never."""
    seconds = seconds_to_detect(ratio, traffic)
    if math.isinf(seconds):
        return math.inf
    rate = traffic.stable_rate
    return seconds * traffic.requests_per_s * traffic.weight * (min(1.0, ratio * rate) - rate)


def excess_events(canary: int, stable: int, canary_events: int, stable_events: int) -> float:
    """Returns how many more events the canary had than its share of all of them: the harm that was done so far.

    It is 0 where an arm completed nothing, and never below 0. A harm budget is compared with it.
    """
    if canary <= 0 or stable <= 0:
        return 0.0
    expected = (canary_events + stable_events) * canary / (canary + stable)
    return max(0.0, canary_events - expected)
