"""Routes and snapshots: their text, their digests, and what a change of a document moves."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings

from gateway.errors import InvalidArgument
from gateway.routing.decision.interval_table import moved
from gateway.routing.decision.route import announce
from gateway.routing.decision.snapshot import EMPTY, Route, Snapshot, compile_route, propose
from gateway.routing.document.document import parse
from tests.routing.documents import Plain, document, documents, snapshot


def route(model: str = "m", revision: int = 3, **spec: Any) -> Route:
    proposed = propose(document(model, **spec), None)
    return Route(model, revision, proposed.document, proposed.table, 1_700_000_000_000_000, revision - 1)


@settings(max_examples=40, deadline=None)
@given(documents)
def test_a_route_survives_its_text(value: Plain) -> None:
    committed = propose(parse(value), None)
    again = Route.from_json(committed.to_json())
    assert again == committed
    assert again.digest == committed.digest
    assert Route.from_json(committed.to_json().encode()).to_json() == committed.to_json()


@settings(max_examples=40, deadline=None)
@given(documents)
def test_a_document_that_was_announced_is_the_one_that_is_read(value: Plain) -> None:
    announced = parse(value)
    announce(announced.to_json())
    committed = propose(announced, None)
    read = Route.from_json(committed.to_json()).document
    assert read == announced
    assert Route.from_json(committed.to_json()).document is read
    # Whatever the order of its names, and with no trace of documents that were read between.
    whole = json.loads(committed.to_json())
    whole["document"] = dict(reversed(whole["document"].items()))
    assert Route.from_json(json.dumps(whole)) == committed
    whole["document"]["metadata"]["owner"] = "somebody else"
    assert Route.from_json(json.dumps(whole)).document != announced


def test_the_digest_covers_what_decides() -> None:
    digests = {
        route().digest,
        route(revision=4).digest,
        route("n").digest,
        route(key={"from": ["id"]}).digest,
        Route("m", 3, route().document, route().table.renamed({"a": "b", "b": "a"}), 0, 2).digest,
    }
    assert len(digests) == 5
    assert Route("m", 3, route().document, route().table, 99, 0).digest == route().digest
    assert route().digest == "a435722784a04a8cd65e5f627d264d468f468a1a5104779daf39efcb91fa0b07"


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("model", "n", "the document of model 'm' in a route of 'n'"),
        ("revision", -1, "route.revision: -1 is not"),
        ("revision", "3", "route.revision: '3' is not"),
        ("revision", True, "route.revision: true is not"),
        ("committed_at_us", None, "route.committed_at_us: null is not"),
        ("extra", 1, "extra: unknown field"),
        ("table", [], "the intervals end at 0"),
        ("table", [[0, 1_000_000, "a", 0]], "the table's weights"),
        ("table", [[0, 500_000, "a", 0], [500_000, 1_000_000, "z", 1]], "the table's weights"),
        ("document", {}, "required, but missing"),
    ],
)
def test_a_text_that_is_no_route_is_refused(path: str, value: object, reason: str) -> None:
    whole = json.loads(route().to_json())
    whole[path] = value
    with pytest.raises(InvalidArgument) as caught:
        Route.from_json(json.dumps(whole))
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "\x00", "{" * 10_000, b"\xff", '{"model":"m"}', "5", '"x"'])
def test_garbage_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidArgument):
        Route.from_json(text)


def test_every_cut_of_a_route_is_refused() -> None:
    text = route().to_json()
    for end in range(0, len(text), 7):
        with pytest.raises(InvalidArgument):
            Route.from_json(text[:end])


def test_a_snapshot_changes_by_making_another() -> None:
    first = EMPTY.with_route(route("a", 1))
    second = first.with_route(route("b", 2))
    assert list(EMPTY.routes) == []
    assert list(first.routes) == ["a"]
    assert sorted(second.routes) == ["a", "b"]
    assert (first.revision, second.revision) == (1, 2)
    assert second.routes["a"] is first.routes["a"]
    assert second.routes["a"].route == route("a", 1)
    third = second.without_route("a", 3)
    assert (list(third.routes), third.revision) == (["b"], 3)
    assert third.without_route("unknown", 4).digest == third.digest
    with pytest.raises(TypeError):
        second.routes["c"] = second.routes["a"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        second.revision = 9  # type: ignore[misc]


def test_an_older_route_does_not_take_the_revision_back() -> None:
    later = EMPTY.with_route(route("a", 9)).with_route(route("b", 2))
    assert later.revision == 9
    assert later.without_route("b", 4).revision == 9
    assert later.at("other", 4).revision == 4
    assert later.at("other", 4).digest == later.digest


def test_the_digest_of_a_snapshot_does_not_depend_on_the_way_there() -> None:
    a, b, old = route("a", 1), route("b", 2), route("a", 0)
    straight = EMPTY.with_route(a).with_route(b)
    detour = EMPTY.with_route(old).with_route(b).with_route(route("c", 1)).without_route("c", 2).with_route(a)
    whole = Snapshot.of("e", 2, [b, a])
    direct = Snapshot("e", 2, {"a": compile_route(a), "b": compile_route(b)})
    assert straight.digest == detour.digest == whole.digest == direct.digest
    assert len({straight.digest, EMPTY.digest, EMPTY.with_route(a).digest, EMPTY.with_route(old).digest}) == 4
    assert len(straight.digest) == 64


def test_the_mapping_of_a_caller_is_copied() -> None:
    routes = {"a": compile_route(route("a", 1))}
    made = Snapshot("e", 1, routes)
    routes.clear()
    assert list(made.routes) == ["a"]


def test_a_canary_turned_into_an_ab_test_moves_nobody() -> None:
    arms = {"stable": {"version": "1"}, "canary": {"version": "2"}}
    active = propose(document(arms=arms, strategy={"canary": {"weight": "1%"}}), None)
    for weight in ("5%", "25%"):
        active = propose(document(arms=arms, strategy={"canary": {"weight": weight}}), active)
    test = {"ab": {"control": "stable", "weights": {"stable": "75%", "canary": "25%"}}}
    assert moved(active.table, propose(document(arms=arms, strategy=test), active).table) == 0


def test_new_names_for_the_same_versions_move_nobody() -> None:
    arms = {"stable": {"version": "1"}, "canary": {"version": "2"}}
    active = propose(document(arms=arms, strategy={"canary": {"weight": "25%"}}), None)
    renamed = {"a": {"version": "1"}, "b": {"version": "2"}}
    test = {"ab": {"control": "a", "weights": {"a": "75%", "b": "25%"}}}
    proposed = propose(document(arms=renamed, strategy=test), active)
    assert [(i.start, i.end) for i in proposed.table.intervals] == [(i.start, i.end) for i in active.table.intervals]
    assert proposed.table.weights() == {"a": 750_000, "b": 250_000}


def test_a_proposal_names_what_it_follows() -> None:
    active = route(revision=8)
    proposed = propose(copy.deepcopy(active.document), active)
    assert (proposed.revision, proposed.previous_revision, proposed.committed_at_us) == (0, 8, 0)
    assert proposed.table == active.table


def test_ten_thousand_routes_change_one_at_a_time() -> None:
    compiled = snapshot().routes["m"]
    many = Snapshot("e", 1, {f"m{n}": compiled for n in range(10_000)})
    assert len(many.with_route(route("new", 5)).routes) == 10_001
