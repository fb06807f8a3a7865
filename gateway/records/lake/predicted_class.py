"""Tells which outputs are scores of classes, so that the place of the largest is a class, and the largest its score.

Several numbers a row may as well be quantities of a regression: the larger one of latitude and longitude is nothing.
They are scores where somebody says so: the labels file of the output in `config.pbtxt`, an output that names the class
beside them, or a name with "logit" in it; else only in rows where they are chances, none below 0 and together 1.
"""

from collections.abc import Collection
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_PRECISE: Final = 1e-3  # how far the sum of chances may be from 1, of numbers of 32 bits and more
_COARSE: Final = 5e-3  # of half precision
_SAID: Final = "logit"


def are_scores(name: str, *, classified: Collection[str], class_beside: bool) -> bool:
    """Returns whether all rows of an output of several numbers are scores of classes.

    `classified` names the outputs that have a labels file; `class_beside` tells whether another output names the class.
    """
    return class_beside or name in classified or _SAID in name.lower()


def chances(values: npt.NDArray[Any], *, precise: bool = True) -> npt.NDArray[np.bool_]:
    """Returns the rows whose numbers are chances. Shapes: [rows, classes] to [rows]."""
    numbers = np.asarray(values, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        together = np.abs(numbers.sum(axis=1) - 1.0) <= (_PRECISE if precise else _COARSE)
        return np.asarray(together & (numbers >= 0.0).all(axis=1))
