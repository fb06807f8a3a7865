"""What a guardrail says, as the control service tells it."""

import math
from typing import Final

from gateway.pb import control_pb2 as pb
from gateway.rollout.guardrail_evidence import Finding

_MOST: Final = 600.0  # nats; beyond it a number is no number any more


def finding_message(finding: Finding) -> pb.RolloutFinding:
    """Returns the finding with its numbers."""
    return pb.RolloutFinding(
        kind=finding.kind,
        action=finding.action,
        verdict=finding.verdict,
        evidence=e_value(finding.log_e),
        pass_evidence=e_value(finding.pass_log_e),
        canary=finding.canary,
        stable=finding.stable,
        canary_events=finding.canary_events,
        stable_events=finding.stable_events,
        ratio_low=finding.ratio_low,
        ratio_high=finding.ratio_high,
        text=str(finding),
    )


def e_value(log_e: float) -> float:
    """Returns the evidence as a number, however large."""
    return math.exp(min(log_e, _MOST))
