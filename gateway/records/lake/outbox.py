"""Tells what a sink has not taken yet: a folder of hard links to published Parquet files, a note beside each, and a
cursor.

The links hold the rows though the lake may delete or merge its files, and cost no space while it does not. The
compactor puts them here before a segment counts as done; the sink takes them away when it has delivered them. Both may
be killed at any moment: what is done again is delivered again, under the same ids.
"""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from gateway.records.lake.keeping import Keeping
from gateway.records.lake.parquet import Published
from gateway.records.lake.retention import StoredFile, expired
from gateway.records.worker.segment import sync_directory

FOLDER = "_sinks"
_CURSOR = "cursor.json"
_NOTE = ".note"
_ROWS = ".parquet"
_STALE_S = 3600.0
_NO_LINKS = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS})


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """A file that waits. `path` is its place in the lake; `at_s` when it was put here, which is the order."""

    at_s: float
    path: str
    rows: int
    size_bytes: int

    @property
    def key(self) -> str:
        return sha256(self.path.encode()).hexdigest()[:32]


class _Cursor(msgspec.Struct, frozen=True):
    item: str
    rows: int


class Outbox:
    """The outbox of one sink of one lake."""

    def __init__(self, lake: Path, sink: str) -> None:
        self._lake = lake
        self.folder = lake / FOLDER / sink
        self._known: dict[str, Item] = {}

    @classmethod
    def others(cls, lake: Path, sinks: Sequence[str]) -> Iterator["Outbox"]:
        """Yields the outboxes of sinks that are no longer configured."""
        with suppress(OSError):
            for folder in sorted((lake / FOLDER).iterdir()):
                if folder.is_dir() and folder.name not in sinks:
                    yield cls(lake, folder.name)

    def put(self, published: Published, *, now_s: float) -> None:
        """The file waits here; doing it again changes nothing.

        Order: durable when this returns.
        Raises: OSError.
        """
        item = Item(now_s, published.path, published.rows, published.size_bytes)
        self.folder.mkdir(parents=True, exist_ok=True)
        staged = self.folder / f"{item.key}.new"
        staged.unlink(missing_ok=True)
        _link(self._lake / published.path, staged)
        os.rename(staged, self.rows_of(item))
        staged.write_bytes(msgspec.json.encode(item))
        os.rename(staged, self.folder / (item.key + _NOTE))
        sync_directory(self.folder)

    def rows_of(self, item: Item) -> Path:
        """Returns the Parquet file of an item."""
        return self.folder / (item.key + _ROWS)

    def items(self) -> list[Item]:
        """Returns what waits, oldest first."""
        try:
            keys = {name.removesuffix(_NOTE) for name in os.listdir(self.folder) if name.endswith(_NOTE)}
        except FileNotFoundError:
            keys = set()
        for gone in self._known.keys() - keys:
            del self._known[gone]
        for key in keys - self._known.keys():
            note = self.folder / (key + _NOTE)
            try:
                self._known[key] = msgspec.json.decode(note.read_bytes(), type=Item)
            except (ValueError, FileNotFoundError):  # damaged: there is nothing to know its rows by
                note.unlink(missing_ok=True)
        return sorted(self._known.values())

    def remove(self, item: Item) -> None:
        """The item waits no longer. Raises: OSError."""
        (self.folder / (item.key + _NOTE)).unlink(missing_ok=True)
        self.rows_of(item).unlink(missing_ok=True)
        self._known.pop(item.key, None)

    def expire(self, keeping: Keeping | None = None, *, now_s: float) -> list[Item]:
        """Gives up what is older or more than is kept, the oldest first; what that was."""
        limits = keeping or Keeping()
        items = {self.rows_of(item): item for item in self.items()}
        files = [StoredFile(item.at_s, path, item.size_bytes) for path, item in items.items()]
        old = expired(files, now_s=now_s, max_age_s=limits.max_age_s, max_bytes=limits.max_bytes)
        gone = [items[file.path] for file in old]
        for item in gone:
            self.remove(item)
        return gone

    def sweep(self, *, now_s: float) -> None:
        """Removes rows without a note, which a kill between the two left here."""
        for path in self.folder.glob(f"*{_ROWS}"):
            with suppress(OSError):
                if not path.with_suffix(_NOTE).exists() and now_s - path.stat().st_ctime > _STALE_S:
                    path.unlink()

    def cursor(self) -> tuple[str, int]:
        """Returns the item at work and how many of its rows were delivered."""
        try:
            cursor = msgspec.json.decode((self.folder / _CURSOR).read_bytes(), type=_Cursor)
        except (OSError, ValueError):
            return "", 0
        return cursor.item, cursor.rows

    def advance(self, item: Item, rows: int) -> None:
        """Keeps the cursor through a kill; through a power loss some rows may be delivered again.

        Raises: OSError.
        """
        staged = self.folder / f"{_CURSOR}.new"
        staged.write_bytes(msgspec.json.encode(_Cursor(item.key, rows)))
        os.rename(staged, self.folder / _CURSOR)


def _link(source: Path, target: Path) -> None:
    """The target is the same file; a copy where the file system has no hard links. Raises: OSError."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, target)
