"""Breast cancer: a model with one version, to try a second one beside it."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from gateway.demo.recipe import HeldOutRows, Recipe, Trained
from gateway.tensor import Datatype, TensorSpec

_MEASURES = 30
_HELD_OUT = 190


def _prepare() -> tuple[HeldOutRows, Mapping[str, Callable[[], Trained]]]:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    order = np.random.default_rng(0).permutation(len(data.target))
    held, rest = order[:_HELD_OUT], order[_HELD_OUT:]
    measures = data.data.astype(np.float32)
    return (
        HeldOutRows({"measures": measures[held]}, data.target[held].astype(np.int64)),
        {"1": partial(_train, measures[rest], data.target[rest])},
    )


def _train(measures: npt.NDArray[np.float32], diagnoses: npt.NDArray[np.int64]) -> Trained:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    estimator = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    estimator.fit(measures, diagnoses)
    return Trained(estimator, f"logistic regression on {_MEASURES} measures, trained on {len(measures)} biopsies")


RECIPE = Recipe(
    model="breast_cancer",
    title="Whether a tumour is malignant, from 30 measures of the cell nuclei in a biopsy",
    source="the breast cancer data that ship with scikit-learn (569 biopsies; UCI Wisconsin Diagnostic)",
    inputs=(TensorSpec("measures", Datatype.FP32, (-1, _MEASURES)),),
    labels=("malignant", "benign"),
    versions=("1",),
    prepare=_prepare,
)
