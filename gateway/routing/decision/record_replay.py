"""A logged request decided again: from its record and the route of the revision that the record names.

The record holds the outcome of what was looked at (the bucket, the reason), not the request's metadata. So a replay
takes the reason as the way that was gone and follows it through the document: the bucket through the table, the rule by
its name to its arm, the pin to its version. It comes to something else than what was served where the two do not fit.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.routing.decision.compiled import decision_of, kill_decision, ordered_rules, pin_decisions
from gateway.routing.decision.decision import FALLBACK, Decision
from gateway.routing.decision.explanation import DecisionStep, Explanation, Result
from gateway.routing.decision.route import Route
from gateway.routing.document.quantity import percent_text
from gateway.routing.document.strategy import strategy_words

RULE = "RULE:"


@dataclass(frozen=True, slots=True)
class Logged:
    """Holds what a record says of its decision. `bucket` is -1 where none was needed."""

    version: str
    arm: str
    revision: int
    reason: str
    bucket: int

    def agrees(self, decision: Decision | None) -> bool:
        """Returns whether the decision is what was served. A decision for the newest ready version agrees with any."""
        if decision is None:
            return False
        return (decision.arm, decision.reason) == (self.arm, self.reason) and decision.version in ("", self.version)


def replay(route: Route | None, logged: Logged) -> Explanation:
    """The steps from the record to the decision that its revision gives; None where the reason leads nowhere.

    `route` is the model's at the record's revision, None if it had none.
    """
    if route is None:
        wanted = "the version that was asked for" if logged.reason == "PIN" else "the newest ready version"
        step = DecisionStep("route", "taken", f"the model had none at revision {logged.revision}: {wanted} answers")
        reason = "PIN" if logged.reason == "PIN" else "DEFAULT"
        pinned = logged.version if reason == "PIN" else ""
        return Explanation((step,), Decision("", pinned, logged.revision, reason))
    walk = _Replay(route, logged)
    decision = walk.decision()
    return Explanation(tuple(walk.steps), decision)


class _Replay:
    """One record on its way through one route; `steps` grow as it goes."""

    def __init__(self, route: Route, logged: Logged) -> None:
        self.route = route
        self.document = route.document
        self.logged = logged
        kind = strategy_words(self.document.strategy)
        self.steps = [DecisionStep("route", "noted", f"revision {route.revision}, {kind}, digest {route.digest[:12]}")]

    def note(self, stage: str, outcome: Result, detail: str) -> None:
        self.steps.append(DecisionStep(stage, outcome, detail))

    def decision(self) -> Decision | None:
        killed = kill_decision(self.route)
        if killed is not None and self.document.kill_switch is not None:
            self.note("kill switch", "taken", f"on: {self.document.kill_switch.reason}")
            return killed
        self.note("kill switch", "passed", "off")
        reason = self.logged.reason
        if reason == "PIN":
            return self.pin()
        if reason.startswith(RULE):
            return self.rule(reason.removeprefix(RULE))
        if reason in ("SPLIT", "DEFAULT"):
            return self.split(reason)
        if reason.startswith(FALLBACK):
            return self.fallback(reason.removeprefix(FALLBACK))
        self.note("record", "refused", f"the reason {reason!r} is none that this route gives")
        return None

    def pin(self) -> Decision | None:
        decision = pin_decisions(self.route).get(self.logged.version)
        if decision is None:
            self.note("client pin", "refused", f"version {self.logged.version} is none that this route names")
        else:
            self.note("client pin", "taken", f"the record says that version {decision.version} was asked for")
        return decision

    def rule(self, name: str) -> Decision | None:
        for rule in ordered_rules(self.document):
            if rule.name == name:
                self.note(f"rule {name}", "taken", f"the record says that it held: arm {rule.arm}")
                return decision_of(self.route, rule.arm, self.logged.reason)
        self.note(f"rule {name}", "refused", "this route has no such rule")
        return None

    def split(self, reason: str) -> Decision:
        bucket = self.logged.bucket
        if bucket < 0:
            arm = self.document.strategy.control_arm
            self.note("table", "taken", f"no bucket was needed: arm {arm}")
            return decision_of(self.route, arm, "DEFAULT")
        arm = self.route.table.arm_of(bucket)
        size = percent_text(self.route.table.weights()[arm])
        self.note("table", "taken", f"bucket {bucket} is of arm {arm} ({size} of the buckets)")
        return decision_of(self.route, arm, reason, bucket)

    def fallback(self, cause: str) -> Decision | None:
        logged = self.logged
        for first in self.first_choices():
            if (logged.arm, logged.version) in first.fallbacks and cause in first.fallback_on:
                self.note("fallback", "taken", f"{cause} of arm {first.arm}: arm {logged.arm} is in its chain")
                return Decision(logged.arm, logged.version, self.route.revision, logged.reason, logged.bucket)
        self.note("fallback", "refused", f"no arm of this route falls back to arm {logged.arm} on {cause}")
        return None

    def first_choices(self) -> Iterable[Decision]:
        """Yields what may have been decided before the fallback: by the bucket, else by a rule or the strategy."""
        if self.logged.bucket >= 0:
            yield self.split("SPLIT")
            return
        for rule in ordered_rules(self.document):
            yield decision_of(self.route, rule.arm, f"{RULE}{rule.name}")
        yield decision_of(self.route, self.document.strategy.control_arm, "DEFAULT")
