"""Segments that the compactor failed at: the second failure sets a segment aside, so that it stops no other."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

_MOST = 2
_DIED = "the compactor died or hung"


class _Attempt(msgspec.Struct):
    """The segment at work, and how often it failed before."""

    segment: str
    failures: int
    reason: str


class Attempts:
    """Failures by segment; that at work is kept in the lake, for the process may die of it."""

    def __init__(self, lake: Path) -> None:
        self._file = lake / "_state" / "attempt.json"
        self._failures: dict[str, _Attempt] = {}

    def recover(self, *, after_death: bool) -> None:
        """Counts the segment that the compactor before this one was at, if that one died."""
        try:
            left = msgspec.json.decode(self._file.read_bytes(), type=_Attempt)
        except (OSError, ValueError):
            return
        if after_death:
            self.failed(left.segment, _DIED, before=left.failures)

    def begin(self, segment: str) -> str | None:
        """Returns why the segment is not to be tried again; None if it is.

        Raises: OSError.
        """
        attempt = self._failures.get(segment) or _Attempt(segment, 0, "")
        if attempt.failures >= _MOST:
            del self._failures[segment]
            return f"compaction: failed {attempt.failures} times, lastly: {attempt.reason}"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        staged = self._file.with_name(f"{self._file.name}.new")
        staged.write_bytes(msgspec.json.encode(attempt))
        os.replace(staged, self._file)
        return None

    def failed(self, segment: str, reason: str, *, before: int = 0) -> None:
        """The attempt failed: once more, and the segment is set aside."""
        known = self._failures.get(segment)
        self._failures[segment] = _Attempt(segment, (known.failures if known else before) + 1, reason)
        self._clear()

    def end(self, segment: str) -> None:
        """The attempt has ended, and not by a fault of the segment."""
        self._failures.pop(segment, None)
        self._clear()

    def _clear(self) -> None:
        with suppress(OSError):
            self._file.unlink(missing_ok=True)
