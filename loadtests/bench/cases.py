"""A model made ready for runs: its files, its request, and what its versions answer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loadtests.bench import body, models, rest_body
from loadtests.bench.models import BenchModel, Floats
from loadtests.bench.rest_body import RestRequest
from loadtests.bench.session import expected_outputs


@dataclass(frozen=True, slots=True)
class Case:
    """One model in a repository, the framed request in a file, the right answer of each version."""

    model: BenchModel
    repository: Path
    body: Path
    row: Path
    expected: Mapping[str, Floats]
    rest: Mapping[str, RestRequest] = field(default_factory=dict)  # the same request over REST, by its form


def make(chosen: Iterable[BenchModel], work: Path) -> tuple[Case, ...]:
    """The cases, written below `work`: models/ (serve this directory), requests/."""
    repository, requests = work / "models", work / "requests"
    requests.mkdir(parents=True, exist_ok=True)
    made = []
    for model in chosen:
        models.write(model, repository)
        body.write(model, requests / f"{model.name}.bin")
        np.save(requests / f"{model.name}.npy", model.row)
        expected = expected_outputs(model, repository)
        framed, row = requests / f"{model.name}.bin", requests / f"{model.name}.npy"
        made.append(Case(model, repository, framed, row, expected, rest_body.write(model, requests)))
    return tuple(made)
