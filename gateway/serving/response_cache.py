"""Answers that a worker keeps, for versions whose configuration asks for it (`response_cache { enable: true }`).

1. An answer is found by a digest of version and inputs, and given only if the inputs are the same to the byte, in the
   same shapes, and the same outputs are wanted.
2. What is kept is counted by its real buffers and what holds them. The answer used least recently goes first; one that
   would take more than an eighth of the whole is not kept.
3. Never kept are errors, answers that came with others than the declared tensors, and those of versions that answer by
   chance. A request may ask for a run of its own; its answer is not kept either.
4. Requests that are the same and run at the same time each run: nobody waits for the answer of another.
5. Each worker has a cache of its own. What a version has there goes with it.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from gateway.serving.call import Call
from gateway.serving.input_digest import input_digest
from gateway.tensor import Array, Buffer

# What an answer takes beside its buffers: objects, slots of the table, headers of buffers. Measured with tracemalloc.
ENTRY_BYTES: Final = 480
BUFFER_BYTES: Final = 40
_ARRAY_BYTES: Final = 128
_LARGEST_SHARE: Final = 8
_CLEARED_AT_ONCE: Final = 4096
_POSITIVE: Final = (1 << 63) - 1
_SALT_BITS: Final = (1 << 61) - 1  # what compiled code holds without an object

Shapes = Sequence[tuple[int, ...] | None]


class CachedAnswer:
    """One answer with the inputs that it is for. Nothing of it is written to afterwards."""

    __slots__ = ("inputs", "outputs", "owner", "rows", "shapes", "size_bytes", "wanted")

    def __init__(
        self,
        owner: "VersionCache",
        inputs: list[Buffer | None],
        shapes: Shapes,
        rows: int,
        wanted: tuple[int, ...] | None,
        outputs: Sequence[Buffer],
        size_bytes: int,
    ) -> None:
        self.owner = owner
        self.inputs = inputs
        self.shapes = shapes
        self.rows = rows
        self.wanted = wanted
        self.outputs = outputs
        self.size_bytes = size_bytes


class ResponseCache:
    """The answers of all versions of a worker, of at most `max_bytes`. Used on the loop only."""

    __slots__ = ("_entries", "_next_salt", "evicted", "largest", "max_bytes", "size_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.largest = max_bytes // _LARGEST_SHARE
        self.size_bytes = 0
        self.evicted = 0
        self._entries: OrderedDict[int, CachedAnswer] = OrderedDict()
        self._next_salt = 1

    def __len__(self) -> int:
        return len(self._entries)

    def of_version(self, *, fixed: bool) -> "VersionCache":
        """Returns the answers of a version that has just become able to run. `fixed`: as for `input_digest`."""
        self._next_salt += 1
        return VersionCache(self, self._next_salt * 0x9E3779B97F4A7C15 & _SALT_BITS, fixed=fixed)

    def get(self, key: int) -> CachedAnswer | None:
        if key not in self._entries:  # most are not, and `dict.get` costs twice as much
            return None
        return self._entries[key]

    def touch(self, key: int) -> None:
        """Notes that the answer was used."""
        self._entries.move_to_end(key)

    def put(self, key: int, answer: CachedAnswer) -> None:
        """Keeps the answer, in place of one with the same key and of those used least recently."""
        entries = self._entries
        if key in entries:
            self.drop(key)
        entries[key] = answer
        self.size_bytes += answer.size_bytes
        while self.size_bytes > self.max_bytes:
            _, oldest = entries.popitem(last=False)
            self.size_bytes -= oldest.size_bytes
            self.evicted += 1

    def drop(self, key: int) -> None:
        """Keeps the answer no longer, if it is there."""
        before = self._entries.pop(key, None)
        if before is not None:
            self.size_bytes -= before.size_bytes

    def clear(self, owner: "VersionCache", later: Callable[..., object]) -> None:
        """Drops all answers of a version, a part of them in each turn of the loop; `later` is its `call_soon`."""
        self._clear_part(owner, list(self._entries), 0, later)

    def _clear_part(self, owner: "VersionCache", keys: list[int], start: int, later: Callable[..., object]) -> None:
        end = min(start + _CLEARED_AT_ONCE, len(keys))
        for place in range(start, end):
            key = keys[place]
            entry = self._entries.get(key)
            if entry is not None and entry.owner is owner:
                self.drop(key)
        if end < len(keys):
            later(self._clear_part, owner, keys, end, later)


class VersionCache:
    """The part of a cache that belongs to one version."""

    __slots__ = ("_cache", "_fixed", "_salt")

    def __init__(self, cache: ResponseCache, salt: int, *, fixed: bool) -> None:
        self._cache = cache
        self._salt = salt
        self._fixed = fixed

    def key_of(self, call: Call) -> int:
        """Returns what the answer to the call is found by, a positive number."""
        key = input_digest(call, fixed=self._fixed, seed=self._salt)
        if call.wanted is not None:
            key ^= hash(call.wanted) & _POSITIVE
        return key or 1

    def find(self, call: Call, key: int) -> Sequence[Buffer] | None:
        """Returns the outputs that are kept for the call; None if there are none."""
        entry = self._cache.get(key)
        if entry is None or entry.owner is not self or entry.rows != call.rows or entry.wanted != call.wanted:
            return None
        if not self._fixed and list(entry.shapes) != list(call.shapes):
            return None
        for kept, given in zip(entry.inputs, call.inputs, strict=True):
            if kept is not given and not _same(kept, given):
                return None
        self._cache.touch(key)
        return entry.outputs

    def keep(self, call: Call, key: int, outputs: Sequence[Buffer]) -> None:
        """Keeps copies of the call's inputs and of its outputs, unless they are too large."""
        size = ENTRY_BYTES
        for tensor in call.inputs:
            size += _size(tensor)
        for tensor in outputs:
            size += _size(tensor)
        if size > self._cache.largest:
            return
        inputs = [None if tensor is None else _own(tensor) for tensor in call.inputs]
        shapes = () if self._fixed else list(call.shapes)
        answer = CachedAnswer(self, inputs, shapes, call.rows, call.wanted, [_own(tensor) for tensor in outputs], size)
        self._cache.put(key, answer)

    def clear(self, later: Callable[..., object]) -> None:
        """Drops everything: the version has ended."""
        self._cache.clear(self, later)


def _same(kept: Buffer | None, given: Buffer | None) -> bool:
    """Returns whether two tensors have the same bytes; -0.0 and 0.0 are not the same, a NaN is its own pattern."""
    if kept is None or given is None:
        return False
    if isinstance(kept, bytes):
        if isinstance(given, memoryview):
            return len(kept) == given.nbytes and kept == bytes(given)  # views are compared element by element
        return isinstance(given, bytes) and kept == given
    if isinstance(kept, memoryview) or isinstance(given, bytes | memoryview):
        return False
    if kept.dtype != given.dtype or kept.shape != given.shape:
        return False
    return bool(kept.tolist() == given.tolist() if kept.dtype == object else kept.tobytes() == given.tobytes())


def _own(tensor: Buffer) -> Buffer:
    """Returns the tensor in memory of its own, which nobody writes to."""
    if isinstance(tensor, bytes):
        return tensor
    if isinstance(tensor, memoryview):
        return bytes(tensor)
    copy: Array = np.array(tensor)
    copy.setflags(write=False)
    return copy


def _size(tensor: Buffer | None) -> int:
    if tensor is None:
        return 0
    if isinstance(tensor, bytes):
        return len(tensor) + BUFFER_BYTES
    size = tensor.nbytes + _ARRAY_BYTES
    if not isinstance(tensor, memoryview) and tensor.dtype == object:
        for element in tensor.reshape(-1).tolist():
            size += len(element) + BUFFER_BYTES
    return size
