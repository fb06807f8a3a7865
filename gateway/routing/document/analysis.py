"""The plan of a rollout, as checked values: how a canary is judged while it grows and after it has everything."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gateway.routing.document.field import Field
from gateway.routing.document.guardrail import Guardrail, parse_guardrails, usual_guardrails
from gateway.routing.document.quantity import duration_ms, duration_text, percent, percent_text

OnFail = Literal["rollback", "hold"]
OnInconclusive = Literal["hold", "advance", "rollback"]
OnNoData = Literal["hold", "rollback"]
ON_FAIL: Final[tuple[OnFail, ...]] = ("rollback", "hold")
ON_INCONCLUSIVE: Final[tuple[OnInconclusive, ...]] = ("hold", "advance", "rollback")
ON_NO_DATA: Final[tuple[OnNoData, ...]] = ("hold", "rollback")  # nothing known never advances

ANALYSIS_FIELDS: Final = (
    *("tick", "alpha", "passMargin", "onFail", "onInconclusive", "onNoData"),
    *("maxHold", "maxHarmed", "maxLoad", "guardrails"),
)
AFTER_PROMOTE_FIELDS: Final = ("watch", "keepWarm", "onFail")
TICK_MS: Final = (1_000, 60_000)
ALPHA: Final = (0.0001, 0.2)
PASS_MARGIN: Final = (1.1, 100.0)
MOST_EVENTS: Final = 1_000_000_000
APPROVER_LIMIT: Final = 32


@dataclass(frozen=True, slots=True)
class Analysis:
    """Holds how a canary is judged.

    Units:  `tick_ms` between looks; `alpha` bounds the chance that a harmless version is ever stopped, over all looks
            and guardrails; `pass_margin` is the ratio of rates that the canary must be proven to stay below;
            `max_hold_ms` 0: it holds for as long as it takes; `max_harmed` 0: no budget; `max_load` in
            buckets of the CPUs, all of them for no limit.
    """

    tick_ms: int = 1_000
    alpha: float = 0.01
    pass_margin: float = 2.0
    on_fail: OnFail = "rollback"
    on_inconclusive: OnInconclusive = "hold"
    on_no_data: OnNoData = "hold"
    max_hold_ms: int = 0
    max_harmed: int = 0
    max_load: int = 800_000
    guardrails: tuple[Guardrail, ...] = ()  # as the document names them; () for the usual ones

    @property
    def effective_guardrails(self) -> tuple[Guardrail, ...]:
        """Returns what the canary is judged by."""
        return self.guardrails or usual_guardrails()

    @property
    def counted(self) -> frozenset[str]:
        """Returns what workers have to count for its guardrails, beside requests, times and runs."""
        return frozenset(one.kind.counts for one in self.effective_guardrails) - {""}

    def to_value(self) -> dict[str, object]:
        usual = Analysis()
        value: dict[str, object] = {}
        if self.tick_ms != usual.tick_ms:
            value["tick"] = duration_text(self.tick_ms)
        for name, attribute in (
            ("alpha", "alpha"),
            ("passMargin", "pass_margin"),
            ("onFail", "on_fail"),
            ("onInconclusive", "on_inconclusive"),
            ("onNoData", "on_no_data"),
            ("maxHarmed", "max_harmed"),
        ):
            if getattr(self, attribute) != getattr(usual, attribute):
                value[name] = getattr(self, attribute)
        if self.max_hold_ms:
            value["maxHold"] = duration_text(self.max_hold_ms)
        if self.max_load != usual.max_load:
            value["maxLoad"] = percent_text(self.max_load)
        if self.guardrails:
            value["guardrails"] = [guardrail.to_value() for guardrail in self.guardrails]
        return value


@dataclass(frozen=True, slots=True)
class AfterPromote:
    """Holds what happens once the canary has everything. Units: milliseconds; 0: not at all."""

    watch_ms: int = 0
    keep_warm_ms: int = 0
    on_fail: OnFail = "rollback"

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = {}
        if self.watch_ms:
            value["watch"] = duration_text(self.watch_ms)
        if self.keep_warm_ms:
            value["keepWarm"] = duration_text(self.keep_warm_ms)
        if self.on_fail != "rollback":
            value["onFail"] = self.on_fail
        return value


@dataclass(frozen=True, slots=True)
class StepGate:
    """Holds what a step of a ramp waits for before the next one.

    Units:  `hold_ms` None: until somebody promotes; `min_events` requests that both arms have completed in the step.
    """

    hold_ms: int | None = None
    min_events: int = 0
    approval: tuple[str, ...] = ()  # one of them has to approve

    def to_value(self) -> dict[str, object]:
        value: dict[str, object] = {}
        if self.hold_ms is not None:
            value["hold"] = duration_text(self.hold_ms)
        if self.min_events:
            value["minEvents"] = self.min_events
        if self.approval:
            value["approval"] = list(self.approval)
        return value


NO_GATE: Final = StepGate()


def parse_analysis(given: Field) -> Analysis:
    """Returns how the canary is judged. Raises: InvalidArgument naming the field."""
    section = given.section(*ANALYSIS_FIELDS)
    usual = Analysis()
    tick, alpha, margin = (section.field(name) for name in ("tick", "alpha", "passMargin"))
    fail, inconclusive, no_data = (section.field(name) for name in ("onFail", "onInconclusive", "onNoData"))
    hold, harmed, load, guardrails = (section.field(name) for name in ("maxHold", "maxHarmed", "maxLoad", "guardrails"))
    tick_ms = usual.tick_ms
    if tick is not None:
        tick_ms = duration_ms(tick, least_ms=TICK_MS[0])
        if tick_ms > TICK_MS[1]:
            raise tick.refuse(f"a duration of at most {duration_text(TICK_MS[1])}")
    return Analysis(
        tick_ms,
        alpha.number(*ALPHA) if alpha is not None else usual.alpha,
        margin.number(*PASS_MARGIN) if margin is not None else usual.pass_margin,
        fail.choice(*ON_FAIL) if fail is not None else usual.on_fail,
        inconclusive.choice(*ON_INCONCLUSIVE) if inconclusive is not None else usual.on_inconclusive,
        no_data.choice(*ON_NO_DATA) if no_data is not None else usual.on_no_data,
        duration_ms(hold, least_ms=1) if hold is not None else 0,
        harmed.whole(1, MOST_EVENTS) if harmed is not None else 0,
        _max_load(load) if load is not None else usual.max_load,
        parse_guardrails(guardrails) if guardrails is not None else (),
    )


def _max_load(given: Field) -> int:
    buckets = percent(given)
    if not buckets:
        raise given.refuse("a percentage above 0; 100 % is no limit")
    return buckets


def parse_after_promote(given: Field) -> AfterPromote:
    """Returns what happens after the promotion. Raises: InvalidArgument naming the field."""
    section = given.section(*AFTER_PROMOTE_FIELDS)
    watch, warm, fail = (section.field(name) for name in AFTER_PROMOTE_FIELDS)
    watch_ms = duration_ms(watch) if watch is not None else 0
    warm_ms = duration_ms(warm) if warm is not None else 0
    if warm is not None and warm_ms < watch_ms:
        raise warm.fail(
            f"{duration_text(warm_ms)} is shorter than the watch of {duration_text(watch_ms)}: what is "
            "watched must be able to go back"
        )
    return AfterPromote(watch_ms, warm_ms, fail.choice(*ON_FAIL) if fail is not None else "rollback")


def parse_gate(hold: Field | None, events: Field | None, approval: Field | None) -> StepGate:
    """Returns what a step waits for. Raises: InvalidArgument naming the field."""
    names: Sequence[str] = ()
    if approval is not None:
        items = approval.items(APPROVER_LIMIT, what="approvers")
        if not items:
            raise approval.fail("nobody could approve; leave the field out or name at least one")
        names = [item.text(limit=256) for item in items]
    return StepGate(
        duration_ms(hold) if hold is not None else None,
        events.whole(0, MOST_EVENTS) if events is not None else 0,
        tuple(dict.fromkeys(names)),
    )
