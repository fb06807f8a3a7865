"""gateway log query: the prediction log in SQL."""

import csv
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from enum import StrEnum
from itertools import islice
from math import isfinite
from typing import Annotated, Any

import typer

from gateway.cli.exits import Exit, Failure
from gateway.cli.extra import analysis
from gateway.cli.lake_record import lake_directory
from gateway.cli.printing import Format, say, show, to_json
from gateway.cli.shared_options import DEFAULT_DATA_DIR, DataDir
from gateway.errors import GatewayError, InvalidArgument
from gateway.page.message_values import Value

_TABLE_ROWS = 1000


class QueryFormat(StrEnum):
    """The forms that the answer to a query can have."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"  # one array
    JSONL = "jsonl"  # one object a line, as they come


def query(
    sql: Annotated[str, typer.Argument(help="One SELECT of DuckDB's SQL; - reads it from standard input.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    model: Annotated[str, typer.Option("--model", help="Only this model's rows, which is faster.")] = "",
    output: Annotated[
        QueryFormat, typer.Option("-o", "--output", help="table for people, or for programs.")
    ] = QueryFormat.TABLE,
) -> None:
    """Ask the prediction log in SQL: the views are predictions, feedback and labels (the last label of each row).

    Reads what the compactor has written to Parquet, so the newest minute is not there yet. Rows and their labels are
    joined by request_hash and row_index. A gateway need not run; nothing but the log can be read, and nothing written.
    """
    text = sys.stdin.read() if sql == "-" else sql
    with analysis():
        from gateway.drift.report.lake_reader import Lake
    try:
        with Lake(lake_directory(data_dir)) as lake:
            answer = lake.query(text, model=model)
            _write_rows(answer.columns, answer.rows, output)
            for words in lake.left_out:
                say(words)
    except InvalidArgument as error:
        raise Failure(Exit.USAGE, str(error)) from None
    except GatewayError as error:
        raise Failure(Exit.REFUSED, str(error)) from None


def _write_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]], form: QueryFormat) -> None:
    if form is QueryFormat.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_shown(value) for value in row] for row in rows)
    elif form is QueryFormat.JSONL:
        for row in rows:
            sys.stdout.write(to_json(_object(columns, row)) + "\n")
    elif form is QueryFormat.JSON:
        before = "[\n"
        for row in rows:
            sys.stdout.write(before + to_json(_object(columns, row)))
            before = ",\n"
        sys.stdout.write("[]\n" if before == "[\n" else "\n]\n")
    else:
        shown = list(islice(rows, _TABLE_ROWS + 1))
        cells = [[_shown(value) for value in row] for row in shown[:_TABLE_ROWS]]
        show(None, Format.TABLE, columns=columns, rows=cells)
        if len(shown) > _TABLE_ROWS:
            say(f"more than {_TABLE_ROWS} rows: these are the first; -o csv writes all")
    sys.stdout.flush()


def _object(columns: Sequence[str], row: Sequence[Any]) -> dict[str, Value]:
    return {column: _json_value(value) for column, value in zip(columns, row, strict=True)}


def _json_value(value: Any) -> Value:
    """Returns a DuckDB value as a JSON value."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, datetime | date):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_json_value(item) for item in value]
    return str(value)  # a decimal, an interval, a UUID


def _shown(value: Any) -> str | int | float | None:
    cell = _json_value(value)
    if cell is None or (isinstance(cell, str | int | float) and not isinstance(cell, bool)):
        return cell
    return to_json(cell)
