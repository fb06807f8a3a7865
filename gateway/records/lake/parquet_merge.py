"""Several Parquet files of one schema as one, read and written row group by row group."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gateway.records.lake.damaged_parquet import reading
from gateway.records.lake.parquet import ROW_GROUP, join, keep_names, write_options

_HELD_BYTES = 64 << 20  # of rows that wait to become a row group


def alike(paths: Sequence[Path]) -> list[Path]:
    """Returns those with the columns of the first.

    Raises: OSError, DamagedParquet.
    """
    schemas = [_schema(path) for path in paths]
    return [path for path, schema in zip(paths, schemas, strict=True) if schema.equals(schemas[0])]


def merge(paths: Sequence[Path], target: Path) -> int:
    """Writes the rows of all files, in order, to the target, which is durable then; returns how many there are.

    Units: memory is that of one row group of a source and of one to be written.
    Raises: OSError, DamagedParquet.
    """
    schema = _schema(paths[0])
    rows = 0
    with target.open("wb") as file:
        with pq.ParquetWriter(file, schema, **write_options(schema)) as writer:
            for table in _row_groups(paths):
                writer.write_table(table, row_group_size=ROW_GROUP)
                rows += table.num_rows
            keep_names(writer, schema)
        file.flush()
        os.fsync(file.fileno())
    return rows


def count(path: Path) -> int:
    """Returns the rows that the file says it has. Raises: OSError, DamagedParquet."""
    with reading(path):
        return int(pq.read_metadata(path).num_rows)


def _schema(path: Path) -> pa.Schema:
    with reading(path):
        return pq.read_schema(path)


def _row_groups(paths: Sequence[Path]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    rows = size = 0
    for path in paths:
        with reading(path), pq.ParquetFile(path, page_checksum_verification=True) as source:
            for index in range(source.num_row_groups):
                part = source.read_row_group(index)
                if held and (rows + part.num_rows > ROW_GROUP or size + part.nbytes > _HELD_BYTES):
                    yield join(held)
                    held, rows, size = [], 0, 0
                held.append(part)
                rows += part.num_rows
                size += part.nbytes
    if held:
        yield join(held)
