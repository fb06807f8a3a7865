"""The SQL of the lake as text: names and values quoted, files as tables, the views, and what a condition may be."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from gateway.drift.report.lake_files import LakeFile
from gateway.records.lake.lake_columns import LABEL_COLUMNS, PREDICTION_COLUMNS


def _none_of(columns: Mapping[str, str]) -> str:
    return f"SELECT {', '.join(f'NULL::{kind} AS {name}' for name, kind in columns.items())} WHERE false"


# What `predictions` and `feedback` have where nothing was logged yet, so that SQL is right or wrong all the same.
NO_PREDICTIONS = _none_of(PREDICTION_COLUMNS)
NO_FEEDBACK = _none_of(LABEL_COLUMNS)
NO_LABELS = """SELECT 0::UBIGINT AS request_hash, 0 AS row_index, 0::DOUBLE AS label_num, '' AS label_text,
    0::DOUBLE AS reward WHERE false"""
# Label and reward are two facts: each holds from the last feedback that states it, of a call's the last by its number.
# A label is taken whole: `arg_max` of its parts would pass over those that are null.
_LAST = """SELECT * EXCLUDE (label), label.label_num, label.label_text FROM (SELECT model, request_hash, row_index,
    arg_max({'label_num': label_num, 'label_text': label_text}, (label_ts, received_ts, record))
        FILTER (label_num IS NOT NULL OR label_text IS NOT NULL) AS label,
    arg_max(reward, (label_ts, received_ts, record)) FILTER (reward IS NOT NULL) AS reward,
    any_value(request_id) AS request_id, max(label_ts) AS label_ts,
    min(received_ts) AS first_received_ts, max(received_ts) AS received_ts
    FROM {feedback} GROUP BY model, request_hash, row_index)"""
LABELS = _LAST.replace("{feedback}", "feedback")
# The same of one model, as fast as it can be had: most rows have one label only, and the last of one needs no order.
REPEATED = "SELECT request_hash, row_index FROM feedback GROUP BY ALL HAVING count(*) > 1"
_JOINED = "feedback {} JOIN repeated USING (request_hash, row_index)"
LAST_LABELS = f"""SELECT request_hash, row_index, label_num, label_text, reward, received_ts AS first_received_ts
    FROM {_JOINED.format("ANTI")} UNION ALL
    SELECT request_hash, row_index, label_num, label_text, reward, first_received_ts
    FROM ({_LAST.replace("{feedback}", _JOINED.format("SEMI"))})"""
_CLAUSES: Final = ("modifiers", "where_clause", "group_expressions", "group_sets", "having", "qualify", "sample")


def quoted(name: str) -> str:
    """A column's name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def read_files(files: Sequence[LakeFile], *, union: bool) -> str:
    """The table that the files are; `union`: they need not have the same columns."""
    listed = ", ".join(text(file.path) for file in files)
    return f"read_parquet([{listed}], union_by_name = {str(union).lower()}, hive_partitioning = false)"


def drawn(share: float, prefix: str = "") -> str:
    """The condition that this share of the rows meets, always the same ones."""
    return f"hash({prefix}request_hash, {prefix}row_index) < {int(share * 2**64)}::UBIGINT"


def is_nested(kind: str) -> bool:
    """Returns whether values of an SQL type have parts."""
    return kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION"))


def is_condition(serialised: str) -> bool:
    """Returns whether a statement that DuckDB has parsed and serialised is `SELECT (one expression)` and nothing
    more."""
    document = msgspec.json.decode(serialised)
    node = document["statements"][0]["node"] if len(document.get("statements", ())) == 1 else {}
    bare = node.get("type") == "SELECT_NODE" and node["from_table"]["type"] == "EMPTY"
    if not bare or any(node.get(clause) for clause in _CLAUSES):
        return False
    return len(node["select_list"]) == 1 and node["select_list"][0].get("function_name") != "row"
