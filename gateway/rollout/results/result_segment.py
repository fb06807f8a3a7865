"""Segments: the values of one logged column, bounded in number, by which results are cut."""

from itertools import pairwise
from typing import Final

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_sql import quoted, text
from gateway.errors import InvalidArgument
from gateway.rollout.results.assigned_units import DrawnRows, LoggedPhase

MOST_SEGMENTS: Final = 10
QUARTERS: Final = (0.25, 0.5, 0.75)
OTHER: Final = "(others)"
_NUMBERS: Final = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT",
                   "DOUBLE", "HUGEINT", "UHUGEINT")  # fmt: skip
_TEXTS: Final = ("VARCHAR", "BOOLEAN")
# What the arm made of the request: a cut by it compares other keys of one arm than of the other.
_AFTERWARDS: Final = ("out.", "pred_", "status", "infer_us", "queue_us", "total_us", "version", "arm", "sample_")


def segment_sql(lake: Lake, drawn: DrawnRows, column: str, logged: tuple[LoggedPhase, ...]) -> str:
    """Returns SQL of a text for each row: the value of the column, or of a number the quarter that it lies in.

    Raises: InvalidArgument (no such column, or one that cannot be cut by).
    """
    kinds = lake.columns(drawn.selection)
    kinds |= {f"f.{name}": kinds[place] for place, name in lake.feature_names(drawn.selection).items()}
    if column not in kinds:
        near = ", ".join(name for name in kinds if not name.startswith(("out.", "in."))) or "none: no row is there"
        raise InvalidArgument(f"--by {column!r}: the log has no such column; it has {near}")
    kind, name = kinds[column], quoted(column)
    if kind not in (*_NUMBERS, *_TEXTS):
        raise InvalidArgument(f"--by {column!r} is of type {kind}, allowed are numbers, texts and flags")
    rows = drawn.sql(logged)
    told = lake.ask(
        drawn.selection,
        f"SELECT {name}::VARCHAR AS value FROM ({rows}) WHERE {name} IS NOT NULL GROUP BY 1 "
        f"ORDER BY count(*) DESC, 1 LIMIT {MOST_SEGMENTS + 1}",
    )
    values = [str(value) for value in told["value"].tolist()]
    if len(values) <= MOST_SEGMENTS:
        return f"coalesce({name}::VARCHAR, 'null')"
    if kind in _NUMBERS:
        return _quarters(lake, drawn, name, rows)
    listed = ", ".join(text(value) for value in values[: MOST_SEGMENTS - 1])
    return f"CASE WHEN {name} IS NULL THEN 'null' WHEN {name} IN ({listed}) THEN {name} ELSE {text(OTHER)} END"


def segment_note(column: str) -> str:
    """Returns what is to be said of a cut by that column; "" for nothing."""
    if column.startswith(_AFTERWARDS):
        return (
            f"{column} is decided after a request had its arm: segments by it hold other keys of one arm than of the "
            "other, and a difference within them may be nothing but that"
        )
    return ""


def _quarters(lake: Lake, drawn: DrawnRows, name: str, rows: str) -> str:
    """Returns the quarter of the rows that a number lies in, by its bounds."""
    told = lake.ask(
        drawn.selection,
        f"SELECT quantile_disc({name}, {list(QUARTERS)!r})::DOUBLE[] AS cuts FROM ({rows}) "
        f"WHERE isfinite({name}::DOUBLE)",
    )
    cuts = sorted({float(cut) for cut in told["cuts"][0]})
    parts = [f"WHEN {name} <= {cuts[0]!r} THEN {text(f'1: up to {cuts[0]:g}')}"]
    for number, (low, high) in enumerate(pairwise(cuts), 2):
        parts.append(f"WHEN {name} <= {high!r} THEN {text(f'{number}: above {low:g} to {high:g}')}")
    last = text(f"{len(cuts) + 1}: above {cuts[-1]:g}")
    return f"CASE WHEN {name} IS NULL OR isnan({name}::DOUBLE) THEN 'null' {' '.join(parts)} ELSE {last} END"
