"""Which rows of the prediction log are asked for, how many they are, and what an operator's query gives."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.drift.report.feature_columns import FeatureNaming
from gateway.drift.report.span import Span
from gateway.records.worker.sampling import CHOSEN_COPY

Array = npt.NDArray[Any]
# What is said of rows that `chosen` asks for.
CHOSEN: Final = "copies that a mirror with `log: diffs` kept, which are a choice and no sample"


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows of a model: those of a span of time, of some versions and arms (all, where none is named), that meet the
    condition `where`, an SQL expression over the columns of `predictions`. `shadow`: copies that a mirror ran, but
    for those that were kept because they differ; `chosen`: these alone. `failed`: requests that failed as well.

    `naming` says what the places of features are called, where it is not what the newest of the files say. `as_sent`: a
    place is that of the request's own tensor, whatever the versions call it."""

    model: str
    span: Span
    versions: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    where: str = ""
    shadow: bool = False
    chosen: bool = False
    failed: bool = False
    naming: FeatureNaming = field(default_factory=FeatureNaming)
    as_sent: bool = False

    @property
    def copies(self) -> str:
        """Returns which of copies and answers are asked for, as an SQL condition."""
        if self.chosen:
            return f"is_shadow AND reason = '{CHOSEN_COPY}'"
        return f"is_shadow AND reason IS DISTINCT FROM '{CHOSEN_COPY}'" if self.shadow else "NOT is_shadow"


@dataclass(frozen=True, slots=True, eq=False)
class Census:
    """Tells how many rows a selection has, by version, arm and minute.

    Shapes: [groups] each; `weights` sums 1 / sample_p, `squares` their squares.
    """

    versions: Array
    arms: Array
    minutes_us: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]

    @property
    def total(self) -> int:
        return int(self.rows.sum())

    @property
    def sampled(self) -> bool:
        """Returns whether some rows stand for more than themselves."""
        return bool((self.weights > self.rows * (1 + 1e-9)).any())


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The rows of an operator's query as they come."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]
