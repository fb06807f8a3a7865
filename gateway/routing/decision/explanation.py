"""A decision step by step: every stage that `decide` goes through, with what it saw and why it went on or stopped.

This walks the document, not its compiled form, so that it shows what the operator wrote. Its decision is that of
`decide` for the same arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gateway.errors import GatewayError, PermissionDenied, UnknownVersion
from gateway.routing.decision.compiled import (
    decision_of,
    kill_decision,
    mirror_salt,
    ordered_rules,
    pin_decisions,
    salt_of,
)
from gateway.routing.decision.decide import missing_key
from gateway.routing.decision.decision import Decision
from gateway.routing.decision.route import Route
from gateway.routing.decision.snapshot import Snapshot
from gateway.routing.document.attributes import Attributes
from gateway.routing.document.document import Rule
from gateway.routing.document.field import shown
from gateway.routing.document.key import bucket_of, bucket_of_draw, bucket_of_draw_salted, seed_of
from gateway.routing.document.match import Match
from gateway.routing.document.quantity import instant_text, percent_text
from gateway.routing.document.source import reader
from gateway.routing.document.strategy import strategy_words

Result = Literal["taken", "passed", "refused", "noted"]


@dataclass(frozen=True, slots=True)
class DecisionStep:
    """One stage: `taken` decided, `passed` left it to the next, `refused` ended with an error, `noted` is a fact."""

    stage: str
    outcome: Result
    detail: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """The steps in their order, and what they lead to: a decision, or the error that the client gets."""

    steps: tuple[DecisionStep, ...]
    decision: Decision | None
    error: GatewayError | None = None


def explain(snapshot: Snapshot, model: str, attributes: Attributes, draw: float, now_s: float) -> Explanation:
    """Returns why `decide` with these arguments answers as it does. What `decide` raises is in `error`."""
    compiled = snapshot.routes.get(model)
    if compiled is None:
        requested = attributes.requested_version
        wanted = f"version {shown(requested)} was asked for" if requested else "its newest ready version answers"
        reason = "PIN" if requested else "DEFAULT"
        step = DecisionStep("route", "taken", f"the model has none at revision {snapshot.revision}: {wanted}")
        return Explanation((step,), Decision("", requested, snapshot.revision, reason))
    walk = _Walk(compiled.route, attributes, draw, now_s)
    try:
        decision = walk.decision(lambda: missing_key(compiled))
    except GatewayError as error:
        return Explanation(tuple(walk.steps), None, error)
    return Explanation(tuple(walk.steps), decision)


class _Walk:
    """One request on its way through one route; `steps` grow as it goes."""

    def __init__(self, route: Route, attributes: Attributes, draw: float, now_s: float) -> None:
        self.route = route
        self.document = route.document
        self.attributes = attributes
        self.draw = draw
        self.now_s = now_s
        kind = strategy_words(self.document.strategy)
        self.steps = [DecisionStep("route", "noted", f"revision {route.revision}, {kind}, digest {route.digest[:12]}")]

    def note(self, stage: str, outcome: Result, detail: str) -> None:
        self.steps.append(DecisionStep(stage, outcome, detail))

    def decision(self, no_key: Callable[[], GatewayError]) -> Decision:
        killed = kill_decision(self.route)
        if killed is not None and self.document.kill_switch is not None:
            self.note("kill switch", "taken", f"on: {self.document.kill_switch.reason}")
            return killed
        self.note("kill switch", "passed", "off")
        pinned = self.pin()
        if pinned is not None:
            return pinned
        key = self.key()
        decision = self.rule() or self.split(key, no_key)
        if decision.fallbacks:
            shown_chain = ", then ".join(f"{arm} (version {version})" for arm, version in decision.fallbacks)
            self.note("fallback", "noted", f"on {', '.join(sorted(decision.fallback_on))}: {shown_chain}")
        arm, version, revision, reason = decision.arm, decision.version, decision.revision, decision.reason
        chain, causes = decision.fallbacks, decision.fallback_on
        return Decision(arm, version, revision, reason, decision.bucket, chain, causes, self.mirrors(version, key))

    def pin(self) -> Decision | None:
        requested, pin = self.attributes.requested_version, self.document.client_pin
        origin = "model_version"
        if not requested and pin is not None and pin.metadata:
            requested, origin = self.attributes.metadata(pin.metadata) or "", f"metadata:{pin.metadata}"
        if not requested:
            self.note("client pin", "passed", "no version was asked for")
            return None
        asked = f"{origin} asks for {shown(requested)}"
        model = self.route.model
        if pin is not None and pin.deny:
            self.note("client pin", "refused", f"{asked}, but clientPin.deny is true")
            raise PermissionDenied(f"model {model!r}: its route lets no client choose a version")
        if pin is not None and pin.allow is not None:
            failed = self.failed(pin.allow)
            if failed:
                self.note("client pin", "refused", f"{asked}, but clientPin.allow does not hold: {failed}")
                raise PermissionDenied(f"model {model!r}: its route does not let this client choose a version")
        decision = pin_decisions(self.route).get(requested)
        if decision is None:
            self.note("client pin", "refused", f"{asked}, which is no version and no label of this route")
            raise UnknownVersion(model, requested)
        self.note("client pin", "taken", f"{asked}: version {decision.version}")
        return decision

    def rule(self) -> Decision | None:
        for rule in ordered_rules(self.document):
            if self.holds(rule):
                return decision_of(self.route, rule.arm, f"RULE:{rule.name}")
        return None

    def holds(self, rule: Rule) -> bool:
        stage = f"rule {rule.name}"
        if rule.until_s is not None and self.now_s >= rule.until_s:
            self.note(stage, "passed", f"expired at {instant_text(rule.until_s)}")
            return False
        failed = self.failed(rule.match)
        if failed:
            self.note(stage, "passed", failed)
            return False
        self.note(stage, "taken", f"{'; '.join(map(str, rule.match.conditions))}: arm {rule.arm}")
        return True

    def failed(self, match: Match) -> str:
        """The first condition that does not hold, with what the request has; "" where all hold."""
        for condition in match.conditions:
            value = reader(condition.source)(self.attributes)
            if not condition.matcher.compile()(value):
                return f"{condition} does not hold for {shown(value) if value is not None else 'an absent value'}"
        return ""

    def key(self) -> str | None:
        if self.document.key is None:
            return None
        for source in self.document.key.sources:
            key = reader(source)(self.attributes)
            if key:
                self.note("key", "noted", f"{source} is {shown(key)}")
                return key
        self.note("key", "noted", f"missing; looked in {', '.join(map(str, self.document.key.sources))}")
        return None

    def split(self, key: str | None, no_key: Callable[[], GatewayError]) -> Decision:
        control = decision_of(self.route, self.document.strategy.control_arm, "DEFAULT")
        if not self.document.strategy.splits:
            self.note("table", "taken", f"all requests: arm {control.arm}")
            return control
        wanted = self.document.key
        if key is not None:
            salt = salt_of(self.document)
            bucket, reason = bucket_of(key, seed_of(salt)), "SPLIT"
            origin = f"key with salt {shown(salt)}"
        elif wanted is not None and wanted.on_missing == "reject":
            self.note("table", "refused", "onMissing: reject")
            raise no_key()
        elif wanted is not None and wanted.on_missing == "control":
            self.note("table", "taken", f"onMissing: control, arm {control.arm}")
            return control
        else:
            bucket, reason = bucket_of_draw(self.draw), "SPLIT" if wanted is None else "DEFAULT"
            origin = f"draw {self.draw}"
        arm = self.route.table.arm_of(bucket)
        size = percent_text(self.route.table.weights()[arm])
        self.note("table", "taken", f"{origin} is in bucket {bucket}, of arm {arm} ({size} of the buckets)")
        return decision_of(self.route, arm, reason, bucket)

    def mirrors(self, version: str, key: str | None) -> tuple[tuple[str, str], ...]:
        hit: list[tuple[str, str]] = []
        for mirror in self.document.effective_mirrors():
            seed = seed_of(mirror_salt(self.document, mirror))
            bucket = bucket_of(key, seed) if key is not None else bucket_of_draw_salted(self.draw, seed)
            where = f"bucket {bucket}, the mirror takes those below {mirror.share}"
            if bucket >= mirror.share:
                self.note(f"mirror {mirror.arm}", "passed", where)
            elif self.document.version_of(mirror.arm) == version:
                self.note(f"mirror {mirror.arm}", "passed", f"{where}, but its version answers already")
            else:
                self.note(f"mirror {mirror.arm}", "taken", where)
                hit.append((mirror.arm, self.document.version_of(mirror.arm)))
        return tuple(hit)
