"""Columns of Arrow tables, of Parquet and of CSV files as numpy arrays. Imports pyarrow, which a worker never loads."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gateway.errors import InvalidArgument


class Values(NamedTuple):
    """One column.

    Shapes: `values` [rows], numbers, or indices into `texts`; `missing` [rows] is true where there is a null, None
            where there is none.
    """

    values: npt.NDArray[np.generic]
    missing: npt.NDArray[np.bool_] | None
    texts: tuple[str, ...] | None


def column(rows: pa.Table, name: str) -> Values | None:
    """The column of that name; None if there is none, or if it holds neither numbers nor texts."""
    if name not in rows.column_names:
        return None
    chunked = rows.column(name)
    whole = chunked.chunk(0) if chunked.num_chunks == 1 else chunked.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # what has no chunks cannot be combined
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], chunked.type)
    kind = whole.type
    missing = whole.is_null().to_numpy(zero_copy_only=False) if whole.null_count else None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        coded = whole if pa.types.is_dictionary(kind) else whole.dictionary_encode()
        if not pa.types.is_string(coded.dictionary.type) and not pa.types.is_large_string(coded.dictionary.type):
            return None
        codes = coded.indices.fill_null(0) if missing is not None else coded.indices
        texts = tuple(coded.dictionary.to_pylist())
        return Values(codes.to_numpy(zero_copy_only=False), missing, texts or ("",))
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        whole, kind = whole.cast(pa.timestamp("us")).cast(pa.int64()), pa.int64()
    elif pa.types.is_decimal(kind):
        whole, kind = whole.cast(pa.float64()), pa.float64()
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return None
    filled = whole.fill_null(False if pa.types.is_boolean(kind) else 0) if missing is not None else whole
    values = filled.to_numpy(zero_copy_only=False)
    return Values(values.astype(np.uint8) if values.dtype.kind == "b" else values, missing, None)


def any_true(rows: pa.Table, name: str) -> bool:
    """Returns whether a column of booleans has a true value; False where there is none."""
    return name in rows.column_names and bool(pc.any(rows.column(name)).as_py())


def without(rows: pa.Table, name: str, text: str) -> pa.Table:
    """Returns the rows whose text in that column is another one; all rows where there is no such column."""
    values = column(rows, name)
    if values is None or values.texts is None or text not in values.texts:
        return rows
    return rows.filter(pa.array(values.values != values.texts.index(text)))


def vectors(rows: pa.Table, name: str, width: int) -> npt.NDArray[np.float64] | None:
    """The column of lists of numbers, NaN for those of another length; None if there is no such column.

    Shapes: [rows, width].
    """
    if name not in rows.column_names or not pa.types.is_list(rows.schema.field(name).type):
        return None
    lists = pa.concat_arrays(rows.column(name).chunks) if rows.column(name).num_chunks else None
    if lists is None or not (pa.types.is_floating(lists.type.value_type) or pa.types.is_integer(lists.type.value_type)):
        return None
    starts, ends = (np.asarray(lists.offsets)[part].astype(np.int64) for part in (slice(None, -1), slice(1, None)))
    fitting = (ends - starts == width) & ~lists.is_null().to_numpy(zero_copy_only=False)
    values = lists.values.to_numpy(zero_copy_only=False).astype(np.float64)
    matrix = np.full((len(lists), width), np.nan)
    matrix[fitting] = values[starts[fitting][:, None] + np.arange(width)]
    return matrix


def read(path: Path, names: Collection[str] = ()) -> Mapping[str, Values]:
    """The columns of a .parquet or .csv file, in its order, or those of `names` in theirs.

    Raises: InvalidArgument (the file cannot be read, a column is not there or holds neither numbers nor texts).
    """
    known: list[str] = []
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                known = file.schema_arrow.names
                rows = file.read(columns=[name for name in known if not names or name in names])
        else:
            rows = pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(strings_can_be_null=True))
    except (OSError, pa.ArrowException) as error:
        raise InvalidArgument(f"{str(path)!r} cannot be read: {error}") from None
    columns: dict[str, Values] = {}
    for name in names or rows.column_names:
        values = column(rows, name)
        if values is None:
            known = known or rows.column_names
            holds = "holds neither numbers nor texts" if name in known else f"is not in it: {', '.join(known)}"
            raise InvalidArgument(f"{str(path)!r}: column {name!r} {holds}")
        columns[name] = values
    return columns
