"""What is kept of a sampled call when it has ended, for the spans that are made of it elsewhere."""

from typing import Final

import msgspec

STEP: Final = "step "  # begins the method of a call that is a step of another one
MOST_WAITING: Final = 4096  # in each worker, and in the control process


class FinishedTrace(msgspec.Struct, frozen=True, array_like=True):
    """Holds the facts of one call, as they go from a worker to the control process.

    `links` are trace and span of other sampled calls that ran in the same run. `code` is gRPC's number. Ids are
    hexadecimal, as in `traceparent`; `parent_id` is "" for a trace that began here.
    Units: nanoseconds; `received_ns` and `queued_ns` since the Unix epoch, `queued_ns` 0 if it never waited for a run.
    """

    trace_id: str
    span_id: str
    parent_id: str
    state: str
    received_ns: int
    queued_ns: int
    queue_ns: int
    input_ns: int
    infer_ns: int
    total_ns: int
    method: str
    model: str
    version: str
    arm: str
    revision: int
    reason: str
    request_id: str
    code: int
    rows: int
    batch_calls: int
    batch_rows: int
    links: list[tuple[str, str]]
