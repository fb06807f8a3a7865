"""The parser, the schema, `to_value` and the reference know the same fields, operators, sources and causes."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from gateway.errors import InvalidArgument
from gateway.routing.document.analysis import AFTER_PROMOTE_FIELDS, ANALYSIS_FIELDS
from gateway.routing.document.blue_green_plan import BLUE_GREEN_PLAN
from gateway.routing.document.document import SPEC_FIELDS, parse
from gateway.routing.document.experiment_plan import EXPERIMENT_METRICS, PLAN_FIELDS, PLANNED_METRIC_FIELDS, SRM_FIELDS
from gateway.routing.document.guardrail import ACTIONS, GUARDRAILS
from gateway.routing.document.operator import OPERATORS
from gateway.routing.document.safeguard import BREAKER_OPEN, CAUSES
from gateway.routing.document.schema import schema
from gateway.routing.document.source import KEY_SOURCES, MATCH_FIELDS, SOURCES, Kind
from gateway.routing.document.strategy import CANARY_PLAN, STEP_PLAN, STRATEGIES
from tests.routing.documents import Plain, document, plain

SCHEMA: Any = schema()
REFERENCE = (Path(__file__).parents[2] / "docs" / "routes.md").read_text("utf-8")
EVERY_TEST = {
    "exact": {"exact": "x"},
    "prefix": {"prefix": "x"},
    "suffix": {"suffix": "x"},
    "in": {"in": ["x"]},
    "present": {"present": True},
    "range": {"range": {"min": 1, "max": 2}},
    "regex": {"regex": "x"},
    "not": {"not": {"exact": "x"}},
}
EVERY_MATCH: Plain = {
    "metadata": {f"x-{name}": test for name, test in EVERY_TEST.items()},
    "parameters": {"p": {"exact": "x"}},
    "method": {"exact": "ModelInfer"},
    "tenant": {"exact": "x"},
    "identity": {"exact": "x"},
    "id": {"exact": "x"},
}
# Every field, with a value that is not its default.
COMMON: Plain = {
    "arms": {"a": {"version": "12"}, "b": {"label": "next"}},
    "labels": {"next": "13", "champion": {"version": "12", "alias": "champion", "approvals": 1}},
    "key": {"from": ["metadata:x-user", "input:t", "parameter:p", "id"], "onMissing": "reject", "salt": "s"},
    "rules": [{"name": "r", "match": EVERY_MATCH, "arm": "b", "until": "2030-01-01"}],
    "clientPin": {"metadata": "x-pin", "allow": EVERY_MATCH},
    "fallback": {
        "order": ["b"],
        "on": ["INTERNAL"],
        "budget": "5%",
        "breaker": {"consecutive": 3, "window": "1s", "open": "2s"},
    },
    "mirrors": [
        {
            "arm": "b",
            "percent": "5%",
            "salt": "m",
            "maxInflight": 3,
            "queue": 4,
            "deadline": "1s",
            "onFull": "drop",
            "shedAboveCpu": 0.5,
            "compare": {"label": "exact", "score": {"abs": 0.1, "rel": 0.2}},
            "log": "all",
        }
    ],
    "log": {
        "rate": "5%",
        "arms": {"a": "6%"},
        "keep": {"errors": False, "first": 7, "scoreBelow": 0.5, "disagreement": True},
    },
    "killSwitch": {"arm": "a", "reason": "x"},
}
METADATA: Plain = {"model": "m", "owner": "o", "description": "d", "labels": {"k": "v"}}
EVERY_OPTION: Plain = {
    "tolerance": 2.5,
    "passBelow": "2%",
    "quantile": 0.9,
    "limit": "3%",
    "index": 0.3,
    "better": "lower",
    "passWithin": "7%",
    "timeout": "3s",
    "metric": "label",
    "url": "http://gate.example/check",
}
EVERY_GUARDRAIL: list[Plain] = [
    {
        "kind": kind.name,
        "action": ACTIONS[kind.action == ACTIONS[0]],
        **{name: EVERY_OPTION[name] for name in kind.options},
    }
    for kind in GUARDRAILS.values()
]
EVERY_STRATEGY: Plain = {
    "ab": {
        "control": "a",
        "weights": {"a": "50%", "b": "50%"},
        "holdout": "5%",
        "metrics": [{"name": "reward", "mde": 0.01, "better": "lower"}],
        "guardrails": ["errors", "p99"],
        "srm": {"onMismatch": "warn"},
        "maxDuration": "1d",
        "bandit": {
            "metric": "label",
            "better": "lower",
            "posterior": "beta",
            "interval": "1h",
            "minEvents": 50,
            "floor": "2.5%",
            "discount": 0.9,
            "alpha": 0.05,
            "guardrails": [EVERY_GUARDRAIL[0]],
        },
    },
    "canary": {
        "stable": "a",
        "canary": "b",
        "weight": "5%",
        "step": 1,
        "steps": [
            {"offline": {"window": "7d", "rows": 500, "failAbove": "2%"}, "approval": ["x"]},
            {"weight": "1%", "hold": "1m", "minEvents": 5, "approval": ["x"]},
        ],
        "analysis": {
            "tick": "2s",
            "alpha": 0.05,
            "passMargin": 3,
            "onFail": "hold",
            "onInconclusive": "advance",
            "onNoData": "rollback",
            "maxHold": "1h",
            "maxHarmed": 50,
            "maxLoad": "90%",
            "guardrails": EVERY_GUARDRAIL,
        },
        "afterPromote": {"watch": "1h", "keepWarm": "2h", "onFail": "hold"},
    },
    "blueGreen": {
        "active": "a",
        "preview": "b",
        "previewMatch": EVERY_MATCH,
        "requireReady": "all",
        "prePromotion": {"shadow": "10%", "for": "5m", "minEvents": 100},
        "promote": "auto",
        "keepWarm": "1h",
        "postPromotion": {"watch": "30m", "onFail": "hold"},
        "analysis": {"alpha": 0.05},
        "halted": True,
    },
    "pinned": {"arm": "a"},
}
FULL = [plain(**COMMON, strategy={name: EVERY_STRATEGY[name]}) | {"metadata": METADATA} for name in STRATEGIES]
FULL.append(plain(clientPin={"deny": True}) | {"status": {"step": 1}})
NOT_KEPT = {"onFull", "status"}  # one value, which is the default; what the gateway tells


def is_kind(rule: Any, value: object) -> bool:
    """Whether the rule's fields that have one word have that word in the value, where it is a mapping."""
    words = {name: one["const"] for name, one in rule.get("properties", {}).items() if "const" in one}
    return not isinstance(value, Mapping) or all(value.get(name) == word for name, word in words.items())


def resolved(rule: Any, value: object) -> Any:
    """The rule itself behind references and alternatives."""
    while True:
        if "$ref" in rule:
            rule = SCHEMA["$defs"][rule["$ref"].removeprefix("#/$defs/")]
        elif "anyOf" in rule and "properties" not in rule:
            kind = "object" if isinstance(value, Mapping) else "string"
            rule = next((one for one in rule["anyOf"] if one.get("type") == kind and is_kind(one, value)), {})
        else:
            return rule


def sections(value: Any, rule: Any) -> Iterator[tuple[Any, Any]]:
    """Every mapping with fixed fields, with its rule."""
    if rule is True:
        return
    rule = resolved(rule, value)
    if isinstance(value, Mapping):
        properties = rule.get("properties", {})
        if properties:
            yield value, rule
        for name, inner in value.items():
            yield from sections(inner, properties.get(name, rule.get("additionalProperties") or {}))
    elif isinstance(value, list):
        for item in value:
            yield from sections(item, rule.get("items", {}))


def fields(value: Any) -> set[tuple[int, str]]:
    """The fields that a document gives, told apart by the rule that allows them."""
    return {(id(rule["properties"]), name) for section, rule in sections(value, SCHEMA) for name in section}


def rules_of(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        if node.get("additionalProperties") is False:
            yield node
        for inner in node.values():
            yield from rules_of(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from rules_of(inner)


def test_the_full_documents_give_every_field_of_the_schema() -> None:
    every = {(id(rule["properties"]), name): name for rule in rules_of(SCHEMA) for name in rule["properties"]}
    given = {place for value in FULL for place in fields(value)}
    assert [name for place, name in every.items() if place not in given] == []


@pytest.mark.parametrize("number", range(len(FULL)))
def test_the_parser_allows_the_fields_of_the_schema_and_no_other(number: int) -> None:
    value = FULL[number]
    for section, rule in sections(value, SCHEMA):
        section["nonsense"] = 1
        try:
            with pytest.raises(InvalidArgument, match=r"nonsense: unknown field") as caught:
                parse(value)
        finally:
            del section["nonsense"]
        allowed = str(caught.value).rpartition("(allowed: ")[2].removesuffix(")").split(", ")
        assert sorted(allowed) == sorted(rule["properties"])


@pytest.mark.parametrize("number", range(len(FULL)))
def test_a_document_keeps_every_field_that_is_given(number: int) -> None:
    value = FULL[number]
    kept = parse(value).to_value()
    lost = {name for _, name in fields(value) - fields(kept)}
    assert lost <= NOT_KEPT
    assert parse(kept) == parse(value)


def test_the_examples_have_every_operator_strategy_and_source() -> None:
    assert EVERY_TEST.keys() == OPERATORS.keys()
    assert EVERY_STRATEGY.keys() == STRATEGIES.keys()
    assert EVERY_MATCH.keys() == MATCH_FIELDS.keys()
    assert set(SOURCES) == set(get_args(Kind))


def column(heading: str) -> list[str]:
    """The first column of the reference's table with this heading."""
    _, _, table = REFERENCE.partition(f"\n| {heading} |")
    assert table, f"docs/routes.md has no table {heading!r}"
    rows = table.partition("\n\n")[0].splitlines()[2:]
    return [row.split("|")[1].strip() for row in rows]


def test_the_reference_lists_the_operators_sources_and_causes() -> None:
    operators = [word for cell in column("test") for word in re.findall(r"`(\w+): ", cell + " ")]
    assert sorted(operators) == sorted(OPERATORS)
    assert sorted(column("cause")) == sorted((*CAUSES, BREAKER_OPEN))
    assert sorted(cell.strip("`") for cell in column("source")) == sorted(KEY_SOURCES.split(", "))


def test_the_reference_names_the_fields_of_a_document() -> None:
    paragraph = REFERENCE.partition("Fields of `spec`: ")[2].partition(". A field")[0]
    assert sorted(re.findall(r"`(\w+)`", paragraph)) == sorted(SPEC_FIELDS)
    paragraph = REFERENCE.partition("### Blue-green that is carried out\n\n")[2].partition(". The flip")[0]
    assert sorted(re.findall(r"`(\w+)`", paragraph)) == sorted(BLUE_GREEN_PLAN)
    assert "exactly one of " + ", ".join(STRATEGIES) in REFERENCE
    paragraph = REFERENCE.partition("It may look at ")[2].partition(". The method")[0]
    assert sorted(re.findall(r"`(\w+)`", paragraph)) == sorted(MATCH_FIELDS)


def test_an_arm_has_a_version_whatever_its_strategy() -> None:
    for name in STRATEGIES:
        made = document(arms=COMMON["arms"], labels=COMMON["labels"], strategy={name: EVERY_STRATEGY[name]})
        assert made.version_of(made.strategy.control_arm) == "12"
        assert made.strategy.name == name


def test_the_page_of_rollouts_names_every_field_and_guardrail() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rollout.md").read_text("utf-8")
    fields, _, kinds = page.partition("## Fields of `analysis`")[2].partition("| guardrail |")
    assert sorted(re.findall(r"^\| `(\w+)` \|", fields, re.MULTILINE)) == sorted(ANALYSIS_FIELDS)
    for kind in GUARDRAILS.values():
        [row] = re.findall(rf"^\| `{kind.name}` \| (.*?) \|", kinds, re.MULTILINE)
        assert set(re.findall(r"`(\w+):", row)) | set(re.findall(r"`(url)`", row)) == set(kind.options)
    experiments = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text("utf-8")
    for field in (*PLAN_FIELDS, *PLANNED_METRIC_FIELDS, *SRM_FIELDS, *EXPERIMENT_METRICS):
        assert f"`{field}`" in experiments
    for field in (*CANARY_PLAN, *STEP_PLAN, *AFTER_PROMOTE_FIELDS):
        assert f"{field}:" in page
