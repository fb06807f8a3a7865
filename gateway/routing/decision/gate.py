"""Gates: one look at one source of a request tells which of the rules that test it can still hold.

A rule's gate is one of its conditions that a request without the value cannot meet, an exact one if there is any. The
gates of all rules on one source share a look-up, whose answer is a set of rules as bits. Twenty rules on two headers
thus cost two look-ups, not twenty tests.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from gateway.routing.document.match import Condition, Match
from gateway.routing.document.operator import Matcher, Test
from gateway.routing.document.source import Reader, Source, reader

Bits = int
_REMEMBERED = 256  # values of one gate; they come from clients, so they are few and short
_REMEMBERED_LENGTH = 128


class Gate(NamedTuple):
    """`resolve` answers for the values that `known` does not hold; None where there is nothing to find in them."""

    source: Source
    read: Reader
    known: Mapping[str, Bits]
    resolve: Callable[[str], Bits] | None


def gate_condition(match: Match) -> Condition | None:
    """The condition that tells most about a request, None where every one may hold without a value."""
    needing = [condition for condition in match.conditions if condition.matcher.needs_value()]
    exact = [condition for condition in needing if condition.matcher.values() is not None]
    return next(iter(exact or needing), None)


def build_gate(source: Source, entries: Sequence[tuple[Bits, Matcher]]) -> Gate:
    """The gate of these matchers, each with the bit of its rule."""
    known: dict[str, Bits] = {}
    inexact: list[tuple[Bits, Matcher]] = []
    for bit, matcher in entries:
        texts = matcher.values()
        if texts is None:
            inexact.append((bit, matcher))
        else:
            for text in texts:
                known[text] = known.get(text, 0) | bit
    resolve = _resolver(inexact)
    for text in known:
        known[text] |= resolve(text)
    return Gate(source, reader(source), known, _remembering(resolve) if inexact else None)


def _resolver(entries: Sequence[tuple[Bits, Matcher]]) -> Callable[[str], Bits]:
    """The bits of the matchers that hold for a value; each kind that is rarely met is asked about as a whole first."""
    kinds: dict[type[Matcher], list[tuple[Bits, Matcher]]] = {}
    for bit, matcher in entries:
        kinds.setdefault(type(matcher), []).append((bit, matcher))
    groups: list[tuple[Callable[[str], bool] | None, tuple[tuple[Bits, Test], ...]]] = [
        (
            kind.any_of([matcher for _, matcher in members]),
            tuple((bit, matcher.compile()) for bit, matcher in members),
        )
        for kind, members in kinds.items()
    ]

    def resolve(value: str) -> Bits:
        bits = 0
        for may_hold, tests in groups:
            if may_hold is None or may_hold(value):
                for bit, test in tests:
                    if test(value):
                        bits |= bit
        return bits

    return resolve


def _remembering(resolve: Callable[[str], Bits]) -> Callable[[str], Bits]:
    """The same function, which keeps the answers for the values it saw last: most headers have few values."""
    answers: dict[str, Bits] = {}

    def remembered(value: str) -> Bits:
        bits = answers.get(value)
        if bits is None:
            bits = resolve(value)
            if len(value) <= _REMEMBERED_LENGTH:
                if len(answers) >= _REMEMBERED:
                    answers.clear()
                answers[value] = bits
        return bits

    return remembered
