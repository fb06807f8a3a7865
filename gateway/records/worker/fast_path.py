"""The fast path of the log: ordinary records, kept column by column from the moment they are appended."""

import struct
from collections.abc import Iterator

from gateway.records.worker.block import HEAD, PACKED_ROW, ColumnLayout, reason_parts
from gateway.records.worker.frame import FrameKind
from gateway.records.worker.record import Logged, Record
from gateway.records.worker.stream_schema import StreamSchema, fixed_bytes


class FastPathRecords:
    """Ordinary records, column by column: encoding them is joining them.

    Each request succeeded, with all inputs and all outputs, and each tensor is a buffer whose size follows from schema
    and rows. `tensors` holds the inputs and outputs of one record after the other.
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

    def runs(self, schema: StreamSchema, limit: int, limit_bytes: int) -> "Iterator[FastPathRecords]":
        """Yields the records in runs of at most `limit`, and of about `limit_bytes`; a record is never split."""
        specs = (*schema.inputs, *schema.outputs)
        row_bytes = sum(fixed_bytes(spec) for spec in specs)
        if len(self) <= limit and row_bytes * self.rows <= limit_bytes:
            yield self
            return
        rows = [PACKED_ROW.unpack(row)[3] for row in self.table]
        start = 0
        while start < len(self):
            end, run_rows = start + 1, rows[start]
            while end < len(self) and end - start < limit and (run_rows + rows[end]) * row_bytes <= limit_bytes:
                run_rows += rows[end]
                end += 1
            run = FastPathRecords()
            run.table = self.table[start:end]
            run.ids = self.ids[start:end]
            run.tensors = self.tensors[start * len(specs) : end * len(specs)]
            run.reasons = self.reasons
            run.rows = run_rows
            yield run
            start = end

    def records(self, schema: StreamSchema) -> list[Record]:
        """Returns the same records one by one, for encoding in detail."""
        split, width = len(schema.inputs), len(schema.inputs) + len(schema.outputs)
        reasons = list(self.reasons)
        records: list[Record] = []
        for place, (row, name) in enumerate(zip(self.table, self.ids, strict=True)):
            ts, revision, bucket, rows, queue, infer, total, code, why, _, kept, sample_p = PACKED_ROW.unpack(row)
            own = self.tensors[place * width : (place + 1) * width]
            outputs = [tensor for tensor in own[split:] if tensor is not None]
            records.append(
                Record(
                    ts, name.decode(), code, reasons[why], revision, bucket, rows, queue, infer, total,
                    None, own[:split], outputs, None, sample_p, kept,
                )
            )  # fmt: skip
        return records


def encode_fast_path(
    schema: StreamSchema, stream: int, fast_path: FastPathRecords, *, first_record: int, payload: bool = True
) -> bytes:
    """Returns the body of a ROWS frame, the same that `encode` would make.

    Raises: ENCODE_ERRORS (a tensor is no buffer of contiguous memory, or not of the size that schema and rows give).
    """
    head = HEAD.pack(FrameKind.ROWS, 0, 0, stream, len(fast_path), first_record)
    parts = [head, *fast_path.table, *reason_parts(fast_path.reasons), *fast_path.ids]
    specs = (*schema.inputs, *schema.outputs)
    for index, spec in enumerate(specs):
        data = b"".join(fast_path.tensors[index :: len(specs)]) if payload else b""  # type: ignore[arg-type]  # buffers
        if payload and len(data) != fixed_bytes(spec) * fast_path.rows:
            raise ValueError(f"tensor {spec.name!r} has {len(data)} bytes in {fast_path.rows} rows")
        parts += (
            struct.pack("<B", ColumnLayout.DENSE),
            bytes([payload]) * len(fast_path),
            struct.pack("<Q", len(data)),
            data,
        )
    return b"".join(parts)
