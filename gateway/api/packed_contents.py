"""The typed contents of an input as they lie in a long message: neither protobuf nor an object for each element.

Only the form that serializers write is taken out: one list, packed. Everything else is left to protobuf.

Source: Open Inference Protocol v2, InferTensorContents; protobuf encoding specification.
"""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Final

import numpy as np

from gateway.api.contents import (
    PACKED_AS_RAW,
    TYPED_FIELDS,
    check_elements,
    strings,
    typed_field,
    unfit,
    wrong_count,
    wrong_field,
)
from gateway.api.naming import shown
from gateway.api.packed_varints import LONGEST, as_datatype, count_varints, read_varints
from gateway.api.unread_tensor import LONG_BYTES, UnreadTensor
from gateway.api.varint import read_varint
from gateway.errors import InvalidArgument
from gateway.pb import inference_pb2 as pb
from gateway.tensor import Array, Buffer, Datatype

_CONTENTS: Final = 5 << 3 | 2  # in InferInputTensor
_TEXT: Final = 8 << 3 | 2
_NAMES: Final = {field.number << 3 | 2: field.name for field in pb.InferTensorContents.DESCRIPTOR.fields}
_MOST_FIELDS: Final = 256  # of an input: its shape, and more parameters than there may be
_NO_CONTENTS: Final = bytes((_CONTENTS, 0))


class PackedContents:
    """The list of an input's elements: the name of its field, and its bytes, or of texts all their fields."""

    __slots__ = ("data", "field")

    def __init__(self, field: str, data: memoryview) -> None:
        self.field = field
        self.data = data

    def tensor(self, name: str, datatype: Datatype, shape: tuple[int, ...]) -> Buffer | UnreadTensor:
        """Returns the elements; those of a long list have still to be made.

        Raises: InvalidArgument (raw-only datatype, another field, wrong count, value out of range).
        """
        if self.field != typed_field(name, datatype):
            raise wrong_field(name, datatype, self.field)
        count = prod(shape)
        if datatype in PACKED_AS_RAW:
            if len(self.data) != count * datatype.size:
                raise wrong_count(name, count, len(self.data) // datatype.size)
            return self.data
        if datatype is Datatype.BYTES:
            check_elements(name, count)
        make: Callable[..., Buffer] = _texts if datatype is Datatype.BYTES else _numbers
        read = partial(make, name, datatype, self.data, shape)
        return UnreadTensor(read, len(self.data)) if len(self.data) >= LONG_BYTES else read()

    def first(self, datatype: Datatype) -> bool | int | float | bytes | None:
        """Returns the first element, None where there is none of the datatype."""
        if self.field != TYPED_FIELDS.get(datatype):
            return None
        if datatype is Datatype.BYTES:
            length, start = read_varint(self.data, 1)
            return bytes(self.data[start : start + length]) if 0 < start <= len(self.data) - length else None
        if datatype in PACKED_AS_RAW:
            return None if len(self.data) < datatype.size else _item(np.frombuffer(self.data, datatype.dtype, 1))
        head = bytes(self.data[:LONGEST])
        size = next((place for place, byte in enumerate(head, 1) if byte < 0x80), 0)
        try:
            return _item(_numbers("", datatype, memoryview(head[:size]), (1,))) if size else None
        except InvalidArgument:
            return None


def take_contents(tensor: memoryview) -> tuple[bytes, PackedContents] | None:
    """Returns the serialized InferInputTensor with contents that are empty, and what was in them.

    None: there is nothing to take out, or it is in another form.
    """
    offset, size, left = 0, len(tensor), _MOST_FIELDS
    begin = end = -1
    data = tensor[:0]
    while offset < size:
        start = offset
        tag, offset = read_varint(tensor, offset)
        if offset < 0 or tag & 7 != 2 or not left:
            return None
        left -= 1
        length, offset = read_varint(tensor, offset)
        if offset < 0 or length > size - offset:
            return None
        if tag == _CONTENTS:
            if begin >= 0:
                return None
            begin, end, data = start, offset + length, tensor[offset : offset + length]
        offset += length
    taken = _only_list(data)
    return None if taken is None else (b"".join((tensor[:begin], _NO_CONTENTS, tensor[end:])), taken)


def _only_list(contents: memoryview) -> PackedContents | None:
    """Returns what is in the contents, None unless that is one list in one piece."""
    if not len(contents):
        return None
    tag = contents[0]
    if tag == _TEXT:
        return PackedContents(_NAMES[tag], contents)
    length, offset = read_varint(contents, 1)
    if tag not in _NAMES or offset < 0 or offset + length != len(contents):
        return None
    return PackedContents(_NAMES[tag], contents[offset:])


def _numbers(name: str, datatype: Datatype, data: memoryview, shape: tuple[int, ...]) -> Array:
    """Returns the numbers of a list of varints. Raises: InvalidArgument."""
    count = prod(shape)
    given = count_varints(data)
    if given != count:
        raise wrong_count(name, count, given)
    encoded = read_varints(data)
    if encoded is None:
        raise InvalidArgument(f"input {shown(name)}: {typed_field(name, datatype)} is no list of numbers")
    values = as_datatype(encoded, datatype, signed=np.dtype(datatype.dtype).kind == "i")
    if values is None:
        raise unfit(name, datatype)
    return values.reshape(shape)


def _texts(name: str, datatype: Datatype, data: memoryview, shape: tuple[int, ...]) -> Array:
    """Returns the texts of fields that follow each other. Raises: InvalidArgument."""
    count = prod(shape)
    texts = split_texts(bytes(data), _TEXT, count + 1)
    if texts is None:
        raise InvalidArgument(f"input {shown(name)}: contents has something beside bytes_contents")
    if len(texts) != count:
        raise wrong_count(name, count, len(texts))
    return strings(name, texts, shape)


def split_texts(encoded: bytes, tag: int, most: int) -> list[bytes] | None:
    """Returns the texts of fields with that tag, `most` of them at most; None where there is anything else."""
    texts: list[bytes] = []
    offset, size = 0, len(encoded)
    while offset < size and len(texts) < most:
        if encoded[offset] != tag:
            return None
        start = offset + 2
        length = encoded[start - 1] if start <= size else size
        if length >= 0x80:
            length, start = read_varint(encoded, offset + 1)
        offset = start + length
        if start < 0 or offset > size:
            return None
        texts.append(encoded[start:offset])
    return texts


def _item(values: Buffer) -> bool | int | float:
    value: bool | int | float = np.asarray(values).reshape(-1)[0].item()
    return value
