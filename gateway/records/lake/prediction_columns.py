"""The columns `pred_class` and `pred_score`: what the outputs of a row say, whatever they are called."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gateway.records.lake.explode import Explosion
from gateway.records.lake.predicted_class import are_scores, chances
from gateway.records.worker.reading import Block, TensorColumn, readable
from gateway.records.worker.stream_schema import is_flat, width
from gateway.tensor import Array, Datatype

Columns = dict[str, pa.Array]


def prediction_columns(block: Block, exploded: Explosion) -> Columns:
    """Returns class and score: a whole-number output, or the place of the largest of the scores of classes; the largest
    of these, or the only number. Null where the outputs say neither."""
    columns: Columns = {
        "pred_class": pa.nulls(exploded.total, pa.int32()),
        "pred_score": pa.nulls(exploded.total, pa.float32()),
    }
    decided: set[str] = set()
    class_given = any(_is_class(other) for other in block.outputs)
    class_beside = class_given or any(other.text is not None and _is_single(other) for other in block.outputs)
    for column in block.outputs:
        withheld = column.spec.name in block.schema.hidden or column.spec.name in block.schema.dropped
        if not is_flat(column.spec) or column.text is not None or withheld:
            continue
        rows, source = exploded.located(column.leads)
        values = np.asarray(column.values).reshape(-1, width(column.spec))[source]
        values = np.asarray(readable(column.spec, values))
        if values.dtype.kind in "iu" and values.shape[1] == 1:
            _decide(columns, decided, "pred_class", values[:, 0].astype("<i8"), rows)
        elif values.dtype.kind == "f":
            if values.shape[1] > 1:
                if not are_scores(column.spec.name, classified=block.schema.classified, class_beside=class_beside):
                    held = chances(values, precise=column.spec.datatype.size >= 4)
                    rows, values = _chosen(rows, held), values[held]
                    if not len(values):
                        continue
                _decide(columns, decided, "pred_score", values.max(axis=1), rows)
                if not class_given:
                    _decide(columns, decided, "pred_class", values.argmax(axis=1), rows)
            else:
                _decide(columns, decided, "pred_score", values[:, 0], rows)
    return columns


def _chosen(rows: npt.NDArray[np.bool_], held: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Returns those of the marked rows that are held."""
    chosen = rows.copy()
    chosen[rows] = held
    return chosen


def _is_class(column: TensorColumn) -> bool:
    kind = np.dtype(column.spec.datatype.dtype).kind
    return _is_single(column) and kind in "iu" and column.spec.datatype is not Datatype.BF16


def _is_single(column: TensorColumn) -> bool:
    return is_flat(column.spec) and width(column.spec) == 1


def _decide(columns: Columns, decided: set[str], name: str, values: Array, rows: npt.NDArray[np.bool_]) -> None:
    if name in decided:
        return
    decided.add(name)
    total = len(columns[name])
    absent = ~rows
    if name == "pred_class":
        numbers = np.asarray(values, np.int64)
        absent[rows] |= (numbers < -(2**31)) | (numbers >= 2**31)
        spread: Array = np.zeros(total, np.int64)
        spread[rows] = numbers
        columns[name] = pa.array(np.where(absent, 0, spread).astype("<i4"), mask=absent)
    else:
        spread = np.zeros(total, "<f4")
        with np.errstate(over="ignore"):
            spread[rows] = values.astype("<f4")
        columns[name] = pa.array(spread, mask=absent)
