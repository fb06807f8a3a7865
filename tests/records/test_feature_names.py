"""The names that a configuration gives to features are those of the lake's columns: never a mixture, never in doubt."""

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.records.lake.stored_rows import stored_rows
from gateway.records.worker.feature_names import MAX_NAME, columns_by_place, from_metadata, name_features, places
from gateway.records.worker.record import Record
from gateway.records.worker.stream_schema import StreamSchema
from gateway.tensor import Datatype, TensorSpec
from tests.records.test_merging import LATER_S, reopened
from tests.records.traffic import LABEL, NOW_US, SCORES, X, append, compactor, open_log

TOWN = TensorSpec("town", Datatype.BYTES, (-1, 1))
IMAGE = TensorSpec("image", Datatype.UINT8, (-1, 2, 2))
ALL = "distance, delay,airline hub,Größe °C"


def named(text: str, *specs: TensorSpec) -> tuple[TensorSpec, ...]:
    inputs, why = name_features(specs or (X,), text)
    assert not why
    return inputs


def features_of(path: Path) -> list[str]:
    return [name for name in pq.read_schema(path).names if name.startswith("f.")]


def published(folder: Path) -> list[Path]:
    return sorted((folder / "lake").glob("predictions/**/*.parquet"))


def test_names_are_given_to_features_in_the_order_of_the_inputs() -> None:
    inputs = named("a,b,c,d,city", X, IMAGE, TOWN)
    assert [spec.features for spec in inputs] == [("a", "b", "c", "d"), (), ("city",)]
    assert name_features((IMAGE,), " ") == ((IMAGE,), "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b,c", "3 names for 4 features"),
        ("a,b,c,d,e", "5 names for 4 features"),
        ("", "0 names for 4 features"),
        ("a,b,,d", "'' must have 1 to 128 printable characters"),
        ("a,b,c,d\x07", "printable"),
        (f"a,b,c,{'d' * (MAX_NAME + 1)}", "1 to 128"),
        ("a,b,c,A", "'A' is there twice"),
        ("a,x_0,c,d", "'x_0' is what another feature is called"),
        ("a,X_0,c,d", "'X_0' is what another feature is called"),
    ],
)
def test_a_list_with_one_wrong_name_is_left_out_as_a_whole_and_says_why(text: str, why: str) -> None:
    inputs, said = name_features((X,), text)
    assert inputs == (X,)
    assert why in said
    assert said.startswith("parameters.feature_names: ")


@given(st.lists(st.text(max_size=8), max_size=6))
@example([])
@example(["x_0", "x_1", "x_2", "x_3"])
@example(["x_1", "x_0", "x_2", "x_3"])
def test_whatever_is_listed_every_column_has_one_meaning(names: list[str]) -> None:
    inputs, why = name_features((X,), ",".join(names))
    schema = StreamSchema("m", "1", "a", "d", inputs, (), features={s.name: s.features for s in inputs if s.features})
    columns = columns_by_place(schema)
    called = [columns.get(place, place).lower() for place in places(X)]
    assert len(set(called)) == 4
    for place in places(X):  # no place is the name of another feature
        assert place.lower() not in [columns.get(other, other).lower() for other in places(X) if other != place]
    assert bool(why) != any(spec.features for spec in inputs)
    assert StreamSchema.from_json(schema.to_json()).features == schema.features


def test_a_change_of_names_is_a_new_schema_and_none_is_the_one_of_earlier_releases() -> None:
    def schema(**features: tuple[str, ...]) -> StreamSchema:
        return StreamSchema("m", "1", "a", "d", (X,), (), features=features)

    hashes = {schema().shape_hash, schema(x=("a", "b", "c", "d")).shape_hash, schema(x=("b", "a", "c", "d")).shape_hash}
    assert len(hashes) == 3
    document = json.loads(schema().to_json())
    del document["features"]
    older = StreamSchema.from_json(json.dumps(document).encode())
    assert (older.features, older.shape_hash) == ({}, schema().shape_hash)


async def change_of_names(folder: Path) -> list[Path]:
    """One segment whose version was reloaded with names, and then with other names."""
    log = open_log(folder / "wal")
    for text in ("", ALL, "far,late,hub,size"):
        inputs = named(text) if text else (X,)
        stream = log.stream("flights", "1", "stable", inputs, (LABEL, SCORES), "sha256:aa")
        append(stream, f"id-{text[:3]}", rows=2)
    await log.close()
    compactor(folder / "wal", folder / "lake").step()
    return published(folder)


async def test_columns_have_the_names_and_no_file_mixes_them(tmp_path: Path) -> None:
    files = await change_of_names(tmp_path)
    assert sorted(map(features_of, files)) == sorted(
        [
            ["f.x_0", "f.x_1", "f.x_2", "f.x_3"],
            ["f.distance", "f.delay", "f.airline hub", "f.Größe °C"],
            ["f.far", "f.late", "f.hub", "f.size"],
        ]
    )
    for path in files:
        told = from_metadata(pq.read_schema(path).metadata)
        assert [told.get(place, place) for place in places(X)] == features_of(path)
    seed = float(sum(b"id-dis"))
    rows = [row.value for path in files for batch in stored_rows(path) for row in batch]  # what sinks send
    (first,) = [row for row in map(json.loads, rows) if row["request_id"] == "id-dis" and row["row_index"] == 0]
    assert [first[name] for name in ("f.distance", "f.delay", "f.airline hub", "f.Größe °C")] == [
        seed + place for place in range(4)
    ]


async def test_every_reader_finds_the_names(tmp_path: Path) -> None:
    files = await change_of_names(tmp_path)
    folder = str(tmp_path / "lake" / "predictions")
    together = pd.concat([pd.read_parquet(path) for path in files], ignore_index=True)
    frames = [pl.scan_parquet(path) for path in files]
    read: dict[str, list[dict[str, Any]]] = {
        "pandas": together.to_dict("records"),
        "polars": pl.concat(frames, how="diagonal_relaxed").collect().to_dicts(),
        "duckdb": duckdb.execute(f"SELECT * FROM read_parquet('{folder}/**/*.parquet', union_by_name = true)")
        .df()
        .to_dict("records"),
    }
    for path in files:
        read[f"pyarrow {path.name}"] = ds.dataset(str(path)).to_table().to_pylist()
    for name, rows in read.items():
        for row in rows:
            seed = float(sum(row["request_id"].encode()))
            values = [row[key] for key in row if key.startswith("f.") and not pd.isna(row[key])]
            assert values == [seed + row["row_index"] * 4 + place for place in range(4)], name


async def test_merged_files_keep_their_names_and_take_no_others(tmp_path: Path) -> None:
    for number in range(3):
        log = open_log(tmp_path / "wal", worker=f"w{number}")
        for text in (ALL, "far,late,hub,size"):
            stream = log.stream("flights", "1", "stable", named(text), (LABEL, SCORES), "sha256:aa")
            append(stream, f"{number}.{text[:3]}", rows=2)
        await log.close()
    worker = reopened(tmp_path)
    for _ in range(4):
        worker.step()
    files = published(tmp_path)
    assert LATER_S > NOW_US / 1e6
    assert [path.name.startswith("merged-") for path in files] == [True, True]
    for path in files:
        assert pq.read_metadata(path).num_rows == 6
        assert list(from_metadata(pq.read_schema(path).metadata).values()) == features_of(path)


async def test_tensors_that_are_hidden_or_missing_shift_no_name(tmp_path: Path) -> None:
    log = open_log(tmp_path / "wal")
    inputs = named("a,b,c,d,city", X, IMAGE, TOWN)
    stream = log.stream("m", "1", "a", inputs, (), "d")
    x = np.arange(4, dtype="<f4").reshape(1, 4)
    town = np.array([[b"Rome"]], object)
    stream.append(Record(NOW_US, "r", 0, "S", 1, 1, 1, 0, 0, 0, [x.shape, (1, 2, 2), (1, 1)], (x, bytes(4), town), ()))
    await log.close()
    compactor(tmp_path / "wal", tmp_path / "lake").step()
    (row,) = pq.read_table(published(tmp_path)[0], partitioning=None).to_pylist()
    assert [row[f"f.{name}"] for name in ("a", "b", "c", "d", "city")] == [0, 1, 2, 3, "Rome"]
    assert row["in.image"] == [0, 0, 0, 0]
