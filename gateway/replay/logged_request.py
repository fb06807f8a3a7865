"""Requests of the lake, row by row put together again: what was sent, what was answered, and what is missing of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Literal

from gateway.drift.report.lake_reader import Lake
from gateway.drift.report.lake_selection import Selection
from gateway.drift.report.lake_sql import is_nested, quoted
from gateway.errors import InvalidArgument
from gateway.records.lake.lake_columns import names_listed
from gateway.records.worker.feature_names import FEATURE
from gateway.replay.logged_tensor import Missing, columns_of, tensor_of
from gateway.tensor import Array, TensorSpec

_METADATA: Final = {
    "request_id": "request_id", "row_index": "row_index", "batch_size": "batch_size", "version": "version",
    "digest": "version_digest", "arm": "arm", "ts_us": "epoch_us(ts)", "weight": "1 / sample_p::DOUBLE",
    "infer_us": "infer_us", "boot": "boot", "wal_seq": "wal_seq", "record": "record",
    "pred_class": "pred_class", "pred_score": "pred_score",
}  # fmt: skip
_REDACTED: Final = "redacted"
_SEGMENT: Final = "segment"
_SIZE: Final = 256
_CELLS_AT_ONCE: Final = 200_000


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """The chosen rows of one request. `whole` is whether these are all of its rows.

    Shapes: each of `columns` has a value for each row.
    """

    request_id: str
    version: str
    digest: str
    arm: str
    ts_us: int
    infer_us: int
    weight: float
    batch_size: int
    whole: bool
    redacted: frozenset[str]
    columns: Mapping[str, Sequence[Any]]

    @property
    def rows(self) -> int:
        return len(self.columns["row_index"])

    def tensors(self, specs: Sequence[TensorSpec], prefix: Literal["in", "out"]) -> dict[str, Array] | Missing:
        """Returns the tensors by name, or why one of them is not there; what may be left out is left out.

        Shapes: `specs` as the log has them (`run_message.as_logged`).
        """
        made: dict[str, Array] = {}
        for spec in specs:
            tensor = tensor_of(spec, prefix, self.columns, self.redacted, whole=self.whole)
            if not isinstance(tensor, str):
                made[spec.name] = tensor
            elif not (spec.optional and tensor == "absent"):
                return tensor
        return made

    def feature_cells(self, place: int, limit: int, names: Mapping[str, str]) -> dict[str, str | int | float | None]:
        """Returns the first features of one row, as they are shown: by `names`, else by their tensors."""
        made: dict[str, str | int | float | None] = {}
        for column in [column for column in self.columns if column.startswith(FEATURE)][:limit]:
            value = self.columns[column][place]
            name = names.get(column, column.removeprefix(FEATURE))
            made[name] = value if value is None or isinstance(value, int | float | str) else str(value)
        return made


def check_segments(lake: Lake, selection: Selection, by: str) -> None:
    """Checks that a column can tell rows apart. Raises: InvalidArgument (it is none, or has no single values)."""
    kinds = lake.columns(selection)
    kinds |= {FEATURE + name: kinds.get(place, "") for place, name in lake.feature_names(selection).items()}
    if by and kinds and (by not in kinds or is_nested(kinds[by])):
        plain = ", ".join(name for name, kind in kinds.items() if not is_nested(kind))
        raise InvalidArgument(f"--by {by!r} is no column of the log with single values; there are {plain}")


def logged_requests(
    lake: Lake,
    selection: Selection,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    by: str = "",
    share: float = 1.0,
) -> Iterator[LoggedRequest]:
    """Yields the requests of the selection in an order that means nothing, with the columns of these tensors.

    Shapes: `inputs` and `outputs` as the log has them.
    """
    kinds = lake.columns(selection)
    if not kinds:
        return
    tensors = [name for spec in inputs for name in columns_of(spec, "in")]
    tensors += [name for spec in outputs for name in columns_of(spec, "out")]
    expressions = dict(_METADATA)
    expressions |= {name: quoted(name) for name in dict.fromkeys(tensors) if name in kinds}
    expressions |= {_REDACTED: quoted(_REDACTED)} if _REDACTED in kinds else {}
    expressions |= {_SEGMENT: quoted(by)} if by else {}
    nested = any(is_nested(kinds[name]) for name in tensors if name in kinds)
    size = 16 if nested else max(1, min(_SIZE, _CELLS_AT_ONCE // len(expressions)))
    names = list(expressions)
    key = [names.index(name) for name in ("boot", "wal_seq", "record")]
    rows = (row for page in lake.requests(selection, expressions, share=share, size=size) for row in page)
    for _, group in groupby(rows, key=lambda row: [row[place] for place in key]):
        yield _request(names, list(group))


def _request(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> LoggedRequest:
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    first = {name: values[0] for name, values in columns.items()}
    return LoggedRequest(
        request_id=first["request_id"],
        version=first["version"],
        digest=first["digest"],
        arm=first["arm"],
        ts_us=first["ts_us"],
        infer_us=first["infer_us"],
        weight=float(first["weight"]),
        batch_size=first["batch_size"],
        whole=len(rows) == first["batch_size"],
        redacted=names_listed(first.get(_REDACTED)),
        columns=columns,
    )
