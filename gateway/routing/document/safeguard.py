"""The parts of a route that protect it from its arms: kill switch, fallback chain with its breaker, and who may pin."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.field import Field
from gateway.routing.document.match import Match, parse_match
from gateway.routing.document.quantity import duration_ms, duration_text, percent, percent_text
from gateway.routing.document.source import metadata_name
from gateway.routing.document.strategy import arm_of

KILL_FIELDS = ("arm", "reason")
PIN_FIELDS = ("metadata", "allow", "deny")
FALLBACK_FIELDS = ("order", "on", "budget", "breaker")
BREAKER_FIELDS = ("consecutive", "window", "open")
Cause = Literal["NOT_LOADED", "UNAVAILABLE", "INTERNAL", "DEADLINE", "RESOURCE_EXHAUSTED"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
DEFAULT_CAUSES: tuple[Cause, ...] = ("NOT_LOADED", "UNAVAILABLE")
BREAKER_OPEN = "BREAKER"  # the cause that a breaker adds by being there


@dataclass(frozen=True, slots=True)
class KillSwitch:
    """Every request goes to `arm`, whatever else the route says."""

    arm: str
    reason: str

    def to_value(self) -> dict[str, object]:
        return {"arm": self.arm, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class ClientPin:
    """Holds which requests may choose their version: none if `deny`, those that fit `allow`, all where that is None.
    `metadata` is the name of a pin beside the protocol's model_version, "" for none."""

    metadata: str = ""
    allow: Match | None = None
    deny: bool = False

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = {}
        if self.metadata:
            value["metadata"] = self.metadata
        if self.allow is not None:
            value["allow"] = self.allow.to_value()
        if self.deny:
            value["deny"] = True
        return value


@dataclass(frozen=True, slots=True)
class Breaker:
    """An arm is left out for `open_ms` after `consecutive` failures within `window_ms`."""

    consecutive: int = 5
    window_ms: int = 10_000
    open_ms: int = 30_000

    def to_value(self) -> dict[str, object]:
        window, pause = duration_text(self.window_ms), duration_text(self.open_ms)
        return {"consecutive": self.consecutive, "window": window, "open": pause}


@dataclass(frozen=True, slots=True)
class Fallback:
    """The arms to try in turn. Units: `budget` is the share of requests that may fall back, in buckets."""

    order: tuple[str, ...]
    causes: frozenset[str] = frozenset(DEFAULT_CAUSES)
    budget: int = BUCKETS
    breaker: Breaker | None = None

    @property
    def effective_causes(self) -> frozenset[str]:
        """The causes as a decision carries them: with an open breaker, where there is one."""
        return self.causes | {BREAKER_OPEN} if self.breaker is not None else self.causes

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = {"order": list(self.order)}
        if self.causes != frozenset(DEFAULT_CAUSES):
            value["on"] = sorted(self.causes)
        if self.budget != BUCKETS:
            value["budget"] = percent_text(self.budget)
        if self.breaker is not None:
            value["breaker"] = self.breaker.to_value()
        return value


def parse_kill_switch(field: Field, arms: Mapping[str, object]) -> KillSwitch:
    section = field.section(*KILL_FIELDS)
    return KillSwitch(arm_of(section.required("arm"), arms), section.required("reason").text(limit=512))


def parse_client_pin(field: Field) -> ClientPin:
    section = field.section(*PIN_FIELDS)
    name, allow, deny = section.field("metadata"), section.field("allow"), section.field("deny")
    denied = deny.flag() if deny is not None else False
    if denied and (name is not None or allow is not None):
        raise field.fail("deny: true refuses every pin; leave out metadata and allow")
    return ClientPin(
        metadata_name(name) if name is not None else "", parse_match(allow) if allow is not None else None, denied
    )


def parse_fallback(field: Field, arms: Mapping[str, object]) -> Fallback:
    section = field.section(*FALLBACK_FIELDS)
    given = section.required("order")
    items = given.items(len(arms), what="arms")
    order = tuple(arm_of(item, arms) for item in items)
    if not order:
        raise given.fail("no arm; give at least one")
    for index, arm in enumerate(order):
        if arm in order[:index]:
            raise items[index].fail(f"arm {arm!r} is named twice")
    on, budget, breaker = section.field("on"), section.field("budget"), section.field("breaker")
    causes = frozenset(DEFAULT_CAUSES)
    if on is not None:
        causes = frozenset(item.choice(*CAUSES) for item in on.items(len(CAUSES), what="causes"))
        if not causes:
            raise on.fail(f"no cause; give at least one of {', '.join(CAUSES)}")
    return Fallback(
        order,
        causes,
        percent(budget) if budget is not None else BUCKETS,
        _breaker(breaker) if breaker is not None else None,
    )


def _breaker(field: Field) -> Breaker:
    section = field.section(*BREAKER_FIELDS)
    usual = Breaker()
    consecutive, window, pause = (section.field(name) for name in BREAKER_FIELDS)
    return Breaker(
        consecutive.whole(1, 10_000) if consecutive is not None else usual.consecutive,
        duration_ms(window, least_ms=1) if window is not None else usual.window_ms,
        duration_ms(pause, least_ms=1) if pause is not None else usual.open_ms,
    )
