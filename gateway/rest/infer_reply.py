"""Tensors to the body of an answer: JSON, and behind it the outputs that were asked for in binary.

What repeats from answer to answer (names, datatypes, shapes) is written once for each shape and kept with the reply.

Source: Open Inference Protocol v2; Triton's binary tensor data extension.
"""

from collections.abc import Sequence
from math import prod
from typing import Final, NamedTuple, cast

import numpy as np
import orjson

from gateway.api.classification import classify
from gateway.api.contents import join_bytes
from gateway.api.signature import Reply, Signature, SkeletonKey
from gateway.errors import InvalidArgument, ResourceExhausted
from gateway.rest.json_tensor import BINARY_ONLY, json_of
from gateway.serving.call import Call, arrays_of
from gateway.tensor import Array, Datatype, TensorSpec

_REMEMBERED: Final = 256


class ReplyForm(NamedTuple):
    """Says which outputs are wanted in binary: `outputs` as the request orders them, or `every` where it names none."""

    every: bool = False
    outputs: tuple[bool, ...] = ()
    predictions: bool = False  # in the form of KServe's first protocol

    def binary(self, count: int) -> tuple[bool, ...]:
        """Returns it for each output of an answer with that many."""
        return self.outputs if len(self.outputs) == count else (self.every,) * count


class ReplyBody:
    """The pieces of a body. `json_size` is the length of the JSON where something binary follows it, else -1."""

    __slots__ = ("json_size", "pieces")

    def __init__(self, pieces: list[bytes | memoryview], json_size: int) -> None:
        self.pieces = pieces
        self.json_size = json_size

    def within(self, max_bytes: int) -> "ReplyBody":
        """Returns the same. Raises: ResourceExhausted (it is larger than an answer may be)."""
        size = 0
        for piece in self.pieces:
            size += len(piece)
        if size > max_bytes:
            raise ResourceExhausted(f"the response has {size} bytes, the limit is {max_bytes}")
        return self


def check_form(form: ReplyForm, reply: Reply) -> None:
    """Checks that what is wanted as JSON has a form there, before the model runs.

    Raises: InvalidArgument.
    """
    if form.every and not form.outputs:
        return
    classes = reply.classes
    for place, (spec, binary) in enumerate(zip(reply.specs, form.binary(len(reply.specs)), strict=True)):
        if not binary and spec.datatype in BINARY_ONLY and (classes is None or not classes[place]):
            raise InvalidArgument(
                f"output {spec.name!r}: {spec.datatype.wire_name} has no form in JSON, ask for it in binary "
                "(binary_data)"
            )


def write_reply(call: Call, signature: Signature, reply: Reply, form: ReplyForm, *, max_bytes: int) -> ReplyBody:
    """Returns the body of the answer to an answered call.

    Raises: ResourceExhausted (it is larger than an answer may be), InvalidArgument (an output has no form in JSON).
    """
    outputs = call.outputs
    binary = form.binary(len(reply.specs))
    if reply.classes is None and outputs and type(outputs[0]) is bytes:
        body = _of_rows(call, signature, reply, binary)
    else:
        body = _general(call, signature, reply, binary)
    return body.within(max_bytes)


def _of_rows(call: Call, signature: Signature, reply: Reply, binary: tuple[bool, ...]) -> ReplyBody:
    """Returns the body where the outputs are raw, so that the rows say everything of their shapes."""
    heads = reply.json_heads.get((call.rows, binary))
    if heads is None:
        shapes = tuple((call.rows, *spec.shape[1:]) for spec in reply.specs)
        heads = _heads(signature, reply, reply.specs, shapes, binary, key=call.rows)
    parts: list[bytes] = []
    raw: list[bytes | memoryview] = []
    for place, output in enumerate(call.outputs):
        parts.append(heads[place])
        if binary[place]:
            raw.append(cast("bytes | memoryview", output))
        else:
            spec = reply.specs[place]
            parts.append(json_of(spec.name, spec.datatype, np.frombuffer(output, spec.datatype.dtype)))
    parts.append(heads[-1])
    parts.append(_tail(call))
    head = b"".join(parts)
    return ReplyBody([head, *raw], len(head)) if raw else ReplyBody([head], -1)


def _general(call: Call, signature: Signature, reply: Reply, binary: tuple[bool, ...]) -> ReplyBody:
    arrays = list(arrays_of(call.outputs, reply.specs, call.rows))
    specs = list(reply.specs)
    if reply.classes is not None:
        for place, count in enumerate(reply.classes):
            if count:
                spec = specs[place]
                batches = signature.config.max_batch_size > 0
                arrays[place] = classify(arrays[place], spec, count, batches=batches)
                specs[place] = TensorSpec(spec.name, Datatype.BYTES, spec.shape)
    raw = [_raw(spec, array) if wanted else b"" for spec, array, wanted in zip(specs, arrays, binary, strict=True)]
    shapes = tuple([array.shape for array in arrays])
    heads = _heads(signature, reply, specs, shapes, binary, raw)
    parts: list[bytes] = []
    for head, spec, array, wanted in zip(heads, specs, arrays, binary, strict=False):
        parts.append(head)
        if not wanted:
            parts.append(json_of(spec.name, spec.datatype, array))
    parts.append(heads[-1])
    parts.append(_tail(call))
    head = b"".join(parts)
    if not any(binary):
        return ReplyBody([head], -1)
    return ReplyBody([head, *[data for data, wanted in zip(raw, binary, strict=True) if wanted]], len(head))


def _raw(spec: TensorSpec, array: Array) -> bytes:
    return join_bytes(array) if spec.datatype is Datatype.BYTES else array.tobytes()


def _tail(call: Call) -> bytes:
    request_id = call.request_id or call.given_id
    return b',"id":' + orjson.dumps(request_id) + b"}" if request_id else b"}"


def _heads(
    signature: Signature,
    reply: Reply,
    specs: Sequence[TensorSpec],
    shapes: tuple[tuple[int, ...], ...],
    binary: tuple[bool, ...],
    raw: Sequence[bytes] = (),
    key: SkeletonKey | None = None,
) -> tuple[bytes, ...]:
    """Returns the JSON that goes before the data of each output, and that which goes behind the last.

    It is kept by the shapes, or by another key that says the same.
    """
    found_by = (shapes if key is None else key, binary)
    kept = reply.json_heads.get(found_by)
    if kept is not None:
        return kept
    texts: list[bytes] = []
    names = orjson.dumps({"model_name": signature.model, "model_version": signature.version})
    before = names[:-1] + b',"outputs":['
    lasts = True
    for place, (spec, shape, wanted) in enumerate(zip(specs, shapes, binary, strict=True)):
        described: dict[str, object] = {"name": spec.name, "datatype": spec.datatype.wire_name, "shape": list(shape)}
        if wanted:
            size = len(raw[place]) if spec.datatype is Datatype.BYTES else prod(shape) * spec.datatype.size
            described["parameters"] = {"binary_data_size": size}
            lasts = lasts and spec.datatype is not Datatype.BYTES
            texts.append(before + orjson.dumps(described))
            before = b","
        else:
            texts.append(before + orjson.dumps(described)[:-1] + b',"data":')
            before = b"},"
    texts.append(before[:-1] + b"]" if specs else before + b"]")
    heads = tuple(texts)
    if lasts:
        if len(reply.json_heads) >= _REMEMBERED:
            reply.json_heads.clear()
        reply.json_heads[found_by] = heads
    return heads
