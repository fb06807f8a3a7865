"""A draft's way into force: proposed on a revision, approved by as many as it needs, applied if that still stands."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from gateway.errors import FailedPrecondition, InvalidArgument, UnknownRoute
from gateway.routing.document.document import RouteDocument
from gateway.routing.store.change import Change, shortened
from gateway.routing.store.change_result import ApplyResult
from gateway.routing.store.route_control import RouteControl
from gateway.routing.store.route_draft import APPLIED, OPEN, REJECTED, Draft, Drafts


class Review:
    """Proposing, approving and rejecting over the operations of one environment."""

    def __init__(self, control: RouteControl) -> None:
        self._control = control
        self.drafts = Drafts(control.store)

    async def propose(
        self, document: RouteDocument, change: Change, *, draft_id: str = "", edit: int = 0, needed: int = 1
    ) -> Draft:
        """The draft, based on the route as it is now. Raises: what `Drafts.put` raises."""
        if draft_id and (known := await self.drafts.get(draft_id)).document.model != document.model:
            raise InvalidArgument(
                f"metadata.model: draft {draft_id!r} is of model {known.document.model!r}, not {document.model!r}"
            )
        try:
            base = (await self._control.get(document.model)).revision
        except UnknownRoute:
            base = 0
        return await self.drafts.put(document, base, change, draft_id=draft_id, edit=edit, needed=needed)

    async def approve(
        self,
        draft_id: str,
        change: Change,
        *,
        edit: int = 0,
        wait_s: float | None = None,
        expected_revision: int | None = None,
        dry_run: bool = False,
        admit: Callable[[RouteDocument], Awaitable[None]],
    ) -> tuple[Draft, ApplyResult | None]:
        """The draft with the approval, and what applying it came to once it has all that it needs.

        A dry run approves nothing and tells what applying the draft would come to.
        Who approved and is told that the apply failed may approve again: it is tried again, and done once at most.
        `admit` is asked for the document once it would be applied.
        Raises: StaleRevision (the route has changed since the draft was written: its author edits it again); what
                `RouteControl.apply`, `Drafts.approve` and `admit` raise.
        """
        if dry_run or expected_revision is not None:
            seen = await self.drafts.get(draft_id)
            if expected_revision is not None and expected_revision != seen.base_revision:
                raise FailedPrecondition(
                    f"draft {draft_id!r} was written for revision {seen.base_revision}, not {expected_revision}"
                )
            if edit and edit != seen.edit:
                raise FailedPrecondition(f"draft {draft_id!r} is at edit {seen.edit}, not {edit}: look at it again")
            edit = seen.edit
            if dry_run:
                base = seen.base_revision
                await admit(seen.document)
                return seen, await self._control.apply(
                    seen.document, change=change, expected_revision=base, dry_run=True, operation="approve"
                )
        draft = await self.drafts.approve(draft_id, change, edit=edit)
        if not draft.approved:
            return draft, None
        await admit(draft.document)
        result = await self._control.apply(
            draft.document,
            change=replace(
                change, reason=_account(draft), idempotency_key=f"draft:{draft.id}:{draft.edit}", keyed_by=None
            ),
            expected_revision=draft.base_revision,
            wait_s=wait_s,
            operation="approve",
        )
        try:
            closed = await self.drafts.close(
                draft_id, APPLIED, change, edit=draft.edit, revision=result.change.revision
            )
        except FailedPrecondition:  # somebody else closed it, or its author edits on: what was approved is committed
            closed = await self.drafts.get(draft_id)
        return closed, result

    async def reject(self, draft_id: str, change: Change) -> Draft:
        """The draft, rejected for good; its author may do so too. Raises: InvalidArgument without a reason."""
        if not change.reason.strip():
            raise InvalidArgument("change.reason: empty; a rejection needs a reason")
        draft = await self.drafts.get(draft_id)
        return await self.drafts.close(draft_id, REJECTED, change, edit=draft.edit if draft.state == OPEN else 0)


def _account(draft: Draft) -> str:
    """Returns why, and through whom: the history's reason."""
    by = f"draft {draft.id} by {draft.author}, approved by {', '.join(draft.approvals)}"
    whole = f"{draft.reason} ({by})" if draft.reason else by
    return shortened(whole)
