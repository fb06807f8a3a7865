"""Training data as features of a model, and profiles on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gateway.drift.profile_files import ProfileFiles
from gateway.drift.statistics.building import build_profile
from gateway.drift.statistics.profile_document import profile_json
from gateway.drift.statistics.reference_profile import Profile
from gateway.drift.training import Tensor, match, output_columns, read_file, read_vectors
from gateway.errors import InvalidArgument, NotFound

X = Tensor("X", "FP32", (-1, 3))


def test_a_csv_a_parquet_and_an_npz_file_hold_the_same_columns(tmp_path: Path) -> None:
    numbers, texts = np.array([1.5, 2.5, np.nan]), ["a", "ü", "a"]
    (tmp_path / "a.csv").write_text("x,t\n1.5,a\n2.5,ü\n,a\n")
    pq.write_table(pa.table({"x": pa.array([1.5, 2.5, None]), "t": texts}), tmp_path / "a.parquet")
    np.savez(tmp_path / "a.npz", x=numbers, t=np.array(texts))
    for suffix in ("csv", "parquet", "npz"):
        columns_read = read_file(tmp_path / f"a.{suffix}")
        assert list(columns_read) == ["x", "t"]
        codes, known = columns_read["t"].values, columns_read["t"].texts
        assert known is not None
        assert [known[int(code)] for code in codes.tolist()] == texts
        assert columns_read["x"].values.tolist()[:2] == [1.5, 2.5]
        assert list(read_file(tmp_path / f"a.{suffix}", ["t"])) == ["t"]
        with pytest.raises(InvalidArgument, match="'z'"):
            read_file(tmp_path / f"a.{suffix}", ["z"])
    assert columns_read["x"].missing is None  # NaN in an array, null in a table
    assert read_file(tmp_path / "a.csv")["x"].missing is not None


@pytest.mark.parametrize("name", ["a.txt", "none.csv", "none.parquet", "none.npz", "bad.parquet", "bad.npz"])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.startswith("bad"):
        path.write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidArgument, match=name):
        read_file(path)


def test_an_npz_file_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], object))
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_file(tmp_path / "a.npz")


def test_columns_are_matched_by_order_by_name_or_by_the_models_own_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", age=np.arange(4), fare=np.ones(4), sex=np.zeros(4))
    columns_read = read_file(tmp_path / "a.npz")
    by_order = match(columns_read, [X])
    assert list(by_order.columns) == ["f.X_0", "f.X_1", "f.X_2"]
    assert by_order.names == {"f.X_0": "age", "f.X_1": "fare", "f.X_2": "sex"}
    assert by_order.columns["f.X_0"].values.tolist() == [0, 1, 2, 3]
    own = match(columns_read, [X], ["sex", "age", "fare"])
    assert own.columns["f.X_1"].values.tolist() == [0, 1, 2, 3]
    assert own.names["f.X_1"] == "age"
    np.savez(tmp_path / "b.npz", X=np.arange(12).reshape(4, 3), y=np.ones(4))
    logged = match(read_file(tmp_path / "b.npz"), [X])
    assert logged.columns["f.X_2"].values.tolist() == [2, 5, 8, 11]
    assert logged.names == {}
    of_lake = match({f"f.{name}": column for name, column in columns_read.items()}, [X], ["sex", "age", "fare"])
    assert of_lake.columns["f.X_1"].values.tolist() == [0, 1, 2, 3]
    assert of_lake.names["f.X_1"] == "age"
    single = match({"age": columns_read["age"], "other": columns_read["fare"]}, [Tensor("age", "INT64", (-1,))])
    assert list(single.columns) == ["f.age"]


def test_codes_of_a_text_input_become_texts(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", code=np.array([16, 21, 16]))
    (column,) = match(read_file(tmp_path / "a.npz"), [Tensor("T", "BYTES", (-1, 1))]).columns.values()
    assert column.texts == ("16", "21")


@pytest.mark.parametrize(
    ("inputs", "names", "message"),
    [
        ([X], (), "there are 2 columns .a, b., the model has 3 features .X_0, X_1, X_2."),
        ([X], ("a",), "feature_names has 1 names, the inputs have 3"),
        ([Tensor("I", "FP32", (-1, 3, 64, 64))], (), "no input of the model has columns"),
        ([], (), "no input of the model has columns"),
    ],
)
def test_columns_that_fit_no_model_are_refused(
    inputs: list[Tensor], names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", a=np.arange(4), b=np.ones(4))
    with pytest.raises(InvalidArgument, match=message):
        match(read_file(tmp_path / "a.npz"), inputs, names)


def test_outputs_become_the_columns_of_the_log() -> None:
    scores = np.array([[0.1, 0.9], [0.8, 0.2]], np.float32)
    columns_read = output_columns({"label": np.array([[1], [0]]), "probabilities": scores, "map": np.zeros((2, 3, 3))})
    assert list(columns_read) == ["out.label", "out.probabilities_0", "out.probabilities_1", "pred_class", "pred_score"]
    assert columns_read["pred_class"].values.tolist() == [1, 0]
    assert columns_read["pred_score"].values.tolist() == pytest.approx([0.9, 0.8])
    assert output_columns({"p": scores})["pred_class"].values.tolist() == [1, 0]


def test_only_scores_of_classes_become_a_class() -> None:
    numbers = np.array([[30.5, -4.0], [0.25, 0.75]], np.float32)
    columns_read = output_columns({"where": numbers})
    assert [columns_read[name].missing.tolist() for name in ("pred_class", "pred_score")] == [[True, False]] * 2  # type: ignore[union-attr]
    assert list(output_columns({"where": numbers[:1]})) == ["out.where_0", "out.where_1"]
    for said in (
        output_columns({"where": numbers}, classified={"where"}),
        output_columns({"logits": numbers}),
        output_columns({"margins": numbers, "label": np.array([["a"], ["b"]], object)}),
    ):
        assert said["pred_class"].values.tolist() == [0, 1]
        assert said["pred_class"].missing is None


def test_an_input_that_is_too_wide_for_columns_is_an_embedding(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", e=np.ones((4, 700)), x=np.ones((4, 3)))
    inputs = [Tensor("e", "FP32", (-1, 700)), Tensor("x", "FP32", (-1, 3))]
    assert list(read_file(tmp_path / "a.npz")) == ["x_0", "x_1", "x_2"]
    assert {name: columns_read.shape for name, columns_read in read_vectors(tmp_path / "a.npz", inputs).items()} == {
        "in.e": (4, 700)
    }
    assert read_vectors(tmp_path / "a.npz", inputs[1:]) == {}
    with pytest.raises(InvalidArgument, match="'e' has 700 columns, the input has 768"):
        read_vectors(tmp_path / "a.npz", [Tensor("e", "FP32", (-1, 768))])


def profile(version: str = "1") -> Profile:
    return build_profile("a/b", version, {"f.x": np.arange(50.0)}, {}, created_at=1.0, source="test")


def test_each_save_is_the_next_revision(tmp_path: Path) -> None:
    files = ProfileFiles(tmp_path)
    assert files.versions() == []
    assert [files.save(profile()).revision for _ in range(3)] == [1, 2, 3]
    assert files.save(profile("..")).revision == 1
    assert files.versions() == [("a/b", ".."), ("a/b", "1")]
    assert files.versions("other") == []
    assert files.load("a/b", "1").revision == 3
    assert profile_json(files.load("a/b", "1", 2)) == profile_json(replace(profile(), revision=2))
    assert {path.parent.parent.name for path in (tmp_path / "profiles").glob("*/*/*")} == {"a%2Fb"}
    assert not list((tmp_path / "profiles").glob("*/*/*.new"))


def test_a_profile_that_is_not_there_or_damaged_is_named(tmp_path: Path) -> None:
    files = ProfileFiles(tmp_path)
    files.save(profile())
    with pytest.raises(NotFound, match="'2' has no reference profile; there are: a/b/1"):
        files.load("a/b", "2")
    with pytest.raises(NotFound, match="revision 7"):
        files.load("a/b", "1", 7)
    (tmp_path / "profiles" / "a%2Fb" / "1" / "2.json").write_text("{")
    with pytest.raises(InvalidArgument, match=r"2\.json"):
        files.load("a/b", "1")
