"""Conditions on a request: what a rule, a preview or a client pin asks for, as values and as compiled tests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.routing.document.attributes import Attributes
from gateway.routing.document.field import Field, shown
from gateway.routing.document.operator import Matcher, parse_matcher
from gateway.routing.document.source import MATCH_FIELDS, METHODS, SOURCES, Kind, Source, metadata_name, reader

Predicate = Callable[[Attributes], bool]
CONDITION_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of one source."""

    source: Source
    matcher: Matcher

    def __str__(self) -> str:
        return f"{self.source} {self.matcher.name} {self.matcher.operand()}"


@dataclass(frozen=True, slots=True)
class Match:
    """All of these conditions, in the order of their sources; at least one."""

    conditions: tuple[Condition, ...]

    def to_value(self) -> dict[str, object]:
        value: dict[str, Any] = {}
        for condition in self.conditions:
            source, matcher = condition.source, condition.matcher.to_value()
            kind = SOURCES[source.kind]
            if kind.named:
                value.setdefault(kind.match_field, {})[source.name] = matcher
            else:
                value[kind.match_field] = matcher
        return value


def parse_match(field: Field) -> Match:
    """The conditions of a document. Raises: InvalidArgument, also where there is none: it would match everything."""
    section = field.section(*MATCH_FIELDS)
    conditions: list[Condition] = []
    for name, kind in MATCH_FIELDS.items():
        if (given := section.field(name)) is None:
            continue
        if SOURCES[kind].named:
            conditions += _named_conditions(kind, given)
        else:
            conditions.append(Condition(Source(kind), parse_matcher(given)))
            if kind == "method":
                _check_methods(given, conditions[-1].matcher)
    if not conditions:
        raise field.fail(f"no condition; give at least one of {', '.join(MATCH_FIELDS)}")
    return Match(tuple(sorted(conditions, key=lambda condition: condition.source)))


def _named_conditions(kind: Kind, field: Field) -> list[Condition]:
    conditions: list[Condition] = []
    for name, matcher in field.entries(CONDITION_LIMIT, what=f"{kind} names"):
        given = Field(name, matcher.path)
        source = Source(kind, metadata_name(given) if kind == "metadata" else given.text(limit=128))
        if any(condition.source == source for condition in conditions):
            raise matcher.fail("the same metadata name is given twice, in upper and lower case")
        conditions.append(Condition(source, parse_matcher(matcher)))
    return conditions


def _check_methods(field: Field, matcher: Matcher) -> None:
    """Raises: InvalidArgument for a name that no request can have: nobody would see that such a rule never holds."""
    for name in matcher.literals():
        if name not in METHODS:
            raise field.fail(f"there is no method {shown(name)}, allowed: {', '.join(METHODS)}")


def compile_match(match: Match) -> Predicate:
    """Returns whether all conditions hold for a request."""
    tests = tuple((reader(condition.source), condition.matcher.compile()) for condition in match.conditions)
    if len(tests) == 1:
        [(read, test)] = tests
        return lambda attributes: test(read(attributes))

    def matches(attributes: Attributes) -> bool:
        for read, test in tests:  # noqa: SIM110 - a generator costs as much again as the tests
            if not test(read(attributes)):
                return False
        return True

    return matches
