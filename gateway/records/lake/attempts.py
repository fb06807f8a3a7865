"""Segments that the compactor failed at: what fails again and again is set aside, so that it stops no other."""

import os
from contextlib import suppress
from pathlib import Path

import msgspec

_MOST_ERRORS = 2
# Somebody may kill the compactor, or the machine have no memory, whatever segment it is at. So a death proves little.
_MOST_DEATHS = 4
_DIED = "the compactor died or hung"


class _Failures(msgspec.Struct):
    """How often the compactor failed at a segment, and died at it; the reason is that of the last time."""

    errors: int = 0
    deaths: int = 0
    reason: str = ""


class _State(msgspec.Struct):
    """The segment at work, "" for none, and the failures by segment."""

    at_work: str = ""
    failures: dict[str, _Failures] = {}


class Attempts:
    """Failures by segment. They are kept in the lake with the segment at work, for the process may die of it."""

    def __init__(self, lake: Path) -> None:
        self._file = lake / "_state" / "attempts.json"
        self._state = _State()

    def recover(self, *, after_death: bool) -> None:
        """Goes on counting where the compactor before this one died, with the segment that it was at."""
        if not after_death:
            return
        try:
            self._state = msgspec.json.decode(self._file.read_bytes(), type=_State)
        except (OSError, ValueError):
            return
        if segment := self._state.at_work:
            failures = self._of(segment)
            failures.deaths += 1
            failures.reason = _DIED
            self._ended()

    def suspects(self, segment: str) -> bool:
        """Returns whether the compactor has failed at the segment: its turn comes when the others are done."""
        return segment in self._state.failures

    def begin(self, segment: str) -> str | None:
        """Returns why the segment is not to be tried again; None if it is.

        Raises: OSError.
        """
        failures = self._state.failures.get(segment)
        if failures is not None and (failures.errors >= _MOST_ERRORS or failures.deaths >= _MOST_DEATHS):
            del self._state.failures[segment]
            return f"compaction: failed {failures.errors + failures.deaths} times, lastly: {failures.reason}"
        self._state.at_work = segment
        self._write()
        return None

    def failed(self, segment: str, reason: str) -> None:
        """The attempt failed by an error: once more, and the segment is set aside."""
        failures = self._of(segment)
        failures.errors += 1
        failures.reason = reason
        self._ended()

    def end(self, segment: str) -> None:
        """The attempt has ended, and not by a fault of the segment."""
        self._state.failures.pop(segment, None)
        self._ended()

    def _of(self, segment: str) -> _Failures:
        return self._state.failures.setdefault(segment, _Failures())

    def _ended(self) -> None:
        self._state.at_work = ""
        with suppress(OSError):
            if self._state.failures:
                self._write()
            else:
                self._file.unlink(missing_ok=True)

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        staged = self._file.with_name(f"{self._file.name}.new")
        staged.write_bytes(msgspec.json.encode(self._state))
        os.replace(staged, self._file)
