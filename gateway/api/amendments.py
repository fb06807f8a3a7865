"""The operators' edits of an active document: flip, weights, pin, kill, unkill, promote, labels."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeAlias

from gateway.api.rollouts import Rollouts
from gateway.api.route_messages import apply_message, change_of, expected_revision, named, wait_or_default
from gateway.errors import InvalidArgument
from gateway.pb import control_pb2 as pb
from gateway.routing.document.caution import fraction_caution
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.strategy import Pinned
from gateway.routing.store.amendment import Amendment, flip, kill, label, pin, promote, unkill, weigh
from gateway.routing.store.change_result import ApplyResult
from gateway.routing.store.editor import Editor
from gateway.serving.catalog import Catalog
from gateway.serving.route_versions import check_versions

logger = logging.getLogger(__name__)

_MOST_GIVEN: Final = 1000  # arms, or labels

Request: TypeAlias = (
    pb.FlipRequest
    | pb.SetWeightsRequest
    | pb.PinRequest
    | pb.KillRequest
    | pb.UnkillRequest
    | pb.PromoteRequest
    | pb.SetLabelsRequest
)


class Amendments:
    """Serves Flip, SetWeights, Pin, Kill, Unkill, Promote and SetLabels."""

    def __init__(self, editor: Editor, catalog: Catalog, rollouts: Rollouts) -> None:
        self._editor = editor
        self._catalog = catalog
        self._rollouts = rollouts

    async def flip(self, request: pb.FlipRequest, context: object) -> pb.ApplyResponse:
        await self._rollouts.check_ready(named(request.model))
        skips = await self._rollouts.admit_flip(request.model, request.arm, override=request.override)
        amendment = Amendment("flip", lambda document: flip(document, request.arm), relative=not request.arm)
        return apply_message(await self._amend(request, context, amendment, skips=skips), _said(skips))

    async def set_weights(self, request: pb.SetWeightsRequest, context: object) -> pb.ApplyResponse:
        weights = _few("weights", request.weights)
        fractions = [fraction_caution(f"weights.{arm}", share) for arm, share in sorted(weights.items())]
        result = await self._amend(request, context, Amendment("weights", lambda d: weigh(d, weights)))
        return apply_message(result, [sentence for sentence in fractions if sentence])

    async def pin(self, request: pb.PinRequest, context: object) -> pb.ApplyResponse:
        return apply_message(await self._amend(request, context, Amendment("pin", lambda d: pin(d, request.arm))))

    async def kill(self, request: pb.KillRequest, context: object) -> pb.ApplyResponse:
        """Switches on the kill switch. Only the arm that is to serve must be ready: the others may be what is wrong."""

        def edit(document: RouteDocument) -> RouteDocument:
            killed = kill(document, request.change.reason, request.arm)
            check_versions(self._catalog, _last_resort(killed))
            return killed

        result = await self._amend(request, context, Amendment("kill", edit), check=False)
        self._break_glass("kill", request, context, result)
        return apply_message(result)

    async def unkill(self, request: pb.UnkillRequest, context: object) -> pb.ApplyResponse:
        result = await self._amend(request, context, Amendment("unkill", unkill))
        self._break_glass("unkill", request, context, result)
        return apply_message(result)

    async def promote(self, request: pb.PromoteRequest, context: object) -> pb.ApplyResponse:
        await self._rollouts.check_ready(named(request.model))
        skips = await self._rollouts.admit_flip(request.model, override=request.override)
        amendment = Amendment("promote", lambda document: promote(document, full=request.full), relative=True)
        return apply_message(await self._amend(request, context, amendment, skips=skips), _said(skips))

    async def set_labels(self, request: pb.SetLabelsRequest, context: object) -> pb.ApplyResponse:
        labels, model = _few("labels", request.labels), named(request.model)
        # An arm that gets another version by its label is another rollout.
        await self._rollouts.admit_edit(model, lambda d: label(d, labels), override=request.override)
        return apply_message(await self._amend(request, context, Amendment("label", lambda d: label(d, labels))))

    async def _amend(
        self, request: Request, context: object, amendment: Amendment, *, check: bool = True, skips: str = ""
    ) -> ApplyResult:
        """Carries it out. What it `skips` is in the audit entry."""
        change = change_of(request.change, context)
        return await self._editor.amend(
            named(request.model),
            amendment,
            change=replace(change, detail=f"override: {skips}") if skips else change,
            expected_revision=expected_revision(request),
            wait_s=wait_or_default(request),
            dry_run=request.dry_run,
            check=check,
        )

    def _break_glass(self, verb: str, request: Request, context: object, result: ApplyResult) -> None:
        """Logs an edit that goes past every check, for whoever reads the events; the history has it as well."""
        if request.dry_run or result.change.unchanged:
            return
        logger.warning(
            "break-glass: %s of %s by %s, revision %d: %s",
            verb,
            request.model,
            change_of(request.change, context).actor or "nobody named",
            result.change.revision,
            request.change.reason or "no reason given",
        )


def _few(field: str, given: Mapping[str, str]) -> dict[str, str]:
    """Returns what is given. Raises: InvalidArgument, if no route has so many: to name all of them takes seconds."""
    if len(given) > _MOST_GIVEN:
        raise InvalidArgument(f"{field}: {len(given)} are given, at most {_MOST_GIVEN} can be")
    return dict(given)


def _said(skips: str) -> list[str]:
    return [f"--override skipped what stands before a promotion: {skips}"] if skips else []


def _last_resort(document: RouteDocument) -> RouteDocument:
    """Returns the document with nothing but the arm that its kill switch names."""
    switch = document.kill_switch
    arm = switch.arm if switch is not None else ""
    return RouteDocument(document.model, tuple(a for a in document.arms if a.name == arm), Pinned(arm))
