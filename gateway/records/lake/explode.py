"""Which instances a block's records become: a batch of k is k rows."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.records.worker.block import ColumnMode
from gateway.records.worker.reading import Block, TensorColumn
from gateway.records.worker.stream_schema import is_flat

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Explosion:
    """The rows of a block.

    Shapes: `sizes` [records] rows of each; `firsts` [records] its first row; `records` [rows] whose row it is;
            `row_index` [rows] which instance of the record.
    """

    sizes: Integers
    firsts: Integers
    records: Integers
    row_index: Integers

    @property
    def total(self) -> int:
        return len(self.records)


def explode(block: Block) -> Explosion:
    """As many rows per record as its flat tensors have instances; without them, as many as all its tensors agree on.

    Otherwise one: a record without tensors, of an empty batch, or whose tensors do not agree is one row.
    """
    count = len(block.table)
    flat, agreed = np.zeros(count, np.int64), np.zeros(count, np.int64)
    agree = np.ones(count, bool)
    for column in (*block.inputs, *block.outputs):
        if is_flat(column.spec):
            flat = np.maximum(flat, column.leads)
            continue
        leads = instances(column)
        agree &= (leads == 0) | (agreed == 0) | (leads == agreed)
        agreed = np.maximum(agreed, leads)
    sizes = np.maximum(np.where(flat > 0, flat, np.where(agree, agreed, 1)), 1)
    firsts = np.zeros(count, np.int64)
    np.cumsum(sizes[:-1], out=firsts[1:])
    records = np.repeat(np.arange(count, dtype=np.int64), sizes)
    return Explosion(sizes, firsts, records, np.arange(len(records), dtype=np.int64) - firsts[records])


def instances(column: TensorColumn) -> Integers:
    """Instances per record, 0 where absent. A tensor without elements counts as one whatever its shape says: shapes are
    the client's, and [10**9, 0] must not become 10**9 rows."""
    empty = (column.modes == ColumnMode.VALUES) & (np.diff(column.starts) == 0)
    return np.where(empty, 1, column.leads)


def positions(explosion: Explosion, leads: Integers) -> Integers:
    """The rows that hold a tensor's instances, when record i has `leads[i]` of them, at most its rows.

    Shapes: [leads.sum()].
    """
    starts = np.cumsum(leads) - leads
    return np.repeat(explosion.firsts - starts, leads) + np.arange(int(leads.sum()), dtype=np.int64)
