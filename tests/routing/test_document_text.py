"""Documents as YAML and JSON text: one meaning, and nothing that grows beyond its size."""

import json
from time import perf_counter

import pytest
import yaml
from hypothesis import given, settings

from gateway.errors import InvalidArgument
from gateway.routing.document.document import parse
from gateway.routing.document.notation import LOADER, parse_json, parse_yaml, read_json, read_yaml
from tests.routing.documents import Plain, documents, plain

TEXT = """
apiVersion: gateway/v1
kind: Route
metadata: {model: fraud, owner: risk}
spec:
  arms:
    stable: {version: 12}
    canary: {version: "0013"}
  rules:
    - {name: no, match: {parameters: {on: {exact: yes}}}, arm: canary, until: 2027-01-01}
  fallback: {order: [canary], on: [INTERNAL]}
  strategy: {canary: {weight: 12.5%}}
"""


@pytest.fixture(params=[LOADER, yaml.SafeLoader], ids=["libyaml", "python"])
def loader(request: pytest.FixtureRequest) -> object:
    """Both parsers of PyYAML: the one in C is missing from some builds."""
    return request.param


def refused(text: str | bytes, loader: object = LOADER) -> str:
    with pytest.raises(InvalidArgument) as caught:
        parse_yaml(text, loader=loader)
    return str(caught.value)


def test_yaml_words_that_other_readers_turn_into_something_else_stay_text(loader: object) -> None:
    [route] = parse_yaml(TEXT, loader=loader)
    value = json.loads(route.to_json())["spec"]
    assert value["arms"] == {"canary": {"version": "0013"}, "stable": {"version": "12"}}
    assert value["fallback"] == {"on": ["INTERNAL"], "order": ["canary"]}
    assert value["rules"] == [
        {
            "arm": "canary",
            "match": {"parameters": {"on": {"exact": "yes"}}},
            "name": "no",
            "until": "2027-01-01T00:00:00Z",
        }
    ]
    assert parse_json(route.to_json()) == route
    assert parse_yaml(route.to_json(), loader=loader) == [route]


def test_plain_scalars_follow_json(loader: object) -> None:
    scalars = {
        "1": 1,
        "-2": -2,
        "010": "010",
        "0x1F": "0x1F",
        "1_000": "1_000",
        "1.5": 1.5,
        "1e3": "1e3",
        "1.0e3": 1000.0,
        "-0.5": -0.5,
        ".5": ".5",
        "true": True,
        "True": "True",
        "~": None,
        "null": None,
        "''": "",
        "'1'": "1",
        '"true"': "true",
        "12:30": "12:30",
        "2027-01-01": "2027-01-01",
        ".inf": ".inf",
    }
    [values] = read_yaml("".join(f"- {text}\n" for text in scalars), loader=loader)
    assert values == list(scalars.values())
    assert isinstance(values, list)
    assert [type(value) for value in values] == [type(value) for value in scalars.values()]


@settings(max_examples=30, deadline=None)
@given(documents)
def test_yaml_text_means_the_same_as_json_text(value: Plain) -> None:
    route = parse(value)
    assert parse_yaml(yaml.safe_dump(json.loads(route.to_json()), allow_unicode=True)) == [route]
    assert parse_json(route.to_json().encode()) == route


def test_json_keeps_its_numbers_and_its_text_apart() -> None:
    assert read_yaml(' {"a": 1e-05, "b": "1e-05"} ') == [{"a": 1e-05, "b": "1e-05"}]
    assert read_yaml("{a: 1e-05, b: 0.5}") == [{"a": "1e-05", "b": 0.5}]


def test_several_documents_are_read_in_order() -> None:
    text = "---\n" + "\n---\n".join(json.dumps(plain(model)) for model in "bac") + "\n---\n"
    assert [route.model for route in parse_yaml(text)] == ["b", "a", "c"]


def test_the_document_that_is_wrong_is_named_by_its_place() -> None:
    texts = [json.dumps(plain("a")), json.dumps(plain("b", arms={}))]
    assert refused("\n---\n".join(texts)).startswith("document 2: spec.arms: no arm")
    assert refused("\n---\n".join([texts[0]] * 2)) == "document 2: there is another document of model 'a'"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the text is empty"),
        ("---\n", "the text is empty"),
        ("a: 1\nb: 2\na: 3", "line 3: the name 'a' is given twice in one mapping"),
        ("a: &x [1]\nb: *x", "line 1: anchors and aliases are not allowed"),
        ("a: *x", "line 1: anchors and aliases are not allowed"),
        ("&x a: 1", "a name must be plain text"),
        ("a: !!python/object:os.system {}", "the tag 'tag:yaml.org,2002:python/object:os.system' is not allowed"),
        ("a: !!int 5", "the tag 'tag:yaml.org,2002:int' is not allowed"),
        ("<<: {a: 1}", "a name must be plain text"),
        ("? [a]\n: 1", "a name must be plain text"),
        ("a: [1", "line "),
        ("a: b: c", "line 1, column "),
        ("a: \x00", "document: "),
        ("a: 1.0e999", "'1.0e999' is not a finite number"),
        ("a: 123456789012345678901", "'123456789012345678901' has too many digits"),
        (b"\xff\xfe\xfa", "the text is not UTF-8"),
        ("a: \ud800", "the text is not UTF-8"),
        ("[" * 100_000, "nested deeper than 32 levels"),
        ("{a: " * 1000, "nested deeper than 32 levels"),
        ("x" * ((1 << 20) + 1), "1048577 bytes, at most 1048576 are allowed"),
    ],
)
def test_yaml_that_could_mean_two_things_or_too_much_is_refused(text: str | bytes, reason: str, loader: object) -> None:
    started = perf_counter()
    assert reason in refused(text, loader)
    assert perf_counter() - started < 5


def test_an_alias_bomb_does_not_unfold() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert "anchors and aliases are not allowed" in refused("\n".join(lines))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1, column 1: Expecting value"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the name 'c' is given twice in one mapping"),
        ('{"a": NaN}', "NaN is not a finite number"),
        ('{"a": -Infinity}', "-Infinity is not a finite number"),
        ('{"a": 1e999}', "'1e999' is not a finite number"),
        ('{"a": ' + "9" * 5000 + "}", "has too many digits"),
        ('{"a": 1,}', "line 1, column 9: "),
        ("[" * 100_000, "nested deeper than 32 levels"),
        ('{"a":' * 100_000, "nested deeper than 32 levels"),
        (b'"\xff"', "the text is not UTF-8"),
        ('"' + "x" * (1 << 20) + '"', "bytes, at most 1048576 are allowed"),
    ],
)
def test_json_that_is_not_strict_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        read_json(text)
    assert reason in str(caught.value)


def test_many_names_are_read_in_time() -> None:
    text = "{" + ",".join(f'"n{n}": 1' for n in range(70_000)) + ',"n69999": 2}'
    started = perf_counter()
    with pytest.raises(InvalidArgument, match="'n69999' is given twice"):
        read_json(text)
    assert perf_counter() - started < 5
