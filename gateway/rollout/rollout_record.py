"""One rollout as the store keeps it: where it is, what is known, and what was done last."""

import hashlib
from typing import Final

import msgspec

from gateway.rollout.arm_counts import ArmCounts
from gateway.rollout.evidence import no_evidence
from gateway.rollout.post_promotion import PromotionWatch
from gateway.rollout.ramp import OVER, RampState
from gateway.routing.document.analysis import Analysis
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.route_status import plan_value
from gateway.routing.document.strategy import BlueGreen, Canary, ramp_of

MOST_REVISIONS: Final = 8  # whose feedback is still counted
UNJUDGED = Analysis()  # what is counted all the same, to be shown, where a document has steps alone


class RolloutRecord(msgspec.Struct, frozen=True):
    """The state of one model's rollout. `sequence` is one more with every change of it: the fence between two judges.

    `plan` tells rollouts apart: versions, steps and analysis, whatever the step or share of the moment. `versions` are
    those of the stable and the canary arm. `totals` are the arms' counts at `revision` when the last tick was taken.
    `revisions` are those that it was at, the newest last.
    `proven`: its version had everything before somebody took it back by hand.
    `told` is what the last step said, `begun_by` who committed the route that began it.
    Units:  milliseconds since the Unix epoch, by the store's clock.
    """

    sequence: int
    id: str
    model: str
    plan: str
    versions: tuple[str, str]
    revision: int
    started_ms: int
    tick_ms: int
    state: RampState
    totals: dict[str, ArmCounts]
    told: str = ""
    left_ms: int = 0
    watch: PromotionWatch | None = None
    begun_by: str = ""
    revisions: tuple[int, ...] = ()
    strategy: str = Canary.name
    proven: bool = False

    @property
    def told_phase(self) -> str:
        """Returns the phase in words: what a canary's share does, a blue-green rollout's preview does not."""
        previews = self.strategy == BlueGreen.name and self.state.phase == "ramping"
        return "previewing" if previews else self.state.phase

    @property
    def is_running(self) -> bool:
        """Returns whether it may still move."""
        return self.state.phase not in OVER

    def at_revision(self) -> "RolloutRecord":
        """Returns the record with its present revision among those that it was at."""
        if self.revisions[-1:] == (self.revision,):
            return self
        return msgspec.structs.replace(self, revisions=(*self.revisions, self.revision)[-MOST_REVISIONS:])


def plan_of(document: RouteDocument) -> str:
    """Returns the identity of a canary's plan: another version, step or guardrail is another rollout.

    Raises: TypeError (the route has no canary).
    """
    value = plan_value(document)
    if not value:
        raise TypeError(f"model {document.model!r} has no rollout")
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()[:16]


def begun(
    record_id: str, document: RouteDocument, revision: int, now_ms: int, sequence: int, begun_by: str = ""
) -> RolloutRecord:
    """Returns the record of a rollout that begins now."""
    strategy = ramp_of(document.strategy)
    if strategy is None:
        raise TypeError(f"model {document.model!r} has no rollout")
    state = RampState("ramping", strategy.step, now_ms, no_evidence(strategy.analysis or UNJUDGED))
    versions = document.version_of(strategy.stable), document.version_of(strategy.canary)
    plan = plan_of(document)
    return RolloutRecord(
        sequence,
        record_id,
        document.model,
        plan,
        versions,
        revision,
        now_ms,
        now_ms,
        state,
        {},
        told="it begins",
        begun_by=begun_by,
        strategy=document.strategy.name,
    )
