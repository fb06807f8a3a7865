"""A large synthetic lake, written fast, to measure reports on: `python -m loadtests.lake DIR --rows 10000000`.

Twenty features (sixteen numbers, two whole numbers, two texts), two scores, labels for a share of the rows; over the
last third of the time one number has moved and one text has changed. The files are those that the compactor writes.
"""

import argparse
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gateway.records.lake import parquet
from gateway.records.lake.layout import labels_folder, predictions_folder

MODEL = "synthetic"
NUMBERS, WHOLE, TEXTS = 16, 2, 2
START_US = 1_793_491_200_000_000  # 2026-11-01
_DAY_US = 86_400_000_000
_HOUR_US = 3_600_000_000


def rows_of(
    start_us: int, length_us: int, first: int, count: int, *, moved: bool, rng: np.random.Generator
) -> pa.Table:
    """So many rows spread over that time, with ids from `first` on."""
    numbers = rng.normal(size=(NUMBERS, count)).astype("<f4")
    if moved:
        numbers[0] += 0.5
    whole = rng.poisson(7, size=(WHOLE, count)).astype("<i8")
    names = np.array(["north", "south", "east", "west", "other"])
    shares = [0.4, 0.3, 0.2, 0.05, 0.05] if not moved else [0.1, 0.3, 0.5, 0.05, 0.05]
    score = (1 / (1 + np.exp(-numbers[0] + numbers[1]))).astype("<f4")
    hashes = _hashes(np.arange(first, first + count, dtype=np.uint64))
    zeros = np.zeros(count, "<i4")

    def constant(value: str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(zeros), pa.array([value]))

    columns = {
        "ts": pa.array(np.sort(start_us + rng.integers(0, length_us, count))).cast(pa.timestamp("us", "UTC")),
        "request_id": pa.array(np.char.mod("%016x", hashes)),
        "request_hash": pa.array(hashes),
        "row_index": pa.array(zeros),
        "batch_size": pa.array(zeros + 1),
        "model": constant(MODEL),
        "version": constant("1"),
        "arm": constant("stable"),
        "is_shadow": pa.array(np.zeros(count, bool)),
        "primary_version": constant("1"),
        "rule_rev": pa.array(np.full(count, 3, "<i8")),
        "reason": constant("SPLIT"),
        "status": pa.array(np.zeros(count, "<i2")),
        "total_us": pa.array(rng.integers(100, 900, count).astype("<i4")),
        "sample_p": pa.array(np.ones(count, "<f4")),
    }
    columns |= {f"f.x_{index}": pa.array(values) for index, values in enumerate(numbers)}
    columns |= {f"f.n_{index}": pa.array(values) for index, values in enumerate(whole)}
    for index in range(TEXTS):
        codes = rng.choice(5, count, p=shares if index == 0 else None).astype("<i4")
        columns[f"f.t_{index}"] = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(names)).cast(pa.string())
    columns |= {"out.p_0": pa.array(1 - score), "out.p_1": pa.array(score)}
    columns |= {
        "pred_class": pa.array((score >= 0.5).astype("<i4")),
        "pred_score": pa.array(np.maximum(score, 1 - score)),
    }
    return pa.table(columns)


def write_lake(
    lake: Path, rows: int, days: int, files_per_hour: int, *, labelled: float = 0.1, seed: int = 0
) -> Iterator[int]:
    """Writes the lake; yields the rows of each file as it is there."""
    rng = np.random.default_rng(seed)
    files = days * 24 * files_per_hour
    length_us = _HOUR_US // files_per_hour
    boot = uuid.UUID(int=seed)
    for index in range(files):
        first, last = rows * index // files, rows * (index + 1) // files
        start_us = START_US + index * length_us
        table = rows_of(start_us, length_us, first, last - first, moved=index >= files * 2 // 3, rng=rng)
        hour = str(np.datetime64(start_us // _HOUR_US, "h"))
        partition = f"{predictions_folder(MODEL, '1')}/date={hour[:10]}/hour={hour[11:]}"
        parquet.publish(table, lake, partition, f"gw-w0-{boot}-{index}-{index}-0a0a0a0a.parquet")
        _write_labels(lake, table, start_us, index, labelled, rng)
        yield last - first


def _write_labels(
    lake: Path, table: pa.Table, start_us: int, index: int, labelled: float, rng: np.random.Generator
) -> None:
    chosen = np.flatnonzero(rng.random(table.num_rows) < labelled)
    hashes = table.column("request_hash").to_numpy()[chosen]
    moments = pa.array(table.column("ts").cast(pa.int64()).to_numpy()[chosen] + 1).cast(pa.timestamp("us", "UTC"))
    received = pa.array(np.full(len(chosen), start_us + _HOUR_US)).cast(pa.timestamp("us", "UTC"))
    truth = rng.random(len(chosen)) < table.column("out.p_1").to_numpy()[chosen]
    nothing = pa.nulls(len(chosen), pa.string())
    labels = pa.table({
        "model": pa.array([MODEL] * len(chosen)), "request_id": nothing, "request_hash": pa.array(hashes),
        "row_index": pa.array(np.zeros(len(chosen), "<i4")), "label_num": pa.array(truth.astype("<f8")),
        "label_text": nothing, "reward": pa.nulls(len(chosen), pa.float64()), "label_ts": moments,
        "received_ts": received, "source": nothing, "record": pa.array(np.arange(len(chosen))),
    })  # fmt: skip
    day = str(np.datetime64(start_us // _DAY_US, "D"))
    parquet.publish(labels, lake, f"{labels_folder(MODEL)}/date={day}", f"gw-{index}.parquet")


def _hashes(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Well mixed 64-bit numbers, all different (the finaliser of SplitMix64)."""
    mixed = (numbers + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    return np.asarray(mixed * np.uint64(0x94D049BB133111EB), np.uint64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, help="a data directory; the lake becomes DIR/log/lake")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--files-per-hour", type=int, default=1, help="60 is what a worker writes that is never full")
    parser.add_argument("--labelled", type=float, default=0.1, help="share of the rows that get a label")
    given = parser.parse_args()
    began = time.monotonic()
    lake = given.data_dir / "log" / "lake"
    written = sum(write_lake(lake, given.rows, given.days, given.files_per_hour, labelled=given.labelled))
    print(f"{written} rows of model {MODEL!r} in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    main()
