"""Tells what is logged of a large tensor: a hash and statistics of each instance."""

import math
import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_128_digest

from gateway.tensor import Datatype, TensorSpec

DIGEST = np.dtype(
    [("xxh3_128", "V16"), ("mean", "<f8"), ("std", "<f8"), ("min", "<f8"), ("max", "<f8"), ("nan", "<u8")]
)
MAX_TENSOR_BYTES = 65536  # of one instance; larger ones are logged as digest and statistics
_SAMPLED = 8_192  # values that mean and deviation of a large tensor are taken over
_RUN = 64
_SQUARABLE = 1e150  # squares of smaller values are finite
_PACK = struct.Struct("<16s4dQ").pack  # as DIGEST


class Digests(NamedTuple):
    """Tells what is left of a large tensor. `data` are DIGEST, one of each instance; `shape` is the tensor's."""

    data: bytes
    shape: tuple[int, ...]


def digest(spec: TensorSpec, data: bytes | memoryview, instances: int) -> bytes:
    """Returns hash and statistics of each instance. The hash tells equal tensors and proves nothing: SHA-256 would take
    four times as long as all the rest (docs/decisions/0005)."""
    digests: list[bytes] = []
    size = len(data) // instances
    whole = memoryview(data)
    for index in range(instances):
        part = whole[index * size : (index + 1) * size]
        values = np.frombuffer(part, spec.datatype.dtype)
        if spec.datatype is Datatype.BF16:
            values = (values.astype("<u4") << np.uint32(16)).view("<f4")
        digests.append(_PACK(xxh3_128_digest(part), *_statistics(values)))
    return b"".join(digests)


def _statistics(values: npt.NDArray[np.generic]) -> tuple[float, float, float, float, int]:
    """Returns mean and standard deviation, least and largest of the values that are numbers, and how many are not.

    Least, largest and the count are exact; mean and deviation are those of at most 8 192 values, in evenly spaced runs
    of 64: single values would fetch every cache line of the tensor once more. It is as few calls as can be, for where
    it runs on the log's thread, the loop and that thread are woken in turns for each of them.
    """
    least, largest = np.nan, np.nan
    if values.size:
        least, largest = float(np.minimum.reduce(values)), float(np.maximum.reduce(values))
    missing = 0
    if np.isnan(least):
        known = values[~np.isnan(values)]
        missing = values.size - known.size
        if not known.size:
            return np.nan, np.nan, np.nan, np.nan, missing
        values, least, largest = known, float(known.min()), float(known.max())
    sample = _sample(values).astype("<f8").ravel()
    if least > -_SQUARABLE and largest < _SQUARABLE:
        return *_moments(sample), least, largest, missing
    with np.errstate(all="ignore"):  # infinities have no standard deviation; nan says so
        return *_moments(sample), least, largest, missing


def _moments(sample: npt.NDArray[np.float64]) -> tuple[float, float]:
    mean = float(np.add.reduce(sample)) / sample.size
    sample -= mean
    sample *= sample
    return mean, math.sqrt(float(np.add.reduce(sample)) / sample.size)


def _sample(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    stride = values.size // (_SAMPLED // _RUN)
    if stride <= _RUN:
        return values
    first = (stride - _RUN) // 2
    return values[: values.size // stride * stride].reshape(-1, stride)[:, first : first + _RUN]
