"""A value of a document with the path that leads to it; reading it checks it, and refusing it names both."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from typing import TypeVar

from gateway.errors import InvalidArgument

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
SHORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # versions, arms, rules, labels
DEPTH_LIMIT = 32
NODE_LIMIT = 100_000
TEXT_LIMIT = 1024
Word = TypeVar("Word", bound=str)


@dataclass(frozen=True, slots=True)
class Field:
    """Raises: InvalidArgument from every reading method, naming the path, the value and what is allowed."""

    value: object
    path: str

    def refuse(self, allowed: str) -> InvalidArgument:
        """Returns the error that says that this value is not `allowed`; the caller raises it."""
        return InvalidArgument(f"{self.path}: {shown(self.value)} is not {allowed}")

    def fail(self, reason: str) -> InvalidArgument:
        """Returns the error with this reason; the caller raises it."""
        return InvalidArgument(f"{self.path}: {reason}")

    def section(self, *allowed: str) -> "Section":
        """The mapping, which holds no other names than `allowed`."""
        return Section(self.mapping(*allowed, path=self.path), self.path)

    def mapping(self, *allowed: str, path: str = "") -> Mapping[str, object]:
        """The same as plain data, its names shown behind `path`."""
        values = self._mapping(f"a mapping with the fields {', '.join(allowed)}")
        for name in values:
            if name not in allowed:
                near = get_close_matches(name, allowed, n=1)
                hint = f'; did you mean "{near[0]}"?' if near else ""
                at = f"{path}.{shown_name(name)}" if path else shown_name(name)
                raise InvalidArgument(f"{at}: unknown field{hint} (allowed: {', '.join(allowed)})")
        return values

    def entries(self, limit: int, *, what: str) -> list[tuple[str, "Field"]]:
        """The (name, value) pairs of a mapping whose names the author chose, sorted by name."""
        mapping = self._mapping(f"a mapping of {what}")
        if len(mapping) > limit:
            raise self.fail(f"{len(mapping)} {what}, at most {limit} are allowed")
        return [(name, Field(mapping[name], f"{self.path}.{shown_name(name)}")) for name in sorted(mapping)]

    def items(self, limit: int, *, what: str) -> list["Field"]:
        if not isinstance(self.value, Sequence) or isinstance(self.value, str | bytes | bytearray):
            raise self.refuse(f"a list of {what}")
        if len(self.value) > limit:
            raise self.fail(f"{len(self.value)} {what}, at most {limit} are allowed")
        return [Field(value, f"{self.path}[{index}]") for index, value in enumerate(self.value)]

    def text(self, *, limit: int = TEXT_LIMIT, empty: bool = False) -> str:
        if not isinstance(self.value, str):
            raise self.refuse("text")
        if not self.value and not empty:
            raise self.fail("empty text is not allowed")
        if len(self.value) > limit:
            raise self.fail(f"{len(self.value)} characters, at most {limit} are allowed")
        if not self.value.isprintable():
            raise self.refuse("text without control characters")
        return self.value

    def name(self, pattern: re.Pattern[str] = SHORT_NAME) -> str:
        """Text that fits the pattern of a name (a model, version, arm, rule or label)."""
        if not isinstance(self.value, str) or pattern.fullmatch(self.value) is None:
            raise self.refuse(f"a name of the form {pattern.pattern}")
        return self.value

    def version(self) -> str:
        """A version string; a whole number is taken as its digits, anything else must be text."""
        if isinstance(self.value, int) and not isinstance(self.value, bool) and self.value >= 0:
            return Field(str(self.value), self.path).name()
        if isinstance(self.value, float):
            raise self.refuse(f'a version: write it as text, "{self.value}"')
        return self.name()

    def choice(self, *allowed: Word) -> Word:
        """The one of these words that the value is."""
        for word in allowed:
            if isinstance(self.value, str) and self.value == word:
                return word
        raise self.refuse(f"one of {', '.join(allowed)}")

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.refuse("true or false")
        return self.value

    def whole(self, minimum: int, maximum: int) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not minimum <= self.value <= maximum:
            raise self.refuse(f"a whole number from {minimum} to {maximum}")
        return self.value

    def number(self, minimum: float, maximum: float) -> float:
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
            raise self.refuse(f"a number from {minimum:g} to {maximum:g}")
        return float(value)

    def _mapping(self, what: str) -> Mapping[str, object]:
        if not isinstance(self.value, Mapping):
            raise self.refuse(what)
        return self.value


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping whose names are known to be allowed."""

    values: Mapping[str, object]
    path: str

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def field(self, name: str) -> Field | None:
        """The named value, None where the document leaves it out."""
        return Field(self.values[name], self.at(name)) if name in self.values else None

    def required(self, name: str) -> Field:
        if name not in self.values:
            raise InvalidArgument(f"{self.at(name)}: required, but missing")
        return Field(self.values[name], self.at(name))

    def at(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def shown(value: object) -> str:
    """The value as an error shows it: one line of at most 80 characters."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return "a list"
    if isinstance(value, int) and value.bit_length() > 256:
        return "a number of more than 256 bits"
    text = repr(value[:80]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def shown_name(name: str) -> str:
    """A name chosen by the author as a path shows it."""
    return name if len(name) <= 128 and name.isprintable() and name else repr(name[:64])


def check_shape(document: object) -> None:
    """Returns if the document is a tree of plain values with finite numbers, neither too deep nor too large.

    Raises: InvalidArgument. A structure that contains itself, or that shares its parts, counts as what it unfolds to.
    """
    nodes = 0
    stack: list[Iterator[object]] = [iter((document,))]
    while stack:
        for value in stack[-1]:
            nodes += 1
            if nodes > NODE_LIMIT:
                raise InvalidArgument(f"document: more than {NODE_LIMIT} values")
            if isinstance(value, float) and not math.isfinite(value):
                raise InvalidArgument(f"document: {value} is not a finite number")
            if isinstance(value, str) and not _is_unicode(value):
                raise InvalidArgument(f"document: {shown(value)} is not Unicode text")
            if isinstance(value, Mapping):
                for name in value:
                    if not isinstance(name, str) or not _is_unicode(name):
                        raise InvalidArgument(f"document: the name {shown(name)} is not Unicode text")
                stack.append(iter(value.values()))
            elif isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
                stack.append(iter(value))
            elif value is None or isinstance(value, str | int | float | date):  # a date may be an `until`
                continue
            else:
                raise InvalidArgument(f"document: {shown(value)} is not plain data")
            if len(stack) > DEPTH_LIMIT + 1:
                raise InvalidArgument(f"document: nested deeper than {DEPTH_LIMIT} levels")
            break
        else:
            stack.pop()


def _is_unicode(text: str) -> bool:
    """Returns whether the text has no half of a surrogate pair, which no UTF-8 can hold."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
