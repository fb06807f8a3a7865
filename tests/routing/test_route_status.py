"""A document stays as it was applied, whatever its rollout makes of it; together they are what is in force."""

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import GatewayError, InvalidArgument
from gateway.routing.decision.route import Route, propose, restated
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.document.route_status import BEGINNING, RouteStatus, kept_status, under
from gateway.routing.store.amendment import abort, kill, pin, promote, resume, retry, revert, unkill, weigh
from tests.routing.documents import Plain, document, refused

Edit = Callable[[RouteDocument], RouteDocument]
STEPS = [{"weight": "1%"}, {"weight": "5%"}, {"weight": "25%"}]
RULES = [{"name": "beta", "match": {"id": {"exact": "x"}}, "arm": "b"}]
ROLLOUT: dict[str, Edit] = {
    "promote": promote,
    "full": lambda document: promote(document, full=True),
    "weights": lambda document: weigh(document, {"b": "30%"}),
    "abort": abort,
    "revert": revert,
    "resume": resume,
    "retry": retry,
}
OTHERS: dict[str, Edit] = {
    "kill": lambda document: kill(document, "incident"),
    "unkill": unkill,
    "pin": lambda document: pin(document, "a"),
}


def ramp(version: str = "13", **fields: object) -> RouteDocument:
    """A canary of arm b, with a rule that leads to it."""
    arms = {"a": {"version": "12"}, "b": {"version": version}, "c": {"version": "30"}}
    strategy: Plain = {"canary": {"stable": "a", "canary": "b", "steps": STEPS, **fields}}
    return document(arms=arms, rules=RULES, strategy=strategy)


def edited(active: Route, edit: Edit) -> Route:
    """The route that follows on an edit, as the store gives it back."""
    spec, status = restated(active, edit(active.document), edit)
    return Route.from_json(propose(spec, active, status).to_json())


@given(st.lists(st.sampled_from([*ROLLOUT, *OTHERS]), max_size=8))
@example([])
@example(["promote", "promote", "full", "revert", "retry"])
@example(["promote", "kill", "unkill", "abort"])
@example(["full", "pin"])
def test_what_is_in_force_is_what_the_verb_made_and_rollouts_leave_the_document(verbs: list[str]) -> None:
    route = propose(ramp(), None)
    for verb in verbs:
        edit = (ROLLOUT | OTHERS)[verb]
        try:
            wanted = edit(route.document)
        except GatewayError:
            continue
        before, route = route, edited(route, edit)
        assert route.document == wanted == parse(wanted.to_value())
        if verb in ROLLOUT:
            assert route.spec == before.spec


def test_a_status_is_told_beside_the_document_and_only_where_there_is_one() -> None:
    first = propose(ramp(), None)
    assert "status" not in first.to_value()
    second = edited(first, promote)
    assert second.to_value()["document"] == ramp().to_value()
    assert second.to_value()["status"] == {"step": 1}
    assert second.digest != first.digest
    last = edited(edited(edited(second, promote), ROLLOUT["full"]), abort)
    assert last.to_value()["status"] == {"weight": "0%", "promoted": True, "redirected": True}


def test_a_document_that_says_itself_where_it_is_has_no_status() -> None:
    """So it was before there was one: such a route is read as before, and its verbs go on in the document."""
    old = Route.from_json(propose(ramp(step=1), None).to_json())
    assert (old.document.strategy, old.status) == (ramp(step=1).strategy, BEGINNING)
    assert edited(old, promote).spec == ramp(step=2)
    assert propose(ramp(), old).status == RouteStatus(step=1)  # the file that was applied before: its step is kept


@pytest.mark.parametrize(
    ("status", "applied", "kept"),
    [
        (RouteStatus(step=1), ramp(), RouteStatus(step=1)),
        (RouteStatus(weight=0), ramp(), RouteStatus(weight=0)),
        (RouteStatus(step=1), ramp("20"), BEGINNING),
        (RouteStatus(step=1), ramp(analysis={}), BEGINNING),
        (RouteStatus(weight=0, promoted=True), ramp(analysis={}), RouteStatus(weight=0, promoted=True)),
        (RouteStatus(step=1), ramp(weight="7%"), BEGINNING),
        (RouteStatus(step=1), document(), BEGINNING),
    ],
)
def test_which_document_goes_on_and_which_begins(
    status: RouteStatus, applied: RouteDocument, kept: RouteStatus
) -> None:
    assert kept_status(ramp(), status, applied) == kept


@pytest.mark.parametrize("wrong", [RouteStatus(step=3), RouteStatus(step=1, promoted=True)])
def test_a_status_that_is_none_of_the_document_is_refused(wrong: RouteStatus) -> None:
    of = ramp() if wrong.step == 3 else document()
    with pytest.raises(InvalidArgument, match="is no status of the document of model 'm'"):
        under(of, wrong)
    text = propose(of, None).to_json().replace('"table":', f'"status":{{"step":{wrong.step}}},"table":')
    with pytest.raises(InvalidArgument, match="status"):
        Route.from_json(text)


def test_what_the_gateway_tells_may_be_applied_again() -> None:
    told = ramp().to_value() | {"status": {"step": 2, "shares": {"a": 95}}}
    assert parse(told) == ramp()
    assert "state: unknown field" in refused(ramp().to_value() | {"state": 1})
