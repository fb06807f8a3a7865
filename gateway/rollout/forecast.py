"""What a canary's plan can find out at a given traffic, and how long it takes: for whoever applies it. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.rollout.statistics.detectability import ComparedTraffic, harmed_before_found, smallest_ratio
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.strategy import Canary


@dataclass(frozen=True, slots=True)
class StepForecast:
    """One step. Units: `weight` in buckets.

    `seconds` is how long it takes at least, None where only a person ends it. `detects` is the smallest ratio of error
    rates, canary to stable, that is found within that time: infinity where none is, None where the step compares
    nothing. `harmed` is how many requests fail beyond the stable rate before that one is found.
    """

    weight: int
    seconds: float | None
    detects: float | None
    harmed: float

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


def _step(canary: Canary, index: int, requests_per_s: float, stable_rate: float) -> StepForecast:
    step = canary.steps[index]
    weight = step.weight / BUCKETS
    seconds = step.gate.hold_ms / 1000 if step.gate.hold_ms is not None else None
    smaller = min(weight, 1 - weight) * requests_per_s
    if seconds is not None and step.gate.min_events:
        seconds = max(seconds, step.gate.min_events / smaller if smaller > 0 else math.inf)
    analysis = canary.analysis
    if analysis is None or not 0 < weight < 1:
        return StepForecast(step.weight, seconds, None, 0.0)
    guardrails = [one for one in analysis.effective_guardrails if one.action == "fail"]
    bound = min((one.number("tolerance") for one in guardrails if one.kind.name == "errors"), default=math.nan)
    if math.isnan(bound) or seconds is None:
        return StepForecast(step.weight, seconds, None, 0.0)
    metrics = sum(one.kind.tests for one in guardrails)
    traffic = ComparedTraffic(requests_per_s, weight, stable_rate, bound, analysis.alpha, metrics)
    detects = smallest_ratio(seconds, traffic) if math.isfinite(seconds) else math.inf
    harmed = 0.0 if math.isinf(detects) else harmed_before_found(detects, traffic)
    return StepForecast(step.weight, seconds, detects, harmed)
