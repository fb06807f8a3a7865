"""Explanations lead to the decision that is made, and say why on the way."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.routing.decision.decide import decide
from gateway.routing.decision.explanation import explain
from gateway.routing.decision.snapshot import EMPTY, propose
from gateway.routing.document.document import parse
from tests.routing.documents import Plain, Request, documents, requests, snapshot


@settings(max_examples=250, deadline=None)
@given(documents, st.lists(requests, min_size=1, max_size=4), st.floats(0, 1, exclude_max=True), st.booleans())
def test_the_explained_decision_is_the_one_that_is_made(
    value: Plain, asked: list[Request], draw: float, late: bool
) -> None:
    """The walk through the document and the compiled route are two implementations: they must not differ."""
    routed = EMPTY.with_route(propose(parse(value), None))
    now_s = 1_800_000_000.0 if late else 1_700_000_000.0
    for request in asked * 2:  # the second time from what gates remember
        explanation = explain(routed, "m", request, draw, now_s)
        try:
            decision = decide(routed, "m", request, draw, now_s)
        except GatewayError as error:
            failure = error
        else:
            assert explanation.decision == decision
            assert explanation.error is None
            assert any(step.outcome == "taken" for step in explanation.steps)
            continue
        assert explanation.decision is None
        assert type(explanation.error) is type(failure)
        assert str(explanation.error) == str(failure)
        assert explanation.steps[-1].outcome == "refused"


@settings(max_examples=40, deadline=None)
@given(documents, requests)
def test_a_killed_route_explains_its_kill(value: Plain, request: Request) -> None:
    value["spec"]["killSwitch"] = {"arm": "b", "reason": "incident 7"}
    routed = EMPTY.with_route(propose(parse(value), None))
    explanation = explain(routed, "m", request, 0.5, 0.0)
    assert explanation.decision == decide(routed, "m", request, 0.5, 0.0)
    assert (explanation.steps[-1].stage, explanation.steps[-1].detail) == ("kill switch", "on: incident 7")


def test_the_steps_of_a_split() -> None:
    routed = snapshot(
        key={"from": ["metadata:x-user"], "salt": "fraud-exp-7"},
        rules=[{"name": "vip", "match": {"metadata": {"x-vip": {"exact": "1"}}}, "arm": "b", "until": "2026-01-01"}],
        fallback={"order": ["c"]},
        mirrors=[{"arm": "c", "percent": 100}],
    )
    explanation = explain(routed, "m", Request({"x-user": "user-1", "x-vip": "0"}), 0.5, 1_700_000_000.0)
    steps = [(step.stage, step.outcome) for step in explanation.steps]
    assert steps == [
        ("route", "noted"),
        ("kill switch", "passed"),
        ("client pin", "passed"),
        ("key", "noted"),
        ("rule vip", "passed"),
        ("table", "taken"),
        ("fallback", "noted"),
        ("mirror c", "taken"),
    ]
    details = {step.stage: step.detail for step in explanation.steps}
    assert details["key"] == "metadata:x-user is 'user-1'"
    assert details["rule vip"] == "metadata:x-vip exact 1 does not hold for '0'"
    assert details["fallback"] == "on NOT_LOADED, UNAVAILABLE: c (version 14)"
    assert explanation.decision is not None
    bucket = explanation.decision.bucket
    assert details["table"] == (
        f"key with salt 'fraud-exp-7' is in bucket {bucket}, of arm {explanation.decision.arm} (50% of the buckets)"
    )


def test_an_expired_rule_and_a_refused_pin_say_so() -> None:
    rules = [{"name": "old", "match": {"id": {"exact": "x"}}, "arm": "b", "until": "2023-01-01"}]
    expired = explain(snapshot(rules=rules), "m", Request(request_id="x"), 0.5, 1_700_000_000.0)
    assert "expired at 2023-01-01T00:00:00Z" in [step.detail for step in expired.steps]
    denied = explain(snapshot(clientPin={"deny": True}), "m", Request(requested_version="12"), 0.5, 0.0)
    assert denied.steps[-1].detail == "model_version asks for '12', but clientPin.deny is true"


def test_a_model_without_a_route_is_explained() -> None:
    explanation = explain(EMPTY.at("e", 4), "m", Request(), 0.5, 0.0)
    assert explanation.decision == decide(EMPTY.at("e", 4), "m", Request(), 0.5, 0.0)
    assert explanation.steps[0].detail == "the model has none at revision 4: its newest ready version answers"
    pinned = explain(EMPTY, "m", Request(requested_version="12"), 0.5, 0.0)
    assert pinned.decision == decide(EMPTY, "m", Request(requested_version="12"), 0.5, 0.0)
