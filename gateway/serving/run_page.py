"""A page of shared memory that says what a worker is running, so that its death can be explained.

A worker writes to it before and after each run; the supervisor reads it when the worker was killed by a signal. It is
a file of the run directory, mapped into memory: what was written stays when the process dies, and no run waits for the
disk. A run costs about 0.3 us beside the digests of its inputs.

    offset 0        SLOTS slots of SLOT_WORDS words: version + 1 (0: no run), thread, number of calls, input digests
    TABLE_OFFSET    ENTRIES entries of ENTRY_BYTES: JSON `[model, version, digest of the version's content]`
"""

import mmap
import os
from pathlib import Path
from threading import Lock, get_ident
from typing import Final, NamedTuple

import msgspec

LOOP_SLOT: Final = 0  # of the runs on the event loop
SLOTS: Final = 32
MAX_DIGESTS: Final = 125
SLOT_WORDS: Final = 3 + MAX_DIGESTS
TABLE_OFFSET: Final = SLOTS * SLOT_WORDS * 8
ENTRIES: Final = 512
ENTRY_BYTES: Final = 1024
PAGE_BYTES: Final = TABLE_OFFSET + ENTRIES * ENTRY_BYTES
NO_SLOT: Final = -1


class VersionKey(NamedTuple):
    """A version with just these files: other files under the same name are another version."""

    model: str
    version: str
    digest: str


class UnfinishedRun(NamedTuple):
    """A run that had begun when the worker died; `inputs` are the digests of its calls, not all if there were many."""

    slot: int
    key: VersionKey
    thread: int
    calls: int
    inputs: tuple[int, ...]


class RunPage:
    """The writing side, in a worker. Threads may enter and leave at once."""

    def __init__(self, path: Path | None = None) -> None:
        """Makes the file, readable by this user alone; without a path the page is known to this process only.

        Its place on the disk is taken now: the kernel kills who writes into a mapped file for which there is none left.

        Raises: OSError, also where the disk is full; no file is left then.
        """
        if path is None:
            self._memory = mmap.mmap(-1, PAGE_BYTES)
        else:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                nothing, written = bytes(PAGE_BYTES), 0
                while written < PAGE_BYTES:  # a statement of its own: compiled, a slice asks for its start twice
                    count = os.write(descriptor, nothing[written:])
                    written += count
                self._memory = mmap.mmap(descriptor, PAGE_BYTES)
            except OSError:
                path.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
        self.words = memoryview(self._memory).cast("Q")
        self._free_slots = list(range(SLOTS - 1, LOOP_SLOT, -1))
        self._entries: dict[VersionKey, int] = {}
        self._free_entries = list(range(ENTRIES - 1, -1, -1))
        self._lock = Lock()
        self._loop_calls = 0  # as the loop's slot shows them

    def register(self, key: VersionKey) -> int:
        """Returns the number of the version on the page; -1 if there is no place for it: its runs are not shown."""
        with self._lock:
            entry = self._entries.get(key, -1)
            text = msgspec.json.encode(key)
            if entry >= 0 or not self._free_entries or len(text) > ENTRY_BYTES:
                return entry
            entry = self._entries[key] = self._free_entries.pop()
            start = TABLE_OFFSET + entry * ENTRY_BYTES
            self._memory[start : start + ENTRY_BYTES] = text.ljust(ENTRY_BYTES, b"\0")
            return entry

    def forget(self, key: VersionKey) -> None:
        """Frees the version's place. Order: none of its runs is under way."""
        with self._lock:
            entry = self._entries.pop(key, -1)
            if entry >= 0:
                self._free_entries.append(entry)

    def enter(self, slot: int, entry: int, digests: list[int]) -> None:
        """Shows a run of this thread. The version is written last: a slot that shows one is complete."""
        if entry < 0:
            return
        words = self.words
        place = slot * SLOT_WORDS
        words[place + 1] = get_ident()
        words[place + 2] = len(digests)
        at = place + 3
        for digest in digests if len(digests) <= MAX_DIGESTS else digests[:MAX_DIGESTS]:
            words[at] = digest
            at += 1
        words[place] = entry + 1

    def enter_on_loop(self, entry: int, digests: list[int]) -> None:
        """As `enter`, for the loop's slot: always the same thread, and nearly always as many calls as before."""
        if entry < 0:
            return
        words = self.words
        if len(digests) == 1:
            if self._loop_calls != 1:
                words[1], words[2] = get_ident(), 1
                self._loop_calls = 1
            words[3] = digests[0]
            words[0] = entry + 1
        else:
            self._loop_calls = len(digests)
            self.enter(LOOP_SLOT, entry, digests)

    def leave(self, slot: int) -> None:
        """The run of this slot has ended."""
        self.words[slot * SLOT_WORDS] = 0

    def take_slot(self) -> int:
        """Returns a slot for a run on a thread; NO_SLOT if all are taken."""
        with self._lock:
            return self._free_slots.pop() if self._free_slots else NO_SLOT

    def give_slot(self, slot: int) -> None:
        """Ends the run of a slot, and frees it."""
        self.leave(slot)
        with self._lock:
            self._free_slots.append(slot)


def page_path(run_dir: Path, boot: str) -> Path:
    """Returns where the worker of this boot shows what it runs."""
    return run_dir / "running" / boot


def unfinished_runs(path: Path) -> list[UnfinishedRun]:
    """Returns the runs that a dead worker's page shows; none if it has no page."""
    try:
        content = path.read_bytes()
    except OSError:
        return []
    if len(content) != PAGE_BYTES:
        return []
    words = memoryview(content).cast("Q")
    runs = []
    for slot in range(SLOTS):
        entry, thread, calls, *digests = words[slot * SLOT_WORDS : (slot + 1) * SLOT_WORDS].tolist()
        if not 0 < entry <= ENTRIES:
            continue
        start = TABLE_OFFSET + (entry - 1) * ENTRY_BYTES
        try:
            key = msgspec.json.decode(content[start : start + ENTRY_BYTES].rstrip(b"\0"), type=VersionKey)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        runs.append(UnfinishedRun(slot, key, thread, calls, tuple(digests[: min(calls, MAX_DIGESTS)])))
    return runs
