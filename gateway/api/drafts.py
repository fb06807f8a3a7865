"""Drafts of routes: proposed by one, approved by others."""

from functools import partial

from gateway.api.rollouts import Rollouts
from gateway.api.route_messages import apply_message, change_of, expected_revision, read_document, wait_or_default
from gateway.errors import InvalidArgument
from gateway.pb import control_pb2 as pb
from gateway.routing.store.review import Review
from gateway.routing.store.route_draft import Draft


class DraftReviews:
    """Serves Draft, GetDraft, ListDrafts, Approve and Reject."""

    def __init__(self, review: Review, rollouts: Rollouts) -> None:
        self._review = review
        self._rollouts = rollouts

    async def write(self, request: pb.DraftRequest, context: object) -> pb.DraftState:
        document = read_document(request.document_json)
        draft = await self._review.propose(
            document,
            change_of(request.change, context),
            draft_id=request.id,
            edit=_edit(request.edit),
            needed=request.approvals or 1,
        )
        return _state(draft)

    async def get(self, request: pb.GetDraftRequest, context: object) -> pb.DraftState:
        return _state(await self._review.drafts.get(request.id))

    async def list(self, request: pb.ListDraftsRequest, context: object) -> pb.ListDraftsResponse:
        drafts = await self._review.drafts.list()
        return pb.ListDraftsResponse(drafts=[_state(draft) for draft in drafts])

    async def approve(self, request: pb.ApproveRequest, context: object) -> pb.ApproveResponse:
        draft, applied = await self._review.approve(
            request.id,
            change_of(request.change, context),
            edit=_edit(request.edit),
            wait_s=wait_or_default(request),
            expected_revision=expected_revision(request),
            dry_run=request.dry_run,
            admit=partial(self._rollouts.admit, override=request.override),
        )
        return pb.ApproveResponse(draft=_state(draft), applied=apply_message(applied) if applied is not None else None)

    async def reject(self, request: pb.RejectRequest, context: object) -> pb.DraftState:
        return _state(await self._review.reject(request.id, change_of(request.change, context)))


def _edit(edit: int) -> int:
    if edit < 0:
        raise InvalidArgument(f"edit is {edit}, it must not be negative")
    return edit


def _state(draft: Draft) -> pb.DraftState:
    return pb.DraftState(
        id=draft.id,
        edit=draft.edit,
        model=draft.document.model,
        base_revision=draft.base_revision,
        document_json=draft.document.to_json(),
        author=draft.author,
        reason=draft.reason,
        approvals_needed=draft.needed,
        approvals=draft.approvals,
        state=draft.state,
        edited_at_us=draft.edited_at_us,
        decided_by=draft.decided_by,
        decision_reason=draft.why,
        revision=draft.revision,
    )
