"""Records whose large inputs are replaced by what is logged of them."""

from collections.abc import Sequence
from math import prod

from gateway.records.worker.digest import MAX_TENSOR_BYTES, Digests, digest
from gateway.records.worker.record import Logged, Record
from gateway.records.worker.redaction import StreamRedaction
from gateway.records.worker.stream_schema import fixed_bytes, is_batched, is_flat
from gateway.tensor import Datatype, TensorSpec


def digestible(specs: Sequence[TensorSpec], redaction: StreamRedaction) -> list[tuple[int, TensorSpec]]:
    """The inputs that may be large, by their index: not those that are small whatever is sent, texts, and those that
    redaction touches, of which the digest is made of what it leaves."""
    return [
        (index, spec)
        for index, spec in enumerate(specs)
        if spec.datatype is not Datatype.BYTES
        and not is_flat(spec)
        and not 0 < fixed_bytes(spec) <= MAX_TENSOR_BYTES
        and not redaction.withholds(spec.name)
        and spec.name not in redaction.changes
    ]


def digest_large(record: Record, inputs: Sequence[tuple[int, TensorSpec]]) -> int:
    """Puts digests in the place of the record's large inputs of raw bytes; how many bytes that frees.

    What is not as its spec and shape say stays as it is: the flush will see it.
    """
    rows, shapes, tensors = record.rows, record.in_shapes, record.inputs
    left: list[Logged | None] = []
    freed = 0
    for index, spec in inputs:
        tensor = tensors[index] if index < len(tensors) else None
        shape = shapes[index] if shapes is not None else (rows, *spec.shape[1:]) if is_batched(spec) else spec.shape
        if not isinstance(tensor, bytes | memoryview) or not shape:
            continue
        instances = shape[0] if is_batched(spec) else 1
        total = len(tensor)
        if instances < 1 or total <= MAX_TENSOR_BYTES * instances or total != spec.datatype.size * prod(shape):
            continue
        left = left or list(tensors)
        left[index] = made = Digests(digest(spec, tensor, instances), tuple(shape))
        freed += total - len(made.data)
    if freed:
        record.inputs = left
        record.size_bytes -= freed
    return freed
