"""The manifest of the lake: one JSON line per compacted segment, with its files, its counts and a checksum."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import gmtime, strftime
from zlib import crc32

import msgspec

from gateway.records.worker.segment import sync_directory

_CHECKSUM = re.compile(rb', ?"~crc32": ?(\d+)}$')


class Manifest:
    """Lines by day, in `<lake>/_manifest/YYYY-MM-DD.jsonl`; only ever appended to."""

    def __init__(self, lake: Path) -> None:
        self._folder = lake / "_manifest"
        self.damaged_lines = 0

    def append(self, entry: Mapping[str, object], *, now_s: float) -> None:
        """Order: the line is durable when this returns.

        Raises: OSError.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / strftime("%Y-%m-%d.jsonl", gmtime(now_s))
        fresh = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            size = os.fstat(descriptor).st_size
            # A line that a kill cut short must not swallow this one.
            newline = b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""
            os.write(descriptor, newline + _line(entry))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if fresh:
            sync_directory(self._folder)

    def entries(self, *, days: int | None = None) -> Iterator[dict[str, object]]:
        """Yields the entries of the newest `days` files (None: all), oldest first; damaged lines are only counted."""
        files = sorted(self._folder.glob("*.jsonl")) if self._folder.is_dir() else []
        for path in files if days is None else files[-days:]:
            for line in path.read_bytes().splitlines():
                entry = _checked(line)
                if entry is not None:
                    yield entry
                elif line.strip():
                    self.damaged_lines += 1


def _line(entry: Mapping[str, object]) -> bytes:
    body = msgspec.json.encode(entry, order="deterministic")
    return b'%b,"~crc32":%d}\n' % (body[:-1], crc32(body))


def _checked(line: bytes) -> dict[str, object] | None:
    """Returns the entry of a line whose checksum, which is of all before it, holds."""
    end = _CHECKSUM.search(line)
    if end is None or crc32(line[: end.start()] + b"}") != int(end[1]):
        return None
    try:
        return msgspec.json.decode(line[: end.start()] + b"}", type=dict[str, object])
    except ValueError:
        return None
