"""After the promotion: whether the new version, which has everything, is worse than the old one was.

There is no other arm to compare with, so its rates are held against limits that are frozen at the promotion: what the
stable arm showed during the rollout, with its uncertainty and the tolerance added. The evidence goes on from that of
the ramp, hedged by (1 + E) / 2, so that a good ramp does not make the watch slow and the whole keeps its alpha.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
import numpy as np

from gateway.rollout.arm_counts import ArmCounts
from gateway.rollout.compared_rates import events_of
from gateway.rollout.evidence import CanaryEvidence, harm_log_e
from gateway.rollout.guardrail_evidence import NO_BOUND
from gateway.rollout.statistics.rate_limit import RateLimitEvidence
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.guardrail import Guardrail

_UNCERTAIN: Final = 3  # events that are added to what was seen: with none seen, the rule of three
_HIGHEST: Final = 0.9


class WatchedMetric(msgspec.Struct, frozen=True):
    """One rate that is watched. A request is slow beyond the latency bound with the index `bound`; -1 else."""

    kind: str
    limit: float
    bound: int
    log_ratios: tuple[float, ...]
    requests: int = 0
    events: int = 0

    @property
    def log_e(self) -> float:
        """Returns the logarithm of the evidence that the rate is above its limit."""
        return float(RateLimitEvidence(self.limit, np.array(self.log_ratios)).log_e)


class PromotionWatch(msgspec.Struct, frozen=True):
    """What is known since the promotion. `start_log_e` is what the ramp left."""

    start_log_e: float
    metrics: tuple[WatchedMetric, ...]


def begin_watch(evidence: CanaryEvidence, analysis: Analysis) -> PromotionWatch:
    """Returns the watch that follows on the ramp's evidence.

    Of what the ramp saw nothing, as where somebody promotes at once, errors are held against what the document calls
    harmless; other metrics have no such limit and are not watched.
    """
    guardrails = analysis.effective_guardrails
    same = len(guardrails) == len(evidence.guardrails)  # else the document was promoted with other guardrails
    metrics: list[WatchedMetric] = [] if same else list(_harmless(guardrails))
    for guardrail, known in zip(guardrails, evidence.guardrails, strict=True) if same else ():
        if guardrail.action == "fail" and not (known.metrics and known.metrics[0].stable):
            metrics += _harmless((guardrail,))
            continue
        if guardrail.action != "fail":
            continue
        if guardrail.kind.name == "latency" and known.bound == NO_BOUND:
            continue  # the last step had nothing that its quantile could be frozen from
        first = known.metrics[0]
        rate = (first.stable_events + _UNCERTAIN) / first.stable
        limit = min(_HIGHEST, rate * guardrail.number("tolerance"))
        nothing = RateLimitEvidence.none(limit)
        metrics.append(WatchedMetric(guardrail.kind.name, limit, known.bound, tuple(nothing.log_ratios.tolist())))
    ramp = harm_log_e(evidence, analysis) if same else -math.inf
    start = float(np.logaddexp(0.0, ramp)) - math.log(2)
    return PromotionWatch(start, tuple(metrics))


def unmeasured_watch(analysis: Analysis) -> PromotionWatch:
    """Returns the watch where nobody knows what the stable arm showed: by what the document calls harmless.

    Only errors have such a limit; how slow is too slow is not known without another arm.
    """
    return PromotionWatch(-math.log(2), tuple(_harmless(analysis.effective_guardrails)))


def _harmless(guardrails: Iterable[Guardrail]) -> Iterator[WatchedMetric]:
    """Yields the errors that are watched by what the document calls harmless; how slow is too slow it does not say."""
    for guardrail in guardrails:
        if guardrail.kind.name == "errors" and guardrail.action == "fail":
            limit = min(_HIGHEST, guardrail.number("passBelow") / BUCKETS)
            nothing = RateLimitEvidence.none(limit)
            yield WatchedMetric("errors", limit, NO_BOUND, tuple(nothing.log_ratios.tolist()))


def after_watched_tick(watch: PromotionWatch, arm: ArmCounts) -> PromotionWatch:
    """Returns the watch after a tick in which the arm that has everything did that."""
    metrics = []
    for metric in watch.metrics:
        requests, events = events_of(metric.kind, arm, metric.bound)
        known = RateLimitEvidence(metric.limit, np.array(metric.log_ratios)).after(requests, events)
        metrics.append(
            msgspec.structs.replace(
                metric,
                log_ratios=tuple(known.log_ratios.tolist()),
                requests=metric.requests + requests,
                events=metric.events + events,
            )
        )
    return PromotionWatch(watch.start_log_e, tuple(metrics))


def watched_harm(watch: PromotionWatch, analysis: Analysis) -> str:
    """Returns why the version is harmful, with the numbers; "" where nothing shows that it is."""
    if not watch.metrics:
        return ""
    log_e = [one.log_e for one in watch.metrics]
    mean = float(np.logaddexp.reduce(log_e)) - math.log(len(log_e))
    if watch.start_log_e + mean < -math.log(analysis.alpha):
        return ""
    told = (
        f"{one.kind}: {one.events} of {one.requests}, the limit is {one.limit:.2%}"
        for one, own in zip(watch.metrics, log_e, strict=True)
        if own > 0
    )
    return "failed while it was watched: " + "; ".join(told)
