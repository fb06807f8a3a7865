"""The guardrail `webhook`: somebody else decides at the end of each step, and is asked anew in the next one.

No answer is no data, and what was answered to one step says nothing of another.
"""

import math
from typing import Final
from urllib.parse import urlsplit

import msgspec

from gateway.rollout.guardrail_evidence import Finding, GateState, GuardrailEvidence, GuardrailJudge, Tick
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.guardrail import Guardrail


def _nothing(guardrail: Guardrail, analysis: Analysis) -> GuardrailEvidence:
    return GuardrailEvidence(gate=GateState())


def _after(guardrail: Guardrail, known: GuardrailEvidence, analysis: Analysis, tick: Tick) -> GuardrailEvidence:
    return known


def _log_e(guardrail: Guardrail, known: GuardrailEvidence) -> tuple[float, ...]:
    return ()


def _finding(guardrail: Guardrail, known: GuardrailEvidence, analysis: Analysis) -> Finding:
    gate = known.gate or GateState()
    # Of the URL only the host: a path is often what lets one in.
    told = f"{urlsplit(str(guardrail.options['url'])).hostname} "
    if not gate.asked_ms:
        told += "is asked at the end of the step"
    else:
        told += f"says {gate.verdict}" if gate.verdict != "nodata" else "gave no verdict"
        told += f" ({gate.said})" if gate.said else ""
    return Finding(guardrail.kind.name, guardrail.action, gate.verdict, -math.inf, -math.inf, 0, 0, text=told)


def _new_step(known: GuardrailEvidence) -> GuardrailEvidence:
    return msgspec.structs.replace(known, gate=GateState())


WEBHOOK: Final = GuardrailJudge(_nothing, _after, _log_e, _finding, _new_step)
