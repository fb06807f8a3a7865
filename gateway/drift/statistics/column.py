"""The values of one feature as numbers or texts, whichever library they come from."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.errors import InvalidArgument

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Column:
    """One feature of many rows.

    Shapes: `values` [rows], numbers, or indices into `texts`; `missing` [rows] is true where there is no value, None
            where all are there.
    """

    values: Array
    missing: npt.NDArray[np.bool_] | None = None
    texts: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, chosen: npt.NDArray[np.generic] | slice) -> "Column":
        """The chosen rows, by mask, indices or slice."""
        missing = None if self.missing is None else self.missing[chosen]
        return Column(self.values[chosen], missing, self.texts)

    def numbers(self) -> npt.NDArray[np.float64]:
        """The values that are there, as numbers; texts have none."""
        if self.texts is not None:
            return np.empty(0, np.float64)
        present = self.values if self.missing is None else self.values[~self.missing]
        return present.astype(np.float64)


def as_column(name: str, values: "npt.ArrayLike | Column") -> Column:
    """The values of a feature from a plain array, a masked one, or one of Python objects.

    Raises: InvalidArgument (neither numbers nor texts, or not one value per row).
    """
    if isinstance(values, Column):
        return values
    missing = None
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        missing = mask if mask.any() else None
        array = np.asarray(values.filled() if values.dtype.kind == "O" else values.data)
    else:
        array = np.asarray(values)
    if array.ndim != 1:
        raise InvalidArgument(f"column {name!r} has shape {list(array.shape)}, expected one value per row")
    kind = array.dtype.kind
    if kind in "fiub":
        return Column(array.astype(np.uint8) if kind == "b" else array, missing)
    if kind == "M":
        return Column(array.astype("datetime64[us]").astype(np.int64), _joined(missing, np.isnat(array)))
    if kind in "USO":
        return _from_objects(name, array, missing)
    raise InvalidArgument(f"column {name!r} holds {array.dtype}, allowed are numbers, booleans, times and texts")


def _from_objects(name: str, array: Array, missing: npt.NDArray[np.bool_] | None) -> Column:
    items = array.tolist()
    absent = np.fromiter((item is None or item != item for item in items), np.bool_, len(items))
    absent = absent if missing is None else absent | missing
    present = [item for item, gone in zip(items, absent, strict=True) if not gone]
    gone = absent if absent.any() else None
    if present and all(isinstance(item, bool | int | float | np.number) for item in present):
        numbers = np.zeros(len(items), np.float64)
        numbers[~absent] = present
        return Column(numbers, gone)
    places: dict[str, int] = {}
    codes = np.zeros(len(items), np.int32)
    try:
        codes[~absent] = [places.setdefault(_text(item), len(places)) for item in present]
    except TypeError:
        shown = next(item for item in present if not isinstance(item, str | bytes))
        raise InvalidArgument(f"column {name!r} holds {shown!r} among texts, allowed is one kind of value") from None
    return Column(codes, gone, tuple(places))


def _text(item: object) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, bytes):
        return item.decode(errors="replace")
    raise TypeError(type(item).__name__)


def _joined(missing: npt.NDArray[np.bool_] | None, more: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    both = more if missing is None else missing | more
    return both if both.any() else None
