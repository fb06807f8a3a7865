"""The record of a request that the compactor has moved to Parquet; it is read on the gateway's host."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.cli.exits import Exit, Failure
from gateway.cli.extra import analysis
from gateway.errors import Code, GatewayError
from gateway.pb import control_pb2


def lake_directory(data_dir: Path) -> Path:
    """Returns where the compactor of the gateway with that data directory writes; nothing has to be there yet.

    Raises: Failure (there is no such data directory: an empty log would be read, and "nothing is known" be said of it).
    """
    if not data_dir.is_dir():
        raise Failure(
            Exit.REFUSED, f"there is no data directory {str(data_dir)!r}: name the gateway's own with --data-dir"
        )
    return data_dir / "log" / "lake"


def lake_record(data_dir: Path, model: str, request_id: str) -> control_pb2.LogRow | None:
    """Returns the newest record of the request that answered its caller, or None.

    Raises: Failure (there is no log; the Parquet reader is not installed, or fails).
    """
    directory = lake_directory(data_dir)
    if not directory.is_dir():
        raise Failure(Exit.REFUSED, f"no prediction log at {directory}: name the gateway's own with --data-dir")
    with analysis():
        from gateway.drift.report.lake_reader import Lake
        from gateway.drift.report.lake_sql import text
    sql = (
        f"SELECT *, epoch_us(ts) AS ts_us FROM predictions WHERE request_id = {text(request_id)} AND NOT is_shadow "
        "ORDER BY ts DESC LIMIT 1"
    )
    try:
        with Lake(directory) as lake:
            answer = lake.query(sql, model=model)
            cells = next(answer.rows, None)
    except GatewayError as error:
        raise Failure(Exit.REFUSED, str(error)) from None
    return _row(dict(zip(answer.columns, cells, strict=True))) if cells is not None else None


def _row(cells: Mapping[str, Any]) -> control_pb2.LogRow:
    return control_pb2.LogRow(
        ts_us=cells["ts_us"],
        model=cells["model"],
        version=cells["version"],
        arm=cells["arm"],
        revision=cells["rule_rev"],
        reason=cells["reason"],
        request_id=cells["request_id"],
        code=Code(cells["status"]).name,
        queue_us=cells["queue_us"],
        infer_us=cells["infer_us"],
        total_us=cells["total_us"],
        rows=cells["batch_size"],
        worker=cells["worker"],
        bucket=cells["bucket"],
    )
