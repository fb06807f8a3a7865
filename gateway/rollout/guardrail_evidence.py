"""What is known of one guardrail, and what it says: values that a successor goes on from, and people read."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np

from gateway.rollout.arm_counts import ArmCounts
from gateway.rollout.statistics.rate_ratio import log_mean_exp
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.guardrail import Guardrail

Verdict = Literal["fail", "pass", "inconclusive", "nodata"]
NO_BOUND: Final = -1


class MetricEvidence(msgspec.Struct, frozen=True):
    """One metric: requests compared and events among them since the rollout began, and what they prove."""

    canary: int = 0
    stable: int = 0
    canary_events: int = 0
    stable_events: int = 0
    harm: tuple[float, ...] = ()
    unspent: float = 0.0
    ticks: int = 0
    harmless: tuple[float, ...] = ()
    below: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()


class ShiftState(msgspec.Struct, frozen=True):
    """How the arms' predictions are distributed.

    Shapes: `canary` and `stable` count predictions by bin, `log_ratios` is (bins x points of the grid), flat.
    `by_class`: a bin is a class; else the scores between two of `edges`, places of `serving.answer_reader`, which are
    frozen once the stable arm's `reference` has enough; what the canary predicts until then is `pending`. None: nobody
    has answered yet.
    """

    by_class: bool | None = None
    edges: tuple[int, ...] = ()
    reference: dict[int, int] = {}
    pending: dict[int, int] = {}
    log_ratios: tuple[float, ...] = ()
    canary: tuple[float, ...] = ()
    stable: tuple[float, ...] = ()


class DisagreementState(msgspec.Struct, frozen=True):
    """How often a mirror's answers differ from those served; the two tests are of the limit, from both sides."""

    calls: int = 0
    rows: int = 0
    differing: int = 0
    above: tuple[float, ...] = ()
    below: tuple[float, ...] = ()


Sums = tuple[int, float, float]  # how many, their sum, the sum of their squares


class MeanState(msgspec.Struct, frozen=True):
    """What feedback said of both arms, canary first, by phase: each revision has a share of its own."""

    phases: tuple[tuple[Sums, Sums], ...] = ()


class GateState(msgspec.Struct, frozen=True):
    """What somebody else has answered at the end of the present step. `asked_ms` 0: he was not asked yet."""

    verdict: Verdict = "nodata"
    said: str = ""
    asked_ms: int = 0


class GuardrailEvidence(msgspec.Struct, frozen=True):
    """One guardrail, by the metrics that it looks at: of latency the whole request and the runs by their rows.

    `bound` and `run_bounds` are the stable arm's quantile, frozen for the step; -1 while it is not known.
    """

    metrics: tuple[MetricEvidence, ...] = ()
    bound: int = NO_BOUND
    run_bounds: tuple[int, ...] = ()
    shift: ShiftState | None = None
    mirror: DisagreementState | None = None
    means: MeanState | None = None
    gate: GateState | None = None


class Finding(msgspec.Struct, frozen=True):
    """What a guardrail says now, with the numbers that it says it by.

    `text` is what it says where its numbers are no rates of two arms.
    """

    kind: str
    action: str
    verdict: Verdict
    log_e: float
    pass_log_e: float
    canary: int
    stable: int
    canary_events: int = 0
    stable_events: int = 0
    ratio_low: float = 0.0
    ratio_high: float = 0.0
    text: str = ""

    def __str__(self) -> str:
        evidence = f"evidence of harm {math.exp(min(self.log_e, 600)):.3g}"
        if self.text:
            return f"{self.kind}: {self.text}" + (f", {evidence}" if math.isfinite(self.log_e) else "")
        rates = f"canary {self.canary_events} of {self.canary}, stable {self.stable_events} of {self.stable}"
        if not self.canary or not self.stable:
            return f"{self.kind}: nothing to compare ({rates})"
        high = f"{self.ratio_high:.3g}" if math.isfinite(self.ratio_high) else "any number of"
        return f"{self.kind}: {rates}, {self.ratio_low:.3g} to {high} times the stable arm's rate, {evidence}"


@dataclass(frozen=True, slots=True)
class Tick:
    """What both arms did in a tick; `stable_before` what the stable one did in the step until then.

    `phases` are the totals of both arms, canary first, at each revision of the rollout.
    """

    canary: ArmCounts
    stable: ArmCounts
    stable_before: ArmCounts
    phases: tuple[tuple[ArmCounts, ArmCounts], ...] = ()


@dataclass(frozen=True, slots=True)
class GuardrailJudge:
    """How guardrails of one kind are judged.

    `log_e` are the logarithms of its e-values, of which each alone proves harm from ln(1 / alpha) on.
    """

    nothing: Callable[[Guardrail, Analysis], GuardrailEvidence]
    after: Callable[[Guardrail, GuardrailEvidence, Analysis, Tick], GuardrailEvidence]
    log_e: Callable[[Guardrail, GuardrailEvidence], tuple[float, ...]]
    finding: Callable[[Guardrail, GuardrailEvidence, Analysis], Finding]
    new_step: Callable[[GuardrailEvidence], GuardrailEvidence] = lambda known: known


def mean_log_e(log_e: tuple[float, ...]) -> float:
    """Returns the mean of e-values, which is one under any dependence; -inf where there is none."""
    return float(log_mean_exp(np.array(log_e))) if log_e else -math.inf


def plain(values: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> tuple[float, ...]:
    """Returns the numbers as they are kept, in one dimension."""
    return tuple(values.ravel().tolist())
