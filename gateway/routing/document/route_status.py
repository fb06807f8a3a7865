"""What has become of a document since it was applied: how far its rollout is. It stands beside it, never in it.

A document says what is asked for, and stays as it was applied. What the judge and the verbs of a rollout change (the
step, a share, which version is the stable one) is a status, and the two together are the document in force: by that one
requests are decided. A document that says itself where it is, by `step` or `weight`, has no status.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

from gateway.errors import InvalidArgument
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.document import ARM_LIMIT, RouteDocument, parse
from gateway.routing.document.experiment_plan import PLAN_FIELDS
from gateway.routing.document.field import Field
from gateway.routing.document.quantity import percent, percent_text
from gateway.routing.document.strategy import STEP_LIMIT, Ab, BlueGreen, Canary, bandit_of, ramp_of
from gateway.routing.document.version_label import LABEL_LIMIT

_FLAGS: Final = ("promoted", "redirected")
# Of a strategy: where it is, and what its results are read by.
_NOT_THE_PLAN: Final = frozenset(("step", "weight", "halted", "previewMatch", *PLAN_FIELDS))
STATUS_FIELDS: Final = ("step", "weight", *_FLAGS, "weights", "labels")


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """Holds where a rollout is.

    `promoted`: the two arms have changed their versions, or blue-green's arms their roles. `redirected`: rules that
    name the canary lead to the other arm. `weights` are those that a bandit's arms have come to, by arm; () for the
    document's. `labels` are the versions to which aliases have led labels, where they are others than the document's.
    Units: `step` from 0; weights in buckets, `weight` None where the step says it; any one halts a blue-green rollout.
    """

    step: int = 0
    weight: int | None = None
    promoted: bool = False
    redirected: bool = False
    weights: tuple[tuple[str, int], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    def to_value(self) -> dict[str, object]:
        """Returns the status as plain data, without what is at its default."""
        value: dict[str, object] = {"step": self.step} if self.step else {}
        if self.weight is not None:
            value["weight"] = percent_text(self.weight)
        if self.weights:
            value["weights"] = {arm: percent_text(weight) for arm, weight in self.weights}
        if self.labels:
            value["labels"] = dict(self.labels)
        return value | {name: True for name in _FLAGS if getattr(self, name)}


BEGINNING: Final = RouteStatus()


def parse_status(given: Field) -> RouteStatus:
    """Returns the status that `to_value` gave. Raises: InvalidArgument naming the field."""
    section = given.section(*STATUS_FIELDS)
    step, weight = section.field("step"), section.field("weight")
    promoted, redirected = (field.flag() if (field := section.field(name)) is not None else False for name in _FLAGS)
    weights = section.field("weights")
    moved = [(arm, percent(field)) for arm, field in weights.entries(ARM_LIMIT, what="weights")] if weights else []
    labels = section.field("labels")
    led = [(name, field.version()) for name, field in labels.entries(LABEL_LIMIT, what="labels")] if labels else []
    return RouteStatus(
        step.whole(0, STEP_LIMIT - 1) if step is not None else 0,
        percent(weight) if weight is not None else None,
        promoted,
        redirected,
        tuple(sorted(moved)),
        tuple(led),
    )


def is_open(document: RouteDocument) -> bool:
    """Returns whether the document leaves to a status where its rollout is."""
    strategy = document.strategy
    if isinstance(strategy, BlueGreen):
        return strategy.ramp is not None and not strategy.plan.halted
    if isinstance(strategy, Ab):
        return strategy.bandit is not None
    return isinstance(strategy, Canary) and bool(strategy.steps) and not strategy.step and strategy.weight is None


def under(document: RouteDocument, status: RouteStatus) -> RouteDocument:
    """Returns the document in force: what was applied, under its status.

    Raises: InvalidArgument for a status that is none of this document.
    """
    if status == BEGINNING:
        return document
    if status.labels:
        return under(_led(document, dict(status.labels)), replace(status, labels=()))
    strategy = document.strategy
    if isinstance(strategy, BlueGreen) and is_open(document) and not status.step and not status.redirected:
        return replace(document, strategy=_flipped(strategy, status))
    if isinstance(strategy, Ab) and strategy.bandit is not None and status == RouteStatus(weights=status.weights):
        moved, total = dict(status.weights), sum(weight for _, weight in status.weights)
        if moved.keys() == dict(strategy.weights).keys() and total == BUCKETS:
            return replace(document, strategy=replace(strategy, weights=status.weights))
    if (
        not is_open(document)
        or not isinstance(strategy, Canary)
        or status.step >= len(strategy.steps)
        or status.weights
    ):
        raise InvalidArgument(f"status: {status.to_value()} is no status of the document of model {document.model!r}")
    arms, rules = document.arms, document.rules
    if status.promoted:
        versions = {arm.name: arm for arm in arms}
        other = {strategy.stable: versions[strategy.canary], strategy.canary: versions[strategy.stable]}
        arms = tuple(replace(other.get(arm.name, arm), name=arm.name) for arm in arms)
    if status.redirected:
        rules = tuple(replace(rule, arm=strategy.stable) if rule.arm == strategy.canary else rule for rule in rules)
    return replace(document, arms=arms, rules=rules, strategy=replace(strategy, step=status.step, weight=status.weight))


def _flipped(strategy: BlueGreen, status: RouteStatus) -> BlueGreen:
    roles = (strategy.preview, strategy.active) if status.promoted else (strategy.active, strategy.preview)
    plan = replace(strategy.plan, halted=status.weight is not None)
    return replace(strategy, active=roles[0], preview=roles[1], plan=plan)


def _led(document: RouteDocument, versions: Mapping[str, str]) -> RouteDocument:
    """Returns the document whose labels have these versions.

    Raises: InvalidArgument (a label that follows no alias; a version that another arm has, or a label's name).
    """
    following = {one.label for one in document.following}
    for label in versions:
        if label not in following:
            raise InvalidArgument(f"status.labels.{label}: no label of the document that follows an alias")
    value: dict[str, Any] = document.to_value()
    for label, version in versions.items():
        value["spec"]["labels"][label]["version"] = version
    return parse(value)


def led_status(document: RouteDocument, status: RouteStatus, label: str, version: str) -> RouteStatus:
    """Returns the status after this one, when an alias has led the label to the version.

    Where that is an arm's in a rollout, the rollout begins. Raises: InvalidArgument (as `under`).
    """
    own = dict(document.labels)
    labels = {**dict(status.labels), label: version}
    kept = tuple(sorted((name, led) for name, led in labels.items() if led != own.get(name)))
    return _kept_under(document, status, document, kept)


def status_between(document: RouteDocument, in_force: RouteDocument) -> RouteStatus | None:
    """Returns the status under which the document is `in_force`; None where there is none."""
    own = dict(document.labels)
    names = {one.label for one in document.following}
    labels = tuple(pair for pair in in_force.labels if pair[0] in names and own[pair[0]] != pair[1])
    try:
        led = under(document, RouteStatus(labels=labels))
    except InvalidArgument:
        return None
    if labels and led == in_force:
        return RouteStatus(labels=labels)
    status = next((status for status in _candidates(led, in_force) if under(led, status) == in_force), None)
    return replace(status, labels=labels) if status is not None else None


def _candidates(document: RouteDocument, in_force: RouteDocument) -> Iterator[RouteStatus]:
    before, now = document.strategy, in_force.strategy
    if is_open(document) and isinstance(before, Canary) and isinstance(now, Canary) and now.step < len(before.steps):
        for promoted, redirected in product((False, True), repeat=2):
            yield RouteStatus(now.step, now.weight, promoted, redirected)
    if is_open(document) and isinstance(before, Ab) and isinstance(now, Ab):
        yield RouteStatus(weights=now.weights if now.weights != before.weights else ())
    if is_open(document) and isinstance(before, BlueGreen) and isinstance(now, BlueGreen):
        for promoted in (False, True):
            yield RouteStatus(weight=0 if now.plan.halted else None, promoted=promoted)


def kept_status(applied: RouteDocument, status: RouteStatus, document: RouteDocument) -> RouteStatus:
    """Returns the status under which another document comes into force, after one that was applied before it.

    1. The same plan goes on where it is: a file that is applied again throws nothing back.
    2. What was promoted stays promoted, also under another plan for the same two versions.
    3. Everything else begins.
    4. A label that follows the same alias from the same version stays where the alias has led it.
    """
    entries = _entries(applied)
    kept = _entries(document)
    labels = tuple(pair for pair in status.labels if kept.get(pair[0]) == entries[pair[0]])
    return _kept_under(applied, status, document, labels)


def _entries(document: RouteDocument) -> dict[str, tuple[str, str]]:
    """Returns alias and first version of each label that follows one."""
    versions = dict(document.labels)
    return {one.label: (one.alias, versions[one.label]) for one in document.following}


def _kept_under(
    applied: RouteDocument, status: RouteStatus, document: RouteDocument, labels: tuple[tuple[str, str], ...]
) -> RouteStatus:
    """Returns what `kept_status` says where labels were where the status has them, and are now where `labels` says."""
    before = under(applied, RouteStatus(labels=status.labels))
    kept = _kept(before, replace(status, labels=()), under(document, RouteStatus(labels=labels)))
    return replace(kept, labels=labels)


def _kept(applied: RouteDocument, status: RouteStatus, document: RouteDocument) -> RouteStatus:
    before = applied.strategy
    if not is_open(document) or type(document.strategy) is not type(before):
        return BEGINNING
    if plan_value(document) == plan_value(applied):
        # A document of an earlier release had its step in it.
        return RouteStatus(before.step) if isinstance(before, Canary) and before.step else status
    if status.promoted and _versions(document) == _versions(applied):
        return replace(status, step=0)
    return BEGINNING


def plan_value(document: RouteDocument) -> dict[str, object]:
    """Returns what makes a rollout this one: versions, steps, analysis, wherever it is. {} where there is none."""
    strategy = document.strategy
    if not isinstance(strategy, Canary) and ramp_of(strategy) is None and bandit_of(strategy) is None:
        return {}
    value = strategy.to_value() | {"versions": _versions(document)}
    return {name: field for name, field in value.items() if name not in _NOT_THE_PLAN}


def _versions(document: RouteDocument) -> list[str]:
    strategy = document.strategy
    if isinstance(strategy, Ab):
        return [document.version_of(arm) for arm, _ in strategy.weights]
    canary = strategy if isinstance(strategy, Canary) else ramp_of(strategy)
    roles = (canary.stable, canary.canary) if canary is not None else ()
    return [document.version_of(arm) for arm in roles]
