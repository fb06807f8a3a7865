"""Tells which records are kept for their score: decided when they are written, not while a request waits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.records.worker.block import ENCODE_ERRORS, ROW
from gateway.records.worker.digest import Digests
from gateway.records.worker.fast_path import FastPathRecords
from gateway.records.worker.reading import readable
from gateway.records.worker.record import Logged, Record
from gateway.records.worker.redaction import StreamRedaction
from gateway.records.worker.sampling import UNDECIDED_IN, UNDECIDED_OUT, Kept
from gateway.records.worker.stream_schema import StreamSchema, is_flat, width
from gateway.tensor import Buffer, TensorSpec

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StreamRecords:
    """The records of one stream that are to be written; with `below` some of them only if their score is lower."""

    number: int
    schema: StreamSchema
    records: list[Record]
    fast_path: FastPathRecords
    below: float | None = None

    def __len__(self) -> int:
        return len(self.records) + len(self.fast_path)


def filter_by_score(taken: StreamRecords, redaction: StreamRedaction) -> StreamRecords:
    """Returns the records that stay, each with the reason and the probability that hold for it.

    A record of which a row has a low score, or none that is a number, is kept with probability 1. The score is that of
    the column `pred_score`; where there is none (no output of numbers, or redaction withholds it), no score is low.
    """
    if taken.below is None:
        return taken
    place = score_output(taken.schema, redaction)
    fast_path = _filtered_fast_path(taken, place)
    records = [kept for record in taken.records if (kept := _filtered_record(taken, record, place)) is not None]
    return StreamRecords(taken.number, taken.schema, records, fast_path)


def score_output(schema: StreamSchema, redaction: StreamRedaction) -> int | None:
    """Returns the index of the output whose largest value is the score of a row; None where there is none."""
    for index, spec in enumerate(schema.outputs):
        kind = "f" if spec.datatype.wire_name == "BF16" else np.dtype(spec.datatype.dtype).kind
        if is_flat(spec) and kind == "f" and not redaction.withholds(spec.name) and spec.name not in redaction.hidden:
            return index
    return None


def _filtered_fast_path(taken: StreamRecords, place: int | None) -> FastPathRecords:
    fast_path = taken.fast_path
    table = np.frombuffer(bytearray(b"".join(fast_path.table)), ROW)
    undecided = table["kept"] >= UNDECIDED_IN
    if not undecided.any():
        return fast_path
    low = np.zeros(len(table), bool)
    inputs, width_of_record = len(taken.schema.inputs), len(taken.schema.inputs) + len(taken.schema.outputs)
    if place is not None:
        spec = taken.schema.outputs[place]
        tensors = fast_path.tensors[inputs + place :: width_of_record]
        try:
            low = _low(_scores(spec, b"".join(tensors)), table["rows"], taken.below)  # type: ignore[arg-type]
        except ENCODE_ERRORS:  # one of them is not what it should be: each by itself
            low = np.array(
                [
                    _is_low(spec, tensor, int(rows), taken.below)
                    for tensor, rows in zip(tensors, table["rows"], strict=True)
                ]
            )
    stays = ~undecided | low | (table["kept"] != UNDECIDED_OUT)
    kept = np.where(undecided, np.where(low, Kept.LOW_CONFIDENCE, table["kept"] & 0x7F), table["kept"])
    table["sample_p"][undecided & low] = 1.0
    table["kept"] = kept
    left = FastPathRecords()
    left.reasons = fast_path.reasons
    left.rows = int(table["rows"][stays].sum())
    for index in np.flatnonzero(stays).tolist():
        left.table.append(table[index].tobytes())
        left.ids.append(fast_path.ids[index])
        left.tensors += fast_path.tensors[index * width_of_record : (index + 1) * width_of_record]
    return left


def _filtered_record(taken: StreamRecords, record: Record, place: int | None) -> Record | None:
    kept = record.kept
    if kept < UNDECIDED_IN:
        return record
    if place is not None:
        outputs, wanted = record.outputs, record.wanted
        at = place if wanted is None else wanted.index(place) if place in wanted else len(outputs)
        if at < len(outputs) and _is_low(taken.schema.outputs[place], outputs[at], record.rows, taken.below):
            record.sample_p, record.kept = 1.0, Kept.LOW_CONFIDENCE
            return record
    if kept == UNDECIDED_OUT:
        return None
    record.kept = kept & 0x7F
    return record


def _is_low(spec: TensorSpec, tensor: Logged | None, rows: int, below: float | None) -> bool:
    if isinstance(tensor, Digests):  # never of an output whose values are a score
        return False
    try:
        return bool(_low(_scores(spec, tensor), np.array([rows]), below)[0])
    except ENCODE_ERRORS:
        return False


def _scores(spec: TensorSpec, tensor: Buffer | None) -> Floats:
    """Returns the score of each row: the largest of its values.

    Raises: ENCODE_ERRORS.
    """
    values = np.asarray(tensor) if isinstance(tensor, np.ndarray) else np.frombuffer(tensor or b"", spec.datatype.dtype)
    table = readable(spec, values.ravel()).reshape(-1, width(spec))
    return np.asarray(table.max(axis=1) if len(table) else np.zeros(0), np.float64)


def _low(scores: Floats, rows: Sequence[int] | npt.NDArray[np.generic], below: float | None) -> npt.NDArray[np.bool_]:
    """Of each record, whether one of its rows is low.

    Raises: ValueError (the rows are not as many as the scores).
    """
    counts = np.asarray(rows, np.int64)
    if counts.sum() != len(scores):
        raise ValueError(f"{len(scores)} scores of {counts.sum()} rows")
    of_row = ~(scores >= (-np.inf if below is None else below))
    low = np.zeros(len(counts), bool)
    low[np.repeat(np.arange(len(counts)), counts)[of_row]] = True
    return low
