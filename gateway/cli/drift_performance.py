"""Performance as `gateway drift status` shows it: measured from labels, beside the estimate without labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gateway.page.message_values import Value, moment

_FILE = Path("run") / "published" / "performance.json"
_COLUMNS = (
    "VERSION", "ARM", "METRIC", "REAL", "LABELS", "REFERENCE", "CHANGE", "STATE", "ESTIMATED", "ROWS", "EST. CHANGE",
    "EST. STATE", "NEWEST LABEL OF",
)  # fmt: skip
_NOTHING: Mapping[str, Any] = {}


def read_performance(data_dir: Path, model: str) -> list[Mapping[str, Any]]:
    """Returns the arms of a model, or of all; none if nothing was published or the publication cannot be read."""
    try:
        published = msgspec.json.decode((data_dir / _FILE).read_text(encoding="utf-8"))["arms"]
        return [arm for arm in published if not model or arm["model"] == model]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def columns_of(model: str) -> Sequence[str]:
    """Returns the columns for one model, or for all."""
    return _COLUMNS if model else ("MODEL", *_COLUMNS)


def rows_of(arms: Sequence[Mapping[str, Any]], model: str) -> list[list[Value]]:
    """Returns a row for each metric of each arm."""
    rows: list[list[Value]] = []
    for arm in arms:
        head: list[Value] = [arm["version"], arm["arm"]] if model else [arm["model"], arm["version"], arm["arm"]]
        sides = [{one["name"]: one for one in arm[side]["metrics"]} for side in ("realised", "estimated")]
        ended = moment(int(arm["realised"]["end_s"]) * 1_000_000)
        for name in dict.fromkeys([*sides[0], *sides[1]]) or ["-"]:
            real, estimated = (side.get(name, _NOTHING) for side in sides)
            rows.append([
                *head, name, _value(real), arm["realised"]["rows"], _number(real.get("reference"), ""), *_change(real),
                _value(estimated), arm["estimated"]["rows"] if estimated else "", *_change(estimated), ended,
            ])  # fmt: skip
    return rows


def notes_of(arms: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns why a metric or an estimate is absent, and which labels have no meaning."""
    notes = ["REAL and ESTIMATED with the half of their 95 % intervals; the estimate cannot see concept drift"]
    for arm in arms:
        name = f"{arm['model']} {arm['version']} (arm {arm['arm']})"
        if arm["realised"]["note"]:
            notes.append(f"{name}: no metrics: {arm['realised']['note']}")
        if arm["estimated"]["note"]:
            notes.append(f"{name}: no estimate: {arm['estimated']['note']}")
        if arm["unknown_labels"]:
            notes.append(f"{name}: {arm['unknown_labels']} labels are no class of the model, or no number")
    return notes


def _value(one: Mapping[str, Any]) -> str:
    if not one:
        return ""
    low, high = one["interval"]
    return f"{one['value']:.3f} ±{(high - low) / 2:.3f}"


def _change(one: Mapping[str, Any]) -> list[str]:
    return [_number(one.get("change"), "+"), one.get("state") or ""]


def _number(value: float | None, sign: str) -> str:
    return "" if value is None else f"{value:{sign}.3f}"
