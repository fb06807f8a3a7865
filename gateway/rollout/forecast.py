"""What a canary's plan can find out at a given traffic, and how long it takes: for whoever applies it. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway.rollout.statistics.detectability import (
    ComparedTraffic,
    harmed_before_found,
    seconds_to_detect,
    smallest_ratio,
)
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.strategy import Canary

REACTION_S: Final = 3.0  # until workers have told, the judge has looked, and everybody follows


@dataclass(frozen=True, slots=True)
class StepForecast:
    """One step. Units: `weight` in buckets.

    `seconds` is how long it takes at least, None where only a person ends it. `detects` is the smallest ratio of error
    rates, canary to stable, that is found within that time: infinity where none is, None where the step compares
    nothing. `harmed` is how many requests fail beyond the stable rate before that one is found, `at_worst` how many
    before a version that fails every one is stopped, None where the step compares nothing.
    """

    weight: int
    seconds: float | None
    detects: float | None
    harmed: float
    at_worst: float | None = None

    @property
    def is_blind(self) -> bool:
        """Returns whether the step ends by itself, compares the arms, and would find no ratio at all."""
        return self.detects is not None and math.isinf(self.detects)


def forecast(canary: Canary, requests_per_s: float, stable_rate: float) -> Sequence[StepForecast]:
    """Returns each step's forecast, by errors alone. Units: `stable_rate` is errors per request, in (0, 1)."""
    return [_step(canary, index, requests_per_s, stable_rate) for index in range(len(canary.steps))]


def total_seconds(steps: Sequence[StepForecast]) -> float | None:
    """Returns how long the whole takes at least; None where a step has no end of its own."""
    seconds = [step.seconds for step in steps]
    return None if None in seconds else sum(one for one in seconds if one is not None)


def cpu_shares(canary: Canary, rows_per_s: float, row_seconds: tuple[float, float], cpus: float) -> Sequence[float]:
    """Returns the share of the CPUs that runs of both arms take in each step, and at last with everything moved.

    Units: `row_seconds` are CPU seconds of a row of the stable arm and of the canary.
    """
    stable, own = row_seconds
    weights = [*(step.weight / BUCKETS for step in canary.steps), 1.0]
    return [rows_per_s * (stable + weight * (own - stable)) / cpus for weight in weights]


def _step(canary: Canary, index: int, requests_per_s: float, stable_rate: float) -> StepForecast:
    step = canary.steps[index]
    weight = step.weight / BUCKETS
    seconds = step.gate.hold_ms / 1000 if step.gate.hold_ms is not None else None
    smaller = min(weight, 1 - weight) * requests_per_s
    if seconds is not None and step.gate.min_events:
        seconds = max(seconds, step.gate.min_events / smaller if smaller > 0 else math.inf)
    traffic = _compared(canary, requests_per_s, stable_rate, weight)
    if traffic is None:
        return StepForecast(step.weight, seconds, None, 0.0)
    if seconds is None:
        return StepForecast(step.weight, seconds, None, 0.0, _at_worst(traffic))
    detects = smallest_ratio(seconds, traffic) if math.isfinite(seconds) else math.inf
    harmed = 0.0 if math.isinf(detects) else harmed_before_found(detects, traffic)
    return StepForecast(step.weight, seconds, detects, harmed, _at_worst(traffic))


def weight_within(budget: float, traffic: ComparedTraffic) -> int:
    """Returns the largest weight, in buckets, at which a version that fails every call harms no more than the budget.

    It is 0 where none is so small, and never above half: beyond it the stable arm is the smaller one.
    """
    low, high = 0, BUCKETS // 2
    while low < high:
        middle = (low + high + 1) // 2
        fits = _at_worst(replace(traffic, weight=middle / BUCKETS)) <= budget
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def budget_traffic(canary: Canary, requests_per_s: float, stable_rate: float) -> ComparedTraffic | None:
    """Returns what errors are found by; None where the document has no such guardrail."""
    return _compared(canary, requests_per_s, stable_rate, 0.5)


def _at_worst(traffic: ComparedTraffic) -> float:
    """Returns how many requests fail beyond the stable rate before a version that fails every one is stopped."""
    if traffic.requests_per_s <= 0:
        return 0.0
    seconds = seconds_to_detect(1 / traffic.stable_rate, traffic) + REACTION_S
    return seconds * traffic.requests_per_s * traffic.weight * (1 - traffic.stable_rate)


def _compared(canary: Canary, requests_per_s: float, stable_rate: float, weight: float) -> ComparedTraffic | None:
    """Returns what is compared at that weight, by errors; None where they are not, or one arm has everything."""
    analysis = canary.analysis
    if analysis is None or not 0 < weight < 1:
        return None
    guardrails = [one for one in analysis.effective_guardrails if one.action == "fail"]
    bound = min((one.number("tolerance") for one in guardrails if one.kind.name == "errors"), default=math.nan)
    if math.isnan(bound):
        return None
    metrics = sum(one.kind.tests for one in guardrails)
    return ComparedTraffic(requests_per_s, weight, stable_rate, bound, analysis.alpha, metrics)
