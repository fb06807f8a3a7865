"""Tells where files and frames go that cannot be read: kept for a look, counted by reason, never in the way."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway.records.worker.segment import FAILED

_MAX_FRAME_BYTES = 1 << 20


class Quarantine:
    """The folder `failed` of a log directory, with one line per item in `reasons.jsonl`."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self.folder = directory / FAILED
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._stuck: set[Path] = set()

    def move(self, path: Path, reason: str) -> None:
        """Moves an entry of any kind aside, by name only: a link is not followed, a pipe not opened."""
        if path in self._stuck:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            target = self._free(f"{path.parent.name}__{path.name}")
            os.rename(path, target)
        except FileNotFoundError:
            return
        except OSError as error:  # a mount point, say: counted once, then left alone
            self._stuck.add(path)
            reason = f"{reason}, not movable: {error.strerror}"
            target = path
        self._note(target, reason)

    def keep(self, name: str, data: bytes | memoryview, reason: str) -> None:
        """Puts damaged bytes of an otherwise good segment aside."""
        target = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            target.write_bytes(bytes(data[:_MAX_FRAME_BYTES]))
        except OSError:
            pass  # the count below is what matters; the disk may be full
        self._note(target, reason)

    def _note(self, target: Path, reason: str) -> None:
        self.counts[reason.partition(":")[0].partition(",")[0]] += 1
        line = msgspec.json.encode({"name": target.name, "reason": reason, "at_s": self._clock()})
        try:
            with (self.folder / "reasons.jsonl").open("ab") as file:
                file.write(line + b"\n")
        except OSError:
            pass  # as above

    def _free(self, name: str) -> Path:
        target, number = self.folder / name[:200], 2
        while os.path.lexists(target):
            target, number = self.folder / f"{name[:200]}~{number}", number + 1
        return target
