"""The operators of a match: one test of one text each, in one table from which everything else is derived.

To add one, write a `Matcher` and name its class in `_ALL`: the parser, the compiled rules with their gates,
`explain` and the JSON Schema take it from there.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import re2

from gateway.routing.document.field import TEXT_LIMIT, Field, shown

Test = Callable[["str | None"], bool]
Schema = dict[str, object]
VALUE_LIMIT = 1000
_SCALAR: Schema = {"type": ["string", "integer", "boolean"]}
_TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": TEXT_LIMIT}
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,4})?")


class Matcher(ABC):
    """One operator with its operand. Equal matchers hold for the same texts."""

    __slots__ = ()

    name: ClassVar[str]
    schema: ClassVar[Schema]  # of the operand

    @classmethod
    @abstractmethod
    def parse(cls, operand: Field) -> Self:
        """The matcher with this operand. Raises: InvalidArgument."""

    @abstractmethod
    def operand(self) -> object:
        """The operand as plain data; `parse` of it is this matcher again."""

    @abstractmethod
    def compile(self) -> Test:
        """The test as a function of the text, None where the request lacks it."""

    def values(self) -> tuple[str, ...] | None:
        """All the texts for which the test holds; None where they cannot be listed."""
        return None

    def literals(self) -> tuple[str, ...]:
        """The texts that are compared as a whole, whatever is made of the result."""
        return self.values() or ()

    @classmethod
    def any_of(cls, matchers: Sequence[Self]) -> Callable[[str], bool] | None:
        """A quick test that holds for a text where one of the matchers holds; None where there is none."""
        return None

    def needs_value(self) -> bool:
        """Returns whether the test fails for a request that lacks the source."""
        return not self.compile()(None)

    def to_value(self) -> dict[str, object]:
        return {self.name: self.operand()}


@dataclass(frozen=True, slots=True)
class ExactText(Matcher):
    """Holds for this text."""

    name = "exact"
    schema = _SCALAR
    text: str

    @classmethod
    def parse(cls, operand: Field) -> Self:
        return cls(_scalar(operand))

    def operand(self) -> object:
        return self.text

    def compile(self) -> Test:
        text = self.text
        return lambda value: value == text

    def values(self) -> tuple[str, ...]:
        return (self.text,)


@dataclass(frozen=True, slots=True)
class _Affix(Matcher):
    """A text at one end."""

    schema = _TEXT
    text: str

    @classmethod
    def parse(cls, operand: Field) -> Self:
        return cls(operand.text())

    def operand(self) -> object:
        return self.text


@dataclass(frozen=True, slots=True)
class Prefix(_Affix):
    """Holds for what begins with this text."""

    name = "prefix"

    def compile(self) -> Test:
        text = self.text
        return lambda value: value is not None and value.startswith(text)

    @classmethod
    def any_of(cls, matchers: Sequence[Self]) -> Callable[[str], bool]:
        texts = tuple(matcher.text for matcher in matchers)
        return lambda value: value.startswith(texts)


@dataclass(frozen=True, slots=True)
class Suffix(_Affix):
    """Holds for what ends with this text."""

    name = "suffix"

    def compile(self) -> Test:
        text = self.text
        return lambda value: value is not None and value.endswith(text)

    @classmethod
    def any_of(cls, matchers: Sequence[Self]) -> Callable[[str], bool]:
        texts = tuple(matcher.text for matcher in matchers)
        return lambda value: value.endswith(texts)


@dataclass(frozen=True, slots=True)
class OneOf(Matcher):
    """Holds for each of these texts, which are sorted."""

    name = "in"
    schema: ClassVar[Schema] = {"type": "array", "items": _SCALAR, "maxItems": VALUE_LIMIT, "minItems": 1}
    texts: tuple[str, ...]

    @classmethod
    def parse(cls, operand: Field) -> Self:
        texts = [_scalar(item) for item in operand.items(VALUE_LIMIT, what="values")]
        if not texts:
            raise operand.fail("an empty list matches nothing; give at least one value")
        return cls(tuple(sorted(set(texts))))

    def operand(self) -> object:
        return list(self.texts)

    def compile(self) -> Test:
        texts = frozenset(self.texts)
        return lambda value: value in texts

    def values(self) -> tuple[str, ...]:
        return self.texts


@dataclass(frozen=True, slots=True)
class Present(Matcher):
    """Holds where the source is there at all, or where it is absent."""

    name = "present"
    schema: ClassVar[Schema] = {"type": "boolean"}
    expected: bool

    @classmethod
    def parse(cls, operand: Field) -> Self:
        return cls(operand.flag())

    def operand(self) -> object:
        return self.expected

    def compile(self) -> Test:
        expected = self.expected
        return lambda value: (value is not None) is expected


@dataclass(frozen=True, slots=True)
class NumberRange(Matcher):
    """Holds for decimal numbers from `low` to `high`, both inclusive."""

    name = "range"
    schema: ClassVar[Schema] = {
        "type": "object",
        "properties": {"min": {"type": "number"}, "max": {"type": "number"}},
        "additionalProperties": False,
        "minProperties": 1,
    }
    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def parse(cls, operand: Field) -> Self:
        section = operand.section("min", "max")
        low, high = section.field("min"), section.field("max")
        if low is None and high is None:
            raise operand.fail("give min, max or both (both inclusive)")
        least = -math.inf if low is None else low.number(-1e300, 1e300)
        most = math.inf if high is None else high.number(-1e300, 1e300)
        if least > most:
            raise operand.fail(f"min {least:g} is greater than max {most:g}")
        return cls(least, most)

    def operand(self) -> object:
        bounds = {"min": self.low, "max": self.high}
        return {name: _shortest(bound) for name, bound in bounds.items() if math.isfinite(bound)}

    def compile(self) -> Test:
        low, high, number = self.low, self.high, _NUMBER.fullmatch
        return lambda value: value is not None and number(value) is not None and low <= float(value) <= high


@dataclass(frozen=True, slots=True)
class Pattern(Matcher):
    """Holds for what the RE2 pattern matches as a whole."""

    name = "regex"
    schema = _TEXT
    pattern: str

    @classmethod
    def parse(cls, operand: Field) -> Self:
        pattern = operand.text()
        try:
            _compile_pattern(pattern)
        except (re2.error, UnicodeEncodeError) as error:
            raise operand.fail(f"{shown(pattern)} is not an RE2 pattern: {error}") from None
        return cls(pattern)

    def operand(self) -> object:
        return self.pattern

    def compile(self) -> Test:
        fullmatch = _compile_pattern(self.pattern).fullmatch

        def test(value: str | None) -> bool:
            try:
                return value is not None and fullmatch(value) is not None
            except UnicodeEncodeError:  # text that no client could have sent as UTF-8
                return False

        return test

    @classmethod
    def any_of(cls, matchers: Sequence[Self]) -> Callable[[str], bool] | None:
        """All patterns in one pass; None where they cannot be joined into one."""
        patterns = [matcher.pattern for matcher in matchers]
        # A quotation could swallow its neighbours.
        if len(patterns) < 2 or any("\\Q" in pattern for pattern in patterns):
            return None
        try:
            return cls("|".join(f"(?:{pattern})" for pattern in patterns)).compile()
        except re2.error:  # too large together
            return None


@dataclass(frozen=True, slots=True)
class Negation(Matcher):
    """Holds where the inner test does not: for an absent value, too, if the inner test needs one."""

    name = "not"
    schema: ClassVar[Schema] = {"$ref": "#/$defs/matcher"}
    inner: Matcher

    @classmethod
    def parse(cls, operand: Field) -> Self:
        return cls(parse_matcher(operand))

    def operand(self) -> object:
        return self.inner.to_value()

    def compile(self) -> Test:
        inner = self.inner.compile()
        return lambda value: not inner(value)

    def literals(self) -> tuple[str, ...]:
        return self.inner.literals()


_ALL: tuple[type[Matcher], ...] = (ExactText, Prefix, Suffix, OneOf, Present, NumberRange, Pattern, Negation)
OPERATORS: dict[str, type[Matcher]] = {operator.name: operator for operator in _ALL}


def parse_matcher(field: Field) -> Matcher:
    """The only test of the mapping. Raises: InvalidArgument, also for an operator that is not in the table."""
    section = field.section(*OPERATORS)
    if len(section.values) != 1:
        raise field.fail(f"{len(section.values)} tests, exactly one of {', '.join(OPERATORS)} is needed")
    [operator] = section.values
    return OPERATORS[operator].parse(section.required(operator))


def matcher_schema() -> Schema:
    """The JSON Schema of a test."""
    operands: Mapping[str, object] = {name: operator.schema for name, operator in OPERATORS.items()}
    value: Schema = {"type": "object", "properties": dict(operands), "additionalProperties": False}
    return value | {"minProperties": 1, "maxProperties": 1}


def _scalar(field: Field) -> str:
    """Text, or a whole number or flag as the text that parameters show."""
    if isinstance(field.value, bool):
        return "true" if field.value else "false"
    if isinstance(field.value, int) and field.value.bit_length() <= 64:
        return str(field.value)
    return field.text(empty=True)


def _compile_pattern(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    return re2.compile(pattern, options)


def _shortest(bound: float) -> float | int:
    return int(bound) if bound.is_integer() and abs(bound) < 2**53 else bound
