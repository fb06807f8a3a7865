"""How each kind of guardrail is judged: the table beside that of the document (`routing.document.guardrail`)."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gateway.rollout.compared_rates import LATENCY, RATE
from gateway.rollout.feedback_means import REWARD
from gateway.rollout.gate_answers import WEBHOOK
from gateway.rollout.guardrail_evidence import GuardrailJudge
from gateway.rollout.mirror_disagreement import SHADOW
from gateway.rollout.shifted_predictions import DRIFT

JUDGES: Final[Mapping[str, GuardrailJudge]] = MappingProxyType(
    {
        "errors": RATE,
        "latency": LATENCY,
        "outputs": RATE,
        "drift": DRIFT,
        "shadow": SHADOW,
        "reward": REWARD,
        "webhook": WEBHOOK,
    }
)
