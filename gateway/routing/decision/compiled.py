"""A route made ready for deciding: what can be computed once is computed here, when a change arrives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gateway.routing.decision.decision import Decision
from gateway.routing.decision.gate import Bits, Gate, build_gate, gate_condition
from gateway.routing.decision.route import Route
from gateway.routing.document.attributes import Attributes
from gateway.routing.document.document import RouteDocument, Rule
from gateway.routing.document.key import seed_of
from gateway.routing.document.match import Match, Predicate, compile_match
from gateway.routing.document.mirror import Mirror
from gateway.routing.document.operator import Matcher
from gateway.routing.document.source import Reader, Source, reader
from gateway.routing.document.strategy import HOLDOUT, PREVIEW, BlueGreen

_NEVER = float("inf")


class ArmOutcome(NamedTuple):
    """Holds what an arm's decisions have in common."""

    arm: str
    version: str
    fallbacks: tuple[tuple[str, str], ...]
    causes: frozenset[str]


class CompiledMirror(NamedTuple):
    """A mirror: requests whose bucket under `seed` is below `share`."""

    share: int
    seed: int
    target: tuple[str, str]


class CompiledRule(NamedTuple):
    """`test` is None where passing the gate was all that the rule asks."""

    test: Predicate | None
    until_s: float
    decision: Decision


@dataclass(frozen=True, slots=True)
class Rules:
    """The ordered rules: the first one that holds decides."""

    rules: tuple[CompiledRule, ...]
    always: Bits
    metadata_gates: tuple[tuple[str, Mapping[str, Bits], Callable[[str], Bits] | None], ...]
    gates: tuple[Gate, ...]

    def select(self, attributes: Attributes, now_s: float) -> Decision | None:
        """The decision of the first rule that holds now, None where there is none."""
        bits = self.always
        for name, known, resolve in self.metadata_gates:
            value = attributes.metadata(name)
            if value is not None:
                matching = known.get(value)
                if matching is not None:
                    bits |= matching
                elif resolve is not None:
                    bits |= resolve(value)
        for gate in self.gates:
            value = gate.read(attributes)
            if value is not None:
                matching = gate.known.get(value)
                if matching is not None:
                    bits |= matching
                elif gate.resolve is not None:
                    bits |= gate.resolve(value)
        while bits:
            lowest = bits & -bits
            test, until_s, decision = self.rules[lowest.bit_length() - 1]
            if now_s < until_s and (test is None or test(attributes)):
                return decision
            bits ^= lowest
        return None


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """A route and what deciding needs of it.

    Shapes: bucket b belongs to `outcomes[bisect_right(starts, b)]`; `starts` leaves out the first interval's 0.
    """

    route: Route
    digest: str
    kill: Decision | None
    pins: Mapping[str, Decision]
    pin_metadata: str
    pin_allowed: Predicate | None
    pin_denied: bool
    rules: Rules | None
    splits: bool
    key_readers: tuple[Reader, ...]
    seed: int
    default: Decision
    starts: tuple[int, ...]
    outcomes: tuple[ArmOutcome, ...]
    mirrors: tuple[CompiledMirror, ...]


def compile_route(route: Route) -> CompiledRoute:
    """The route, ready for `decide`."""
    document = route.document
    pin = document.client_pin
    control = document.strategy.control_arm
    key = document.key
    return CompiledRoute(
        route=route,
        digest=route.digest,
        kill=kill_decision(route),
        pins=pin_decisions(route),
        pin_metadata=pin.metadata if pin is not None else "",
        pin_allowed=compile_match(pin.allow) if pin is not None and pin.allow is not None else None,
        pin_denied=pin.deny if pin is not None else False,
        rules=_rules(route),
        splits=document.strategy.splits,
        key_readers=tuple(reader(source) for source in key.sources) if key is not None else (),
        seed=seed_of(salt_of(document)),
        default=decision_of(route, control, "DEFAULT"),
        starts=tuple(interval.start for interval in route.table.intervals[1:]),
        outcomes=tuple(outcome_of(document, interval.arm) for interval in route.table.intervals),
        mirrors=tuple(_compiled_mirror(document, mirror) for mirror in document.effective_mirrors() if mirror.share),
    )


def _compiled_mirror(document: RouteDocument, mirror: Mirror) -> CompiledMirror:
    target = (mirror.arm, document.version_of(mirror.arm))
    return CompiledMirror(mirror.share, seed_of(mirror_salt(document, mirror)), target)


def salt_of(document: RouteDocument) -> str:
    """The salt of the split: the document's, else the model's name."""
    return (document.key.salt if document.key is not None else "") or document.model


def mirror_salt(document: RouteDocument, mirror: Mirror) -> str:
    """The salt of a mirror: its own, else one that no other layer of this route has."""
    return mirror.salt or f"{document.model}/mirror/{mirror.arm}"


def ordered_rules(document: RouteDocument) -> tuple[Rule, ...]:
    """The rules as they are tried: the preview of a blue-green route before all others."""
    strategy = document.strategy
    if isinstance(strategy, BlueGreen) and strategy.preview_match is not None:
        return (Rule(PREVIEW, strategy.preview_match, strategy.preview), *document.rules)
    return document.rules


def outcome_of(document: RouteDocument, arm: str) -> ArmOutcome:
    """Returns what deciding for an arm of the table comes to."""
    serving = document.strategy.control_arm if arm == HOLDOUT else arm
    fallback = document.fallback
    if fallback is None:
        return ArmOutcome(arm, document.version_of(arm), (), frozenset())
    chain = tuple((other, document.version_of(other)) for other in fallback.order if other != serving)
    return ArmOutcome(arm, document.version_of(arm), chain, fallback.effective_causes if chain else frozenset())


def decision_of(route: Route, arm: str, reason: str, bucket: int = -1) -> Decision:
    """The decision for an arm, with the fallbacks that its route allows and no mirrors."""
    arm, version, chain, causes = outcome_of(route.document, arm)
    return Decision(arm, version, route.revision, reason, bucket, chain, causes)


def kill_decision(route: Route) -> Decision | None:
    """Returns the decision of every request while the kill switch is on, None while it is off.

    It never falls back, because the chain may lead to the arm that was killed.
    """
    switch = route.document.kill_switch
    if switch is None:
        return None
    return Decision(switch.arm, route.document.version_of(switch.arm), route.revision, "KILL")


def pin_decisions(route: Route) -> dict[str, Decision]:
    """Returns the decisions of pins by version and by label.

    A pin never falls back: whoever asks for a version wants that one or an error.
    """
    document = route.document
    arm_of = {arm.version: arm.name for arm in document.arms}
    decisions = {
        version: Decision(arm_of.get(version, ""), version, route.revision, "PIN") for version in document.versions()
    }
    return decisions | {label: decisions[version] for label, version in document.labels}


def _rules(route: Route) -> Rules | None:
    rules = ordered_rules(route.document)
    if not rules:
        return None
    compiled: list[CompiledRule] = []
    always = 0
    gated: dict[Source, list[tuple[Bits, Matcher]]] = {}
    for index, rule in enumerate(rules):
        gate = gate_condition(rule.match)
        rest = rule.match.conditions
        if gate is None:
            always |= 1 << index
        else:
            gated.setdefault(gate.source, []).append((1 << index, gate.matcher))
            rest = tuple(condition for condition in rest if condition is not gate)
        until_s = _NEVER if rule.until_s is None else rule.until_s
        decision = decision_of(route, rule.arm, f"RULE:{rule.name}")
        compiled.append(CompiledRule(compile_match(Match(rest)) if rest else None, until_s, decision))
    gates = [build_gate(source, gated[source]) for source in sorted(gated)]
    return Rules(
        tuple(compiled),
        always,
        tuple((gate.source.name, gate.known, gate.resolve) for gate in gates if gate.source.kind == "metadata"),
        tuple(gate for gate in gates if gate.source.kind != "metadata"),
    )
