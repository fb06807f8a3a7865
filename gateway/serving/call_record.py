"""The record of a call, for the prediction log. It is made here and nowhere else, for answers and for their copies."""

from collections.abc import Sequence
from time import time_ns
from typing import Final

from gateway.errors import Code
from gateway.records.worker.record import Record
from gateway.serving.call import CACHED, Call

_OK: Final = Code.OK
# The time of the run in the log where there was none: the answer came from the cache.
FROM_CACHE_US: Final = -1


def record_of(
    call: Call,
    request_id: str,
    code: Code,
    *,
    reason: str,
    revision: int,
    bucket: int,
    shapes: Sequence[tuple[int, ...] | None] | None,
    total_ns: int,
) -> Record:
    """The record of a call that ended now, `total_ns` after it was received; it shares the call's tensors.

    Shapes: `shapes` are those of the inputs, None where they follow from the rows.
    """
    return Record(
        ts_us=time_ns() // 1000 - total_ns // 1000,
        request_id=request_id,
        code=0 if code is _OK else code.value,
        reason=reason,
        revision=revision,
        bucket=bucket,
        rows=call.rows,
        queue_us=call.queue_ns // 1000,
        infer_us=FROM_CACHE_US if call.cache_key == CACHED else call.infer_ns // 1000,
        total_us=total_ns // 1000,
        in_shapes=shapes,
        inputs=call.inputs,
        outputs=call.outputs,
        wanted=call.wanted,
    )
