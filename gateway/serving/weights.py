"""Checks of the tensors in a model file: each has the data it declares, inside the version's own files, and no NaN."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from gateway.serving.model_policy import InvalidModel, Policy, shown

_CHUNK = 16 << 20  # a multiple of every element size
_DIGITS = frozenset("0123456789")


@dataclass(frozen=True, slots=True)
class _Element:
    """An element type: its width, the typed field that may hold it, and the array type in which NaN is looked for."""

    bits: int
    field: str
    floats: str = ""  # numpy dtype of an IEEE type
    patterns: str = ""  # numpy dtype of the bit patterns of a type that numpy lacks
    nan_mask: int = 0
    nan_above: int = 0  # the pattern is NaN if (pattern & nan_mask) > nan_above


_ELEMENTS: Mapping[int, _Element] = {
    TensorProto.FLOAT: _Element(32, "float_data", floats="<f4"),
    TensorProto.DOUBLE: _Element(64, "double_data", floats="<f8"),
    TensorProto.COMPLEX64: _Element(64, "float_data", floats="<f4"),
    TensorProto.COMPLEX128: _Element(128, "double_data", floats="<f8"),
    TensorProto.FLOAT16: _Element(16, "int32_data", patterns="<u2", nan_mask=0x7FFF, nan_above=0x7C00),
    TensorProto.BFLOAT16: _Element(16, "int32_data", patterns="<u2", nan_mask=0x7FFF, nan_above=0x7F80),
    TensorProto.FLOAT8E4M3FN: _Element(8, "int32_data", patterns="u1", nan_mask=0x7F, nan_above=0x7E),
    TensorProto.FLOAT8E5M2: _Element(8, "int32_data", patterns="u1", nan_mask=0x7F, nan_above=0x7C),
    TensorProto.FLOAT8E8M0: _Element(8, "int32_data", patterns="u1", nan_mask=0xFF, nan_above=0xFE),
    # The "fnuz" types have one NaN, where minus zero would be.
    TensorProto.FLOAT8E4M3FNUZ: _Element(8, "int32_data", patterns="u1"),
    TensorProto.FLOAT8E5M2FNUZ: _Element(8, "int32_data", patterns="u1"),
    TensorProto.FLOAT4E2M1: _Element(4, "int32_data"),
    TensorProto.INT2: _Element(2, "int32_data"),
    TensorProto.UINT2: _Element(2, "int32_data"),
    TensorProto.INT4: _Element(4, "int32_data"),
    TensorProto.UINT4: _Element(4, "int32_data"),
    TensorProto.INT8: _Element(8, "int32_data"),
    TensorProto.UINT8: _Element(8, "int32_data"),
    TensorProto.BOOL: _Element(8, "int32_data"),
    TensorProto.INT16: _Element(16, "int32_data"),
    TensorProto.UINT16: _Element(16, "int32_data"),
    TensorProto.INT32: _Element(32, "int32_data"),
    TensorProto.INT64: _Element(64, "int64_data"),
    TensorProto.UINT32: _Element(32, "uint64_data"),
    TensorProto.UINT64: _Element(64, "uint64_data"),
    TensorProto.STRING: _Element(0, "string_data"),
}
_FNUZ = frozenset((TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2FNUZ))
_TYPED_FIELDS = ("float_data", "double_data", "int32_data", "int64_data", "uint64_data", "string_data")


@dataclass(slots=True)
class Weights:
    """Checks tensors one after the other and sums up what it saw.

    `files` are the sizes of the version's files by name, relative to `directory`; `folder` is the part of the names
    that leads to the model file ("" or "model.onnx"), from where external data are named.
    """

    directory: Path
    files: Mapping[str, int]
    folder: str
    policy: Policy
    parameter_count: int = 0
    weight_bytes: int = 0
    infinite: int = 0
    external_files: set[str] = field(default_factory=set)

    def check(self, tensor: TensorProto, *, may_hold_nan: bool = False) -> None:
        """Checks that the tensor is whole and inside the version.

        Raises: InvalidModel naming the tensor.
        """
        name = shown(tensor.name)
        element = _ELEMENTS.get(tensor.data_type)
        if element is None:
            raise InvalidModel(f"tensor {name} has the unknown element type {tensor.data_type}")
        if tensor.HasField("segment"):
            raise InvalidModel(f"tensor {name} is split into segments, which is not supported")
        count = self.element_count(tensor.dims, f"tensor {name}", element.bits)
        size = -(-count * element.bits // 8)
        self.parameter_count += count
        self.weight_bytes += size
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            chunks = self._external(tensor, element, size)
        else:
            chunks = _internal(tensor, element, count, size)
        self._scan(chunks, tensor, element, may_hold_nan=may_hold_nan)

    def element_count(self, dims: Iterable[int], label: str, bits: int) -> int:
        """Returns the product of `dims`.

        Raises: InvalidModel, if a dimension is negative or the whole is larger than the policy allows.
        """
        sizes = [int(size) for size in dims]
        if len(sizes) > self.policy.max_rank:
            raise InvalidModel(f"{label} has {len(sizes)} dimensions, at most {self.policy.max_rank} are allowed")
        count = 1
        for size in sizes:
            if size < 0:
                raise InvalidModel(f"{label} has the negative dimension {size} in {sizes}")
            count *= size
        if count * max(bits, 8) > self.policy.max_tensor_bytes * 8:
            raise InvalidModel(
                f"{label} of shape {sizes} is larger than the limit of {self.policy.max_tensor_bytes} bytes"
            )
        return count

    def _external(self, tensor: TensorProto, element: _Element, size: int) -> Iterator[bytes]:
        name = shown(tensor.name)
        if tensor.data_location != TensorProto.EXTERNAL:
            raise InvalidModel(f"tensor {name} names external data but is not marked as external")
        if tensor.HasField("raw_data") or any(len(getattr(tensor, typed)) for typed in _TYPED_FIELDS):
            raise InvalidModel(f"tensor {name} has its data both outside and inside the model file")
        if element.bits == 0:
            raise InvalidModel(f"tensor {name} of strings cannot have external data")
        entries = _entries(tensor)
        file = self._resolve(entries["location"], name)
        offset = _number(entries.get("offset", "0"), "offset", name)
        length = _number(entries.get("length", str(size)), "length", name)
        if length != size:
            raise InvalidModel(f"tensor {name} needs {size} bytes by its shape, its external data have length {length}")
        if offset + length > self.files[file]:
            raise InvalidModel(
                f"external data of tensor {name} end at byte {offset + length}, "
                f"but {shown(file)} has {self.files[file]}"
            )
        self.external_files.add(file)
        return _file_chunks(self.directory / file, offset, length)

    def _resolve(self, location: str, name: str) -> str:
        """Returns the name of the version's file that `location` refers to."""
        parts = location.split("/")
        if location.startswith("/") or "\\" in location or any(part in ("", ".", "..") for part in parts):
            raise InvalidModel(
                f"external data of tensor {name} lie at {shown(location)}: only a plain relative path below the "
                f"model is allowed"
            )
        file = str(PurePosixPath(self.folder, *parts))
        if file not in self.files:
            raise InvalidModel(f"external data of tensor {name} lie at {shown(location)}, which is not in the version")
        return file

    def _scan(self, chunks: Iterator[bytes], tensor: TensorProto, element: _Element, *, may_hold_nan: bool) -> None:
        if not (element.floats or element.patterns):
            return
        nans = 0
        for chunk in chunks:
            if element.floats:
                values: npt.NDArray[np.floating] = np.frombuffer(chunk, element.floats)
                finite = np.isfinite(values)
                if not finite.all():
                    bad = int(np.isnan(values).sum())
                    nans += bad
                    self.infinite += len(values) - int(finite.sum()) - bad
            else:
                patterns = np.frombuffer(chunk, element.patterns)
                if tensor.data_type in _FNUZ:
                    nans += int((patterns == 0x80).sum())
                else:
                    magnitude = patterns & element.nan_mask
                    nans += int((magnitude > element.nan_above).sum())
                    if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT8E5M2):
                        self.infinite += int((magnitude == element.nan_above).sum())
        if nans and not (may_hold_nan or self.policy.allow_nan):
            raise InvalidModel(f"tensor {shown(tensor.name)} holds {nans} NaN: the model would answer NaN")


def _internal(tensor: TensorProto, element: _Element, count: int, size: int) -> Iterator[bytes]:
    name = shown(tensor.name)
    used = [typed for typed in _TYPED_FIELDS if len(getattr(tensor, typed))]
    if tensor.HasField("raw_data"):
        raw = tensor.raw_data
        if used or element.bits == 0:
            raise InvalidModel(f"tensor {name} has raw data beside or instead of its {element.field}")
        if len(raw) != size:
            raise InvalidModel(f"tensor {name} needs {size} bytes by its shape {list(tensor.dims)}, it has {len(raw)}")
        return iter((raw,))
    if [typed for typed in used if typed != element.field]:
        raise InvalidModel(f"tensor {name} has its data in {', '.join(used)}, not in {element.field}")
    values = getattr(tensor, element.field)
    per_element = {64: 2, 128: 2}.get(element.bits, 1) if element.floats and _is_complex(tensor) else 1
    expected = -(-count // (8 // element.bits)) if 0 < element.bits < 8 else count * per_element
    if len(values) != expected:
        raise InvalidModel(
            f"tensor {name} needs {expected} values by its shape {list(tensor.dims)}, it has {len(values)}"
        )
    if element.floats:
        return iter((np.fromiter(values, element.floats, expected).tobytes(),))
    if element.patterns:
        return iter((np.fromiter(values, np.int64, expected).astype(element.patterns).tobytes(),))
    return iter(())


def _is_complex(tensor: TensorProto) -> bool:
    return tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128)


def _entries(tensor: TensorProto) -> dict[str, str]:
    """Returns the external data entries of a tensor; refuses all but the four known keys."""
    name = shown(tensor.name)
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key not in ("location", "offset", "length", "checksum"):
            raise InvalidModel(f"external data of tensor {name} have the unknown key {shown(entry.key)}")
        if entry.key in entries:
            raise InvalidModel(f"external data of tensor {name} have the key {entry.key!r} twice")
        if not isinstance(entry.value, str):
            raise InvalidModel(f"external data of tensor {name} have a {entry.key} that is not UTF-8")
        entries[entry.key] = entry.value
    if not entries.get("location"):
        raise InvalidModel(f"external data of tensor {name} have no location")
    return entries


def _number(text: str, key: str, name: str) -> int:
    if not text or len(text) > 18 or not _DIGITS.issuperset(text):
        raise InvalidModel(f"external data of tensor {name} have {key} {shown(text)}: a number of bytes is needed")
    return int(text)


def _file_chunks(path: Path, offset: int, length: int) -> Iterator[bytes]:
    """Yields the bytes in pieces. They are read, not mapped: a file that shrinks ends the check, not the process."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while length > 0:
            chunk = os.pread(descriptor, min(length, _CHUNK), offset)
            if len(chunk) < min(length, _CHUNK):
                raise InvalidModel(f"{shown(path.name)} ended while it was read")
            yield chunk
            offset += len(chunk)
            length -= len(chunk)
    finally:
        os.close(descriptor)
