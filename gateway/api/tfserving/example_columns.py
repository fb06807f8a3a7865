"""Examples, rows of named features, as the columns that a model takes.

1. A feature that has the name of an input holds that input's elements of the row.
2. Where the only input is a vector whose configuration names its elements (`features`), each of those is a feature.

Source: tensorflow/core/example/{example,feature}.proto; tensorflow_serving/apis/input.proto.
"""

from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from time import sleep
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError

from gateway.api.naming import shown
from gateway.api.tfserving.field_walk import FIXED32, FIXED64, LENGTH, VARINT, varint_at
from gateway.api.tfserving.tensor_proto import GivenTensor
from gateway.errors import InvalidArgument
from gateway.pb import tensorflow_pb2 as tf
from gateway.pb import tensorflow_serving_pb2 as tfs
from gateway.tensor import Datatype, TensorSpec

Row = Mapping[str, tf.Feature]

# Each example, and each value looked for in one, costs some objects, which a few bytes can ask for.
MAX_BYTES: Final = 4 << 20
MAX_LOOKUPS: Final = 1 << 18
# Bytes that protobuf takes apart in one go, and of one example.
_AT_ONCE: Final = 1 << 16
_LONGEST: Final = 1 << 20
_MOST_FIELDS: Final = 64  # of one message beside the examples: those that are known are few
_INPUT: Final = 2 << 3 | LENGTH
_LIST: Final = 1 << 3 | LENGTH
_LIST_WITH_CONTEXT: Final = 2 << 3 | LENGTH

_FLOATS: Final = frozenset((Datatype.FP16, Datatype.FP32, Datatype.FP64))
_INTEGERS: Final = frozenset(one for one in Datatype if one.wire_name.startswith(("INT", "UINT"))) | {Datatype.BOOL}
_FED: Final = _FLOATS | _INTEGERS | {Datatype.BYTES}


def takes_examples(inputs: Sequence[TensorSpec]) -> bool:
    """Returns whether rows of features can be made into these inputs."""
    required = [spec for spec in inputs if not spec.optional]
    return bool(required) and all(
        spec.datatype in _FED and spec.shape[:1] == (-1,) and all(size >= 0 for size in spec.shape[1:])
        for spec in required
    )


def rows_of(given: tfs.Input) -> list[Row]:
    """Returns the rows; each has the features of the context as well, where it has no own of the name.

    Raises: InvalidArgument (no row, too many).
    """
    kind = given.WhichOneof("kind")
    if kind == "example_list_with_context":
        within = given.example_list_with_context
        context, examples = within.context, within.examples
    else:
        context, examples = None, given.example_list.examples
    if not examples:
        raise InvalidArgument("input: no example is given")
    if len(examples) > MAX_LOOKUPS:
        raise InvalidArgument(f"input has {len(examples)} examples, the limit is {MAX_LOOKUPS}")
    if context is None:
        return list[Row](one.features.feature for one in examples)
    # Each over the same map: a copy for each row would be rows times features. Maps of protobuf make what they miss.
    shared = dict(context.features.feature)
    return [ChainMap(dict(one.features.feature), shared) for one in examples]


def columns_of(inputs: Sequence[TensorSpec], rows: Sequence[Row], max_bytes: int) -> dict[str, GivenTensor]:
    """Returns the inputs by name; those that are optional only where the first row has a feature of the name.

    `max_bytes` bounds all of them: a context gives each row the same values.

    Raises: InvalidArgument (naming the row, the feature, and what it should be).
    """
    if not takes_examples(inputs):
        raise InvalidArgument("the model's inputs are no rows of features of fixed sizes: use Predict")
    required = [spec for spec in inputs if not spec.optional]
    if len(required) == 1 and required[0].features and required[0].name not in rows[0]:
        of_names = [(required[0], required[0].features, 1)]
    else:
        asked = [spec for spec in inputs if not spec.optional or spec.name in rows[0]]
        of_names = [(spec, (spec.name,), prod(spec.shape[1:])) for spec in asked]
    lookups = len(rows) * sum(len(names) for _, names, _ in of_names)
    if lookups > MAX_LOOKUPS:
        raise InvalidArgument(f"{len(rows)} examples have {lookups} features for the model, the limit is {MAX_LOOKUPS}")
    columns: dict[str, GivenTensor] = {}
    for spec, names, size in of_names:
        column = _column(spec, rows, names, size, max_bytes)
        max_bytes -= len(column.data)
        columns[spec.name] = column
    return columns


def read_input(message: bytes) -> tfs.ClassificationRequest:
    """Returns the request of `Classify` or of `Regress`, which have the same fields. Raises: InvalidArgument."""
    if len(message) > MAX_BYTES:
        raise InvalidArgument(f"the request has {len(message)} bytes; of examples {MAX_BYTES} may come: use Predict")
    request = tfs.ClassificationRequest()
    try:
        if len(message) <= _AT_ONCE:
            request.MergeFromString(message)
        else:
            _merge(request, memoryview(message))
    except DecodeError:
        raise InvalidArgument(f"the request's {len(message)} bytes have no model_spec and input") from None
    return request


def _merge(request: tfs.ClassificationRequest, message: memoryview) -> None:
    """Reads a long request in parts: protobuf lets no other thread run while it takes one apart.

    Raises: DecodeError, InvalidArgument (too many examples or fields, one that is too long).
    """
    for tag, begin, body, end in _few_fields(message):
        if tag != _INPUT:
            request.MergeFromString(_short(message[begin:end]))
            continue
        given, kinds = message[body:end], request.input
        for kind, first, inner, last in _few_fields(given):
            if kind == _LIST:
                kinds.example_list.SetInParent()
                _merge_list(kinds.example_list, given[inner:last])
            elif kind == _LIST_WITH_CONTEXT:
                kinds.example_list_with_context.SetInParent()
                _merge_list(kinds.example_list_with_context, given[inner:last])
            else:
                kinds.MergeFromString(_short(given[first:last]))


def _merge_list(examples: tfs.ExampleList | tfs.ExampleListWithContext, listed: memoryview) -> None:
    start = 0
    for count, (_, begin, _, end) in enumerate(_fields(listed)):
        if count == MAX_LOOKUPS:
            raise InvalidArgument(f"input has more than {MAX_LOOKUPS} examples, the limit is {MAX_LOOKUPS}")
        if end - begin > _LONGEST:
            raise _too_long(end - begin)
        if end - start > _AT_ONCE and begin > start:
            examples.MergeFromString(bytes(listed[start:begin]))
            start = begin
            sleep(0)
    examples.MergeFromString(bytes(listed[start:]))


def _few_fields(message: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Yields the fields. Raises: DecodeError, InvalidArgument (too many)."""
    for count, field in enumerate(_fields(message)):
        if count == _MOST_FIELDS:
            raise InvalidArgument(f"the request or its input has more than {_MOST_FIELDS} fields, the limit")
        yield field


def _fields(message: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """Yields the tag of each field, where it begins, where its content does, and where it ends. Raises: DecodeError."""
    offset, size = 0, len(message)
    while offset < size:
        begin = offset
        tag, body = varint_at(message, begin)
        kind, length = tag & 7, 0
        if kind == LENGTH and body >= 0:
            length, body = varint_at(message, body)
        elif kind == VARINT and body >= 0:
            length = varint_at(message, body)[1] - body
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:  # a group, which none of these messages has
            raise DecodeError("no field")
        offset = body + length
        if body < 0 or not body <= offset <= size:
            raise DecodeError("a field that does not end")
        yield tag, begin, body, offset


def _short(field: memoryview) -> bytes:
    if len(field) > _LONGEST:
        raise _too_long(len(field))
    return bytes(field)


def _too_long(size: int) -> InvalidArgument:
    return InvalidArgument(f"input has an example of {size} bytes, the limit is {_LONGEST}: use Predict")


def _column(spec: TensorSpec, rows: Sequence[Row], names: Sequence[str], size: int, max_bytes: int) -> GivenTensor:
    """Returns the input; `size` are the elements of each of the features. Raises: InvalidArgument."""
    values: list[bytes] = []
    for place, row in enumerate(rows):
        for name in names:
            value = _elements(spec.datatype, row, place, name, size)
            max_bytes -= len(value)
            if max_bytes < 0:
                raise InvalidArgument(
                    f"input {shown(spec.name)} of {len(rows)} examples is larger than a message may be"
                )
            values.append(value)
    return GivenTensor(spec.datatype, (len(rows), *spec.shape[1:]), b"".join(values))


def _elements(datatype: Datatype, row: Row, place: int, name: str, size: int) -> bytes:
    """Returns the raw elements of a feature of a row. Raises: InvalidArgument."""
    feature = row.get(name)
    kind = feature.WhichOneof("kind") if feature is not None else None
    if feature is None or kind is None:
        raise InvalidArgument(f"example {place} has no feature {shown(name)}")
    values = getattr(feature, kind).value
    wanted = "bytes_list" if datatype is Datatype.BYTES else "int64_list" if datatype in _INTEGERS else "float_list"
    if kind != wanted and not (datatype in _FLOATS and kind == "int64_list"):
        raise InvalidArgument(f"feature {shown(name)} of example {place} is a {kind}, a {wanted} is expected")
    if len(values) != size:
        raise InvalidArgument(f"feature {shown(name)} of example {place} has {len(values)} values, expected are {size}")
    if datatype is Datatype.BYTES:
        return b"".join(len(text).to_bytes(4, "little") + text for text in values)
    wide = np.fromiter(values, np.int64 if kind == "int64_list" else np.float32, size)
    dtype = np.dtype(datatype.dtype)
    if datatype in _INTEGERS and size:
        low, high = (0, 1) if datatype is Datatype.BOOL else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if int(wide.min()) < low or int(wide.max()) > high:
            raise InvalidArgument(
                f"feature {shown(name)} of example {place} has a value that does not fit {datatype.wire_name}"
            )
    return wide.astype(dtype).tobytes()
