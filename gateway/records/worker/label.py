"""A label: what came true of one predicted row, or what it was worth. Its frame in the write-ahead log.

Of several labels of one row the one with the latest label time holds, and of those with the same time the one received
last. Label and reward are two facts: each holds from the last label that states it.
"""

import struct
from collections.abc import Sequence

import msgspec
from xxhash import xxh3_64_intdigest

from gateway.records.worker.block import MAX_ID_BYTES
from gateway.records.worker.frame import FrameKind

FEEDBACK_SUFFIX = ".feedback"  # of a worker's name in the names of segments with labels
MAX_TEXT_BYTES = 1024
MAX_SOURCE_BYTES = 64
_HEAD = struct.Struct("<BQ")


class Label(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One label as it was acknowledged.

    `request_id` is "" where only a feedback token named the request; `request_hash` is there in any case, and so is the
    `version` where a token named it. `number` and `text` are never both given; both None: only a reward.
    Units: `label_us`, `received_us` and `predicted_us` since the epoch; `predicted_us` 0: not known.
    """

    model: str
    request_hash: int
    row_index: int
    label_us: int
    received_us: int
    request_id: str = ""
    version: str = ""
    predicted_us: int = 0
    number: float | None = None
    text: str | None = None
    reward: float | None = None
    source: str = ""


def request_hash(request_id: str) -> int:
    """Returns the 64-bit hash of the id under which the log has a request; feedback tokens carry the same."""
    return xxh3_64_intdigest(request_id.encode(errors="replace")[:MAX_ID_BYTES])


def encode_labels(labels: Sequence[Label], *, first_record: int) -> bytes:
    """Returns the body of a LABELS frame: all of a call's labels, so that a kill leaves all of them or none."""
    return _HEAD.pack(FrameKind.LABELS, first_record) + msgspec.msgpack.encode(list(labels))


def decode_labels(body: bytes | memoryview) -> tuple[int, list[Label]]:
    """Returns the number of the first label, and the labels, of a LABELS frame.

    Raises: struct.error, ValueError (the body was not written by `encode_labels`).
    """
    _, first_record = _HEAD.unpack_from(body)
    return int(first_record), _decode(bytes(body[_HEAD.size :]))


_decode = msgspec.msgpack.Decoder(list[Label]).decode
