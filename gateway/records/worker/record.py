"""A record: what one request leaves in the prediction log, while it waits to be written."""

from collections.abc import Sequence

from gateway.records.worker.digest import Digests
from gateway.tensor import Buffer

Shape = tuple[int, ...]
Logged = Buffer | Digests  # a tensor, or what is left of a large one


class Record:
    """One request, by reference: its tensors must not change afterwards.

    Shapes: `inputs` and `outputs` follow the version's specs (inputs may be empty or hold None, outputs may be empty);
            where `wanted` is set, `outputs[i]` is the output with index `wanted[i]`, and the others are not logged;
            `in_shapes` None: the specs' shapes, with `rows` for the batch dimension.
    Units:  `ts_us` since the epoch; `size_bytes` is what the record counts as in the buffer.

    `kept` says why the record is kept, with the probability `sample_p`; its stream decides both.
    """

    __slots__ = (
        "bucket",
        "code",
        "in_shapes",
        "infer_us",
        "inputs",
        "kept",
        "outputs",
        "queue_us",
        "reason",
        "request_id",
        "revision",
        "rows",
        "sample_p",
        "size_bytes",
        "total_us",
        "ts_us",
        "wanted",
    )

    def __init__(
        self,
        ts_us: int,
        request_id: str,
        code: int,
        reason: str,
        revision: int,
        bucket: int,
        rows: int,
        queue_us: int,
        infer_us: int,
        total_us: int,
        in_shapes: Sequence[Shape | None] | None,
        inputs: Sequence[Logged | None],
        outputs: Sequence[Logged],
        wanted: tuple[int, ...] | None = None,
        sample_p: float = 1.0,
        kept: int = 0,
        size_bytes: int = 0,
    ) -> None:
        self.ts_us = ts_us
        self.request_id = request_id
        self.code = code
        self.reason = reason
        self.revision = revision
        self.bucket = bucket
        self.rows = rows
        self.queue_us = queue_us
        self.infer_us = infer_us
        self.total_us = total_us
        self.in_shapes = in_shapes
        self.inputs = inputs
        self.outputs = outputs
        self.wanted = wanted
        self.sample_p = sample_p
        self.kept = kept  # a `Kept`, or one that is not decided yet
        self.size_bytes = size_bytes
