"""Records without anything special: kept column by column from the moment they are appended."""

import struct
from collections.abc import Iterator

from gateway.records.worker.block import HEAD, PACKED_ROW, Layout, reason_parts
from gateway.records.worker.frame import Kind
from gateway.records.worker.record import Logged, Record
from gateway.records.worker.stream_schema import StreamSchema, fixed_bytes


class PlainRecords:
    """Records without anything special, column by column, so that encoding them is joining them.

    Each succeeded, gave all inputs and was given all outputs, and all of them are buffers whose sizes follow from the
    schema and the rows. `tensors` holds the inputs and outputs of one record after the other.
    """

    __slots__ = ("ids", "reasons", "rows", "table", "tensors")

    def __init__(self) -> None:
        self.table: list[bytes] = []
        self.ids: list[bytes] = []
        self.tensors: list[Logged | None] = []
        self.reasons: dict[str, int] = {}
        self.rows = 0

    def __len__(self) -> int:
        return len(self.table)

    def runs(self, schema: StreamSchema, limit: int) -> "Iterator[PlainRecords]":
        """The records in runs of at most `limit`."""
        if len(self) <= limit:
            yield self
            return
        width = len(schema.inputs) + len(schema.outputs)
        for start in range(0, len(self), limit):
            run = PlainRecords()
            run.table = self.table[start : start + limit]
            run.ids = self.ids[start : start + limit]
            run.tensors = self.tensors[start * width : (start + limit) * width]
            run.reasons = self.reasons
            run.rows = sum(PACKED_ROW.unpack(row)[3] for row in run.table)
            yield run

    def records(self, schema: StreamSchema) -> list[Record]:
        """The same records one by one, in the form that is looked at in detail."""
        split, width = len(schema.inputs), len(schema.inputs) + len(schema.outputs)
        reasons = list(self.reasons)
        found: list[Record] = []
        for place, (row, name) in enumerate(zip(self.table, self.ids, strict=True)):
            ts, revision, bucket, rows, queue, infer, total, code, why, _, kept, sample_p = PACKED_ROW.unpack(row)
            own = self.tensors[place * width : (place + 1) * width]
            outputs = [tensor for tensor in own[split:] if tensor is not None]
            found.append(
                Record(
                    ts, name.decode(), code, reasons[why], revision, bucket, rows, queue, infer, total,
                    None, own[:split], outputs, None, sample_p, kept,
                )
            )  # fmt: skip
        return found


def encode_plain(
    schema: StreamSchema, stream: int, plain: PlainRecords, *, first_record: int, payload: bool = True
) -> bytes:
    """The body of a ROWS frame, the same that `encode` would make.

    Raises: ENCODE_ERRORS (a tensor is no buffer of contiguous memory, or not of the size that schema and rows give).
    """
    head = HEAD.pack(Kind.ROWS, 0, 0, stream, len(plain), first_record)
    parts = [head, *plain.table, *reason_parts(plain.reasons), *plain.ids]
    specs = (*schema.inputs, *schema.outputs)
    for index, spec in enumerate(specs):
        data = b"".join(plain.tensors[index :: len(specs)]) if payload else b""  # type: ignore[arg-type]  # buffers
        if payload and len(data) != fixed_bytes(spec) * plain.rows:
            raise ValueError(f"tensor {spec.name!r} has {len(data)} bytes in {plain.rows} rows")
        parts += (struct.pack("<B", Layout.DENSE), bytes([payload]) * len(plain), struct.pack("<Q", len(data)), data)
    return b"".join(parts)
