"""Records whose large inputs are replaced by what is logged of them."""

from collections.abc import Sequence
from math import prod

from gateway.records.worker.block import Logged, Record
from gateway.records.worker.digest import MAX_TENSOR_BYTES, Digests, digest
from gateway.records.worker.redaction import StreamRedaction
from gateway.records.worker.stream_schema import fixed_bytes, is_batched, is_flat
from gateway.tensor import Datatype, TensorSpec


def condensable(specs: Sequence[TensorSpec], redaction: StreamRedaction) -> list[tuple[int, TensorSpec]]:
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


def condensed(record: Record, inputs: Sequence[tuple[int, TensorSpec]]) -> tuple[Record, int]:
    """The record with digests in the place of large inputs of raw bytes, and how many bytes of them that frees.

    What is not as its spec and shape say stays as it is: the flush will see it.
    """
    rows, shapes, tensors, size = record[6], record[10], record[11], record[15]
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
    if not freed:
        return record, 0
    return (*record[:11], left, *record[12:15], size - freed, record[16]), freed
