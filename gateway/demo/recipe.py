"""What it takes to make one demo model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.tensor import TensorSpec

Arrays = Mapping[str, npt.NDArray[np.generic]]


class DemoUnavailable(RuntimeError):
    """The demo models cannot be made here; the text says what to install."""


@dataclass(frozen=True, slots=True)
class HeldOutRows:
    """Rows that no version was trained on.

    Shapes: `inputs[name]` [rows, ...] as the model takes them, `truth` [rows].
    """

    inputs: Arrays
    truth: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trained:
    """One trained version: an estimator of scikit-learn that answers class probabilities, and how it came about."""

    estimator: object
    method: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """One demo model: its contract and how each of its versions is trained.

    `prepare` reads the data and returns the held-out rows and, by version, what trains it; nothing is read or imported
    before it is called.

    Shapes: `inputs` with the batch dimension, [-1, n].
    """

    model: str
    title: str
    source: str
    inputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    versions: tuple[str, ...]
    prepare: Callable[[], tuple[HeldOutRows, Mapping[str, Callable[[], Trained]]]]
