"""Frames of a write-ahead log: magic, length, checksum, body.

The checksum starts from a seed that belongs to one segment (its boot id and sequence number), so that bytes which a
client sent, or a frame copied from another file, never pass for a frame of this one.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from mmap import mmap
from zlib import crc32

MAGIC = b"\xabWL1"
HEAD = struct.Struct("<4sII")
MAX_BODY_BYTES = 1 << 28


class FrameKind(IntEnum):
    """The first byte of a body."""

    FILE = 1  # who writes; the first frame of a segment
    SCHEMA = 2  # of one stream; before its first rows, and once more at the seal
    ROWS = 3
    SEAL = 4  # the writer's counts; the last frame of a segment that was closed in order
    LABELS = 5  # feedback of one call; in segments of its own


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame whose checksum holds."""

    offset: int
    body: memoryview

    @property
    def kind(self) -> int:
        return self.body[0]

    @property
    def end(self) -> int:
        return self.offset + HEAD.size + len(self.body)


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no frame.

    `torn`: the file ends before the frame does, which is how a segment looks whose writer was killed (or is writing).
    """

    offset: int
    length: int
    torn: bool


def frame(body: bytes, *, seed: int) -> bytes:
    """Returns the body as a frame of the segment with this seed.

    Raises: ValueError (empty, or longer than a reader accepts).
    """
    if not 0 < len(body) <= MAX_BODY_BYTES:
        raise ValueError(f"frame body has {len(body)} bytes, allowed are 1 to {MAX_BODY_BYTES}")
    return HEAD.pack(MAGIC, len(body), crc32(body, seed)) + body


def scan(data: bytes | memoryview | mmap, *, seed: int, start: int = 0) -> Iterator[Frame | Damage]:
    """Yields every frame of a segment in order, and every run of bytes between them that is no frame.

    After damage the next frame is the next magic with a right checksum, so one flipped bit costs one frame.
    """
    view = memoryview(data)
    raw = view.tobytes() if isinstance(data, memoryview) else data
    position = start
    while position < len(view):
        whole = _frame_at(view, position, seed)
        if whole is not None:
            yield whole
            position = whole.end
            continue
        resumed = _next_frame(raw, view, position + 1, seed)
        if resumed is None:
            yield Damage(position, len(view) - position, _is_torn(view, position))
            return
        yield Damage(position, resumed - position, torn=False)
        position = resumed


def _frame_at(view: memoryview, position: int, seed: int) -> Frame | None:
    if position + HEAD.size > len(view):
        return None
    magic, length, checksum = HEAD.unpack_from(view, position)
    begin = position + HEAD.size
    if magic != MAGIC or not 0 < length <= MAX_BODY_BYTES or begin + length > len(view):
        return None
    body = view[begin : begin + length]
    return Frame(position, body) if crc32(body, seed) == checksum else None


def _next_frame(raw: bytes | mmap, view: memoryview, position: int, seed: int) -> int | None:
    while (position := raw.find(MAGIC, position)) >= 0:
        if _frame_at(view, position, seed) is not None:
            return position
        position += 1
    return None


def _is_torn(view: memoryview, position: int) -> bool:
    rest = bytes(view[position : position + HEAD.size])
    if len(rest) < HEAD.size:
        return rest[: len(MAGIC)] == MAGIC[: len(rest)]
    magic, length, _ = HEAD.unpack(rest)
    return bool(magic == MAGIC and 0 < length <= MAX_BODY_BYTES and position + HEAD.size + length > len(view))
