"""Tells which instances a block's records become: a batch of k is k rows."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.records.worker.block import ColumnMode
from gateway.records.worker.reading import Block, TensorColumn
from gateway.records.worker.stream_schema import is_flat

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Explosion:
    """Some of the rows of a block, from number `start` on.

    Shapes: `sizes` [records] rows of each record of the block; `firsts` [records] its first row; `records` [rows] whose
            row it is; `row_index` [rows] which instance of the record.
    """

    sizes: Integers
    firsts: Integers
    start: int
    records: Integers
    row_index: Integers

    @property
    def total(self) -> int:
        return len(self.records)

    def located(self, leads: Integers) -> tuple[npt.NDArray[np.bool_], Integers]:
        """Returns which of the rows hold an instance of a tensor of which record i has `leads[i]`, and which that is.

        Shapes: [rows] and [rows that hold one], counted over the whole block.
        """
        starts = np.cumsum(leads) - leads
        holds = self.row_index < leads[self.records]
        return holds, (starts[self.records] + self.row_index)[holds]


def explode(block: Block, limit: int | None = None) -> Iterator[Explosion]:
    """Yields the rows of a block, at most `limit` at a time.

    A record has as many rows as its flat tensors have instances; without them, as many as all its tensors agree on;
    otherwise one: a record without tensors, of an empty batch, or whose tensors do not agree is one row.
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
    total = int(sizes.sum())
    step = limit or max(total, 1)
    for start in range(0, total, step):
        rows = np.arange(start, min(start + step, total), dtype=np.int64)
        records = np.searchsorted(firsts, rows, side="right") - 1
        yield Explosion(sizes, firsts, start, records, rows - firsts[records])


def instances(column: TensorColumn) -> Integers:
    """Instances per record, 0 where absent. A tensor without elements counts as one whatever its shape says: shapes are
    the client's, and [10**9, 0] must not become 10**9 rows."""
    empty = (column.modes == ColumnMode.VALUES) & (np.diff(column.starts) == 0)
    return np.where(empty, 1, column.leads)
