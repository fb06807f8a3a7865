"""A record: what one request leaves in the prediction log, while it waits to be written.

The class is a msgspec Struct, so this module is not compiled. Making one and reading it costs 0.1 us more than a tuple
in compiled code, and less than a tuple in interpreted code.
"""

from collections.abc import Sequence

import msgspec

from gateway.records.worker.digest import Digests
from gateway.tensor import Buffer

Shape = tuple[int, ...]
Logged = Buffer | Digests  # a tensor, or what is left of a large one


class Record(msgspec.Struct, gc=False):
    """One request, by reference: its tensors must not change afterwards.

    Shapes: `inputs` and `outputs` follow the version's specs (inputs may be empty or hold None, outputs may be empty);
            where `wanted` is set, `outputs[i]` is the output with index `wanted[i]`, and the others are not logged;
            `in_shapes` None: the specs' shapes, with `rows` for the batch dimension.
    Units:  `ts_us` since the epoch; `size_bytes` is what the record counts as in the buffer.

    `kept` says why the record is kept, with the probability `sample_p`; its stream decides both.
    """

    ts_us: int
    request_id: str
    code: int
    reason: str
    revision: int
    bucket: int
    rows: int
    queue_us: int
    infer_us: int
    total_us: int
    in_shapes: Sequence[Shape | None] | None
    inputs: Sequence[Logged | None]
    outputs: Sequence[Logged]
    wanted: tuple[int, ...] | None = None
    sample_p: float = 1.0
    kept: int = 0  # a `Kept`, or one that is not decided yet
    size_bytes: int = 0
