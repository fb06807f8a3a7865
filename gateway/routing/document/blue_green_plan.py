"""The plan of a blue-green rollout, as checked values: what comes before the flip, who flips, and what comes after."""

from dataclasses import dataclass
from typing import Final, Literal

from gateway.routing.document.analysis import (
    MOST_EVENTS,
    AfterPromote,
    Analysis,
    StepGate,
    parse_analysis,
)
from gateway.routing.document.field import Field, Section
from gateway.routing.document.quantity import duration_ms, duration_text, percent, percent_text

Promotion = Literal["manual", "auto"]
PROMOTIONS: Final[tuple[Promotion, ...]] = ("manual", "auto")
READY: Final = ("all",)
PRE_PROMOTION_FIELDS: Final = ("shadow", "for", "minEvents")
POST_PROMOTION_FIELDS: Final = ("watch", "onFail")
ON_FAIL: Final = ("flipBack", "hold")
BLUE_GREEN_PLAN: Final = (
    *("requireReady", "prePromotion", "promote", "keepWarm", "postPromotion", "analysis"),
    "halted",
)


@dataclass(frozen=True, slots=True)
class PrePromotion:
    """Holds what the preview goes through before it gets everybody.

    Units: `shadow` in buckets of the requests, which it answers too and nobody sees; 0: none. `for_ms` at least, and
           until `min_events` of them are answered.
    """

    shadow: int = 0
    for_ms: int = 0
    min_events: int = 0

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = {"shadow": percent_text(self.shadow)} if self.shadow else {}
        if self.for_ms:
            value["for"] = duration_text(self.for_ms)
        return value | ({"minEvents": self.min_events} if self.min_events else {})


@dataclass(frozen=True, slots=True)
class BlueGreenPlan:
    """Holds a blue-green rollout. `halted`: nothing is mirrored, and it does not go on by itself.

    Units: `keep_warm_ms` and `watch_ms` after the flip, None where the document does not say.
    """

    require_ready: bool = False
    pre_promotion: PrePromotion | None = None
    promote: Promotion | None = None
    keep_warm_ms: int | None = None
    watch_ms: int | None = None
    flips_back: bool = True
    analysis: Analysis | None = None
    halted: bool = False

    @property
    def is_driven(self) -> bool:
        """Returns whether the gateway carries it out."""
        return self.pre_promotion is not None or self.promote is not None or self.watch_ms is not None

    @property
    def shadow(self) -> int:
        """Returns the share of requests that the preview answers too, in buckets."""
        return self.pre_promotion.shadow if self.pre_promotion is not None and not self.halted else 0

    @property
    def gate(self) -> StepGate:
        """Returns what the flip waits for."""
        before = self.pre_promotion or PrePromotion()
        return StepGate(before.for_ms, before.min_events)

    @property
    def after(self) -> AfterPromote:
        """Returns what happens after the flip."""
        watch_ms = self.watch_ms or 0
        return AfterPromote(watch_ms, max(watch_ms, self.keep_warm_ms or 0), "rollback" if self.flips_back else "hold")

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = {"requireReady": READY[0]} if self.require_ready else {}
        if self.pre_promotion is not None:
            value["prePromotion"] = self.pre_promotion.to_value()
        if self.promote is not None:
            value["promote"] = self.promote
        if self.keep_warm_ms is not None:
            value["keepWarm"] = duration_text(self.keep_warm_ms)
        if self.watch_ms is not None:
            value["postPromotion"] = {"watch": duration_text(self.watch_ms)} | (
                {} if self.flips_back else {"onFail": ON_FAIL[1]}
            )
        if self.analysis is not None:
            value["analysis"] = self.analysis.to_value()
        return value | ({"halted": True} if self.halted else {})


NO_BLUE_GREEN_PLAN: Final = BlueGreenPlan()


def parse_blue_green_plan(section: Section, *, has_preview: bool) -> BlueGreenPlan:
    """Returns the plan of the strategy's section. Raises: InvalidArgument naming the field."""
    given = {name: field for name in BLUE_GREEN_PLAN if (field := section.field(name)) is not None}
    if given and not has_preview:
        raise next(iter(given.values())).fail("there is no preview arm to make active")
    ready, before, promote = (given.get(name) for name in BLUE_GREEN_PLAN[:3])
    warm, after, analysis, halted = (given.get(name) for name in BLUE_GREEN_PLAN[3:])
    if ready is not None:
        ready.choice(*READY)
    watch_ms, flips_back = _post_promotion(after) if after is not None else (None, True)
    warm_ms = duration_ms(warm) if warm is not None else None
    if warm is not None and warm_ms is not None and warm_ms < (watch_ms or 0):
        raise warm.fail(
            f"{duration_text(warm_ms)} is shorter than the watch of {duration_text(watch_ms or 0)}: what is "
            "watched must be able to go back"
        )
    plan = BlueGreenPlan(
        ready is not None,
        _pre_promotion(before) if before is not None else None,
        promote.choice(*PROMOTIONS) if promote is not None else None,
        warm_ms,
        watch_ms,
        flips_back,
        parse_analysis(analysis) if analysis is not None else None,
        halted.flag() if halted is not None else False,
    )
    if not plan.is_driven and (idle := given.get("analysis") or given.get("halted")) is not None:
        raise idle.fail("nothing is carried out: give prePromotion, promote or postPromotion")
    return plan


def _pre_promotion(given: Field) -> PrePromotion:
    section = given.section(*PRE_PROMOTION_FIELDS)
    shadow, length, events = (section.field(name) for name in PRE_PROMOTION_FIELDS)
    share = percent(shadow) if shadow is not None else 0
    if events is not None and not share:
        raise events.fail("nothing is mirrored to the preview that could be counted; give shadow")
    return PrePromotion(
        share,
        duration_ms(length) if length is not None else 0,
        events.whole(0, MOST_EVENTS) if events is not None else 0,
    )


def _post_promotion(given: Field) -> tuple[int, bool]:
    """Returns how long the new version is watched, and whether it is flipped back where it is harmful."""
    section = given.section(*POST_PROMOTION_FIELDS)
    fail = section.field("onFail")
    return duration_ms(section.required("watch")), fail is None or fail.choice(*ON_FAIL) == ON_FAIL[0]
