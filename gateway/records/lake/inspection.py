"""Files of the lake that are none: put aside and counted, so that they stop neither readers nor merging."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from gateway.records.lake.layout import every_entry
from gateway.records.lake.quarantine import Quarantine

_MAGIC = b"PAR1"
_LEAST_BYTES = 12  # the magic at both ends, and the length of the footer


def damage(path: Path) -> str:
    """Returns what shows at once that a path is no whole Parquet file, "" where nothing does.

    Links are not followed, pipes not waited for. A file whose footer is in its place may still be damaged inside.

    Raises: OSError (it is gone, or cannot be read).
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        return "no file"
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        size = os.fstat(descriptor).st_size
        if size == 0:
            return "empty"
        if size < _LEAST_BYTES or os.pread(descriptor, 4, 0) != _MAGIC:
            return "no Parquet file"
        end = os.pread(descriptor, 8, size - 8)
        footer_bytes = int.from_bytes(end[:4], "little")
        return "" if end[4:] == _MAGIC and footer_bytes + _LEAST_BYTES <= size else "its end is missing"
    finally:
        os.close(descriptor)


class Inspection:
    """Looks at each file of the lake once, and again where it has changed."""

    def __init__(self, lake: Path, quarantine: Quarantine) -> None:
        self._lake = lake
        self._quarantine = quarantine
        self._seen: set[tuple[str, int, int]] = set()

    def run(self, progress: Callable[[], None]) -> None:
        """Puts aside what is no whole Parquet file; `progress` is called between files."""
        seen = set()
        for path in every_entry(self._lake):
            progress()
            try:
                status = path.lstat()
                key = (str(path), status.st_ino, status.st_mtime_ns)
                what = "" if key in self._seen else damage(path)
            except OSError:  # merged or expired since, or not for us to read
                continue
            if what:
                self._quarantine.move(path, f"lake: {what}")
            seen.add(key)
        self._seen = seen
