"""The operators' service: a table of its methods, each served by the part that knows about it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from gateway.api.active_routes import ActiveRoutes
from gateway.api.amendments import Amendments
from gateway.api.drafts import DraftReviews
from gateway.api.drain import Drain
from gateway.api.explanations import Explanations
from gateway.api.feedback_intake import FeedbackIntake
from gateway.api.inventory import Inventory
from gateway.api.log_tails import LogTails
from gateway.api.observations import Observations
from gateway.api.overviews import Overviews
from gateway.api.plans import Fleet, Plans
from gateway.api.quota_states import HostQuotas, QuotaStates
from gateway.api.rollouts import Rollouts
from gateway.page.host_view import HostView
from gateway.pb import control_pb2
from gateway.routing.store.audit_witness import AuditWitness
from gateway.routing.store.editor import Editor
from gateway.routing.store.review import Review
from gateway.routing.store.route_control import RouteControl
from gateway.serving.catalog import Catalog

__all__ = ["ControlService", "Fleet", "check_handlers"]

Handler: TypeAlias = Callable[[Any, object], Awaitable[object] | AsyncIterator[object]]


class ControlService:
    """`gateway.v1.Control` as one worker serves it; each method of the proto is an attribute of that name.

    Raises: TypeError (the table and the proto differ), so that a worker with a gap does not start.
    """

    def __init__(
        self,
        control: RouteControl,
        catalog: Catalog,
        fleet: Fleet,
        *,
        feedback: FeedbackIntake,
        quotas: HostQuotas,
        host: Callable[[], Awaitable[HostView]],
        log_dir: Path,
        worker: str,
        transport: str,
        witness: AuditWitness | None = None,
    ) -> None:
        self._drain = Drain()
        rollouts = Rollouts(control)
        routes = ActiveRoutes(control, rollouts)
        amendments = Amendments(Editor(control), catalog, rollouts)
        plans = Plans(control, catalog, fleet)
        explanations = Explanations(control, catalog, log_dir)
        review = Review(control)
        drafts = DraftReviews(review, rollouts)
        self._drafts = review.drafts
        observations = Observations(control, self._drain, witness or AuditWitness())
        inventory = Inventory(control, catalog, fleet, worker=worker, transport=transport)
        tails = LogTails(log_dir, self._drain)
        self.handlers: Mapping[str, Handler] = {
            "Apply": routes.apply,
            "GetRoute": routes.get,
            "ListRoutes": routes.list,
            "DeleteRoute": routes.delete,
            "History": routes.history,
            "Rollback": routes.rollback,
            "Flip": amendments.flip,
            "SetWeights": amendments.set_weights,
            "Pin": amendments.pin,
            "Kill": amendments.kill,
            "Unkill": amendments.unkill,
            "Promote": amendments.promote,
            "SetLabels": amendments.set_labels,
            "GetRollout": rollouts.get,
            "ListRollouts": rollouts.list,
            "SteerRollout": rollouts.steer,
            "ApproveStep": rollouts.approve,
            "Plan": plans.plan,
            "Diff": plans.diff,
            "ShowRevision": plans.show_revision,
            "Explain": explanations.explain,
            "Simulate": explanations.simulate,
            "Draft": drafts.write,
            "GetDraft": drafts.get,
            "ListDrafts": drafts.list,
            "Approve": drafts.approve,
            "Reject": drafts.reject,
            "Watch": observations.watch,
            "Audit": observations.audit,
            "AuditChain": observations.audit_chain,
            "Heal": observations.heal,
            "Models": inventory.models,
            "Workers": inventory.workers,
            "ServerVersion": inventory.server_version,
            "TailLog": tails.tail,
            "SendFeedback": feedback.send,
            "Quotas": QuotaStates(quotas).quotas,
            "GetOverview": Overviews(self._ask, host).get,
        }
        check_handlers(self.handlers)
        for name, handler in self.handlers.items():
            setattr(self, name, handler)  # where grpc's registration looks for it

    async def model_of_draft(self, draft_id: str) -> str:
        """Raises: NotFound, InvalidArgument (no such id can exist), StoreUnavailable."""
        return (await self._drafts.get(draft_id)).document.model

    async def _ask(self, name: str, request: Any, context: object) -> Any:
        """Returns the answer of one of its own methods, guarded as it is for callers from outside."""
        return await getattr(self, name)(request, context)

    def drain(self) -> None:
        """Ends the streams that would go on for ever; their callers go on with another worker."""
        self._drain.begin()


def check_handlers(handlers: Iterable[str]) -> None:
    """Checks that every method of the proto has a handler, and every handler a method.

    Raises: TypeError naming what is missing.
    """
    service = control_pb2.DESCRIPTOR.services_by_name["Control"]
    given, wanted = set(handlers), set(service.methods_by_name)
    if unserved := sorted(wanted - given):
        raise TypeError(f"{service.full_name} has methods without a handler: {', '.join(unserved)}")
    if unknown := sorted(given - wanted):
        raise TypeError(f"{service.full_name} has no method {', '.join(unknown)}")
