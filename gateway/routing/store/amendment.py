"""The verbs that change one thing of a document: pure, document in, document out, checked like any other.

Flip     blue-green: the preview becomes active, or a named arm; what was active becomes the preview.
Weigh    A/B: the weights of all arms. Canary: the canary's share, which is in force whatever the step says.
Pin      everybody to one arm; the strategy before it is in the history, and a rollback brings it and its table back.
Kill     everybody to one arm, rules and pins included, above a document that stays as it is.
Unkill   the same without the switch; without effect where it is off.
Promote  canary: the next step, or all of it (see `promote`). Blue-green: a flip.
Abort    canary: no share. Revert: after a promotion in full, the arms' versions change places again.
Resume   canary: the share of its step again. Retry: the first step again. Blue-green: abort halts it, revert flips
         back, resume and retry let it go on.
Label    names for versions: set, moved, taken away; arms that name a label get its version.

Raises: InvalidArgument or FailedPrecondition from all of them, naming what the document has and what would do instead.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import FailedPrecondition, InvalidArgument
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.document.field import shown
from gateway.routing.document.quantity import percent_text
from gateway.routing.document.strategy import Ab, BlueGreen, Canary, Pinned
from gateway.routing.store.change import Operation

Value = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Amendment:
    """A verb: how the history names it, and the document that it makes of the active one.

    `relative`: twice is not the same as once, so that two people who mean the same thing must not both be obeyed.
    """

    operation: Operation
    edit: Callable[[RouteDocument], RouteDocument]
    relative: bool = False


def flip(document: RouteDocument, arm: str = "") -> RouteDocument:
    """The document with `arm` active, or with its preview; the active arm becomes the preview."""
    strategy = document.strategy
    if not isinstance(strategy, BlueGreen):
        raise _unfit(document, "flip", "blueGreen")
    target = arm or strategy.preview
    if not target:
        raise FailedPrecondition(f"model {document.model!r}: its route has no preview arm; name the arm to make active")
    _known(document, target)
    if target == strategy.active:
        return document
    fields: Value = {"active": target, "preview": strategy.active}
    return _with_strategy(document, fields | ({"halted": True} if strategy.ramp is not None else {}))


def weigh(document: RouteDocument, weights: Mapping[str, str]) -> RouteDocument:
    """The document with these percentages ("12.5%" or "12.5") by arm.

    A canary takes its own arm's alone, or both arms' if they sum to 100 %.
    """
    if not weights:
        raise InvalidArgument("weights: none is given; name arms with their percentages")
    strategy = document.strategy
    given = {arm: share if share.endswith("%") else f"{share}%" for arm, share in weights.items()}
    for arm in given:
        _known(document, arm)
    if isinstance(strategy, Ab):
        return _with_strategy(document, {"weights": given})
    if not isinstance(strategy, Canary):
        raise _unfit(document, "weights", "ab or canary")
    if strategy.canary not in given or not given.keys() <= {strategy.canary, strategy.stable}:
        raise InvalidArgument(
            f"weights: {', '.join(sorted(given))} are given; a canary takes that of {strategy.canary!r}, "
            f"and that of {strategy.stable!r} if both sum to 100 %"
        )
    if strategy.stable in given:  # an A/B test of the same arms has the check that the two belong together
        _with_strategy(document, {"ab": {"control": strategy.stable, "weights": given}}, whole=True)
    return _with_strategy(document, {"weight": given[strategy.canary]})


def pin(document: RouteDocument, arm: str) -> RouteDocument:
    """The document whose strategy sends everybody to `arm`."""
    if not arm:
        raise InvalidArgument("arm: empty; name the arm that everybody gets")
    _known(document, arm)
    return _with_strategy(document, {"pinned": {"arm": arm}}, whole=True)


def kill(document: RouteDocument, reason: str, arm: str = "") -> RouteDocument:
    """The document with its kill switch on: everybody gets `arm`, or the control, stable, active or pinned one."""
    if not reason.strip():
        raise InvalidArgument("change.reason: empty; a kill switch needs a reason")
    target = arm or document.strategy.control_arm
    _known(document, target)
    value: Value = document.to_value()
    value["spec"]["killSwitch"] = {"arm": target, "reason": reason}
    return parse(value)


def unkill(document: RouteDocument) -> RouteDocument:
    """The document without a kill switch."""
    value: Value = document.to_value()
    value["spec"].pop("killSwitch", None)
    return parse(value)


def promote(document: RouteDocument, *, full: bool = False) -> RouteDocument:
    """The document one step further.

    Canary: the next step, and a share that was set by hand is given up. After such a share the next step is the first
    one with a larger weight; after the last step nothing is left but `full`, which

    1. gives the stable arm the canary's version and the canary arm the stable one's: the version that was replaced
       stays named, so it stays loaded and a rollback loads nothing;
    2. sets the canary's share to 0 % and its step to the first, ready for the next version;
    3. points rules at the stable arm that named the canary: whoever saw the new version keeps it.

    Blue-green: the preview becomes active.
    """
    if document.kill_switch is not None:
        raise FailedPrecondition(
            f"model {document.model!r}: its kill switch is on ({document.kill_switch.reason}); unkill it first"
        )
    strategy = document.strategy
    if isinstance(strategy, BlueGreen):
        return flip(document)
    if not isinstance(strategy, Canary):
        raise _unfit(document, "promote", "canary or blueGreen")
    return _promoted(document, strategy) if full else _stepped(document, strategy)


def abort(document: RouteDocument) -> RouteDocument:
    """The document whose canary has no share, whatever its step says."""
    strategy = document.strategy
    if isinstance(strategy, BlueGreen) and strategy.ramp is not None:
        return _with_strategy(document, {"halted": True})
    if not isinstance(strategy, Canary):
        raise _unfit(document, "abort", "canary, or blueGreen with a plan")
    return _with_strategy(document, {"weight": "0%"})


def revert(document: RouteDocument) -> RouteDocument:
    """The document before a promotion in full: the arms' versions change places again, and the canary has no share."""
    if isinstance(document.strategy, BlueGreen):
        return flip(document)
    if not isinstance(document.strategy, Canary):
        raise _unfit(document, "revert", "canary or blueGreen")
    return _promoted(document, document.strategy)


def resume(document: RouteDocument) -> RouteDocument:
    """The document whose canary has the share of its step again."""
    if isinstance(document.strategy, BlueGreen) and document.strategy.ramp is not None:
        return _with_strategy(document, {"halted": None})
    if not isinstance(document.strategy, Canary) or not document.strategy.steps:
        raise _unfit(document, "resume", "canary with steps, or blueGreen with a plan")
    return _with_strategy(document, {"weight": None})


def retry(document: RouteDocument) -> RouteDocument:
    """The document whose canary begins with its first step again."""
    if isinstance(document.strategy, BlueGreen) and document.strategy.ramp is not None:
        return _with_strategy(document, {"halted": None})
    if not isinstance(document.strategy, Canary) or not document.strategy.steps:
        raise _unfit(document, "retry", "canary with steps, or blueGreen with a plan")
    return _with_strategy(document, {"step": None, "weight": None})


def label(document: RouteDocument, labels: Mapping[str, str]) -> RouteDocument:
    """The document with these labels beside those that it has; an empty version takes a label away.

    Raises: InvalidArgument (none is given; there is none of that name to take away; an arm needs it; no version).
    """
    if not labels:
        raise InvalidArgument("labels: none is given; name labels with their versions")
    value: Value = document.to_value()
    known: Value = value["spec"].pop("labels", {})
    for name, version in labels.items():
        if version:
            entry = known.get(name)
            known[name] = {**entry, "version": version} if isinstance(entry, dict) else version
        elif known.pop(name, None) is None:
            names = ", ".join(known) or "none"
            raise InvalidArgument(f"labels: model {document.model!r} has no label {shown(name)}; its labels: {names}")
    for arm in document.arms:
        if arm.label and arm.label not in known:
            raise InvalidArgument(f"labels: arm {arm.name!r} has its version by label {arm.label!r}: it cannot go")
    if known:
        value["spec"]["labels"] = known
    return parse(value)


def _stepped(document: RouteDocument, strategy: Canary) -> RouteDocument:
    model = document.model
    if not strategy.steps:
        raise FailedPrecondition(f"model {model!r}: its canary has no steps; set its weight, or promote it in full")
    share = strategy.weight
    later = [
        index
        for index, step in enumerate(strategy.steps)
        if (index > strategy.step if share is None else step.weight > share)
    ]
    if not later:
        raise FailedPrecondition(
            f"model {model!r}: no step is beyond the canary's {percent_text(strategy.active_weight)}; "
            "promote it in full to make its version the stable one"
        )
    return _with_strategy(document, {"step": later[0], "weight": None})


def _promoted(document: RouteDocument, strategy: Canary) -> RouteDocument:
    value: Value = document.to_value()
    spec = value["spec"]
    arms = spec["arms"]
    arms[strategy.stable], arms[strategy.canary] = arms[strategy.canary], arms[strategy.stable]
    for rule in spec.get("rules", ()):
        if rule["arm"] == strategy.canary:
            rule["arm"] = strategy.stable
    spec["strategy"]["canary"].pop("step", None)
    spec["strategy"]["canary"]["weight"] = "0%"
    return parse(value)


def _with_strategy(document: RouteDocument, fields: Mapping[str, object], *, whole: bool = False) -> RouteDocument:
    """The document with these fields of its strategy (None: without it), or with this strategy if `whole`."""
    value: Value = document.to_value()
    if whole:
        value["spec"]["strategy"] = dict(fields)
    else:
        own = value["spec"]["strategy"][document.strategy.name]
        own |= fields
        value["spec"]["strategy"] = {
            document.strategy.name: {name: field for name, field in own.items() if field is not None}
        }
    return parse(value)


def _known(document: RouteDocument, arm: str) -> None:
    names = [known.name for known in document.arms]
    if arm not in names:
        raise InvalidArgument(f"arm: {shown(arm)} is not an arm of model {document.model!r} ({', '.join(names)})")


def _unfit(document: RouteDocument, verb: str, wanted: str) -> FailedPrecondition:
    strategy = document.strategy
    instead = "pin" if isinstance(strategy, Pinned | Ab) else "weights, promote or pin"
    instead = "flip or pin" if isinstance(strategy, BlueGreen) else instead
    return FailedPrecondition(
        f"model {document.model!r}: its strategy is {strategy.name}, {verb} needs {wanted}; "
        f"{instead} would do, or apply another document"
    )
