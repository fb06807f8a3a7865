"""How a document says that a canary is judged: what is refused, and what the defaults are."""

import pytest

from gateway.errors import InvalidArgument
from gateway.routing.document.caution import cautions
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.strategy import Canary
from tests.routing.documents import Plain, document

PAIR = {"stable": {"version": "1"}, "canary": {"version": "2"}}
GUARDRAIL = "spec.strategy.canary.analysis.guardrails[0]"
STEPS: list[Plain] = [{"weight": "1%", "hold": "2m"}, {"weight": "5%"}]


def judged(**fields: object) -> RouteDocument:
    return document(arms=PAIR, strategy={"canary": {"steps": STEPS, **fields}})


def canary_of(route: RouteDocument) -> Canary:
    assert isinstance(route.strategy, Canary)
    return route.strategy


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"analysis": {"alpha": 2}}, "canary.analysis.alpha: 2 is not a number from 0.0001 to 0.2"),
        ({"analysis": {"tick": "1h"}}, "canary.analysis.tick: '1h' is not a duration of at most 1m"),
        ({"analysis": {"tick": "10ms"}}, "canary.analysis.tick: '10ms' is not a duration of at least 1s"),
        ({"analysis": {"onNoData": "advance"}}, "onNoData: 'advance' is not one of hold, rollback"),
        ({"analysis": {"maxHarmed": 0}}, "canary.analysis.maxHarmed: 0 is not a whole number from 1"),
        ({"analysis": {"guardrails": []}}, "canary.analysis.guardrails: no guardrail"),
        ({"analysis": {"guardrails": ["errors"]}}, "guardrails[0]: 'errors' is not a guardrail with a kind (errors,"),
        ({"analysis": {"guardrails": [{"kind": "error"}]}}, "guardrails[0].kind: 'error' is not one of errors,"),
        ({"analysis": {"guardrails": [{"kind": "errors"}] * 2}}, "guardrails[1]: the same errors guardrail"),
        ({"analysis": {"guardrails": [{"kind": "errors", "quantile": 0.9}]}}, "guardrails[0].quantile: unknown field"),
        ({"analysis": {"guardrails": [{"kind": "errors", "tolerance": 0.5}]}}, "0.5 is not a number from 1 to 100"),
        ({"analysis": {"guardrails": [{"kind": "errors", "passBelow": "0%"}]}}, "'0%' is not a percentage above 0"),
        ({"analysis": {"guardrails": [{"kind": "webhook"}]}}, "guardrails[0].url: required, but missing"),
        (
            {"analysis": {"guardrails": [{"kind": "webhook", "url": "http://ann:secret@gate/check"}]}},
            "guardrails[0].url: a URL in a document must hold no user name or password",
        ),
        ({"analysis": {"guardrails": [{"kind": "webhook", "url": "file:///etc/passwd"}]}}, "begins with http:// or"),
        ({"steps": [{"weight": "1%", "approval": []}]}, "canary.steps[0].approval: nobody could approve"),
        ({"steps": [{"weight": "1%", "minEvents": -1}]}, "canary.steps[0].minEvents: -1 is not a whole number"),
        (
            {"steps": [{"weight": "5%", "hold": "1m"}, {"weight": "1%"}]},
            "canary.steps[1].weight: 1% is less than the 5% of the step before",
        ),
        ({"afterPromote": {"watch": "1h", "keepWarm": "10m"}}, "keepWarm: 10m is shorter than the watch of 1h"),
        ({"afterPromote": {"onFail": "flip"}}, "canary.afterPromote.onFail: 'flip' is not one of rollback, hold"),
    ],
)
def test_what_could_not_be_judged_is_refused_by_name(fields: Plain, text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        judged(**fields)
    assert text in str(caught.value)
    assert "secret" not in str(caught.value)


def test_analysis_needs_steps() -> None:
    with pytest.raises(InvalidArgument, match=r"canary\.analysis: there are no steps to judge"):
        document(arms=PAIR, strategy={"canary": {"weight": "5%", "analysis": {}}})


def test_a_canary_moves_by_itself_where_it_is_judged_or_a_step_has_an_end() -> None:
    by_hand: list[Plain] = [{"weight": "5%"}, {"weight": "1%"}]
    assert not canary_of(document(arms=PAIR, strategy={"canary": {"steps": by_hand}})).is_driven
    assert not canary_of(document(arms=PAIR, strategy={"canary": {"weight": "5%"}})).is_driven
    assert canary_of(judged()).is_driven
    assert canary_of(judged(steps=[{"weight": "5%"}], analysis={})).is_driven


def test_a_canary_is_judged_by_errors_and_latency_where_it_names_nothing() -> None:
    analysis = canary_of(judged(analysis={})).analysis
    assert analysis is not None
    assert [guardrail.kind.name for guardrail in analysis.effective_guardrails] == ["errors", "latency"]
    assert analysis.effective_guardrails[1].number("quantile") == 0.99
    assert analysis.to_value() == {}


def test_a_guardrail_of_a_mirror_that_is_not_there_is_said() -> None:
    without = judged(analysis={"guardrails": [{"kind": "shadow"}]})
    assert cautions(without, 0.0) == (f"{GUARDRAIL}: arm canary has no mirror, so shadow never has data",)
    canary: Plain = {"steps": STEPS, "analysis": {"guardrails": [{"kind": "shadow"}]}}
    assert not cautions(
        document(arms=PAIR, strategy={"canary": canary}, mirrors=[{"arm": "canary", "percent": "5%"}]), 0.0
    )


def test_a_metric_that_no_feedback_has_is_said() -> None:
    [told] = cautions(judged(analysis={"guardrails": [{"kind": "reward", "metric": "clicks"}]}), 0.0)
    assert told == f"{GUARDRAIL}.metric: feedback has reward and label, so reward never has data"
    for metric in ("reward", "label"):
        assert not cautions(judged(analysis={"guardrails": [{"kind": "reward", "metric": metric}]}), 0.0)
