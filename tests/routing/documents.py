"""Requests and documents that the tests of routing share, and hypothesis strategies for both."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st

from gateway.errors import InvalidArgument
from gateway.routing.decision.decide import decide
from gateway.routing.decision.decision import Decision
from gateway.routing.decision.snapshot import EMPTY, Snapshot, propose
from gateway.routing.document.bucket import BUCKETS
from gateway.routing.document.document import RouteDocument, parse
from gateway.routing.document.field import Field
from gateway.routing.document.key import ON_MISSING
from gateway.routing.document.operator import OPERATORS, parse_matcher
from gateway.routing.document.quantity import percent_text
from gateway.routing.document.safeguard import CAUSES
from gateway.routing.document.source import METHODS

Plain = dict[str, Any]
AB: Plain = {"ab": {"control": "a", "weights": {"a": "50%", "b": "50%"}}}
ARMS: Plain = {"a": {"version": "12"}, "b": {"version": "13"}, "c": {"version": "14"}}


@dataclass(frozen=True)
class Request:
    """A request by what routing may read of it."""

    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    requested_version: str = ""
    tenant: str = ""
    identity: str = ""
    method: str = "ModelInfer"

    def metadata(self, name: str) -> str | None:
        return self.headers.get(name)

    def parameter(self, name: str) -> str | int | float | bool | None:
        return self.parameters.get(name)

    def input_value(self, name: str) -> str | None:
        return self.inputs.get(name)


def plain(model: str = "m", **spec: Any) -> Plain:
    """A document as plain data: an A/B route of three arms, unless `spec` says otherwise."""
    return {
        "apiVersion": "gateway/v1",
        "kind": "Route",
        "metadata": {"model": model},
        "spec": {"arms": ARMS, "strategy": AB} | spec,
    }


def document(model: str = "m", **spec: Any) -> RouteDocument:
    return parse(plain(model, **spec))


def refused(value: object) -> str:
    with pytest.raises(InvalidArgument) as caught:
        parse(value)
    return str(caught.value)


def changed(path: str, value: object, **spec: Any) -> Plain:
    """The usual document with one value replaced; `path` may name fields that are not there yet."""
    whole = copy.deepcopy(plain(**spec))
    *parents, last = path.split(".")
    at: Any = whole
    for name in parents:
        at = at.setdefault(name, {})
    at[last] = value
    return whole


def ab(control: object = "a", holdout: object = "0%", **shares: object) -> Plain:
    return {"ab": {"control": control, "weights": shares, "holdout": holdout}}


def snapshot(model: str = "m", **spec: Any) -> Snapshot:
    """A snapshot with one route."""
    return EMPTY.with_route(propose(document(model, **spec), None)).at("epoch", 7)


def decided(snapshot: Snapshot, request: Request | None = None, *, draw: float = 0.5, now_s: float = 0.0) -> Decision:
    return decide(snapshot, "m", request or Request(), draw, now_s)


_TEXTS = st.sampled_from(["", "x", "acme", "acme-1", "beta-7", "7", "-3.5", "1e3", "true", "é", "user-1", "user-2"])
_NAMES = st.sampled_from(["x-a", "x-b", "x-c"])
_PATTERNS = st.sampled_from(["acme.*", "[a-z]+-[0-9]", "(?i)BETA-\\d+", ".*", "\\Qacme-1", "user-(?P<n>1|2)", "é"])
_arm = st.sampled_from(["a", "b", "c"])


@st.composite
def operands(draw: st.DrawFn, rule: Any, depth: int = 2) -> Any:
    """Plain data that fits the JSON Schema of an operand."""
    if "$ref" in rule:
        return draw(_matchers(depth - 1))
    match draw(st.sampled_from([rule["type"]] if isinstance(rule["type"], str) else rule["type"])):
        case "string":
            return draw(st.one_of(_TEXTS, _PATTERNS).filter(lambda text: len(text) >= rule.get("minLength", 0)))
        case "integer":
            return draw(st.integers(-9, 2000))
        case "number":
            return draw(st.one_of(st.integers(-9, 2000), st.just(2.5)))
        case "boolean":
            return draw(st.booleans())
        case "array":
            return draw(st.lists(operands(rule["items"], depth), min_size=rule.get("minItems", 0), max_size=4))
    properties = rule["properties"]
    names = draw(st.lists(st.sampled_from(list(properties)), min_size=rule.get("minProperties", 0), unique=True))
    drawn = {name: draw(operands(properties[name], depth)) for name in properties if name in names}
    if all(isinstance(value, int | float) for value in drawn.values()):  # bounds: the lower one first
        return dict(zip(drawn, sorted(drawn.values()), strict=True))
    return drawn


@st.composite
def _matchers(draw: st.DrawFn, depth: int) -> Plain:
    """A test by any operator that the table has when it is drawn."""
    name = draw(st.sampled_from(sorted(OPERATORS))) if depth > 0 else "present"
    return {name: draw(operands(OPERATORS[name].schema, depth))}


def parses(matcher: Plain) -> bool:
    try:
        parse_matcher(Field(matcher, "matcher"))
    except InvalidArgument:
        return False
    return True


matchers = _matchers(3).filter(parses)
_method_matchers = st.one_of(
    st.builds(lambda name: {"exact": name}, st.sampled_from(METHODS)),
    st.builds(lambda name: {"not": {"in": [name]}}, st.sampled_from(METHODS)),
    st.builds(lambda text: {"prefix": text}, _TEXTS.filter(bool)),
)
matches = st.fixed_dictionaries(
    {},
    optional={
        "metadata": st.dictionaries(_NAMES, matchers, min_size=1, max_size=2),
        "parameters": st.dictionaries(st.sampled_from(["p", "q"]), matchers, min_size=1, max_size=2),
        "method": _method_matchers,
        "tenant": matchers,
        "identity": matchers,
        "id": matchers,
    },
).filter(bool)


def weights(arms: list[str], unit: int = 1) -> st.SearchStrategy[dict[str, int]]:
    """Buckets for each of these arms, in whole units, that sum to all of them."""
    most = BUCKETS // unit
    cuts = st.lists(st.integers(0, most), min_size=len(arms) - 1, max_size=len(arms) - 1).map(sorted)
    return cuts.map(lambda at: {arm: unit * (b - a) for arm, a, b in zip(arms, [0, *at], [*at, most], strict=True)})


def _texts(buckets: Mapping[str, int]) -> dict[str, str]:
    return {arm: percent_text(size) for arm, size in buckets.items()}


strategies: st.SearchStrategy[Plain] = st.one_of(
    st.builds(
        lambda control, shares, holdout: {"ab": {"control": control, "weights": shares, "holdout": holdout}},
        _arm,
        weights(["a", "b", "c"]).map(_texts),
        st.sampled_from(["0%", "5%", "33.3333%"]),
    ),
    st.builds(
        lambda share: {"canary": {"stable": "a", "canary": "b", "weight": percent_text(share)}},
        st.integers(0, BUCKETS),
    ),
    st.builds(
        lambda match: {"blueGreen": {"active": "a", "preview": "b", "previewMatch": match}},
        matches,
    ),
    st.builds(lambda arm: {"pinned": {"arm": arm}}, _arm),
)
_keys = st.fixed_dictionaries(
    {
        "from": st.lists(
            st.sampled_from(["metadata:x-a", "metadata:x-b", "input:user", "parameter:p", "id"]),
            min_size=1,
            max_size=3,
            unique=True,
        )
    },
    optional={"onMissing": st.sampled_from(ON_MISSING), "salt": st.sampled_from(["s", "t é"])},
)
_rules = st.lists(
    st.fixed_dictionaries(
        {"match": matches, "arm": _arm},
        optional={"until": st.sampled_from(["2026-01-01", "2030-01-01T00:00:00+02:00"])},
    ),
    max_size=6,
).map(lambda rules: [rule | {"name": f"r{index}"} for index, rule in enumerate(rules)])
_pins = st.one_of(
    st.just({"deny": True}),
    st.fixed_dictionaries({}, optional={"metadata": st.just("x-c"), "allow": matches}),
)
_fallbacks = st.fixed_dictionaries(
    {"order": st.lists(_arm, min_size=1, unique=True)},
    optional={
        "on": st.lists(st.sampled_from(CAUSES), min_size=1, unique=True),
        "budget": st.just("10%"),
        "breaker": st.just({"consecutive": 3}),
    },
)
_mirrors = st.lists(
    st.fixed_dictionaries({"arm": _arm, "percent": st.sampled_from([0, 12.5, 60, 100])}, optional={"salt": _TEXTS}),
    max_size=3,
    unique_by=lambda mirror: str(mirror["arm"]),
).map(lambda mirrors: [{k: v for k, v in mirror.items() if v != ""} for mirror in mirrors])
_logs = st.fixed_dictionaries(
    {},
    optional={
        "rate": st.sampled_from([0, 12.5, "0.0001%", "100%"]),
        "arms": st.dictionaries(st.sampled_from(["a", "b", "holdout"]), st.sampled_from(["1%", 50])),
        "keep": st.fixed_dictionaries(
            {},
            optional={
                "errors": st.booleans(),
                "first": st.integers(0, 1000),
                "scoreBelow": st.sampled_from([0, 0.6, -1.5]),
                "disagreement": st.booleans(),
            },
        ),
    },
)

_specs: st.SearchStrategy[Plain] = st.fixed_dictionaries(
    {"strategy": strategies},
    optional={
        "key": _keys,
        "rules": _rules,
        "clientPin": _pins,
        "fallback": _fallbacks,
        "mirrors": _mirrors,
        "log": _logs,
        "labels": st.just({"stable": "12", "next": {"version": "15", "alias": "champion"}}),
    },
)
documents: st.SearchStrategy[Plain] = _specs.map(lambda spec: plain(**spec))

requests: st.SearchStrategy[Request] = st.builds(
    Request,
    headers=st.dictionaries(st.sampled_from(["x-a", "x-b", "x-c"]), st.one_of(_TEXTS, st.sampled_from(["12", "next"]))),
    parameters=st.dictionaries(
        st.sampled_from(["p", "q"]), st.one_of(_TEXTS, st.integers(-9, 2000), st.booleans(), st.just(2.5))
    ),
    inputs=st.dictionaries(st.just("user"), _TEXTS),
    request_id=_TEXTS,
    requested_version=st.sampled_from(["", "", "", "12", "15", "stable", "99"]),
    tenant=_TEXTS,
    identity=_TEXTS,
    method=st.sampled_from(METHODS),
)
