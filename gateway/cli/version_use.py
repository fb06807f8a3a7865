"""What the routing rules use of a model's versions, as a gateway tells it, and what frees a version."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import grpc

from gateway.cli.client import control
from gateway.cli.exits import Exit, Failure
from gateway.errors import FailedPrecondition
from gateway.pb import control_pb2
from gateway.pb.control_pb2_grpc import ControlStub
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.notation import parse_json
from gateway.routing.store.change import ChangeEntry, Operation
from gateway.routing.store.history import step_before

_HISTORY: Final = 200  # as many as a rollback looks at
_OVER: Final = ("promoted", "stopped")


@dataclass(frozen=True, slots=True)
class RoutingRules:
    """What decides about a model: its route, if it has one, its history, newest first, rollouts, drafts, versions, and
    the steps of ensembles that pin one.
    """

    model: str
    route: control_pb2.Route | None
    history: Sequence[control_pb2.HistoryEntry]
    rollouts: Sequence[control_pb2.RolloutState]
    drafts: Sequence[control_pb2.DraftState]
    versions: Sequence[control_pb2.ModelVersionState]
    pins: Sequence[control_pb2.StepPin]


def read_rules(server: str, model: str) -> RoutingRules:
    """Returns the rules as the store has them. Raises: Failure (they cannot be read, or the model is not known)."""
    with control(server) as stub:
        rules = _asked(stub, model)
    if not rules.versions and rules.route is None:
        raise Failure(
            Exit.REFUSED,
            f"the gateway at {server} does not know model {model!r}: name one that serves this repository (--server)",
        )
    return rules


def check_unused(rules: RoutingRules, version: str) -> None:
    """Checks that nothing uses the version. Raises: FailedPrecondition naming what does, and what to do."""
    if use := _use_of(rules, version):
        raise FailedPrecondition(f"version {version!r} of model {rules.model!r} is in use: {use}")


def rollback_target(history: Sequence[control_pb2.HistoryEntry]) -> control_pb2.HistoryEntry | None:
    """Returns the change that `gateway rollback` would make active again; None if there is nothing to go back to."""
    by_revision = {entry.revision: entry for entry in history}

    def texts(entry: ChangeEntry) -> tuple[str, str]:
        message = by_revision[entry.revision]
        return message.in_force_json or message.document_json, message.document_json

    target = step_before([_entry(message) for message in history], texts) if history else None
    return None if target is None else by_revision[target.revision]


def _use_of(rules: RoutingRules, version: str) -> str:
    """Returns what uses the version, with what to do about it; "" if nothing does."""
    model = rules.model
    if rules.route is not None and (names := _names(_documents(rules.route), version)):
        return (
            f"the route of model {model!r} (revision {rules.route.revision}) names it as {names}: apply a route "
            f"without it first (gateway apply -f FILE), and one more, so that a rollback does not go back to it either"
        )
    target = rollback_target(rules.history)
    if target is not None and (names := _names(_documents(target), version)):
        return (
            f"a rollback of the route of model {model!r} would make revision {target.revision} active again, which "
            f"names it as {names}: it is free when a later change of the route is what a rollback goes back to"
        )
    for rollout in rules.rollouts:
        named = {rollout.stable_version, rollout.canary_version, *(arm.version for arm in rollout.arms)}
        if rollout.phase not in _OVER and version in named:
            return f"the rollout of model {model!r} is {rollout.phase}: let it end, or gateway rollout abort {model}"
    for draft in rules.drafts:
        if draft.state == "open" and (names := _names([parse_json(draft.document_json)], version)):
            return f"draft {draft.id} names it as {names}: apply or reject it first (gateway draft reject {draft.id})"
    for pin in rules.pins:
        if pin.version == version:
            return (
                f"step {pin.step} of the ensemble {pin.ensemble!r} (repository {pin.source}) pins it: change its "
                f"model_version there, or take the ensemble away first"
            )
    newest = any(state.newest_ready and state.version == version for state in rules.versions)
    if rules.route is None and newest:
        return (
            f"model {model!r} has no route, so its newest version answers everybody: publish a newer one, or apply a "
            f"route that names another one"
        )
    return ""


def _documents(message: control_pb2.Route | control_pb2.HistoryEntry) -> list[RouteDocument]:
    """Returns the document that was applied, and what its rollout has made of it."""
    return [parse_json(text) for text in (message.document_json, message.in_force_json) if text]


def _names(documents: Sequence[RouteDocument], version: str) -> str:
    """Returns as what the documents name the version, in words; "" where they do not."""
    words: dict[str, None] = {}
    for document in documents:
        mirrored = {mirror.arm for mirror in document.effective_mirrors()}
        fallen_back_to = set(document.fallback.order) if document.fallback is not None else set()
        for arm in document.arms:
            if arm.version == version:
                also = [
                    word
                    for word, arms in (("a mirror", mirrored), ("in its fallback", fallen_back_to))
                    if arm.name in arms
                ]
                words[f"arm {arm.name!r}" + (f" ({', '.join(also)})" if also else "")] = None
        words |= dict.fromkeys(f"label {label!r}" for label, named in document.labels if named == version)
    return ", ".join(words)


def _asked(stub: ControlStub, model: str) -> RoutingRules:
    # Before the route: a draft that is approved meanwhile is among these, or the route is what it became.
    drafts = [
        draft for draft in stub.ListDrafts(control_pb2.ListDraftsRequest(), timeout=10).drafts if draft.model == model
    ]
    rollouts = [
        rollout
        for rollout in stub.ListRollouts(control_pb2.ListRolloutsRequest(), timeout=10).rollouts
        if rollout.model == model
    ]
    history = _unless_absent(lambda: stub.History(control_pb2.HistoryRequest(model=model, limit=_HISTORY), timeout=10))
    known = stub.Models(control_pb2.ModelsRequest(model=model), timeout=10)
    return RoutingRules(
        model,
        _unless_absent(lambda: stub.GetRoute(control_pb2.GetRouteRequest(model=model), timeout=10)),
        () if history is None else history.entries,
        rollouts,
        drafts,
        known.versions,
        known.pins,
    )


def _unless_absent(ask: Callable[[], Any]) -> Any:
    """Returns the answer; None where the model has no route, or never had one."""
    try:
        return ask()
    except grpc.RpcError as error:
        if isinstance(error, grpc.Call) and error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise


def _entry(message: control_pb2.HistoryEntry) -> ChangeEntry:
    """Returns the change; what it made of the route is asked for by `texts`."""
    return ChangeEntry(
        revision=message.revision,
        model=message.model,
        operation=cast(Operation, message.operation),
        route_text=message.document_json,
        previous_revision=message.previous_revision,
        digest=message.digest,
        actor=message.actor,
        reason=message.reason,
        source=message.source,
        committed_at_us=message.committed_at_us,
        restored_revision=message.restored_revision,
    )
