"""A segment as parts of bounded size: each becomes files of the lake by itself, so that memory is that of one part."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.records.lake import parquet
from gateway.records.lake.label_table import label_tables
from gateway.records.lake.layout import predictions_folder
from gateway.records.worker.reading import SegmentContent
from gateway.records.worker.segment import Segment
from gateway.records.worker.stream_schema import StreamSchema

_PART_BYTES = 96 << 20  # of rows in memory, about


@dataclass(frozen=True, slots=True)
class SegmentPart:
    """Some of the rows of a segment, as folder, file name and rows of each file; the last part has the labels too."""

    number: int
    files: list[tuple[str, str, Any]]
    records: int
    last: bool


def parts(content: SegmentContent, segment: Segment) -> Iterator[SegmentPart]:
    """Yields the parts in order, at least one. They and the names of their files follow from the segment alone.

    Raises: DECODE_ERRORS (rows of one schema do not fit together).
    """
    number = size = 0
    groups: dict[StreamSchema | tuple[str, str, str], list[Any]] = {}
    records = 0
    for block in content.blocks():
        schema = block.schema
        key = (schema.model, schema.version, schema.shape_hash)
        body_bytes = sum(column.values.nbytes for column in (*block.inputs, *block.outputs))
        rows = 0
        for table in parquet.tables(block, segment):
            if size >= _PART_BYTES:
                yield SegmentPart(number, _files(groups, segment, number), records, last=False)
                number, size, records, groups = number + 1, 0, 0, {}
            groups.setdefault(key, []).append(table)
            rows += table.num_rows
            size += table.num_rows * parquet.row_bytes(schema)
        size += body_bytes
        records += len(block.table)
    files = _files(groups, segment, number)
    base = _base(segment, 0)
    files += [(folder, f"{base}.parquet", rows) for folder, rows in label_tables(content.labels, segment)]
    yield SegmentPart(number, files, records, last=True)


def _files(groups: dict[Any, list[Any]], segment: Segment, number: int) -> list[tuple[str, str, Any]]:
    base = _base(segment, number)
    return [
        (f"{predictions_folder(model, version)}/{partition}", f"{base}-{shape}.parquet", rows)
        for (model, version, shape), tables in groups.items()
        for partition, rows in parquet.split_by_hour(parquet.join(tables))
    ]


def _base(segment: Segment, number: int) -> str:
    base = f"{segment.gateway}-{segment.worker}-{segment.boot}-{segment.seq}-{segment.seq}"
    return f"{base}.{number}" if number else base
