"""Turns rows of the lake and labels into what samples of performance hold."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.drift import arrow_columns
from gateway.drift.online.performance_sample import (
    LABEL,
    MAX_SCORES,
    NO_LABEL_US,
    NO_TEXT,
    PerformanceSample,
    SampleRows,
    row_keys,
    row_type,
)
from gateway.drift.statistics.answers import Outputs, find_outputs, sql_kind
from gateway.drift.statistics.column import Column
from gateway.records.worker.label import Label

Array = npt.NDArray[Any]


def read_outputs(table: Any) -> Outputs:
    """The columns of an Arrow table of the lake that are the answer; of too many scores the class and the confidence
    alone."""
    names = [name for name in table.column_names if name.startswith("out.")]
    columns = {name: arrow_columns.column(table, name) for name in names}
    outputs = find_outputs({name: sql_kind(Column(*one)) for name, one in columns.items() if one is not None})
    return outputs if len(outputs.scores) <= MAX_SCORES else Outputs((), outputs.said)


def label_rows(sample: PerformanceSample, labels: Sequence[Label]) -> SampleRows:
    """Returns labels of one model in the form that the sample holds."""
    rows = np.empty(len(labels), LABEL)
    hashes = np.array([label.request_hash for label in labels], np.uint64)
    rows["key"] = row_keys(hashes, np.array([label.row_index for label in labels], np.int64))
    rows["label"] = [np.nan if label.number is None else label.number for label in labels]
    texts = {label.text for label in labels if label.text is not None}
    codes = dict(zip(ordered := sorted(texts), sample.text_codes(ordered).tolist(), strict=True))
    rows["label_text"] = [NO_TEXT if label.text is None else codes[label.text] for label in labels]
    rows["label_us"] = [label.label_us for label in labels]
    rows["received_us"] = [label.received_us for label in labels]
    return rows


def answer_rows(sample: PerformanceSample, table: Any, outputs: Outputs, keys: Any, chosen: Any) -> SampleRows:
    """Returns the chosen rows of a table in the form that the sample holds, without labels."""
    rows = np.zeros(len(chosen), row_type(len(outputs.scores)))
    rows["key"] = keys[chosen]
    rows["ts_us"] = required(table, "ts").values[chosen]
    rows["p"] = required(table, "sample_p").values[chosen]
    with np.errstate(over="ignore"):  # a score beyond float32 is infinite: no answer
        for place, name in enumerate(outputs.scores):
            rows["scores"][:, place] = _numbers(table, name, chosen)
        rows["pred_class"] = _numbers(table, "pred_class", chosen)
        rows["pred_score"] = _numbers(table, "pred_score", chosen)
    rows["said"] = _said(sample, table, outputs.said, chosen)
    rows["label"], rows["label_text"], rows["label_us"] = np.nan, NO_TEXT, NO_LABEL_US
    return rows


def _said(sample: PerformanceSample, table: Any, name: str, chosen: Any) -> Any:
    column = arrow_columns.column(table, name) if name else None
    if column is None or column[2] is None:
        return np.full(len(chosen), NO_TEXT)
    own = Column(*column).rows(chosen)
    used, places = np.unique(own.values, return_inverse=True)
    codes = sample.text_codes([(own.texts or ("",))[code] for code in used.tolist()])[places]
    return codes if own.missing is None else np.where(own.missing, NO_TEXT, codes)


def _numbers(table: Any, name: str, chosen: Any) -> Any:
    """NaN where there is none."""
    column = arrow_columns.column(table, name)
    if column is None or column[2] is not None:
        return np.full(len(chosen), np.nan)
    own = Column(*column).rows(chosen)
    values = own.values.astype(np.float64)
    return values if own.missing is None else np.where(own.missing, np.nan, values)


def required(table: Any, name: str) -> Column:
    values = arrow_columns.column(table, name)
    if values is None:
        raise ValueError(f"rows without a column {name!r}")
    return Column(*values)
