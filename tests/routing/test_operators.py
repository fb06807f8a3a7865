"""The table of operators: what stands in it works everywhere, and nothing else does."""

from dataclasses import dataclass, replace
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.routing.decision.explanation import explain
from gateway.routing.document.field import Field
from gateway.routing.document.operator import OPERATORS, Matcher, Test, parse_matcher
from gateway.routing.document.schema import schema
from tests.routing.documents import Request, changed, decided, document, matchers, refused, requests, snapshot


@dataclass(frozen=True, slots=True)
class Contains(Matcher):
    """An operator that the gateway does not have."""

    name = "of_the_tests"
    schema = OPERATORS["prefix"].schema
    text: str

    @classmethod
    def parse(cls, operand: Field) -> Self:
        return cls(operand.text())

    def operand(self) -> object:
        return self.text

    def compile(self) -> Test:
        text = self.text
        return lambda value: value is not None and text in value


@pytest.fixture
def contains(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table with one operator more."""
    assert Contains.name not in OPERATORS
    monkeypatch.setitem(OPERATORS, Contains.name, Contains)


def ruled(match: dict[str, Any]) -> Any:
    return snapshot(strategy={"pinned": {"arm": "a"}}, rules=[{"name": "r", "arm": "b", "match": match}])


def agree(match: dict[str, Any], request: Request) -> str:
    """The reason that deciding and explaining give alike."""
    routed, request = ruled(match), replace(request, requested_version="")
    explained = explain(routed, "m", request, 0.5, 0.0)
    decision = decided(routed, request)
    assert explained.decision == decision == decided(routed, request)
    return decision.reason


@pytest.mark.usefixtures("contains")
def test_an_operator_that_is_added_works_everywhere() -> None:
    wanted: dict[str, Any] = {"metadata": {"x-a": {Contains.name: "cm"}}}
    assert agree(wanted, Request({"x-a": "acme"})) == "RULE:r"
    assert agree(wanted, Request({"x-a": "amce"})) == "DEFAULT"
    assert agree(wanted, Request()) == "DEFAULT"
    assert agree({"id": {"not": {Contains.name: "cm"}}}, Request(request_id="x")) == "RULE:r"
    assert document(rules=[{"name": "r", "arm": "b", "match": wanted}]).rules[0].match.to_value() == wanted
    matcher: Any = schema()["$defs"]
    assert matcher["matcher"]["properties"][Contains.name] == Contains.schema


@pytest.mark.usefixtures("contains")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.lists(requests, min_size=1, max_size=4))
def test_deciding_and_explaining_agree_about_an_operator_that_is_added(
    data: st.DataObject, asked: list[Request]
) -> None:
    drawn = data.draw(matchers)
    for request in asked:
        agree({"metadata": {"x-a": drawn}}, request)


@pytest.mark.parametrize("name", OPERATORS)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), asked=st.lists(requests, min_size=1, max_size=4))
def test_deciding_and_explaining_agree_about_every_operator(
    name: str, data: st.DataObject, asked: list[Request]
) -> None:
    drawn = data.draw(matchers.filter(lambda matcher: name in matcher))
    matcher = parse_matcher(Field(drawn, "m"))
    assert parse_matcher(Field(matcher.to_value(), "m")) == matcher
    texts = matcher.values()
    if texts is not None:
        assert all(map(matcher.compile(), texts))
    for request in asked:
        agree({"metadata": {"x-a": drawn}, "id": {"present": True}}, request)
        agree({"tenant": drawn}, request)


def test_an_operator_that_is_not_in_the_table_is_refused() -> None:
    assert Contains.name not in OPERATORS
    rules = [{"name": "r", "arm": "b", "match": {"id": {Contains.name: "x"}}}]
    said = refused(changed("spec.rules", rules))
    assert said.startswith("spec.rules[0].match.id.of_the_tests: unknown field")
    assert all(name in said for name in OPERATORS)
