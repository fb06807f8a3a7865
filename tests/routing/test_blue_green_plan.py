"""Blue-green plans as documents: what is refused by name, what is mirrored, and what a flip leaves."""

import pytest

from gateway.errors import InvalidArgument
from gateway.routing.decision.route import propose
from gateway.routing.decision.snapshot import compile_route
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.route_status import RouteStatus, is_open, kept_status
from gateway.routing.document.strategy import BlueGreen, ramp_of
from gateway.routing.store.amendment import Amendment, abort, flip, kill, promote, resume, retry, revert, unkill
from tests.routing.documents import Plain, document
from tests.routing.test_route_status import edited

PAIR: Plain = {"blue": {"version": "1"}, "green": {"version": "2"}}
PLAN: Plain = {
    "requireReady": "all",
    "prePromotion": {"shadow": "10%", "for": "5m"},
    "promote": "auto",
    "keepWarm": "30m",
    "postPromotion": {"watch": "15m"},
}


def blue_green(arms: Plain = PAIR, mirrors: list[Plain] | None = None, **fields: object) -> RouteDocument:
    more: Plain = {"mirrors": mirrors} if mirrors else {}
    return document(arms=arms, strategy={"blueGreen": {"active": "blue", "preview": "green", **fields}}, **more)


def strategy_of(made: RouteDocument) -> BlueGreen:
    assert isinstance(made.strategy, BlueGreen)
    return made.strategy


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"preview": None, "promote": "auto"}, "blueGreen.promote: there is no preview arm to make active"),
        ({"promote": "soon"}, "blueGreen.promote: 'soon' is not one of manual, auto"),
        ({"requireReady": "some"}, "blueGreen.requireReady: 'some' is not one of all"),
        ({"prePromotion": {"shadow": "110%"}}, "blueGreen.prePromotion.shadow: '110%'"),
        ({"prePromotion": {"minEvents": 5}}, "prePromotion.minEvents: nothing is mirrored to the preview"),
        ({"prePromotion": {"until": "5m"}}, "blueGreen.prePromotion.until: unknown field"),
        ({"postPromotion": {}}, "blueGreen.postPromotion.watch: required, but missing"),
        ({"postPromotion": {"watch": "1h", "onFail": "rollback"}}, "onFail: 'rollback' is not one of flipBack, hold"),
        ({"postPromotion": {"watch": "1h"}, "keepWarm": "10m"}, "keepWarm: 10m is shorter than the watch of 1h"),
        ({"analysis": {"alpha": 2}, "promote": "auto"}, "blueGreen.analysis.alpha: 2 is not a number"),
        ({"analysis": {}}, "blueGreen.analysis: nothing is carried out: give prePromotion, promote or postPromotion"),
        ({"halted": True}, "blueGreen.halted: nothing is carried out"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_by_name(fields: Plain, text: str) -> None:
    given = {"active": "blue", "preview": "green", **fields}
    wanted = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(InvalidArgument) as caught:
        document(arms=PAIR, strategy={"blueGreen": wanted})
    assert text in str(caught.value)


def test_the_preview_mirrors_while_it_is_tried_and_not_after() -> None:
    tried = blue_green(**PLAN)
    assert [(mirror.arm, mirror.share) for mirror in tried.effective_mirrors()] == [("green", 100_000)]
    assert [mirror.target for mirror in compile_route(propose(tried, None)).mirrors] == [("green", "2")]
    for over in (abort(tried), flip(tried), blue_green(promote="auto")):
        assert over.effective_mirrors() == ()
        assert not compile_route(propose(over, None)).mirrors
    mirror: Plain = {"arm": "green", "percent": "5%"}
    with pytest.raises(InvalidArgument, match=r"prePromotion.shadow: arm 'green' has a mirror already"):
        blue_green(mirrors=[mirror], **PLAN)


def test_the_plan_of_a_flip_is_a_step_that_waits() -> None:
    canary = ramp_of(blue_green(**PLAN).strategy)
    assert canary is not None
    assert (canary.stable, canary.canary, canary.previews, canary.by_hand) == ("blue", "green", True, False)
    assert (canary.steps[0].weight, canary.steps[0].gate.hold_ms) == (100_000, 300_000)
    assert canary.after_promote is not None
    assert (canary.after_promote.watch_ms, canary.after_promote.keep_warm_ms) == (900_000, 1_800_000)
    manual = ramp_of(blue_green(postPromotion={"watch": "15m"}).strategy)
    assert manual is not None
    assert (manual.by_hand, manual.steps[0].weight) == (True, 0)
    for idle in (blue_green(), blue_green(keepWarm="1h"), blue_green(requireReady="all")):
        assert ramp_of(idle.strategy) is None


def test_a_flip_is_a_status_and_the_document_stays() -> None:
    first = propose(blue_green(**PLAN), None)
    flipped = edited(first, promote)
    assert flipped.spec == blue_green(**PLAN)
    assert (strategy_of(flipped.document).active, strategy_of(flipped.document).preview) == ("green", "blue")
    assert flipped.to_value()["status"] == {"weight": "0%", "promoted": True}
    back = edited(flipped, revert)
    assert (strategy_of(back.document).active, strategy_of(back.document).plan.halted) == ("blue", True)
    assert back.spec == blue_green(**PLAN)
    again = edited(back, retry)
    assert (again.document, again.status) == (blue_green(**PLAN), RouteStatus())
    assert edited(edited(first, abort), resume).document == first.document
    killed = edited(flipped, lambda document: kill(document, "incident"))
    assert killed.document.kill_switch is not None
    assert (killed.document.kill_switch.arm, killed.status) == ("green", flipped.status)
    assert edited(killed, unkill).spec == blue_green(**PLAN)
    by_hand = edited(propose(blue_green(), None), Amendment("flip", flip).edit)
    assert strategy_of(by_hand.spec).active == "green"  # nothing is carried out: the verb changes the document


def test_the_same_versions_stay_flipped_and_others_begin() -> None:
    status = RouteStatus(weight=0, promoted=True)
    applied = blue_green(**PLAN)
    assert is_open(applied)
    assert kept_status(applied, status, applied) == status
    assert kept_status(applied, status, blue_green(**{**PLAN, "keepWarm": "2h"})) == status
    other = blue_green({"blue": {"version": "1"}, "green": {"version": "3"}}, **PLAN)
    assert kept_status(applied, status, other) == RouteStatus()
