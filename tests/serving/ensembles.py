"""Ensembles as a repository holds them: the text of config.pbtxt, and the directories."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One step of a configuration; `version` 0 is left out."""

    model: str
    inputs: Mapping[str, str] = field(default_factory=lambda: {"x": "x"})
    outputs: Mapping[str, str] = field(default_factory=lambda: {"y": "y"})
    version: int = -1

    def text(self) -> str:
        maps = "".join(
            f' {name} {{ key: "{own}" value: "{tensor}" }}'
            for name, entries in (("input_map", self.inputs), ("output_map", self.outputs))
            for own, tensor in entries.items()
        )
        version = f" model_version: {self.version}" if self.version else ""
        return f'step {{ model_name: "{self.model}"{version}{maps} }}'


def tensor(name: str, datatype: str = "TYPE_FP32", dims: Sequence[int] = (4,), more: str = "") -> str:
    return f'{{ name: "{name}" data_type: {datatype} dims: {list(dims)} {more} }}'


def config(
    *steps: Step,
    inputs: Sequence[str] = (tensor("x"),),
    outputs: Sequence[str] = (tensor("y"),),
    batch: int = 64,
    more: str = "",
) -> str:
    """The configuration of an ensemble that batches, of FP32 rows of four, unless it says otherwise."""
    lines = [f"input {line}" for line in inputs] + [f"output {line}" for line in outputs]
    scheduling = "ensemble_scheduling {{ {} }}".format(" ".join(step.text() for step in steps))
    return "\n".join(['platform: "ensemble"', f"max_batch_size: {batch}", *lines, scheduling, more])


def write_ensemble(repository: Path, name: str, text: str, version: str = "1") -> None:
    """The ensemble lies in the repository, with an empty directory for its version."""
    (repository / name / version).mkdir(parents=True, exist_ok=True)
    (repository / name / "config.pbtxt").write_text(text)


def chain(*models: str) -> list[Step]:
    """Steps of which each reads what the one before it wrote, from "x" to "y"."""
    names = ["x", *(f"after {place}" for place in range(1, len(models))), "y"]
    return [Step(model, {"x": names[place]}, {"y": names[place + 1]}) for place, model in enumerate(models)]
