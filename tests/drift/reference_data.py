"""Real data with a known answer, read from the wheels that carry them; the packages themselves are not imported."""

import csv
import gzip
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

Table = dict[str, npt.NDArray[Any]]
FLIGHT_FEATURES = ("CANCELLED", "AIRLINE", "DEPARTURE_DELAY", "TAXI_OUT", "AIR_TIME", "DISTANCE")


def folder(package: str) -> Path:
    """Where an installed package lies."""
    spec = find_spec(package)
    assert spec is not None, f"{package} is not installed: make test installs it"
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def flights() -> Table:
    """100 000 flights in the USA in 2015, by day: the features, and DATE. On 2015-06-30 one airline was last seen."""
    rows: list[dict[str, str]] = []
    for part in ("", "_reference"):
        path = folder("popmon") / "test_data" / f"flight_delays{part}.csv.gz"
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows += csv.DictReader(file)
    rows.sort(key=lambda row: row["DATE"])
    result: Table = {"DATE": np.array([row["DATE"] for row in rows])}
    for name in FLIGHT_FEATURES:
        if name == "AIRLINE":
            result[name] = np.array([row[name] or None for row in rows], object)
        else:
            result[name] = np.array([float(row[name]) if row[name] else np.nan for row in rows])
    return result


def days(table: Table, first: str, last: str) -> Iterator[tuple[str, Table]]:
    """The rows of each day from `first` to before `last`."""
    dates = table["DATE"]
    for day in np.unique(dates[(dates >= first) & (dates < last)]).tolist():
        yield day, rows(table, dates == day)


def rows(table: Table, chosen: npt.NDArray[Any]) -> Table:
    return {name: values[chosen] for name, values in table.items()}


@cache
def census(part: str) -> Table:
    """Employment in Massachusetts from the American Community Survey: "reference" is 2015, "analysis" 2016 to 2018."""
    result = pq.read_table(folder("nannyml") / "datasets" / "data" / f"employment_MA_{part}.pq")
    table: Table = {}
    for name in result.column_names:
        values = result.column(name).to_numpy(zero_copy_only=False)
        table[name] = values.astype(object) if values.dtype.kind in "OU" else values
    return table
