"""What follows when an alias names another version: once for each move, never over what somebody has decided since."""

from dataclasses import replace
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.rollout.alias_step import AliasStep, Held, Lead, Remember, SeenAlias, SourceLook, alias_step
from gateway.routing.decision.route import Route, propose, restated
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.document.route_status import RouteStatus, kept_status, led_status, under
from gateway.routing.store.amendment import kill, label, promote, unkill

VERSIONS = ["1", "2", "3"]
PINNED: dict[str, Any] = {"pinned": {"arm": "main"}}


def document(version: str = "1", strategy: dict[str, Any] = PINNED, **spec: Any) -> RouteDocument:
    spec = {
        "arms": {"main": {"label": "champion"}, "other": {"version": "30"}},
        "labels": {"champion": {"version": version, "alias": "best"}, "spare": "40"},
        "strategy": strategy,
        **spec,
    }
    return parse({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"model": "m"}, "spec": spec})


def committed(route: Route, revision: int = 1) -> Route:
    """The route as every worker reads it from the store."""
    return Route.from_json(replace(route, revision=revision).to_json())


def seen(version: str, at_us: int = 0) -> SeenAlias:
    return SeenAlias("best", "1", version, at_us, "mark")


def step(route: Route, version: str, record: SeenAlias | None, at_us: int = 1) -> AliasStep:
    return alias_step(route, route.document.following[0], SourceLook({"best": version}, at_us), record)


def led(route: Route, version: str) -> Route:
    status = led_status(route.spec, route.status, "champion", version)
    return committed(propose(route.spec, route, status), route.revision + 1)


@given(
    st.lists(
        st.tuples(st.sampled_from(["alias", "by hand", "roll back", "apply"]), st.sampled_from(VERSIONS)), max_size=12
    )
)
@example([])
@example([("alias", "2"), ("by hand", "1"), ("alias", "2"), ("alias", "1"), ("alias", "2")])
@example([("alias", "2"), ("roll back", "1"), ("apply", "1"), ("alias", "3")])
def test_each_move_is_followed_once_and_whoever_came_after_it_is_right(events: list[tuple[str, str]]) -> None:
    """The model of it: the label is where it was put last, by a move of the alias or by a person."""
    route, record, alias, wanted, at_us = committed(propose(document(), None)), None, "1", "1", 0
    past = [route]
    for what, version in [("alias", "1"), *events]:
        if what == "alias":
            wanted = version if version != alias else wanted
            alias = version
        elif what == "by hand":

            def edit(known: RouteDocument, version: str = version) -> RouteDocument:
                return label(known, {"champion": version})

            spec, status = restated(route, edit(route.document), edit)
            route, wanted = committed(propose(spec, route, status), route.revision + 1), version
        elif what == "roll back":
            route = replace(past[int(version) % len(past)], revision=route.revision + 1)
            wanted = dict(route.document.labels)["champion"]
        else:
            route = committed(propose(document(), route), route.revision + 1)  # the file once more: nothing goes back
        for _ in range(3):  # looks after which nothing is to be done any more
            at_us += 1
            follows = step(route, alias, record, at_us)
            if isinstance(follows, Lead):
                route, record = led(route, follows.version), seen(follows.version, at_us)
                past.append(route)
            elif isinstance(follows, Remember):
                record = seen(follows.version, follows.at_us)
        assert follows is None
        assert dict(route.document.labels)["champion"] == wanted
        assert route.document.version_of("main") == wanted
        assert route.spec == document(), "the file that was applied is not touched"


def test_a_label_that_is_new_is_led_to_what_the_alias_names() -> None:
    route = committed(propose(document(), None))
    assert step(route, "2", None, 7) == Remember("1", 6)
    assert step(route, "2", seen("1", 6), 7) == Lead("2")
    assert step(route, "2", replace_entry(seen("2")), 7) == Remember("1", 6), "another entry of that name"


def replace_entry(record: SeenAlias) -> SeenAlias:
    return SeenAlias(record.alias, "9", record.version, record.at_us, record.mark)


def test_what_an_older_look_shows_is_no_move() -> None:
    """Another host, or a worker that looks less often, still has the version from before."""
    route = led(committed(propose(document(), None)), "2")
    assert step(route, "1", seen("2", 10), 9) is None
    assert step(route, "1", seen("2", 10), 10) is None
    assert step(route, "1", seen("2", 10), 11) == Lead("1")


def test_a_move_waits_and_says_why() -> None:
    route = committed(propose(document(), None))
    held = alias_step(route, route.document.following[0], SourceLook({}, 1), seen("1"))
    assert held == Held("alias 'best': the model's source has no such alias")
    assert isinstance(alias_step(route, route.document.following[0], None, seen("1")), Held)
    killed = committed(propose(kill(route.document, "incident"), route), 2)
    assert step(killed, "2", seen("1")) == Held(
        "alias 'best' has moved to version '2', and the kill switch is on (incident)"
    )
    assert step(committed(propose(unkill(killed.document), killed), 3), "2", seen("1")) == Lead("2")
    for version in ("30", "spare"):
        taken = step(route, version, seen("1"))
        assert isinstance(taken, Held)
        assert "has moved to version" in taken.reason


def test_a_move_begins_a_rollout_and_does_not_replace_what_was_promoted_from_it() -> None:
    canary = {"canary": {"stable": "other", "canary": "main", "steps": [{"weight": "10%"}, {"weight": "50%"}]}}
    route = led(committed(propose(document(strategy=canary), None)), "2")
    stepped = restated(route, promote(route.document), promote)
    route = committed(propose(stepped[0], route, stepped[1]), 3)
    assert (route.status.step, dict(route.status.labels)) == (1, {"champion": "2"})
    assert step(route, "3", seen("2")) == Lead("3")
    begun = led(route, "3")
    assert (begun.status, begun.document.version_of("main")) == (RouteStatus(labels=(("champion", "3"),)), "3")
    full = promote(route.document, full=True)
    spec, status = restated(route, full, lambda known: promote(known, full=True))
    promoted = committed(propose(spec, route, status), 4)
    assert promoted.document == full
    assert promoted.document.version_of("other") == "2"
    held = step(promoted, "3", seen("2"))
    assert isinstance(held, Held)
    assert "was promoted: apply a document" in held.reason


def test_a_document_that_is_applied_again_keeps_where_its_labels_were_led() -> None:
    status = RouteStatus(labels=(("champion", "2"),))
    assert kept_status(document(), status, document(arms={"main": {"label": "champion"}})) == status
    assert kept_status(document(), status, document("3")) == RouteStatus(), "it says anew where the label begins"
    assert under(document(), status).version_of("main") == "2"
    changed = label(under(document(), status), {"spare": "41"})
    assert changed.to_value()["spec"]["labels"] == {  # type: ignore[index]
        "champion": {"version": "2", "alias": "best"},
        "spare": "41",
    }
