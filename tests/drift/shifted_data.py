"""Data whose drift is known: houses of other regions (the inputs shift), weather named otherwise (the labels do)."""

import csv
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.drift.reference_data import folder

Array = npt.NDArray[Any]
_HOUSE = ("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude")
_WEATHER = ("precipitation", "temp_max", "temp_min", "wind")


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Rows with a model's score for class 1 and the class that came true. Shapes: [rows, 8], [rows], [rows]."""

    inputs: Array
    scores: Array
    labels: Array


@dataclass(frozen=True, slots=True, eq=False)
class Weather:
    """Days in Seattle. Shapes: [days, 4], [days], [days]."""

    inputs: Array
    labels: Array
    years: Array


@cache
def california_housing() -> tuple[Scored, Scored]:
    """The reference, and the later rows, of which other regions come in turn; both in the order of their time."""
    data = folder("nannyml") / "datasets" / "data"
    tables = {part: _read(data / f"california_housing_{part}.csv") for part in ("reference", "analysis", "analysis_gt")}
    assert [row["id"] for row in tables["analysis"]] == [row["id"] for row in tables["analysis_gt"]]
    return _scored(tables["reference"], tables["reference"]), _scored(tables["analysis"], tables["analysis_gt"])


@cache
def seattle_weather() -> Weather:
    """1461 days from 2012 to 2015. A wet day is "rain" in 2012, and mostly "fog" in 2014: the labelling changed."""
    rows = _read(folder("vega_datasets") / "_data" / "seattle-weather.csv")
    return Weather(
        np.array([[float(row[name]) for name in _WEATHER] for row in rows]),
        np.array([row["weather"] for row in rows], object),
        np.array([int(row["date"][:4]) for row in rows]),
    )


def _scored(rows: list[dict[str, str]], truth: list[dict[str, str]]) -> Scored:
    return Scored(
        np.array([[float(row[name]) for name in _HOUSE] for row in rows]),
        np.array([float(row["y_pred_proba"]) for row in rows]),
        np.array([float(row["clf_target"]) for row in truth]),
    )


def _read(path: Any) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
