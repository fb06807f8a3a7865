"""Warnings of a document: each names something that is allowed and seldom meant, for whoever writes it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from gateway.routing.document.document import RouteDocument, Rule
from gateway.routing.document.field import shown_name
from gateway.routing.document.guardrail import METRICS
from gateway.routing.document.quantity import instant_text, percent_text
from gateway.routing.document.schema import schema
from gateway.routing.document.strategy import Ab, BlueGreen, Canary, ramp_of


def cautions(document: RouteDocument, now_s: float) -> tuple[str, ...]:
    """Returns a sentence for each thing that decides nothing, or other than it reads, in the order of the paths."""
    said = (*_steps(document), *_guardrails(document), *_bandit(document), *_rules(document, now_s))
    return (*said, *_arms_in_vain(document))


def fraction_cautions(value: object) -> tuple[str, ...]:
    """Returns a sentence for each percentage of plain data that reads like a fraction: 0.1 is 0.1 %, not 10 %."""
    return tuple(_fractions(value, _schema(), ""))


def fraction_caution(path: str, value: object) -> str:
    """The sentence for one percentage without its sign; "" where it cannot be a fraction of one."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except ValueError:
        return ""
    if not 0 < number < 1:
        return ""
    return f"{path}: {number:g} is {number:g} %, not {100 * number:g} %; write {number:g}% if that is meant"


def _steps(document: RouteDocument) -> Iterator[str]:
    steps = document.strategy.steps if isinstance(document.strategy, Canary) else ()
    for index, (before, after) in enumerate(pairwise(steps), start=1):
        if after.weight < before.weight:
            fall = f"{percent_text(after.weight)} is less than the {percent_text(before.weight)} of the step before"
            yield f"spec.strategy.canary.steps[{index}]: {fall}; promote takes the canary down there"


def _guardrails(document: RouteDocument) -> Iterator[str]:
    strategy = document.strategy
    canary = strategy if isinstance(strategy, Canary) else ramp_of(strategy)
    if canary is None or canary.analysis is None:
        return
    mirrored = {mirror.arm for mirror in document.effective_mirrors()}
    for index, guardrail in enumerate(canary.analysis.guardrails):
        path = f"spec.strategy.{strategy.name}.analysis.guardrails[{index}]"
        if guardrail.kind.mirrored and canary.canary not in mirrored:
            yield f"{path}: arm {canary.canary} has no mirror, so {guardrail.kind.name} never has data"
        elif guardrail.options.get("metric", METRICS[0]) not in METRICS:
            yield f"{path}.metric: feedback has {' and '.join(METRICS)}, so {guardrail.kind.name} never has data"


def _bandit(document: RouteDocument) -> Iterator[str]:
    strategy = document.strategy
    if isinstance(strategy, Ab) and strategy.bandit is not None:
        arms = [arm for arm, weight in strategy.weights if weight]
        if len(arms) == 1:
            yield f"spec.strategy.ab.bandit: only {arms[0]} has a weight, so nothing can move"
        if document.key is None:
            yield "spec.strategy.ab.bandit: the route has no key, so a caller meets all arms in turn"


def _rules(document: RouteDocument, now_s: float) -> Iterator[str]:
    for index, rule in enumerate(document.rules):
        path = f"spec.rules[{rule.name}]"
        if _expired(rule, now_s):
            yield f"{path}: it expired at {instant_text(rule.until_s or 0)} and decides nothing"
        for earlier in document.rules[:index]:
            lasting = earlier.until_s is None or (rule.until_s is not None and earlier.until_s >= rule.until_s)
            if earlier.match == rule.match and lasting and not _expired(earlier, now_s):
                yield f"{path}: rule {earlier.name} before it has the same match, so it never decides"
                break


def _arms_in_vain(document: RouteDocument) -> Iterator[str]:
    """Mirrors and fallbacks that have nothing to do."""
    answering = _answering_versions(document)
    for mirror in document.mirrors:
        if answering == {document.version_of(mirror.arm)}:
            yield (
                f"spec.mirrors[{mirror.arm}]: its version answers everybody, and a request is never mirrored to the "
                "version that answers it"
            )
        elif not mirror.share:
            yield f"spec.mirrors[{mirror.arm}]: 0 % is nothing"
    order = document.fallback.order if document.fallback is not None else ()
    if len(answering) == 1 and answering == {document.version_of(arm) for arm in order}:
        yield "spec.fallback.order: its only arm is the one that answers everybody, so nothing can fall back"


def _answering_versions(document: RouteDocument) -> set[str]:
    """The versions that requests may be answered by; pins, fallbacks and the kill switch aside."""
    arms = {arm for arm, size in document.weights().items() if size} | {rule.arm for rule in document.rules}
    if isinstance(document.strategy, BlueGreen) and document.strategy.preview_match is not None:
        arms.add(document.strategy.preview)
    return {document.version_of(arm) for arm in arms}


def _expired(rule: Rule, now_s: float) -> bool:
    return rule.until_s is not None and rule.until_s <= now_s


@cache
def _schema() -> Any:
    return schema()


def _fractions(value: object, rule: Any, path: str) -> Iterator[str]:
    """Yields a sentence for each percentage, which the schema's references tell."""
    if not isinstance(rule, Mapping):
        return
    reference = rule.get("$ref", "")
    if reference == "#/$defs/percent":
        if not isinstance(value, str) and (sentence := fraction_caution(path, value)):
            yield sentence
    elif reference:
        yield from _fractions(value, _schema()["$defs"][reference.removeprefix("#/$defs/")], path)
    elif isinstance(value, Mapping):
        properties, others = rule.get("properties", {}), rule.get("additionalProperties")
        for name, inner in value.items():
            at = f"{path}.{shown_name(str(name))}" if path else shown_name(str(name))
            yield from _fractions(inner, properties.get(name, others), at)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for index, inner in enumerate(value):
            yield from _fractions(inner, rule.get("items"), f"{path}[{index}]")
