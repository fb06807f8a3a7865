"""Tensors to answers: a ModelInferResponse as bytes.

An answer is the constant part (names, version, datatypes, shapes), serialized once for each shape and kept, then the
raw data and the request's id as length-delimited fields. That is the same message that protobuf would make; only the
order of the fields differs, which protobuf leaves free.
"""

from collections.abc import Sequence
from math import prod
from typing import Final

from gateway.api.classification import classify
from gateway.api.contents import join_bytes, pack_typed
from gateway.api.signature import Reply, Signature, Skeleton, SkeletonKey
from gateway.api.unread_tensor import LONG_BYTES
from gateway.api.varint import varint
from gateway.errors import ResourceExhausted
from gateway.pb import inference_pb2 as pb
from gateway.serving.call import Call, arrays_of, size_of
from gateway.tensor import Array, Buffer, Datatype

_Output = pb.ModelInferResponse.InferOutputTensor
_ID_TAG: Final = b"\x1a"  # field 3, length-delimited
_OUTPUT_TAG: Final = b"\x2a"  # field 5, length-delimited
_CONTENTS_TAG: Final = b"\x2a"  # field 5 of an output
_RAW_TAG: Final = b"\x32"  # field 6, length-delimited
_REMEMBERED_SKELETONS: Final = 256


def encode(call: Call, signature: Signature, reply: Reply, *, max_bytes: int) -> bytes:
    """Returns the serialized ModelInferResponse of an answered call.

    Raises: ResourceExhausted (the answer is larger than a message may be).
    """
    outputs = call.outputs
    if reply.classes is not None or reply.typed:
        return _bounded(_general(call, signature, reply), max_bytes)
    if outputs and type(outputs[0]) is bytes:
        parts = _raw_parts(reply, signature, outputs, call.rows)
    else:
        parts = _array_parts(reply, signature, arrays_of(outputs, reply.specs, call.rows))
    request_id = call.request_id or call.given_id
    if request_id:
        encoded = request_id.encode()
        parts += (_ID_TAG, varint(len(encoded)), encoded)
    answer = b"".join(parts)  # type: ignore[arg-type]  # raw bytes, or arrays' bytes
    return answer if len(answer) <= max_bytes else _bounded(answer, max_bytes)


def are_long(outputs: Sequence[Buffer]) -> bool:
    """Returns whether the outputs have so many elements that to write each of them takes long."""
    size = 0
    for output in outputs:
        size += size_of(output)
    return size > LONG_BYTES


def _bounded(answer: bytes, max_bytes: int) -> bytes:
    if len(answer) > max_bytes:
        raise ResourceExhausted(f"the response has {len(answer)} bytes, the limit is {max_bytes}")
    return answer


def _raw_parts(reply: Reply, signature: Signature, outputs: Sequence[Buffer], rows: int) -> list[Buffer]:
    skeleton = reply.skeletons.get(rows)
    if skeleton is None:
        shapes = tuple((rows, *spec.shape[1:]) for spec in reply.specs)
        skeleton = _remember(reply, signature, shapes, rows)
    heads = skeleton.heads
    if len(heads) == 1:
        return [heads[0], outputs[0]]
    return [part for pair in zip(heads, outputs, strict=True) for part in pair]


def _array_parts(reply: Reply, signature: Signature, outputs: Sequence[Array]) -> list[Buffer]:
    shapes = tuple([array.shape for array in outputs])
    skeleton = reply.skeletons.get(shapes)
    if skeleton is None:
        for spec, array in zip(reply.specs, outputs, strict=True):
            if array.dtype != spec.datatype.dtype:
                raise ValueError(f"output {spec.name} has dtype {array.dtype}, {spec.datatype.wire_name} is expected")
        skeleton = _remember(reply, signature, shapes, shapes)
    parts: list[Buffer] = []
    for head, exact, array in zip(skeleton.heads, skeleton.exact, outputs, strict=True):
        raw = array.tobytes() if exact else join_bytes(array)
        parts += (head, raw) if exact else (head, varint(len(raw)), raw)
    return parts


def _remember(reply: Reply, signature: Signature, shapes: tuple[tuple[int, ...], ...], key: SkeletonKey) -> Skeleton:
    if len(shapes) != len(reply.specs):
        raise ValueError(f"{len(shapes)} outputs were computed, {len(reply.specs)} are expected")
    message = pb.ModelInferResponse(model_name=signature.model, model_version=signature.version)
    raw_heads: list[bytes] = []
    for spec, shape in zip(reply.specs, shapes, strict=True):
        message.outputs.add(name=spec.name, datatype=spec.datatype.wire_name, shape=shape)
        size = prod(shape) * spec.datatype.size
        raw_heads.append(_RAW_TAG if spec.datatype is Datatype.BYTES else _RAW_TAG + varint(size))
    if raw_heads:
        raw_heads[0] = message.SerializeToString() + raw_heads[0]
    skeleton = Skeleton(tuple(raw_heads), tuple(spec.datatype is not Datatype.BYTES for spec in reply.specs))
    if len(reply.skeletons) >= _REMEMBERED_SKELETONS:
        reply.skeletons.clear()
    reply.skeletons[key] = skeleton
    return skeleton


def _general(call: Call, signature: Signature, reply: Reply) -> bytes:
    """Returns the answer where classes were asked for, or the request came with typed contents."""
    request_id = call.request_id or call.given_id
    message = pb.ModelInferResponse(model_name=signature.model, model_version=signature.version, id=request_id)
    pieces: list[bytes] = []
    classes = reply.classes or (0,) * len(reply.specs)
    outputs = arrays_of(call.outputs, reply.specs, call.rows)
    for spec, array, count in zip(reply.specs, outputs, classes, strict=True):
        datatype = spec.datatype
        if count:
            array = classify(array, spec, count, batches=signature.config.max_batch_size > 0)
            datatype = Datatype.BYTES
        if reply.typed:
            head = _Output(name=spec.name, datatype=datatype.wire_name, shape=array.shape).SerializeToString()
            contents = pack_typed(datatype, array)
            head += _CONTENTS_TAG + varint(len(contents))
            pieces += (_OUTPUT_TAG, varint(len(head) + len(contents)), head, contents)
        else:
            message.outputs.add(name=spec.name, datatype=datatype.wire_name, shape=array.shape)
            raw = join_bytes(array) if datatype is Datatype.BYTES else array.tobytes()
            pieces += (_RAW_TAG, varint(len(raw)), raw)
    return b"".join((message.SerializeToString(), *pieces))
