"""Writes demo models into a repository, in Triton's layout.

    <repository>/README.md
    <repository>/<model>/config.pbtxt, labels.txt, README.md
    <repository>/<model>/<version>/model.onnx

Order: a version directory appears complete, by rename, or not at all. Existing files are left as they are.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import numpy.typing as npt

from gateway.demo.conversion import convert
from gateway.demo.recipe import Arrays, HeldOutRows, Recipe
from gateway.serving.session import Session
from gateway.tensor import Datatype

MAX_BATCH_SIZE = 256
_SAMPLES = 256


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality of the ONNX model on held-out rows. `auc`: one class against the rest, averaged."""

    rows: int
    accuracy: float
    auc: float


def missing(recipe: Recipe, repository: Path, samples: Path | None) -> bool:
    """Whether any part of this model is still to be made."""
    folder = repository / recipe.model
    files = [folder / "config.pbtxt", folder / "labels.txt", folder / "README.md"]
    files += [folder / version / "model.onnx" for version in recipe.versions]
    if samples is not None:
        files.append(samples / f"{recipe.model}.npz")
    return not all(file.is_file() for file in files)


def publish(recipe: Recipe, repository: Path, samples: Path | None) -> Mapping[str, Quality]:
    """Trains and writes the missing parts of one model; returns the quality of each version.

    Raises: DemoUnavailable (a package is missing).
    """
    held, training = recipe.prepare()
    repository.mkdir(parents=True, exist_ok=True)
    staging = Path(mkdtemp(prefix=".demo-", dir=repository))
    try:
        qualities, answers, methods = {}, {}, {}
        for version, train in training.items():
            trained = train()
            model = convert(recipe, trained)
            answers[version] = _answers(model, held)
            qualities[version] = _quality(held, answers[version]["probabilities"])
            methods[version] = trained.method
            (staging / version).mkdir()
            (staging / version / "model.onnx").write_bytes(model)
        (staging / "config.pbtxt").write_text(config(recipe), "utf-8")
        (staging / "labels.txt").write_text("".join(f"{label}\n" for label in recipe.labels), "utf-8")
        (staging / "README.md").write_text(_readme(recipe, qualities, methods), "utf-8")
        _move(staging, repository / recipe.model)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    if samples is not None:
        _write_samples(samples / f"{recipe.model}.npz", held, answers)
    return qualities


def write_index(recipes: Iterable[Recipe], repository: Path) -> None:
    """Writes the repository's README from those of its models."""
    parts = [
        "# Demo models\nTrained on this machine by `python -m gateway.demo`, from data that ship inside packages.\n"
    ]
    for recipe in recipes:
        readme = repository / recipe.model / "README.md"
        if readme.is_file():
            parts.append(readme.read_text("utf-8").replace("# ", "## ", 1))
    staging = repository / ".README.md"
    staging.write_text("\n".join(parts), "utf-8")
    os.replace(staging, repository / "README.md")


def config(recipe: Recipe) -> str:
    """Returns the config.pbtxt of a model."""
    blocks = [
        f'name: "{recipe.model}"\nplatform: "onnxruntime_onnx"\nmax_batch_size: {MAX_BATCH_SIZE}\n',
        *(_tensor("input", spec.name, spec.datatype.config_name, spec.shape[1:]) for spec in recipe.inputs),
        _tensor("output", "label", Datatype.INT64.config_name, (1,)),
        _tensor(
            "output",
            "probabilities",
            Datatype.FP32.config_name,
            (len(recipe.labels),),
            '\n    label_filename: "labels.txt"',
        ),
        "version_policy { all { } }\ndynamic_batching { }\n",
    ]
    return "".join(blocks)


def _tensor(side: str, name: str, datatype: str, dims: tuple[int, ...], more: str = "") -> str:
    sizes = ", ".join(map(str, dims))
    return f'{side} [\n  {{\n    name: "{name}"\n    data_type: {datatype}\n    dims: [ {sizes} ]{more}\n  }}\n]\n'


def _answers(model: bytes, held: HeldOutRows) -> Arrays:
    session = Session(model, intra_threads=1)
    feeds = {
        name: array.astype(object) if array.dtype.kind == "S" else np.ascontiguousarray(array)
        for name, array in held.inputs.items()
    }
    names = [spec.name for spec in session.outputs]
    return dict(zip(names, session.run(names, feeds), strict=True))


def _quality(held: HeldOutRows, probabilities: npt.NDArray[np.generic]) -> Quality:
    from sklearn.metrics import roc_auc_score

    scores = probabilities.astype(np.float64)
    scores /= scores.sum(axis=1, keepdims=True)
    accuracy = float((scores.argmax(axis=1) == held.truth).mean())
    if scores.shape[1] == 2:
        auc = roc_auc_score(held.truth, scores[:, 1])
    else:
        auc = roc_auc_score(held.truth, scores, multi_class="ovr")
    return Quality(len(held.truth), accuracy, float(auc))


def _readme(recipe: Recipe, qualities: Mapping[str, Quality], methods: Mapping[str, str]) -> str:
    lines = [f"# {recipe.model}", f"{recipe.title}.", "", f"Data: {recipe.source}.", ""]
    lines += ["| version | how | held-out rows | accuracy | AUC |", "|---|---|---|---|---|"]
    for version, quality in qualities.items():
        lines.append(
            f"| {version} | {methods[version]} | {quality.rows} | {quality.accuracy:.3f} | {quality.auc:.3f} |"
        )
    return "\n".join(lines) + "\n"


def _move(staging: Path, folder: Path) -> None:
    """Moves the files that `folder` lacks, the configuration before the versions: no version is seen without it."""
    folder.mkdir(exist_ok=True)
    for entry in sorted(staging.iterdir(), key=lambda path: path.is_dir()):
        if not (folder / entry.name).exists():
            os.rename(entry, folder / entry.name)


def _write_samples(path: Path, held: HeldOutRows, answers: Mapping[str, Arrays]) -> None:
    """Writes held-out rows with their true class and the answer of each version."""
    arrays: dict[str, Any] = {f"inputs/{name}": array[:_SAMPLES] for name, array in held.inputs.items()}
    for version, outputs in answers.items():
        arrays |= {f"outputs/{version}/{name}": array[:_SAMPLES] for name, array in outputs.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    with staging.open("wb") as file:
        np.savez(file, truth=held.truth[:_SAMPLES], **arrays)
    os.replace(staging, path)
