"""Columns of training data as the features of a model: data have names and an order, a model has tensors."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gateway.drift import arrow_columns
from gateway.drift.statistics.answers import find_outputs, sql_kind
from gateway.drift.statistics.bins import number_text
from gateway.drift.statistics.column import Column, as_column
from gateway.errors import InvalidArgument
from gateway.records.lake.predicted_class import are_scores, chances
from gateway.records.worker.feature_names import FEATURE, FEATURE_NAMES_PARAMETER, split_names

MAX_FLAT: Final = 512  # widest tensor that the log spreads into one column per feature
Columns = dict[str, Column]
_PREDICTION: Final = ("pred_class", "pred_score")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output as the model's metadata tell it; -1 in a shape is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """Features of one row, each with a column of its own in the log; 0 where the log keeps the tensor as a list."""
        if not self.shape or self.shape[0] >= 0 or len(self.shape) > 2:
            return 0
        wide = self.shape[1] if len(self.shape) == 2 else 1
        return wide if 0 < wide <= MAX_FLAT else 0

    def columns(self, prefix: str) -> tuple[str, ...]:
        """The columns of the log that hold its features."""
        if self.width == 1:
            return (prefix + self.name,)
        return tuple(f"{prefix}{self.name}_{index}" for index in range(self.width))


@dataclass(frozen=True, slots=True)
class Matched:
    """Columns by their name in the log, and what their features are called where that is another name."""

    columns: Mapping[str, Column]
    names: Mapping[str, str]


def read_file(path: Path, names: Sequence[str] = ()) -> Columns:
    """The columns of a .csv, .parquet or .npz file, in its order, or those of `names` in theirs.

    A matrix of an .npz file is one column for each of its own: those of X are X_0, X_1, ... One that is too wide for
    that is left to `read_vectors`.
    Raises: InvalidArgument (the file cannot be read, or a column is not there).
    """
    if path.suffix not in (".csv", ".parquet", ".npz"):
        raise InvalidArgument(f"{str(path)!r} is no .csv, .parquet or .npz file")
    if path.suffix != ".npz":
        return {name: Column(*values) for name, values in arrow_columns.read(path, names).items()}
    columns: Columns = {}
    for name, array in _arrays(path).items():
        if array.ndim == 2 and array.shape[1] > MAX_FLAT:
            continue
        if array.ndim == 2 and array.shape[1] > 1:
            columns |= {f"{name}_{index}": as_column(name, array[:, index]) for index in range(array.shape[1])}
        else:
            columns[name] = as_column(name, array.reshape(len(array)) if array.ndim == 2 else array)
    for name in names:
        if name not in columns:
            raise InvalidArgument(f"{str(path)!r}: column {name!r} is not in it: {', '.join(columns)}")
    return {name: columns[name] for name in names} if names else columns


def read_vectors(path: Path, inputs: Sequence[Tensor]) -> dict[str, npt.NDArray[Any]]:
    """The embeddings among a model's inputs that an .npz file has as a matrix of the input's name, by their column in
    the log: inputs [-1, d] that the log keeps as lists.

    Raises: InvalidArgument (the file cannot be read, or a matrix has another width).
    """
    wanted = {one.name: one for one in inputs if len(one.shape) == 2 and one.shape[0] < 0 and not one.width}
    if path.suffix != ".npz" or not wanted:
        return {}
    vectors = {}
    for name, array in _arrays(path).items():
        if name in wanted and array.ndim == 2:
            width = wanted[name].shape[1]
            if width >= 0 and array.shape[1] != width:
                raise InvalidArgument(f"{str(path)!r}: {name!r} has {array.shape[1]} columns, the input has {width}")
            vectors[f"in.{name}"] = array
    return vectors


def given_names(parameters: Mapping[str, str]) -> tuple[str, ...]:
    """Returns what the parameters of a model's configuration call its features, in their order; () for nothing."""
    return split_names(parameters.get(FEATURE_NAMES_PARAMETER, ""))


def match(given: Columns, inputs: Sequence[Tensor], feature_names: Sequence[str] = ()) -> Matched:
    """The columns as the features of the model's inputs.

    By name, where the columns are called like the features or like the log's columns (X_0, X_1), with or without its
    "f."; else by their order, if there are as many as features. `feature_names` are the model's own names of its
    features, in order.
    Raises: InvalidArgument (neither fits; no input of the model has features).
    """
    places = [(column, tensor) for tensor in inputs for column in tensor.columns("f.")]
    if not places:
        raise InvalidArgument("no input of the model has columns of its own in the log: there is no feature to profile")
    if feature_names and len(feature_names) != len(places):
        raise InvalidArgument(f"feature_names has {len(feature_names)} names, the inputs have {len(places)} features")
    own = [column.removeprefix("f.") for column, _ in places]
    known = [called for called in (list(feature_names), own) if called]
    logged = [[FEATURE + name for name in called] for called in known]
    named = [called for called in (*known, *logged) if set(called) <= set(given)]
    if not named and len(given) != len(places):
        raise InvalidArgument(
            f"there are {len(given)} columns ({_shown(list(given))}), the model has {len(places)} features "
            f"({_shown(own)}): name as many in their order with --columns"
        )
    chosen = named[0] if named else list(given)
    shown = own if chosen in logged else chosen
    called = dict(zip((column for column, _ in places), feature_names or shown, strict=True))
    columns = {column: _as_sent(given[name], tensor) for (column, tensor), name in zip(places, chosen, strict=True)}
    return Matched(columns, {column: name for column, name in called.items() if name != column.removeprefix("f.")})


def answer_columns(columns: Columns) -> Columns:
    """Returns the columns of a file that are called like answers in the log, with class and score if these follow."""
    given = {name: one for name, one in columns.items() if name.startswith("out.") or name in _PREDICTION}
    scores = find_outputs({name: sql_kind(one) for name, one in given.items()}).scores
    flat: dict[str, npt.NDArray[Any]] = {
        name: one.values[:, None] for name, one in given.items() if one.texts is None and one.values.dtype.kind in "iu"
    }
    flat = {name: values for name, values in flat.items() if name not in _PREDICTION}
    if scores:
        flat["scores"] = np.column_stack([given[name].values.astype(np.float64) for name in scores])
    return {**_prediction(flat), **given}


def output_columns(outputs: Mapping[str, npt.NDArray[Any]], *, classified: Collection[str] = ()) -> Columns:
    """The columns that the log makes of a model's outputs, the prediction among them.

    Shapes: each output [rows] or [rows, d]; others have no columns. `classified` names those that have a labels file.
    """
    columns: Columns = {}
    flat: dict[str, npt.NDArray[Any]] = {}
    for name, array in outputs.items():
        matrix = array.reshape(len(array), -1) if array.ndim <= 2 else np.empty((0, 0))
        if not 0 < matrix.shape[1] <= MAX_FLAT:
            continue
        flat[name] = matrix
        for index in range(matrix.shape[1]):
            column = f"out.{name}" if matrix.shape[1] == 1 else f"out.{name}_{index}"
            columns[column] = as_column(column, matrix[:, index])
    return {**columns, **_prediction(flat, classified)}


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{str(path)!r} cannot be read: {error}") from None


def _prediction(outputs: Mapping[str, npt.NDArray[Any]], classified: Collection[str] = ()) -> Columns:
    """Class and score by the rule of the log: a whole-number output, or the place of the largest of the scores of
    classes; the largest of these, or the only number."""
    prediction: Columns = {}
    whole = [array for array in outputs.values() if array.dtype.kind in "iu" and array.shape[1] == 1]
    if whole:
        prediction["pred_class"] = as_column("pred_class", whole[0][:, 0])
    class_beside = any(array.dtype.kind in "iuO" and array.shape[1] == 1 for array in outputs.values())
    for name, array in outputs.items():
        if array.dtype.kind != "f":
            continue
        if array.shape[1] == 1:
            prediction.setdefault("pred_score", as_column("pred_score", array[:, 0]))
            continue
        held = np.ones(len(array), np.bool_)
        if not are_scores(name, classified=classified, class_beside=class_beside):
            held = chances(array, precise=array.dtype.itemsize >= 4)
        if held.any():
            missing = None if held.all() else ~held
            prediction.setdefault("pred_class", Column(array.argmax(axis=1), missing))
            prediction.setdefault("pred_score", Column(array.max(axis=1), missing))
    return prediction


def _as_sent(column: Column, tensor: Tensor) -> Column:
    """The column in the kind of the tensor: a file may hold the codes of a text feature as numbers."""
    if tensor.datatype != "BYTES" or column.texts is not None:
        return column
    distinct, codes = np.unique(column.values, return_inverse=True)
    return Column(codes, column.missing, tuple(number_text(value) for value in distinct.tolist()) or ("",))


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
