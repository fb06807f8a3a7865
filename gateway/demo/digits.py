"""Handwritten digits: a weak first version that sees the middle of the image, and a good second one."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt

from gateway.demo.recipe import HeldOutRows, Recipe, Trained
from gateway.tensor import Datatype, TensorSpec

_SIDE = 8
_HELD_OUT = 600
_FEW = 80
# The four by four pixels in the middle.
_MIDDLE = [row * _SIDE + column for row in range(2, 6) for column in range(2, 6)]


def _prepare() -> tuple[HeldOutRows, Mapping[str, Callable[[], Trained]]]:
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    held, rest = order[:_HELD_OUT], order[_HELD_OUT:]
    images = data.data.astype(np.float32)
    known = (images[rest], data.target[rest])
    return (
        HeldOutRows({"image": images[held]}, data.target[held].astype(np.int64)),
        {"1": partial(_weak, *known), "2": partial(_good, *known)},
    )


def _weak(images: npt.NDArray[np.float32], digits: npt.NDArray[np.int64]) -> Trained:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    middle = ColumnTransformer([("middle", StandardScaler(), _MIDDLE)])
    estimator = make_pipeline(middle, LogisticRegression(max_iter=500))
    estimator.fit(images[:_FEW], digits[:_FEW])
    return Trained(estimator, f"logistic regression on the 16 pixels in the middle, trained on {_FEW} images")


def _good(images: npt.NDArray[np.float32], digits: npt.NDArray[np.int64]) -> Trained:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    estimator = make_pipeline(MinMaxScaler(), MLPClassifier((64,), solver="lbfgs", max_iter=300, random_state=0))
    estimator.fit(images, digits)
    return Trained(estimator, f"neural network with 64 hidden units on all 64 pixels, trained on {len(images)} images")


RECIPE = Recipe(
    model="digits",
    title="Which digit a handwritten image of 8 by 8 pixels (grey values 0 to 16, row by row) shows",
    source="the digits that ship with scikit-learn (1797 images; UCI Optical Recognition of Handwritten Digits)",
    inputs=(TensorSpec("image", Datatype.FP32, (-1, _SIDE * _SIDE)),),
    labels=tuple("0123456789"),
    versions=("1", "2"),
    prepare=_prepare,
)
