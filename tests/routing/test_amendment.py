"""The verbs on documents alone: what each changes, and that it changes nothing else."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import FailedPrecondition, GatewayError, InvalidArgument
from gateway.routing.decision.flow import flows, moved, reversioned
from gateway.routing.decision.snapshot import propose
from gateway.routing.document.document import RouteDocument
from gateway.routing.document.strategy import BlueGreen, Canary
from gateway.routing.store.amendment import flip, kill, label, pin, promote, unkill, weigh
from tests.api.routes import ARMS, ab, blue_green, canary, pinned, route


def strategy(document: RouteDocument) -> dict[str, object]:
    value: dict[str, dict[str, dict[str, object]]] = document.to_value()  # type: ignore[assignment]
    [(_, fields)] = value["spec"]["strategy"].items()
    return fields  # type: ignore[return-value]


def active(document: RouteDocument) -> tuple[str, str]:
    assert isinstance(document.strategy, BlueGreen)
    return document.strategy.active, document.strategy.preview


def test_a_flip_swaps_active_and_preview_and_back() -> None:
    assert active(flip(blue_green())) == ("green", "blue")
    assert flip(flip(blue_green())) == blue_green()
    assert active(flip(blue_green(), "red")) == ("red", "blue")
    assert flip(blue_green(), "blue") == blue_green()
    assert active(flip(blue_green(preview=""), "red")) == ("red", "blue")


def test_weights_of_an_ab_test_and_of_a_canary() -> None:
    assert weigh(ab(50, 50), {"a": "90", "b": "10%"}) == ab(90, 10)
    assert strategy(weigh(canary(step=1), {"canary": "7.5"}))["weight"] == "7.5%"
    assert weigh(canary(), {"canary": "5", "stable": "95"}) == weigh(canary(), {"canary": "5"})


def test_a_pin_and_a_kill_switch() -> None:
    assert strategy(pin(ab(), "b")) == {"arm": "b"}
    killed = kill(ab(), "incident")
    assert killed.kill_switch is not None
    assert (killed.kill_switch.arm, killed.kill_switch.reason) == ("a", "incident")
    assert kill(killed, "incident", "b").kill_switch != killed.kill_switch
    assert unkill(killed) == ab() == unkill(ab())


def test_a_promotion_goes_from_step_to_step() -> None:
    first = canary()
    second = promote(first)
    third = promote(second)
    assert [strategy(document).get("step", 0) for document in (first, second, third)] == [0, 1, 2]
    with pytest.raises(FailedPrecondition, match=r"no step is beyond the canary's 25%.*in full"):
        promote(third)


@pytest.mark.parametrize(("share", "step"), [("0%", 0), ("1%", 1), ("3%", 1), ("5%", 2), ("24%", 2)])
def test_after_a_share_by_hand_the_next_step_is_the_first_larger_one(share: str, step: int) -> None:
    promoted = promote(canary(weight=share, step=2))
    assert isinstance(promoted.strategy, Canary)
    assert (promoted.strategy.step, promoted.strategy.weight) == (step, None)


def test_a_full_promotion_moves_only_those_who_had_the_old_version() -> None:
    before = propose(canary(step=2), None)
    document = promote(before.document, full=True)
    assert {arm.name: arm.version for arm in document.arms} == {"stable": "2", "canary": "1"}
    assert (strategy(document)["weight"], "step" in strategy(document)) == ("0%", False)
    moves = flows(before, propose(document, before))
    assert reversioned(moves) == 750_000
    assert moved(moves) == 250_000
    assert {(flow.from_version, flow.to_version): flow.size for flow in moves} == {
        ("1", "2"): 750_000,
        ("2", "2"): 250_000,
    }
    with pytest.raises(FailedPrecondition, match="kill switch is on"):
        promote(kill(canary(), "x"), full=True)


def test_a_full_promotion_keeps_rules_on_the_version_that_they_had() -> None:
    rules = [
        {"name": "beta", "match": {"id": {"exact": "1"}}, "arm": "canary"},
        {"name": "calm", "match": {"id": {"exact": "2"}}, "arm": "stable"},
    ]
    document = promote(route(ARMS, {"canary": {"weight": 5}}, rules=rules), full=True)
    assert [(rule.name, document.version_of(rule.arm)) for rule in document.rules] == [("beta", "2"), ("calm", "2")]


def test_promoting_a_blue_green_route_is_a_flip() -> None:
    assert promote(blue_green()) == flip(blue_green())


def labelled() -> RouteDocument:
    """Everybody gets the version that `stable` names; version 4 is of one arm, 3 has a label alone."""
    arms = {"main": {"label": "stable"}, "next": {"version": "4"}}
    return route(arms, {"pinned": {"arm": "main"}}, labels={"stable": "1", "spare": "3"})


def test_a_label_moves_and_takes_its_arms_along() -> None:
    made = label(labelled(), {"stable": "2", "fresh": "5"})
    assert dict(made.labels) == {"stable": "2", "fresh": "5", "spare": "3"}
    assert made.version_of("main") == "2"
    assert made.strategy == labelled().strategy
    assert label(made, {"stable": "1", "fresh": ""}) == labelled()
    assert dict(label(labelled(), {"spare": ""}).labels) == {"stable": "1"}
    assert label(ab(), {"new": "2"}).labels == (("new", "2"),)
    assert label(label(ab(), {"new": "2"}), {"new": ""}) == ab()


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda: flip(ab()), "its strategy is ab, flip needs blueGreen"),
        (lambda: flip(blue_green(preview="")), "no preview arm"),
        (lambda: flip(blue_green(), "grey"), r"'grey' is not an arm .*\(blue, green, red\)"),
        (lambda: weigh(pinned(), {"stable": "5"}), "needs ab or canary"),
        (lambda: weigh(ab(), {"a": "90", "b": "9"}), "weights sum to 99 %"),
        (lambda: weigh(ab(), {"a": "x", "b": "9"}), "'x%' is not a percentage"),
        (lambda: weigh(ab(), {"a": "nan", "b": "9"}), "'nan%' is not a percentage"),
        (lambda: weigh(ab(), {}), "none is given"),
        (lambda: weigh(canary(), {"stable": "5"}), "a canary takes that of 'canary'"),
        (lambda: weigh(canary(), {"stable": "90", "canary": "5"}), "sum to 95 %"),
        (lambda: weigh(canary(), {"canary": "100.0001"}), "is not a percentage"),
        (lambda: pin(ab(), ""), "empty"),
        (lambda: pin(ab(), "c"), "'c' is not an arm"),
        (lambda: kill(ab(), "  "), "needs a reason"),
        (lambda: kill(ab(), "x", "c"), "'c' is not an arm"),
        (lambda: kill(ab(), "x" * 513), "513 characters, at most 512"),
        (lambda: promote(pinned()), "needs canary or blueGreen"),
        (lambda: label(labelled(), {}), "none is given"),
        (lambda: label(labelled(), {"newest": ""}), "has no label 'newest'; its labels: spare, stable"),
        (lambda: label(labelled(), {"stable": ""}), "arm 'main' has its version by label 'stable'"),
        (lambda: label(labelled(), {"stable": "../2"}), "labels"),
        (lambda: label(labelled(), {"1": "2"}), "labels"),
        (lambda: promote(route(ARMS, {"canary": {"weight": 5}})), "has no steps"),
    ],
)
def test_what_does_not_fit_is_refused(edit: object, said: str) -> None:
    with pytest.raises((FailedPrecondition, InvalidArgument), match=said):
        edit()  # type: ignore[operator]


WORDS = st.sampled_from(["a", "b", "c", "stable", "canary", "blue", "green", "", "é", "0"])
SHARES = st.dictionaries(WORDS, st.sampled_from(["0", "5", "50", "100", "1e3", "-1", "5%", "%", "", "0.00001"]))


@given(st.sampled_from([ab(), canary(), canary(step=2), blue_green(), pinned()]), WORDS, SHARES, st.booleans())
def test_every_edit_gives_a_document_or_a_reason(
    document: RouteDocument, word: str, shares: dict[str, str], full: bool
) -> None:
    edits: tuple[Callable[[], RouteDocument], ...] = (
        lambda: flip(document, word),
        lambda: weigh(document, shares),
        lambda: pin(document, word),
        lambda: kill(document, word, word),
        lambda: promote(document, full=full),
    )
    for edit in edits:
        try:
            made = edit()
        except GatewayError:
            continue
        assert made.model == document.model
        assert made.versions() == document.versions()


@given(SHARES)
@example({})
def test_labels_give_a_document_with_them_or_a_reason(labels: dict[str, str]) -> None:
    try:
        made = label(labelled(), labels)
    except GatewayError:
        return
    assert dict(made.labels).items() >= {name: version for name, version in labels.items() if version}.items()
    assert made.strategy == labelled().strategy
