"""The guardrail `drift`: whether the canary predicts other things than the stable arm does in the same ticks.

Its keys are drawn as the stable arm's are, so what differs is the version. A shift needs both: evidence that bins
differ, and an index (PSI) that is as large as the document says, because a small difference is certain sooner or later.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from typing import Final

import msgspec
import numpy as np

from gateway.rollout.arm_counts import joined
from gateway.rollout.guardrail_evidence import (
    Finding,
    GuardrailEvidence,
    GuardrailJudge,
    ShiftState,
    Tick,
    Verdict,
    plain,
)
from gateway.rollout.statistics.prediction_shift import ShiftEvidence
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.guardrail import Guardrail

CLASSES: Final = 16  # as many places as workers count classes by
REFERENCE_SCORES: Final = 200  # of the stable arm, before the bins of scores are frozen
LEAST_PREDICTIONS: Final = 200  # of each arm, before they can be said to be alike
_DECILES: Final = 10


def _nothing(guardrail: Guardrail, analysis: Analysis) -> GuardrailEvidence:
    return GuardrailEvidence(shift=ShiftState())


def _after(guardrail: Guardrail, known: GuardrailEvidence, analysis: Analysis, tick: Tick) -> GuardrailEvidence:
    return msgspec.structs.replace(known, shift=_counted(known.shift or ShiftState(), tick))


def _counted(state: ShiftState, tick: Tick) -> ShiftState:
    """Returns the state with a tick more.

    Order: the stable arm's scores that the bins are made from are not counted in them. The canary's that came meanwhile
           are: they had no part in it.
    """
    if state.by_class is None:
        if not (tick.stable.classes or tick.stable.scores):
            return state
        by_class = sum(tick.stable.classes.values()) >= sum(tick.stable.scores.values())
        state = ShiftState(by_class=by_class)
        if by_class:
            state = _begun(state, CLASSES)
    if state.by_class:
        return _added(state, _by_place(tick.canary.classes), _by_place(tick.stable.classes))
    pending = joined(state.pending, tick.canary.scores)
    if state.edges and not tick.stable.scores:  # nothing to hold it against yet
        return msgspec.structs.replace(state, pending=pending) if tick.canary.scores else state
    if state.edges:
        state = msgspec.structs.replace(state, pending={})
        return _added(state, _by_edges(state.edges, pending), _by_edges(state.edges, tick.stable.scores))
    reference = joined(state.reference, tick.stable.scores)
    if sum(reference.values()) < REFERENCE_SCORES:
        return msgspec.structs.replace(state, reference=reference, pending=pending)
    edges = deciles(reference)
    return _begun(ShiftState(by_class=False, edges=edges, pending=pending), len(edges) + 1)


def deciles(counts: Mapping[int, int]) -> tuple[int, ...]:
    """Returns the places that divide what was counted into ten parts, and those just below and at the end of it."""
    places = sorted(counts)
    sums = list(accumulate(counts[place] for place in places))
    parts = {places[bisect_left(sums, sums[-1] * part / _DECILES)] for part in range(1, _DECILES)}
    return tuple(sorted(parts | {places[0] - 1, places[-1]}))


def _begun(state: ShiftState, bins: int) -> ShiftState:
    return _kept(state, ShiftEvidence.none(bins))


def _added(state: ShiftState, canary: list[int], stable: list[int]) -> ShiftState:
    return _kept(state, _evidence(state).after(canary, stable)) if sum(canary) or sum(stable) else state


def _kept(state: ShiftState, known: ShiftEvidence) -> ShiftState:
    return msgspec.structs.replace(
        state, log_ratios=plain(known.log_ratios), canary=plain(known.canary), stable=plain(known.stable)
    )


def _evidence(state: ShiftState) -> ShiftEvidence:
    log_ratios = np.array(state.log_ratios).reshape(len(state.canary), -1)
    return ShiftEvidence(log_ratios, np.array(state.canary), np.array(state.stable))


def _by_place(counts: Mapping[int, int]) -> list[int]:
    return [sum(count for place, count in counts.items() if place % CLASSES == bin_) for bin_ in range(CLASSES)]


def _by_edges(edges: tuple[int, ...], counts: Mapping[int, int]) -> list[int]:
    bins = [0] * (len(edges) + 1)
    for place, count in counts.items():
        bins[bisect_left(edges, place)] += count
    return bins


def _log_e(guardrail: Guardrail, known: GuardrailEvidence) -> tuple[float, ...]:
    """Returns the evidence, nothing while the difference is too small to matter: never more than what holds at every
    look."""
    state = known.shift
    if state is None or not state.canary:
        return (-math.inf,)
    shift = _evidence(state)
    return (shift.log_e if shift.psi >= guardrail.number("index") else -math.inf,)


def _finding(guardrail: Guardrail, known: GuardrailEvidence, analysis: Analysis) -> Finding:
    state = known.shift or ShiftState()
    canary, stable = int(sum(state.canary)), int(sum(state.stable))
    limit = guardrail.number("index")
    [log_e] = _log_e(guardrail, known)
    verdict: Verdict = "nodata"
    told = f"nothing to compare ({canary} predictions of the canary, {stable} of the stable arm)"
    if canary and stable:
        shift = _evidence(state)
        told = f"index {shift.psi:.2g} between {canary} predictions of the canary and {stable}, the limit is {limit:g}"
        # What the index of equal arms is about, by chance: it falls with the predictions.
        chance = (len(state.canary) - 1) * (1 / canary + 1 / stable)
        verdict = "inconclusive"
        if log_e >= -math.log(analysis.alpha):
            verdict = "fail"
        elif min(canary, stable) >= LEAST_PREDICTIONS and shift.psi + chance < limit:
            verdict = "pass"
    return Finding(guardrail.kind.name, guardrail.action, verdict, log_e, -math.inf, canary, stable, text=told)


DRIFT: Final = GuardrailJudge(_nothing, _after, _log_e, _finding)
