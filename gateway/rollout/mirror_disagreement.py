"""The guardrail `shadow`: whether too many rows of what the canary mirrors differ from what was served.

A call counts once, with the share of its rows that differ: the rows of a call hang together. The tests of a rate hold
for any number between 0 and 1 in the place of an event, by convexity.
"""

import math
from typing import Final

import msgspec
import numpy as np

from gateway.rollout.guardrail_evidence import (
    DisagreementState,
    Finding,
    GuardrailEvidence,
    GuardrailJudge,
    Tick,
    Verdict,
    plain,
)
from gateway.rollout.statistics.harmless_test import PASS_LOG_E
from gateway.rollout.statistics.rate_limit import RateLimitEvidence
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.guardrail import Guardrail


def _nothing(guardrail: Guardrail, analysis: Analysis) -> GuardrailEvidence:
    limit = _limit(guardrail)
    above, below = (RateLimitEvidence.none(limit, below=below).log_ratios for below in (False, True))
    return GuardrailEvidence(mirror=DisagreementState(above=plain(above), below=plain(below)))


def _after(guardrail: Guardrail, known: GuardrailEvidence, analysis: Analysis, tick: Tick) -> GuardrailEvidence:
    state, own = known.mirror, tick.canary
    if state is None or not own.mirrored:
        return known
    above, below = (
        RateLimitEvidence(_limit(guardrail), np.array(log_ratios), below=is_below).after(own.mirrored, own.disagreement)
        for log_ratios, is_below in ((state.above, False), (state.below, True))
    )
    told = DisagreementState(
        state.calls + own.mirrored,
        state.rows + own.mirrored_rows,
        state.differing + own.differing_rows,
        plain(above.log_ratios),
        plain(below.log_ratios),
    )
    return msgspec.structs.replace(known, mirror=told)


def _limit(guardrail: Guardrail) -> float:
    return guardrail.number("limit") / BUCKETS


def _tested(guardrail: Guardrail, log_ratios: tuple[float, ...], *, below: bool) -> float:
    return float(RateLimitEvidence(_limit(guardrail), np.array(log_ratios), below=below).log_e)


def _log_e(guardrail: Guardrail, known: GuardrailEvidence) -> tuple[float, ...]:
    state = known.mirror
    return (_tested(guardrail, state.above, below=False) if state is not None else -math.inf,)


def _finding(guardrail: Guardrail, known: GuardrailEvidence, analysis: Analysis) -> Finding:
    state = known.mirror or DisagreementState()
    [log_e] = _log_e(guardrail, known)
    passed = _tested(guardrail, state.below, below=True) if state.below else -math.inf
    verdict: Verdict = "inconclusive"
    if not state.calls:
        verdict = "nodata"
    elif log_e >= -math.log(analysis.alpha):
        verdict = "fail"
    elif passed >= PASS_LOG_E:
        verdict = "pass"
    told = f"{state.differing} of {state.rows} rows of {state.calls} mirrored calls differ"
    if not state.calls:
        told = "nothing was mirrored"
    told += f", the limit is {_limit(guardrail):.4g} of them"
    events = state.differing
    return Finding(
        guardrail.kind.name, guardrail.action, verdict, log_e, passed, state.rows, 0, canary_events=events, text=told
    )


SHADOW: Final = GuardrailJudge(_nothing, _after, _log_e, _finding)
