"""Canaries that move by nobody: where they are, and what people do to them beside `promote` and `weights`."""

from collections.abc import Mapping
from typing import Final

from gateway.errors import FailedPrecondition
from gateway.pb import control_pb2 as pb
from gateway.routing.decision.route import Route
from gateway.routing.document.quantity import percent_text
from gateway.routing.document.strategy import Canary
from gateway.routing.store.amendment import Amendment, abort, resume, retry

_EDITS: Final[Mapping[int, Amendment]] = {
    pb.SteerRolloutRequest.RESUME: Amendment("resume", resume),
    pb.SteerRolloutRequest.ABORT: Amendment("abort", abort),
    pb.SteerRolloutRequest.RETRY: Amendment("retry", retry),
}


def hand_driven(route: Route | None) -> Canary | None:
    """Returns the canary with steps that only people move; None where the route has none."""
    strategy = route.document.strategy if route is not None else None
    return strategy if isinstance(strategy, Canary) and strategy.steps and not strategy.is_driven else None


def hand_edit(model: str, verb: int) -> Amendment:
    """Returns what the verb does to such a canary. Raises: FailedPrecondition (nothing: nobody moves it)."""
    if verb not in _EDITS:
        raise FailedPrecondition(
            f"model {model!r}: its canary moves by nobody, so there is nothing to pause: gateway promote is its next "
            "step, gateway rollout retry its first one"
        )
    return _EDITS[verb]


def hand_driven_message(route: Route, canary: Canary) -> pb.RolloutState:
    """Returns where it is."""
    told = f"{percent_text(canary.active_weight)} by step {canary.step + 1} of {len(canary.steps)}"
    if canary.weight is not None:
        told = f"{percent_text(canary.weight)}, set by hand at step {canary.step + 1} of {len(canary.steps)}"
    return pb.RolloutState(
        model=route.model,
        phase="manual",
        step=canary.step,
        steps=len(canary.steps),
        revision=route.revision,
        told=f"{told}; promote is the next step, rollout retry the first one",
        stable_version=route.document.version_of(canary.stable),
        canary_version=route.document.version_of(canary.canary),
        strategy=Canary.name,
    )
