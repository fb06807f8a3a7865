"""Which of the shipped alerts' expressions hold for what a gateway publishes.

A small part of PromQL, of instant vectors: selectors, numbers, time(), arithmetic and comparisons with a number or of
series with the same labels. `for` is left out: the expression has to hold for so long.
"""

import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import promql_parser
import yaml

from gateway.telemetry.published import published

RULES = Path(__file__).parents[2] / "docs" / "alerts.yaml"
Labels = frozenset[tuple[str, str]]
Vector = Mapping[Labels, float]
_ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
}
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}


def expression(alert: str) -> str:
    """The expression of a shipped alert."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    (text,) = [str(rule["expr"]) for rule in rules if rule["alert"] == alert]
    return text


def firing(alert: str, folder: Path, *, now_s: float = 0.0) -> list[dict[str, str]]:
    """The labels of each series that the alert would fire for, of the metrics that are published in that folder."""
    by_name = published(folder)
    series = {
        name: {frozenset(labels.items()): value for suffix, labels, value in samples if not suffix}
        for name, samples in by_name.items()
    }
    holds = _value(promql_parser.parse(expression(alert)), series, now_s)
    assert isinstance(holds, Mapping)
    return [dict(labels) for labels in holds]


def _value(node: Any, series: Mapping[str, Vector], now_s: float) -> Vector | float:
    kind = type(node).__name__
    if kind == "NumberLiteral":
        return float(node.val)
    if kind == "ParenExpr":
        return _value(node.expr, series, now_s)
    if kind == "Call":
        assert str(node.func.name) == "time"
        return now_s
    if kind == "VectorSelector":
        assert all(str(matcher.op) == "MatchOp.Equal" for matcher in node.matchers.matchers)
        wanted = {(matcher.name, matcher.value) for matcher in node.matchers.matchers}
        return {labels: value for labels, value in series.get(node.name, {}).items() if wanted <= labels}
    assert kind == "BinaryExpr", f"{kind} is not known here"
    return _joined(str(node.op), _value(node.lhs, series, now_s), _value(node.rhs, series, now_s))


def _joined(sign: str, left: Vector | float, right: Vector | float) -> Vector | float:
    if isinstance(left, float) and isinstance(right, float):
        return _ARITHMETIC[sign](left, right)
    keys = set(left if isinstance(left, Mapping) else right if isinstance(right, Mapping) else ())
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        keys &= set(right)
    pairs = {
        key: (left[key] if isinstance(left, Mapping) else left, right[key] if isinstance(right, Mapping) else right)
        for key in keys
    }
    if sign in _COMPARISONS:
        return {key: one for key, (one, other) in pairs.items() if _COMPARISONS[sign](one, other)}
    return {key: _ARITHMETIC[sign](one, other) for key, (one, other) in pairs.items()}
