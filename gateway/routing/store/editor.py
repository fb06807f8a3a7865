"""Edits of the active document: read, amend, commit the whole if nobody changed it meanwhile."""

from gateway.errors import StaleRevision, Unavailable
from gateway.routing.decision.route import restated
from gateway.routing.store.amendment import Amendment
from gateway.routing.store.change import Change
from gateway.routing.store.change_result import ApplyResult
from gateway.routing.store.committer import ATTEMPTS
from gateway.routing.store.route_control import RouteControl


class Editor:
    """Carries out amendments over the operations of one environment."""

    def __init__(self, control: RouteControl) -> None:
        self._control = control

    async def amend(
        self,
        model: str,
        amendment: Amendment,
        *,
        change: Change,
        expected_revision: int | None = None,
        wait_s: float | None = None,
        dry_run: bool = False,
        check: bool = True,
    ) -> ApplyResult:
        """The committed amendment of the model's active document, applied like any other document.

        Without an expected revision an amendment that lost a race is made again, of the newer document; a relative one
        is not (see `relative`). `check` False
        commits even if a version of the document is not ready: whoever stops an incident is not to be stopped by it.
        Raises: UnknownRoute; StaleRevision; what the amendment raises; what `RouteControl.apply` raises.
        """
        first = await self._control.repeat(model, amendment.operation, change, wait_s=wait_s)
        if first is not None:
            return first
        left = expected_revision
        for _ in range(ATTEMPTS):
            if amendment.relative:
                told = await self._control.step(model, amendment, left, change, wait_s=None if dry_run else wait_s)
                if isinstance(told, ApplyResult):
                    return told
                left = told
            active = await self._control.get(model)
            if left is not None and left != active.revision:
                if amendment.relative:
                    continue  # it was left since: by whom is told above
                raise StaleRevision(model, left, active.revision)
            try:
                spec, status = restated(active, amendment.edit(active.document), amendment.edit)
                return await self._control.apply(
                    spec,
                    change=change,
                    expected_revision=active.revision,
                    wait_s=wait_s,
                    dry_run=dry_run,
                    operation=amendment.operation,
                    check=check,
                    status=status,
                )
            except StaleRevision:
                if expected_revision is not None and not amendment.relative:
                    raise
        raise Unavailable(f"the route of model {model!r} changed {ATTEMPTS} times while it was edited: try again")
