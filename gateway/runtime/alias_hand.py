"""A worker's share in following aliases: what its repository says of them, and the change of a route that follows."""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

from gateway.api.rollouts import Rollouts
from gateway.errors import GatewayError, InvalidArgument, StaleRevision
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.route_status import RouteStatus, led_status, under
from gateway.routing.document.version_label import Following
from gateway.routing.store.amendment import label
from gateway.routing.store.change import FOLLOWER, FOLLOWER_SOURCE, Change
from gateway.routing.store.route_control import RouteControl
from gateway.routing.store.route_draft import REJECTED, Drafts
from gateway.runtime.peers import Operation, Payload

Aliases = Mapping[str, tuple[Mapping[str, str], float]]  # by model: versions by alias, and when they were seen
ALIASES: Final = "aliases"  # the operations
LEAD: Final = "lead"
_TEXTS: Final = ("label", "version", "alias", "once", "draft")


def aliases_operation(aliases: Callable[[], Aliases]) -> Operation:
    """Returns what a worker answers: of each model that it has, the versions that aliases name, and the look's age."""

    async def present(payload: Payload) -> Payload:
        asked = payload.get("models")
        if not isinstance(asked, list):
            raise InvalidArgument(f"models is {asked!r}, allowed: a list of texts")
        now_s, known = monotonic(), aliases()
        models = {
            model: {"aliases": dict(known[model][0]), "age_us": round((now_s - known[model][1]) * 1e6)}
            for model in asked
            if model in known
        }
        return {"models": models}

    return present


def lead_operation(control: RouteControl) -> Operation:
    """Returns how a worker leads a label to the version that its alias names: by a commit, or by a draft."""
    rollouts, drafts = Rollouts(control), Drafts(control.store)

    async def lead(payload: Payload) -> Payload:
        model, revision = payload.get("model"), payload.get("revision")
        name, version, alias, once, old = (payload.get(field) for field in _TEXTS)
        texts = (model, name, version, alias, once, old)
        if not isinstance(revision, int) or not all(isinstance(one, str) for one in texts):
            raise InvalidArgument(f"revision is {revision!r}, allowed: a whole number, and texts {', '.join(_TEXTS)}")
        route = await control.get(str(model))
        if route.revision != revision:
            raise StaleRevision(route.model, revision, route.revision)
        following = _following(route.spec, str(name))
        before = dict(route.document.labels)[following.label]
        change = Change(
            actor=FOLLOWER,
            reason=f"alias {alias!r} has moved from version {before!r} to {version!r}",
            source=FOLLOWER_SOURCE,
            idempotency_key=str(once),
        )
        if following.approvals:
            document = label(route.spec, {following.label: str(version)})
            draft = await drafts.put(document, revision, change, needed=following.approvals, own_id=str(once)[:12])
            if old and old != draft.id:
                await _reject(drafts, str(old), change)
            return {"draft": draft.id}
        status = led_status(route.spec, route.status, following.label, str(version))
        before_it, after_it = (
            under(route.spec, RouteStatus(labels=labels)) for labels in (route.status.labels, status.labels)
        )
        await rollouts.admit_between(before_it, after_it)
        await control.apply(route.spec, change=change, expected_revision=revision, operation="label", status=status)
        return {"draft": ""}

    return lead


def _following(document: RouteDocument, name: str) -> Following:
    for one in document.following:
        if one.label == name:
            return one
    raise InvalidArgument(f"label {name[:64]!r} of model {document.model!r} follows no alias")


async def _reject(drafts: Drafts, draft_id: str, change: Change) -> None:
    """Rejects the draft that was written when the alias named another version; one that is decided stays so."""
    try:
        draft = await drafts.get(draft_id)
        await drafts.close(draft_id, REJECTED, change, edit=draft.edit)
    except GatewayError:
        return
