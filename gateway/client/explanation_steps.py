"""Why a route would send a request where it does, as the gateway explains it."""

from dataclasses import dataclass

from gateway.pb import control_pb2


@dataclass(frozen=True, slots=True)
class ExplainedStep:
    """One stage of the decision. `outcome` is taken, passed, refused or noted."""

    stage: str
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class RouteExplanation:
    """The decision for a request and what led to it. `error` is what the client would get where it is refused.

    `bucket` is -1 where none was needed; `version` is "" where the newest ready one answers.
    """

    steps: tuple[ExplainedStep, ...]
    arm: str
    version: str
    revision: int
    reason: str
    bucket: int
    error: str


def explanation_of(response: control_pb2.ExplainResponse) -> RouteExplanation:
    """Returns the explanation that the control service gave."""
    decision = response.decision
    return RouteExplanation(
        tuple(ExplainedStep(step.stage, step.outcome, step.detail) for step in response.steps),
        decision.arm,
        decision.version,
        decision.revision,
        decision.reason,
        decision.bucket if response.HasField("decision") else -1,
        response.error,
    )
