"""A call: one inference request from its admission to its answer."""

from collections.abc import Sequence
from time import monotonic_ns
from typing import Final, Protocol

import numpy as np

from gateway.errors import GatewayError
from gateway.routing.decision.decision import Decision
from gateway.routing.document.attributes import NO_ATTRIBUTES, Attributes
from gateway.serving.batch import Batch
from gateway.serving.call_trace import CallTrace
from gateway.serving.served_arm import ServedArm
from gateway.serving.version import Version
from gateway.tensor import Array, Buffer, TensorSpec

# In place of a key: the answer came from the cache; the caller asked that it does not.
CACHED: Final = -1
UNCACHED: Final = -2


class Receiver(Protocol):
    """Is told what becomes of a call, on the event loop.

    Order: `submitted` at most once, then `answered`; `withdrawn` between them if nobody waits for the answer any more.
    """

    def submitted(self, call: "Call") -> None:
        """The call has its inputs and is about to be queued."""

    def answered(self, call: "Call") -> None:
        """The call has its outcome: `outputs` or `error` is set."""

    def withdrawn(self, call: "Call") -> None:
        """The next outcome is the last one, whatever it is."""


class Call:
    """Carries one request through the engine; nobody else answers it.

    An edge creates it, the engine fills in the rest. Once submitted, its receiver's `answered` runs exactly once, with
    either `outputs` or `error` set; a call that is cancelled is answered too (with Cancelled), so that its lease and
    permit end.

    Shapes: `inputs[i]` and `shapes[i]` follow the version's input specs (None for an optional input left out);
            `outputs[i]` follows `wanted` where that is set, else the version's output specs; it is raw bytes where its
            spec fixes everything but the rows, an array elsewhere (`arrays_of` makes arrays of all). Where the version
            batches, the first dimension of each is `rows`.
    Units:  `received_ns`, `deadline_ns`, `queue_expires_ns` on the monotonic clock; deadline_ns 0: none.
            `queue_limit_ns`: how long the client lets it wait for a run, where the version allows that; 0: no limit.
            `queue_ns`: how long it waited; 0 until it has left the queue for a run.
    """

    __slots__ = (
        "answered",
        "arm",
        "batch",
        "cache_key",
        "deadline_ns",
        "decision",
        "error",
        "given_id",
        "infer_ns",
        "inputs",
        "level",
        "model",
        "outputs",
        "queue_expires_ns",
        "queue_limit_ns",
        "queue_ns",
        "queued_ns",
        "ran",
        "received_ns",
        "receiver",
        "request_id",
        "requested_version",
        "rows",
        "shapes",
        "size_bytes",
        "trace",
        "version",
        "wanted",
    )

    def __init__(
        self,
        model: str,
        requested_version: str,
        request_id: str,
        receiver: Receiver,
        *,
        deadline_ns: int = 0,
        size_bytes: int = 0,
    ) -> None:
        self.model = model
        self.requested_version = requested_version
        self.request_id = request_id
        self.receiver = receiver
        self.deadline_ns = deadline_ns
        self.size_bytes = size_bytes
        self.level = 0  # its priority class (access/priority); the lower, the sooner it runs
        self.given_id = ""  # the id that it is recorded under, where it came without one
        self.received_ns = monotonic_ns()
        self.answered = False
        self.trace: CallTrace | None = None  # where it is sampled
        self.batch: Batch | None = None  # the run it is part of at this moment
        self.cache_key = 0  # what its answer is kept by (`gateway.serving.response_cache`), or one of these below
        self.arm: ServedArm | None = None
        self.decision: Decision | None = None
        self.version: Version | None = None
        self.inputs: Sequence[Buffer | None] = ()
        self.shapes: Sequence[tuple[int, ...] | None] = ()
        self.rows = 0
        self.wanted: tuple[int, ...] | None = None  # indices into the version's outputs, in the order asked for
        self.outputs: Sequence[Buffer] = ()
        self.error: GatewayError | None = None
        self.queued_ns = 0
        self.queue_limit_ns = 0
        self.queue_expires_ns = 0
        self.queue_ns = 0
        self.infer_ns = 0
        self.ran = ""  # of an ensemble: model, version and arm of each step, as `scaler:1:,churn:3:canary`

    def attributes(self) -> Attributes:
        """Returns what the rules of other models may read of the request, while the call is not answered."""
        return NO_ATTRIBUTES

    def answer(self, outputs: Sequence[Buffer]) -> None:
        """Gives the receiver these outputs, unless the call was answered before."""
        if not self.answered:
            self.answered = True
            self.outputs = outputs
            self.receiver.answered(self)

    def fail(self, error: GatewayError) -> None:
        """Gives the receiver this error, unless the call was answered before."""
        if not self.answered:
            self.answered = True
            self.error = error
            self.receiver.answered(self)

    def renew(self) -> None:
        """Lets the call be answered once more: another version is asked.

        Order: it was answered with an error, and is in no queue and no run.
        """
        self.answered = False
        self.error = None
        self.outputs = ()
        self.batch = None
        self.ran = ""
        if self.cache_key != UNCACHED:
            self.cache_key = 0
        self.queued_ns = self.queue_expires_ns = self.queue_ns = self.infer_ns = 0


def log_fields(call: Call, request_id: str) -> dict[str, str]:
    """Returns what names the call in a line of the log: its id, and its trace where it is sampled."""
    named = {"request_id": request_id}
    return named if call.trace is None else {**named, "trace_id": call.trace.trace_id}


def arrays_of(outputs: Sequence[Buffer], specs: Sequence[TensorSpec], rows: int) -> Sequence[Array]:
    """Returns the outputs of a call as arrays, in the order of `specs`; those that were raw bytes can only be read."""
    return [
        np.frombuffer(output, spec.datatype.dtype).reshape(rows, *spec.shape[1:])
        if isinstance(output, bytes | memoryview)
        else output
        for output, spec in zip(outputs, specs, strict=True)
    ]


def size_of(tensor: Buffer) -> int:
    """Returns the bytes of a tensor; of the references to its elements where it holds Python's bytes."""
    return len(tensor) if isinstance(tensor, bytes) else tensor.nbytes
