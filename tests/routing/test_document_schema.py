"""The published schema takes what `parse` takes, and the file in docs is the schema."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from gateway.routing.document.document import parse
from gateway.routing.document.notation import parse_yaml, read_yaml
from gateway.routing.document.schema import schema
from tests.routing.documents import Plain, changed, documents, plain

SCHEMA: Any = schema()
DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = re.findall(r"```yaml\n(.*?)```", (DOCS / "routes.md").read_text("utf-8"), re.DOTALL)
_TYPES: Mapping[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def fits(value: Any, rule: Any) -> bool:
    """Whether the value fits the rule: the part of JSON Schema 2020-12 that our schema uses, and no other."""
    if rule is True:
        return True
    for keyword, operand in rule.items():
        if keyword in ("$schema", "$defs", "title"):
            continue
        if not _CHECKS[keyword](value, operand, rule):
            return False
    return True


def _is(value: Any, names: Any) -> bool:
    listed = [names] if isinstance(names, str) else names
    return any(isinstance(value, _TYPES[n]) and (n == "boolean" or not isinstance(value, bool)) for n in listed)


def _additional(value: Any, rule: Any, whole: Any) -> bool:
    extra = [name for name in value if name not in whole.get("properties", {})]
    return not extra if rule is False else all(fits(value[name], rule) for name in extra)


_CHECKS: Mapping[str, Any] = {
    "$ref": lambda value, ref, _: fits(value, SCHEMA["$defs"][ref.removeprefix("#/$defs/")]),
    "type": lambda value, names, _: _is(value, names),
    "const": lambda value, constant, _: value == constant and type(value) is type(constant),
    "enum": lambda value, allowed, _: value in allowed,
    "anyOf": lambda value, rules, _: any(fits(value, rule) for rule in rules),
    "oneOf": lambda value, rules, _: sum(fits(value, rule) for rule in rules) == 1,
    "pattern": lambda value, pattern, _: re.search(pattern, value) is not None,
    "minLength": lambda value, least, _: len(value) >= least,
    "maxLength": lambda value, most, _: len(value) <= most,
    "minimum": lambda value, least, _: value >= least,
    "maximum": lambda value, most, _: value <= most,
    "minItems": lambda value, least, _: len(value) >= least,
    "maxItems": lambda value, most, _: len(value) <= most,
    "items": lambda value, rule, _: all(fits(item, rule) for item in value),
    "minProperties": lambda value, least, _: len(value) >= least,
    "maxProperties": lambda value, most, _: len(value) <= most,
    "required": lambda value, names, _: all(name in value for name in names),
    "propertyNames": lambda value, rule, _: all(fits(name, rule) for name in value),
    "properties": lambda value, rules, _: all(fits(value[name], rules[name]) for name in rules if name in value),
    "additionalProperties": _additional,
}


@settings(max_examples=60, deadline=None)
@given(documents)
def test_what_parses_fits_the_schema(value: Plain) -> None:
    assert fits(value, SCHEMA)
    assert fits(json.loads(parse(value).to_json()), SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kind", "Rout"),
        ("metadata.team", "x"),
        ("metadata.model", ".."),
        ("spec.wieghts", {}),
        ("spec.arms.b", {"version": "../1"}),
        ("spec.arms.b", {"version": "1", "label": "x"}),
        ("spec.strategy", {"pinned": {"arm": "a"}, "ab": {}}),
        ("spec.strategy", {"canary": {}}),
        ("spec.strategy.ab.weights", {"a": "50 apples"}),
        ("spec.strategy.ab.weights", {"a": 101}),
        ("spec.rules", [{"name": "r", "arm": "a"}]),
        ("spec.rules", [{"name": "r", "arm": "a", "match": {"id": {"exact": "x", "in": ["y"]}}}]),
        ("spec.key", {"from": ["cookie:x"]}),
        ("spec.fallback", {"order": ["a"], "on": ["OK"]}),
    ],
)
def test_what_has_a_wrong_form_does_not(path: str, value: object) -> None:
    assert fits(plain(), SCHEMA)
    assert not fits(changed(path, value), SCHEMA)


def test_the_published_file_is_the_schema() -> None:
    assert json.loads((DOCS / "route.schema.json").read_text("utf-8")) == SCHEMA


def test_the_command_that_writes_the_file_is_the_one_that_the_recipe_names() -> None:
    page = (DOCS / "contributing.md").read_text("utf-8")
    [program] = re.findall(r'`python -c "([^"]*)" > docs/route\.schema\.json`', page)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == (DOCS / "route.schema.json").read_text("utf-8")


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_of_the_reference_are_right(text: str) -> None:
    assert parse_yaml(text)
    assert all(fits(value, SCHEMA) for value in read_yaml(text))


def test_the_reference_has_an_example_of_each_strategy() -> None:
    strategies = {type(route.strategy).__name__ for text in EXAMPLES for route in parse_yaml(text)}
    assert strategies == {"Ab", "Canary", "BlueGreen", "Pinned"}
