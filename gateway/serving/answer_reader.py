"""What an answer says, read from its outputs: whether they are sound, and which prediction they make.

An answer of few numbers is read without numpy, whose calls would cost more than the reading.
"""

from collections.abc import Sequence
from math import isfinite, log
from struct import Struct
from typing import Final, cast

import numpy as np
from xxhash import xxh3_64_intdigest

from gateway.records.lake.predicted_class import are_scores
from gateway.serving.version import Version
from gateway.tensor import Buffer, TensorSpec

CLASS_PLACES: Final = 16  # classes are counted by their number, from then on by its remainder
_FEW: Final = 64  # numbers
_FORMATS: Final = {"FP16": "e", "FP32": "f", "FP64": "d"}
_BF16: Final = "BF16"
_EXPONENT: Final = 0x7F80  # all of them set in BF16: NaN or an infinity
_STEP: Final = log(1.02)  # scores are counted by their logarithm, two percent a place
_SMALLEST: Final = 1e-9
_LARGEST: Final = 1e9
_SUM_TOLERANCE: Final = 5e-3  # of chances, from 1


class AnswerReader:
    """Reads the answers of one version."""

    __slots__ = (
        "_batches", "_few", "_floats", "_is_scores", "_kinds", "_only", "_only_bytes", "_place", "_specs", "version",
    )  # fmt: skip

    def __init__(self, version: Version) -> None:
        self.version = version
        self._batches = version.batches
        self._specs: Sequence[TensorSpec] = version.outputs
        self._floats = [spec.datatype.is_float for spec in self._specs]
        self._kinds = [spec.datatype.wire_name for spec in self._specs]
        # The struct of an answer of one row, where that has a fixed number of a few numbers.
        self._few: list[Struct | None] = [_struct_of(spec) if version.batches else None for spec in self._specs]
        # Most versions have one output, and most answers one row of it.
        self._only = self._few[0] if len(self._few) == 1 else None
        self._only_bytes = self._only.size if self._only is not None else 0
        self._place, self._is_scores = self._prediction()

    def _prediction(self) -> tuple[int, bool]:
        """Returns which output is the prediction (-1: none), and whether its numbers are scores of classes."""
        widths = [_width(spec, batches=self._batches) for spec in self._specs]
        for index, spec in enumerate(self._specs):
            if widths[index] == 1 and not spec.datatype.is_float:
                return index, False  # the class itself
        for index, spec in enumerate(self._specs):
            if widths[index] >= 1 and spec.datatype.is_float:
                named = set(self.version.labels)
                return index, are_scores(spec.name, classified=named, class_beside=False)
        return -1, False

    def is_sound(self, outputs: Sequence[Buffer], wanted: tuple[int, ...] | None) -> bool:
        """Returns whether every output has elements, and every number in them is finite."""
        if wanted is None and self._only is not None and len(outputs) == 1:
            only = outputs[0]
            if isinstance(only, bytes) and len(only) == self._only_bytes:
                return _all_finite(self._only.unpack(only))
        for place, output in enumerate(outputs):
            index = place if wanted is None else wanted[place]
            if isinstance(output, bytes):
                if not output:
                    return False
                if not self._floats[index]:
                    continue
                few = self._few[index]
                if few is not None and few.size == len(output):
                    if not _all_finite(few.unpack(output)):
                        return False
                elif not _is_finite(np.frombuffer(output, self._specs[index].datatype.dtype), self._kinds[index]):
                    return False
            else:
                array = np.asarray(output)
                if not array.size or (self._floats[index] and not _is_finite(array, self._kinds[index])):
                    return False
        return True

    def prediction(self, outputs: Sequence[Buffer], wanted: tuple[int, ...] | None) -> tuple[bool, int] | None:
        """Returns what the first row says: whether that is a class, and its place; None where it says nothing.

        Other rows of the same request hang together with it, so they would be no evidence of their own.
        """
        place = self._place
        if place < 0:
            return None
        at = place if wanted is None else wanted.index(place) if place in wanted else -1
        if not 0 <= at < len(outputs):
            return None
        said = self._first_row(outputs[at], place)
        if not said:
            return None
        if not self._floats[place]:
            return True, _class_place(said[0])
        row = cast("tuple[float, ...]", said)
        if not _all_finite(row):
            return None
        if len(row) > 1 and (self._is_scores or (min(row) >= 0.0 and abs(sum(row) - 1.0) <= _SUM_TOLERANCE)):
            return True, row.index(max(row)) % CLASS_PLACES
        return False, score_place(row[0])

    def _first_row(self, output: Buffer, index: int) -> tuple[object, ...]:
        """Returns the row as it is: compiled code would make numbers of whole numbers, and refuse texts."""
        few = self._few[index]
        if few is not None and isinstance(output, bytes) and len(output) >= few.size:
            return tuple(few.unpack_from(output))
        spec = self._specs[index]
        array = np.frombuffer(output, spec.datatype.dtype) if isinstance(output, bytes) else np.asarray(output)
        width = _width(spec, batches=self._batches)
        flat = array.reshape(-1)[: max(width, 1)]
        if self._kinds[index] == _BF16:
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return tuple(flat.tolist())


def score_place(score: float) -> int:
    """Returns the place of a number among those that are counted together: the same for all workers, in order."""
    size = abs(score)
    if size < _SMALLEST:
        return 0
    place = 1 + int(log(min(size, _LARGEST) / _SMALLEST) / _STEP)
    return place if score > 0 else -place


def _class_place(said: object) -> int:
    if isinstance(said, int):
        return said % CLASS_PLACES
    text = said if isinstance(said, bytes) else str(said).encode()
    return int(xxh3_64_intdigest(text) % CLASS_PLACES)


def _all_finite(row: Sequence[float]) -> bool:
    # What is not finite makes the sum so; the sum of large finite numbers may be so too.
    together: float = sum(row)
    return together - together == 0.0 or all(isfinite(one) for one in row)


def _is_finite(array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", kind: str) -> bool:
    if kind == _BF16:
        return not bool(((array.view(np.uint16) & _EXPONENT) == _EXPONENT).any())
    return bool(np.isfinite(array).all())


def _struct_of(spec: TensorSpec) -> Struct | None:
    kind = _FORMATS.get(spec.datatype.wire_name)
    size = spec.row_bytes()
    if kind is None or not size or size // spec.datatype.size > _FEW:
        return None
    return Struct(f"<{size // spec.datatype.size}{kind}")


def _width(spec: TensorSpec, *, batches: bool) -> int:
    """Returns the numbers of a row of a flat output; 0 where there are not always as many, or it is not flat."""
    tail = spec.shape[1:] if batches or spec.shape[:1] == (-1,) else spec.shape
    if spec.any_shape or len(tail) > 1 or any(size < 1 for size in tail):
        return 0
    return tail[0] if tail else 1
