"""The lake as others read it: the examples of docs/log.md, run as they are there, across models and versions."""

import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from gateway.drift.report.lake_reader import Lake
from gateway.records.lake.lake_columns import LABEL_COLUMNS, PREDICTION_COLUMNS
from gateway.records.lake.retention import lake_files
from gateway.records.worker.record import Record
from gateway.tensor import Datatype, TensorSpec
from tests.records.labels import label, open_labels
from tests.records.traffic import NOW_US, append, compactor, open_log, open_stream

DOCS = Path(__file__).parents[2] / "docs" / "log.md"
READERS = ("pandas", "pyarrow", "polars", "duckdb")
# By library, and whether it is the one for versions with other tensors.
EXAMPLES = {
    (next(name for name in READERS if f"import {name}" in code), "everything" in code): code
    for code in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
}
HOUR_US = 3_600_000_000
# Of every row of every file, whatever the model: what readers may rely on.
TYPES = {
    "ts": pa.timestamp("us", "UTC"), "request_id": pa.string(), "request_hash": pa.uint64(), "row_index": pa.int32(),
    "batch_size": pa.int32(), "model": pa.string(), "version": pa.string(), "version_digest": pa.string(),
    "arm": pa.string(), "is_shadow": pa.bool_(), "primary_version": pa.string(), "rule_rev": pa.int64(),
    "reason": pa.string(), "bucket": pa.int32(), "status": pa.int16(), "queue_us": pa.int64(), "infer_us": pa.int64(),
    "total_us": pa.int64(), "sample_p": pa.float32(), "sample_reason": pa.string(), "redaction_rev": pa.int32(),
    "redacted": pa.string(), "gateway": pa.string(), "worker": pa.string(), "boot": pa.binary(16),
    "wal_seq": pa.int64(), "record": pa.int64(), "pred_class": pa.int32(), "pred_score": pa.float32(),
}  # fmt: skip


@pytest.fixture
async def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake of versions that are numbers and names, with tensors that differ, and of a model named by a number."""
    data = tmp_path / "data" / "log"
    log = open_log(data / "wal")
    for model, version in (("flights", "1"), ("flights", "2"), ("flights", "canary"), ("7", "1")):
        stream = open_stream(log, model=model, version=version)
        for number in range(3):
            append(stream, f"{model}-{version}-{number}", rows=2, ts_us=NOW_US + number * HOUR_US)
    wide = TensorSpec("x", Datatype.FP64, (-1, 2)), TensorSpec("image", Datatype.UINT8, (-1, 2, 2))
    other = log.stream("flights", "3", "stable", wide, (TensorSpec("label", Datatype.INT32, (-1,)),), "sha256:cc")
    label_values = np.array([7], "<i4").tobytes()
    other.append(Record(NOW_US, "wide", 0, "S", 1, 1, 1, 0, 0, 0, None, (bytes(16), bytes(4)), (label_values,)))
    await log.close()
    labels = open_labels(data / "wal")
    await labels.write([label("flights-1-0"), label("flights-canary-1", row=1), label("7-1-0", model="7")])
    await labels.close()
    compactor(data / "wal", data / "lake").step()
    monkeypatch.chdir(tmp_path)
    return data / "lake"


def run(name: str, *, everything: bool = False) -> dict[str, Any]:
    """What the example of that library leaves behind."""
    names: dict[str, Any] = {}
    exec(EXAMPLES[name, everything], names)
    return names


def test_the_documents_show_every_reader() -> None:
    assert set(EXAMPLES) == {(name, everything) for name in READERS for everything in (False, True)}


def test_no_key_of_a_folder_is_a_column_and_what_every_row_has_is_of_one_type(lake: Path) -> None:
    files = sorted((lake / "predictions").rglob("*.parquet"))
    assert len(files) == 13
    for path in files:
        schema = pq.read_schema(path)
        assert {name: schema.field(name).type for name in TYPES} == TYPES
        assert not {part.partition("=")[0] for part in path.parts if "=" in part} & set(schema.names)
    for path in (lake / "labels").rglob("*.parquet"):
        schema = pq.read_schema(path)
        assert schema.field("request_id").type == pa.string()
        assert not {part.partition("=")[0] for part in path.parts if "=" in part} & set(schema.names)


@pytest.mark.usefixtures("lake")
def test_pandas() -> None:
    names = run("pandas")
    rows, joined = names["rows"], names["joined"]
    assert sorted(set(rows["version"])) == ["1", "2", "3", "canary"]
    assert len(rows) == 3 * 6 + 1
    assert set(joined["request_id"]) == set(joined["request_id_of_label"]) == {"flights-1-0", "flights-canary-1"}
    assert str(rows["ts"].dtype) == "datetime64[us, UTC]"
    everything = pd.read_parquet("data/log/lake/predictions")
    assert len(everything) == 4 * 6 + 1
    one = pd.read_parquet("data/log/lake/predictions/model_dir=flights/version_dir=v2")
    assert set(one["version"]) == {"2"}


@pytest.mark.usefixtures("lake")
def test_pyarrow() -> None:
    names = run("pyarrow")
    assert names["rows"].num_rows == 3 * 6 + 1
    assert set(names["rows"].column("version").to_pylist()) == {"1", "2", "3", "canary"}
    everything = names["lake"].to_table()
    assert everything.num_rows == 4 * 6 + 1
    assert set(everything.column("version_dir").to_pylist()) == {"v1", "v2", "v3", "vcanary"}
    one = ds.dataset("data/log/lake/predictions/model_dir=7", partitioning="hive").to_table()
    assert set(one.column("version").to_pylist()) == {"1"}


@pytest.fixture
async def mixed(lake: Path) -> Path:
    """A lake with versions in which tensors of one name are of other types: numbers, texts, and a list."""
    log = open_log(lake.parent / "wal", worker="w1")
    kinds = {
        "4": (Datatype.FP64, (Datatype.FP32, (-1,)), np.array([[1.5, 2, 3, 4]], "<f8"), np.array([7.5], "<f4")),
        "5": (Datatype.BOOL, (Datatype.INT8, (-1,)), np.array([[True, False, True, True]]), np.array([7], "i1")),
        "6": (Datatype.UINT64, (Datatype.FP64, (-1,)), np.array([[2**63, 1, 2, 3]], "<u8"), np.array([0.1], "<f8")),
        "7": (Datatype.BYTES, (Datatype.BYTES, (-1,)), np.array([list("abcd")], object), np.array(["late"], object)),
        "8": (Datatype.FP16, (Datatype.FP32, (-1, 2, 2)), np.ones((1, 4), "<f2"), np.ones((1, 2, 2), "<f4")),
    }
    for version, (kind, (answer_kind, shape), x, answer) in kinds.items():
        tensors = (TensorSpec("x", kind, (-1, 4)),), (TensorSpec("label", answer_kind, shape),)
        stream = log.stream("flights", version, "stable", *tensors, f"sha256:{version}")
        sent = [np.char.encode(x.astype(str)).astype(object), np.array([b"late"], object)] if version == "7" else []
        x, answer = sent or (x, answer)
        stream.append(Record(NOW_US, version, 0, "S", 1, 1, 1, 0, 0, 0, [x.shape], (x,), (answer,)))
    await log.close()
    compactor(lake.parent / "wal", lake).step()
    return lake


ALL_ROWS = {"1": 6, "2": 6, "canary": 6} | dict.fromkeys("345678", 1)


@pytest.mark.usefixtures("mixed")
def test_every_reader_takes_versions_whose_tensors_are_of_other_types_together() -> None:
    """By the commands of the documents: each row is there, with what it has in the columns that it has."""
    pandas = run("pandas", everything=True)["everything"]
    arrow = run("pyarrow", everything=True)["everything"]
    polars = run("polars", everything=True)["everything"]
    duck = run("duckdb", everything=True)["everything"]
    read: dict[str, list[dict[str, Any]]] = {
        "pandas": pandas.to_dict("records"),
        "pyarrow": arrow.to_pylist(),
        "polars": polars.to_dicts(),
        "duckdb": duck.to_dict("records"),
    }
    for name, rows in read.items():
        versions = [row["version"] for row in rows]
        assert {version: versions.count(version) for version in versions} == ALL_ROWS, name
        values = {row["version"]: row["f.x_0"] for row in rows}
        assert str(values["7"]) == "a", name
        assert (float(values["4"]), int(float(values["6"]))) == (1.5, 2**63), name
        assert str(values["5"]).lower() in ("true", "1.0", "1"), name
        assert float(values["8"]) == 1.0, name
        assert pd.isna([row["f.x_3"] for row in rows if row["version"] == "canary"]).sum() == 0, name
    labels = {row["version"]: row["out.label"] for row in read["pandas"]}
    assert (labels["4"], labels["7"], list(labels["8"])) == (7.5, "late", [1.0] * 4)
    texts = {row["version"]: row["out.label"] for row in read["polars"]}
    assert (texts["4"], texts["5"], texts["7"], texts["8"]) == ("7.5", "7", "late", None)
    assert "out.label" not in arrow.column_names


@pytest.mark.usefixtures("mixed")
def test_columns_that_every_row_has_are_read_from_such_versions_without_more() -> None:
    wanted = ["version", "pred_score", "status"]
    folder = "data/log/lake/predictions/model_dir=flights"
    rows = sum(ALL_ROWS.values())
    assert len(pd.read_parquet(folder, columns=wanted)) == rows
    assert ds.dataset(folder, partitioning="hive").to_table(columns=wanted).num_rows == rows
    frames = [pl.scan_parquet(path).select(wanted) for path in Path(folder).rglob("*.parquet")]
    assert len(pl.concat(frames).collect()) == rows
    listed = duckdb.execute(f"SELECT {', '.join(wanted)} FROM '{folder}/**/*.parquet'").fetchall()
    assert len(listed) == rows


def test_polars(lake: Path) -> None:
    for path in (lake / "predictions" / "model_dir=flights" / "version_dir=v3").rglob("*.parquet"):
        path.rename(path.with_suffix(".away"))
    names = run("polars")
    assert sorted(set(names["rows"]["version"])) == ["1", "2", "canary"]
    assert names["rows"]["version"].dtype == pl.String
    for path in (lake / "predictions" / "model_dir=flights" / "version_dir=v3").rglob("*.away"):
        path.rename(path.with_suffix(".parquet"))
    everything = [pl.read_parquet(path) for path in (lake / "predictions").rglob("*.parquet")]
    together = pl.concat(everything, how="diagonal_relaxed")
    assert (len(together), set(together["model"])) == (4 * 6 + 1, {"flights", "7"})
    hive = pl.read_parquet(lake / "predictions" / "model_dir=7" / "**" / "*.parquet", hive_partitioning=True)
    assert set(hive["version_dir"]) == {"v1"}


@pytest.mark.usefixtures("lake")
def test_duckdb() -> None:
    rows = run("duckdb")["rows"]
    counts: dict[str, int] = {}
    for version, _, count, _ in rows:
        counts[version] = counts.get(version, 0) + count
    assert counts == {"1": 6, "2": 6, "3": 1, "canary": 6}
    (joined,) = duckdb.execute("""
        SELECT count(*) FROM read_parquet('data/log/lake/predictions/**/*.parquet', union_by_name = true) AS p
        JOIN read_parquet('data/log/lake/labels/**/*.parquet') AS l USING (model, request_id, row_index)
    """).fetchall()
    assert joined == (3,)


QUERIES = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)


def query(directory: Path, sql: str) -> list[dict[str, Any]]:
    with Lake(directory) as reader:
        result = reader.query(re.sub(r"--.*", "", sql).strip().rstrip(";"))
        return [dict(zip(result.columns, row, strict=True)) for row in result.rows]


def test_the_columns_that_every_row_has_are_those_that_are_promised(lake: Path) -> None:
    for columns, folder in ((PREDICTION_COLUMNS, "predictions"), (LABEL_COLUMNS, "labels")):
        for path in (lake / folder).rglob("*.parquet"):
            described = duckdb.execute(f"DESCRIBE SELECT * FROM read_parquet('{path}', hive_partitioning = false)")
            kinds = {name: kind for name, kind, *_ in described.fetchall()}
            assert {name: kinds[name] for name in columns} == columns
    assert list(PREDICTION_COLUMNS) == list(TYPES)


def test_every_query_that_the_documents_show_answers_on_a_lake_with_rows_and_on_one_without(
    lake: Path, tmp_path: Path
) -> None:
    assert QUERIES
    (tmp_path / "empty").mkdir()
    for sql in QUERIES:
        assert query(lake, sql)
        assert query(tmp_path / "empty", sql) == []
        assert query(tmp_path / "never there", sql) == []


def test_labels_say_of_which_request_they_are(lake: Path) -> None:
    rows = query(lake, "SELECT model, request_id, row_index, label_num FROM labels ORDER BY ALL")
    assert [(row["model"], row["request_id"], row["row_index"]) for row in rows] == [
        ("7", "7-1-0", 0),
        ("flights", "flights-1-0", 0),
        ("flights", "flights-canary-1", 1),
    ]


def test_files_of_earlier_releases_are_read_and_expire(lake: Path) -> None:
    """Their folders had the names of columns, and their text was a dictionary."""
    new = next((lake / "predictions" / "model_dir=flights" / "version_dir=v2").rglob("*.parquet"))
    old = lake / "model=old" / "version=2" / "date=2096-10-02" / "hour=07" / "gw-w0-b-1-1-0a0a0a0a.parquet"
    old.parent.mkdir(parents=True)
    table = pq.read_table(new, partitioning=None)
    names = pa.DictionaryArray.from_arrays(pa.array([0] * len(table), pa.int32()), ["old"])
    pq.write_table(table.set_column(table.column_names.index("model"), "model", names), old)
    (row,) = query(lake, "SELECT count(*) AS rows, max(version) AS version FROM predictions WHERE model = 'old'")
    assert row == {"rows": len(table), "version": "2"}
    assert old in [file.path for file in lake_files(lake)]
