"""The recipe of one demo model: its contract, data and training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.tensor import TensorSpec

Arrays = Mapping[str, npt.NDArray[np.generic]]


class DemoUnavailable(RuntimeError):
    """Raised when the demo models cannot be made here; the text says what to install."""


@dataclass(frozen=True, slots=True)
class HeldOutRows:
    """Holds rows that no version was trained on.

    Shapes: `inputs[name]` [rows, ...] as the model takes them, `truth` [rows].
    """

    inputs: Arrays
    truth: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trained:
    """One trained version: a scikit-learn estimator that returns class probabilities, and how it was trained."""

    estimator: object
    method: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """One demo model: its contract and how each of its versions is trained.

    `prepare` reads the data and returns the held-out rows and, by version, the function that trains it. Nothing is
    read or imported before that call.

    Shapes: `inputs` with the batch dimension, [-1, n].
    """

    model: str
    title: str
    source: str
    inputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    versions: tuple[str, ...]
    prepare: Callable[[], tuple[HeldOutRows, Mapping[str, Callable[[], Trained]]]]
