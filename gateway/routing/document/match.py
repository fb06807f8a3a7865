"""Conditions on a request: what a rule, a preview or a client pin asks for, as values and as compiled tests."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import re2

from gateway.routing.document.attributes import Attributes
from gateway.routing.document.field import Field, shown
from gateway.routing.document.source import METHODS, Source, metadata_name, reader

Operator = Literal["exact", "prefix", "suffix", "in", "present", "range", "regex", "not"]
Test = Callable[["str | None"], bool]
Predicate = Callable[[Attributes], bool]
OPERATORS = ("exact", "prefix", "suffix", "in", "present", "range", "regex", "not")
MATCH_FIELDS = ("metadata", "parameters", "method", "tenant", "identity", "id")
_CONDITION_LIMIT = 64
_VALUE_LIMIT = 1000
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,4})?")


@dataclass(frozen=True, slots=True)
class Matcher:
    """One test of one text. `texts` belongs to exact, prefix, suffix, regex (one) and in (sorted); `low` and `high`,
    both inclusive, to range; `expected` to present; `inner` to not."""

    operator: Operator
    texts: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    expected: bool = True
    inner: "Matcher | None" = None

    def needs_value(self) -> bool:
        """Whether the test fails for a request that lacks the source."""
        match self.operator:
            case "present":
                return self.expected
            case "not":
                return False
        return True

    def to_value(self) -> dict[str, object]:
        match self.operator:
            case "in":
                return {"in": list(self.texts)}
            case "present":
                return {"present": self.expected}
            case "range":
                bounds = {"min": self.low, "max": self.high}
                return {"range": {name: _plain(bound) for name, bound in bounds.items() if math.isfinite(bound)}}
            case "not":
                return {"not": self.inner.to_value() if self.inner else {}}
        return {self.operator: self.texts[0]}


@dataclass(frozen=True, slots=True)
class Condition:
    source: Source
    matcher: Matcher

    def __str__(self) -> str:
        [(operator, operand)] = self.matcher.to_value().items()
        return f"{self.source} {operator} {operand}"


@dataclass(frozen=True, slots=True)
class Match:
    """All of these conditions, in the order of their sources; at least one."""

    conditions: tuple[Condition, ...]

    def to_value(self) -> dict[str, object]:
        value: dict[str, Any] = {}
        for condition in self.conditions:
            source, matcher = condition.source, condition.matcher.to_value()
            if source.kind in ("metadata", "parameter"):
                value.setdefault("metadata" if source.kind == "metadata" else "parameters", {})[source.name] = matcher
            else:
                value[source.kind] = matcher
        return value


def parse_match(field: Field) -> Match:
    """The conditions of a document. Raises: InvalidArgument, also where there is none: it would match everything."""
    section = field.section(*MATCH_FIELDS)
    conditions: list[Condition] = []
    for kind in ("identity", "id", "method", "tenant"):
        if (single := section.field(kind)) is not None:
            conditions.append(Condition(Source(kind), parse_matcher(single)))
            if kind == "method":
                _check_methods(single, conditions[-1].matcher)
    if (metadata := section.field("metadata")) is not None:
        for name, matcher in metadata.entries(_CONDITION_LIMIT, what="metadata names"):
            source = Source("metadata", metadata_name(Field(name, matcher.path)))
            if any(condition.source == source for condition in conditions):
                raise matcher.fail("the same metadata name is given twice, in upper and lower case")
            conditions.append(Condition(source, parse_matcher(matcher)))
    if (parameters := section.field("parameters")) is not None:
        for name, matcher in parameters.entries(_CONDITION_LIMIT, what="parameter names"):
            parameter = Field(name, matcher.path).text(limit=128)
            conditions.append(Condition(Source("parameter", parameter), parse_matcher(matcher)))
    if not conditions:
        raise field.fail(f"no condition; give at least one of {', '.join(MATCH_FIELDS)}")
    return Match(tuple(sorted(conditions, key=lambda condition: condition.source)))


def parse_matcher(field: Field) -> Matcher:
    section = field.section(*OPERATORS)
    if len(section.values) != 1:
        raise field.fail(f"{len(section.values)} tests, exactly one of {', '.join(OPERATORS)} is needed")
    [operator] = section.values
    operand = section.required(operator)
    match operator:
        case "exact":
            return Matcher("exact", (_text(operand),))
        case "in":
            return Matcher("in", _texts(operand))
        case "prefix" | "suffix":
            return Matcher("prefix" if operator == "prefix" else "suffix", (operand.text(),))
        case "present":
            return Matcher("present", expected=operand.flag())
        case "range":
            return _range(operand)
        case "regex":
            return Matcher("regex", (_pattern(operand),))
    return Matcher("not", inner=parse_matcher(operand))


def _check_methods(field: Field, matcher: Matcher) -> None:
    """Raises: InvalidArgument for a name that no request can have: nobody would see that such a rule never holds."""
    while matcher.inner is not None:
        matcher = matcher.inner
    if matcher.operator in ("exact", "in"):
        for name in matcher.texts:
            if name not in METHODS:
                raise field.fail(f"there is no method {shown(name)}, allowed: {', '.join(METHODS)}")


def compile_matcher(matcher: Matcher) -> Test:
    """The test as a function of the text, None where the request lacks it."""
    text = matcher.texts[0] if matcher.texts else ""
    match matcher.operator:
        case "exact":
            return lambda value: value == text
        case "in":
            texts = frozenset(matcher.texts)
            return lambda value: value in texts
        case "prefix":
            return lambda value: value is not None and value.startswith(text)
        case "suffix":
            return lambda value: value is not None and value.endswith(text)
        case "present":
            expected = matcher.expected
            return lambda value: (value is not None) is expected
        case "range":
            return _range_test(matcher.low, matcher.high)
        case "regex":
            return _regex_test(text)
    assert matcher.inner is not None
    inner = compile_matcher(matcher.inner)
    return lambda value: not inner(value)


def compile_match(match: Match) -> Predicate:
    """Whether all conditions hold for a request."""
    tests = tuple((reader(condition.source), compile_matcher(condition.matcher)) for condition in match.conditions)
    if len(tests) == 1:
        [(read, test)] = tests
        return lambda attributes: test(read(attributes))

    def matches(attributes: Attributes) -> bool:
        for read, test in tests:  # noqa: SIM110 - a generator costs as much again as the tests
            if not test(read(attributes)):
                return False
        return True

    return matches


def any_pattern(patterns: tuple[str, ...]) -> Callable[[str], bool] | None:
    """Whether a text fits any of the patterns, in one pass; None where they cannot be joined into one."""
    if len(patterns) < 2 or any("\\Q" in pattern for pattern in patterns):  # a quotation could swallow its neighbours
        return None
    try:
        return _regex_test("|".join(f"(?:{pattern})" for pattern in patterns))
    except re2.error:  # too large together
        return None


def _text(field: Field) -> str:
    """Text, or a whole number or flag as the text that parameters show."""
    if isinstance(field.value, bool):
        return "true" if field.value else "false"
    if isinstance(field.value, int) and field.value.bit_length() <= 64:
        return str(field.value)
    return field.text(empty=True)


def _texts(field: Field) -> tuple[str, ...]:
    texts = [_text(item) for item in field.items(_VALUE_LIMIT, what="values")]
    if not texts:
        raise field.fail("an empty list matches nothing; give at least one value")
    return tuple(sorted(set(texts)))


def _range(field: Field) -> Matcher:
    section = field.section("min", "max")
    low, high = section.field("min"), section.field("max")
    if low is None and high is None:
        raise field.fail("give min, max or both (both inclusive)")
    least = -math.inf if low is None else low.number(-1e300, 1e300)
    most = math.inf if high is None else high.number(-1e300, 1e300)
    if least > most:
        raise field.fail(f"min {least:g} is greater than max {most:g}")
    return Matcher("range", low=least, high=most)


def _pattern(field: Field) -> str:
    pattern = field.text()
    try:
        _compile_pattern(pattern)
    except (re2.error, UnicodeEncodeError) as error:
        raise field.fail(f"{shown(pattern)} is not an RE2 pattern: {error}") from None
    return pattern


def _compile_pattern(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    return re2.compile(pattern, options)


def _range_test(low: float, high: float) -> Test:
    number = _NUMBER.fullmatch
    return lambda value: value is not None and number(value) is not None and low <= float(value) <= high


def _regex_test(pattern: str) -> Test:
    fullmatch = _compile_pattern(pattern).fullmatch

    def test(value: str | None) -> bool:
        try:
            return value is not None and fullmatch(value) is not None
        except UnicodeEncodeError:  # text that no client could have sent as UTF-8
            return False

    return test


def _plain(bound: float) -> float | int:
    return int(bound) if bound.is_integer() and abs(bound) < 2**53 else bound
