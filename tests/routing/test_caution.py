"""What is taken and seldom meant is said, and a document that means what it says is taken without a word."""

from typing import Any

import pytest
from hypothesis import given, settings

from gateway.routing.document.caution import cautions, fraction_caution, fraction_cautions
from gateway.routing.document.document import parse
from gateway.routing.document.notation import json_fault, parse_yaml
from tests.routing.documents import Plain, document, documents, plain
from tests.routing.test_document_fields import FULL

NOW_S = 1_800_000_000.0  # in January 2027
PINNED: Plain = {"pinned": {"arm": "a"}}
MATCH: Plain = {"id": {"exact": "x"}}


def steps(*weights: str) -> Plain:
    return {"canary": {"stable": "a", "canary": "b", "steps": [{"weight": weight} for weight in weights]}}


def rule(name: str, arm: str = "b", **more: Any) -> Plain:
    return {"name": name, "match": MATCH, "arm": arm, **more}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"rules": [rule("old", until="2026-01-01")]}, ["spec.rules[old]: it expired at 2026-01-01T00:00:00Z"]),
        ({"rules": [rule("new", until="2028-01-01")]}, []),
        ({"rules": [rule("a"), rule("b", arm="c")]}, ["spec.rules[b]: rule a before it has the same match"]),
        ({"rules": [rule("a", until="2028-01-01"), rule("b")]}, []),
        ({"rules": [rule("a", until="2026-01-01"), rule("b")]}, ["spec.rules[a]: it expired"]),
        ({"strategy": steps("5%", "25%", "10%", "50%")}, ["steps[2]: 10% is less than the 25% of the step before"]),
        ({"strategy": steps("5%", "5%", "50%")}, []),
        ({"strategy": PINNED, "mirrors": [{"arm": "a", "percent": 50}]}, ["spec.mirrors[a]: its version answers"]),
        ({"strategy": PINNED, "mirrors": [{"arm": "a", "percent": 50}], "rules": [rule("r")]}, []),
        ({"strategy": PINNED, "mirrors": [{"arm": "b", "percent": 50}]}, []),
        ({"strategy": PINNED, "mirrors": [{"arm": "b", "percent": 0}]}, ["spec.mirrors[b]: 0 % is nothing"]),
        (
            {
                "strategy": {"ab": {"control": "a", "weights": {"a": 100, "b": 0}, "holdout": 5}},
                "mirrors": [{"arm": "a", "percent": 50}],
            },
            ["spec.mirrors[a]: its version answers everybody"],
        ),
        ({"strategy": PINNED, "fallback": {"order": ["a"]}}, ["spec.fallback.order: its only arm"]),
        ({"strategy": PINNED, "fallback": {"order": ["a", "b"]}}, []),
    ],
)
def test_each_thing_that_is_seldom_meant_has_its_sentence(spec: Plain, said: list[str]) -> None:
    sentences = cautions(document(**spec), NOW_S)
    assert len(sentences) == len(said)
    assert all(part in sentence for part, sentence in zip(said, sentences, strict=True))


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        ({"strategy": {"canary": {"stable": "a", "canary": "b", "weight": 0.1}}}, ["spec.strategy.canary.weight"]),
        ({"strategy": {"canary": {"stable": "a", "canary": "b", "weight": "0.1%"}}}, []),
        ({"strategy": {"canary": {"stable": "a", "canary": "b", "weight": 1}}}, []),
        (
            {"strategy": {"canary": {"stable": "a", "canary": "b", "steps": [{"weight": 1}, {"weight": 0.5}]}}},
            ["spec.strategy.canary.steps[1].weight"],
        ),
        ({"mirrors": [{"arm": "b", "percent": 0.25}]}, ["spec.mirrors[0].percent"]),
        ({"log": {"rate": 0.1, "arms": {"a": 0.2}}}, ["spec.log.rate", "spec.log.arms.a"]),
        ({"fallback": {"order": ["b"], "budget": 0.1}}, ["spec.fallback.budget"]),
        ({"log": {"keep": {"scoreBelow": 0.6}}, "mirrors": [{"arm": "b", "percent": 5, "shedAboveCpu": 0.8}]}, []),
    ],
)
def test_a_percentage_that_reads_like_a_fraction_is_named(spec: Plain, paths: list[str]) -> None:
    value = plain(**spec)
    parse(value)
    assert [sentence.partition(":")[0] for sentence in fraction_cautions(value)] == paths


def test_the_sentence_says_what_the_number_means() -> None:
    assert fraction_caution("weight", 0.1) == "weight: 0.1 is 0.1 %, not 10 %; write 0.1% if that is meant"
    assert fraction_caution("weights.canary", "0.1").startswith("weights.canary: 0.1 is 0.1 %")
    assert [fraction_caution("weight", value) for value in ("0.1%", "x", "5", 0, 1, True, None, "nan")] == [""] * 8


@settings(max_examples=60, deadline=None)
@given(documents)
def test_any_document_has_sentences_or_none(value: Plain) -> None:
    made = parse(value)
    assert all(sentence.startswith("spec.") for sentence in cautions(made, NOW_S))
    assert fraction_cautions(made.to_value()) == ()


def test_what_is_meant_is_taken_without_a_word() -> None:
    for value in FULL:
        told = cautions(parse(value), NOW_S)
        assert [sentence for sentence in told if "is not judged by this release" not in sentence] == []
        assert fraction_cautions(value) == ()


def test_json_with_a_comma_too_many_is_read_and_named() -> None:
    good = document().to_json()
    assert json_fault(good) == json_fault("a: 1") == json_fault("") == ""
    wrong = good[:-1] + ",}"
    assert parse_yaml(wrong) == parse_yaml(good)
    assert json_fault(wrong).startswith("line 1, column ")
